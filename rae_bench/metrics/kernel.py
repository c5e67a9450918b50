"""Kernel distance: unbiased MMD² with the kernel (x·y/d + 1)³, mean over random subsets (Bińkowski et al. 2018)."""

import numpy as np
import numpy.typing as npt

from rae_bench import specs
from rae_bench.metrics import fidelity
from rae_bench.metrics.errors import MetricError
from rae_bench.metrics.reference import Reference


def kernel_distance(real: Reference, fake: npt.NDArray[np.float32], settings: specs.MetricSettings) -> dict[str, float]:
    """`kernel_distance` and `kernel_distance_subset_sd`, the SD over subsets (not a standard error). May be negative.

    Raises:
        MetricError: fewer images than a subset.
    """
    least = min(len(real.features), len(fake))
    if least < settings.kernel_subset_size:
        raise MetricError(f"kernel_subset_size is {settings.kernel_subset_size}, but a set has only {least} images")
    result = fidelity.call("metric_kid", "kid_features_to_metric")(
        fidelity.tensor(fake),
        fidelity.tensor(real.features),
        kid_subsets=settings.kernel_subsets,
        kid_subset_size=settings.kernel_subset_size,
        rng_seed=settings.seed,
        verbose=False,
    )
    return {
        "kernel_distance": float(result["kernel_inception_distance_mean"]),
        "kernel_distance_subset_sd": float(result["kernel_inception_distance_std"]),
    }
