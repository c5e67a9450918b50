"""Improved precision and recall (Kynkäänniemi et al. 2019): manifolds as unions of k-nearest-neighbour balls.

precision: share of fake points inside the real manifold; recall: share of real points inside the fake manifold.
"""

import numpy as np
import numpy.typing as npt

from rae_bench import specs
from rae_bench.metrics import fidelity
from rae_bench.metrics.reference import MetricError, Reference


def precision_recall(
    real: Reference, fake: npt.NDArray[np.float32], settings: specs.MetricSettings
) -> dict[str, float]:
    """`precision` and `recall`, each in [0, 1].

    Raises:
        MetricError: no more images than neighbours.
    """
    least = min(len(real.features), len(fake))
    if least <= settings.neighbours:
        raise MetricError(f"neighbours is {settings.neighbours}, but a set has only {least} images")
    result = fidelity.call("metric_prc", "prc_features_to_metric")(
        fidelity.tensor(fake),
        fidelity.tensor(real.features),
        prc_neighborhood=settings.neighbours,
        prc_batch_size=10000,
        save_cpu_ram=True,
        verbose=False,
    )
    return {"precision": float(result["precision"]), "recall": float(result["recall"])}
