"""Settings of the metrics for tests: small, each changed by name."""

from rae_bench.scoring.metrics.measure import measure
from rae_bench.scoring.metrics.reference import Reference
from rae_bench.scoring.specs import MetricSettings


def settings(**changes):
    made = {
        "kernel_subsets": 2,
        "kernel_subset_size": 20,
        "neighbours": 3,
        "coverage_neighbours": 5,
        "prd_clusters": 5,
        "prd_angles": 101,
        "prd_runs": 2,
        "infinity_sizes": 3,
        "half_samples": 3,
        "seed": 0,
    }
    return MetricSettings(**{**made, **changes})


def measured(real, fake, chosen):
    """Every metric of `fake` against `real`, both features (n, d)."""
    reference = Reference.of(real, 5)
    return measure(reference, fake, chosen, is_fid=False, prd_real=reference)
