"""Fréchet distance of the Gaussians with two sets' moments: ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½.

Called FID only through the official Inception network (Heusel et al. 2017); through any other, FD-<extractor>.
It is biased upwards by about 1/n: compare only at equal counts, and with the floor at those counts.
"""

import numpy as np
import numpy.typing as npt

from rae_bench.metrics import fidelity
from rae_bench.metrics.reference import Reference, moments


def frechet_distance(real: Reference, fake: npt.NDArray[np.float32]) -> float:
    """The distance of `fake` (m, d) from `real`; 0 for equal moments, no upper bound."""
    mean, covariance = moments(fake)
    result = fidelity.call("metric_fid", "fid_statistics_to_metric")(
        {"mu": mean, "sigma": covariance}, {"mu": real.mean, "sigma": real.covariance}, False
    )
    return float(result["frechet_inception_distance"])
