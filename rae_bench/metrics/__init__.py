"""Metrics of two feature matrices: `Reference` first, always; pure functions, no device, file or printing.

`measure` gives every metric by name. They come from torch-fidelity's feature-level functions, called in one place
(`fidelity`), so that a renamed function upstream breaks there with a clear message.
"""

import numpy as np
import numpy.typing as npt

from rae_bench import specs
from rae_bench.metrics.frechet import frechet_distance
from rae_bench.metrics.kernel import kernel_distance
from rae_bench.metrics.neighbours import precision_recall
from rae_bench.metrics.reference import MetricError, Reference, check_features

__all__ = ["MetricError", "Reference", "measure"]

Features = npt.NDArray[np.float32]


def measure(real: Reference, fake: Features, settings: specs.MetricSettings) -> dict[str, float]:
    """Every metric of `fake` (m, d) against `real`, by name.

    Raises:
        MetricError: features that are not finite, of another dimension, or too few for a metric.
    """
    check_features("fake", fake)
    if fake.shape[1] != real.features.shape[1]:
        raise MetricError(
            f"fake features have dimension {fake.shape[1]}, real ones {real.features.shape[1]};"
            " both must come from the same extractor"
        )
    return {
        "frechet_distance": frechet_distance(real, fake),
        **kernel_distance(real, fake, settings),
        **precision_recall(real, fake, settings),
    }
