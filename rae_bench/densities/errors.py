"""What can go wrong in a fit."""


class DensityError(RuntimeError):
    """Codes a density cannot be fitted to; the message says what would be enough."""
