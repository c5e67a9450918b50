"""Metrics of two feature matrices: `Reference` first, always; pure functions in float64, no device, file or printing.

`measure` gives every metric by name. Those that need more than two sets of features stand apart: `Training` (is it
copying?), `attributes` (images whose factors are known).
"""

import numpy as np
import numpy.typing as npt

from rae_bench import specs
from rae_bench.metrics.errors import MetricError
from rae_bench.metrics.frechet import fid, frechet_distance, frechet_infinity, half_sample_sd
from rae_bench.metrics.kernel import kernel_distance
from rae_bench.metrics.memorisation import Training
from rae_bench.metrics.pairs import pair_metrics
from rae_bench.metrics.prd import prd
from rae_bench.metrics.reference import Reference, check_features

__all__ = ["MetricError", "Reference", "Training", "measure"]

Features = npt.NDArray[np.float32]


def measure(
    real: Reference, fake: Features, settings: specs.MetricSettings, *, is_fid: bool, prd_real: Reference
) -> dict[str, float]:
    """Every metric of `fake` (m, d) against `real`, by name; `frechet_infinity` only where counts allow it.

    `is_fid`: the features are official Inception's, so that torch-fidelity's value is the one reported. `prd_real`:
    what precision-recall curves are measured against, `real` itself but for a protocol that says otherwise.

    Raises:
        MetricError: features that are not finite, of another dimension, or too few for a metric.
    """
    check_features("fake", fake)
    if fake.shape[1] != real.features.shape[1]:
        raise MetricError(
            f"fake features have dimension {fake.shape[1]}, real ones {real.features.shape[1]};"
            " both must come from the same extractor"
        )
    infinity = frechet_infinity(real.features, fake, settings.infinity_sizes, settings.seed)
    return {
        "frechet_distance": fid(real, fake) if is_fid else frechet_distance(real, fake),
        "frechet_distance_half_sd": half_sample_sd(real, fake, settings.half_samples, settings.seed),
        **({} if infinity is None else {"frechet_infinity": infinity}),
        **kernel_distance(real, fake, settings),
        **pair_metrics(real, fake, settings),
        **prd(prd_real, fake, settings),
    }
