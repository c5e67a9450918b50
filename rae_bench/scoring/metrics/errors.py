"""What can be wrong with features."""


class MetricError(ValueError):
    """Features a metric cannot be computed from."""
