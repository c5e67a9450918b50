"""The real side of every metric: features of reference images and what can be computed from them once."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rae_bench.metrics.errors import MetricError
from rae_bench.metrics.pairs import OwnPairs, own_pairs

Float64 = npt.NDArray[np.float64]
BLOCK = 2**25
"""Features that are in memory in double precision at once: 256 MiB. More are those of CelebA's training images."""


def check_features(side: str, features: npt.NDArray[Any]) -> None:
    """Raise MetricError unless `features` is a finite matrix of at least two rows."""
    if features.ndim != 2 or len(features) < 2:
        raise MetricError(
            f"{side} features have shape {features.shape}; expected (n, d) with n at least 2, a row an image"
        )
    if not np.issubdtype(features.dtype, np.floating):
        raise MetricError(f"{side} features are {features.dtype}; expected floating point")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise MetricError(
            f"{side} features hold values that are not finite in {int((~finite).sum())} rows,"
            f" the first is row {int(np.argmin(finite))}"
        )


@dataclass(frozen=True)
class Reference:
    """Reference features (n, d), their moments in float64, and their distances to each other.

    `factor` (d, r) is a factor of the covariance, F Fᵀ = Σ: the symmetric root, or the centred features themselves
    where these are fewer than d (a root would fill the empty directions with rounding).
    """

    features: npt.NDArray[np.float32]
    mean: Float64 = field(repr=False)
    covariance: Float64 = field(repr=False)
    factor: Float64 = field(repr=False)
    pairs: OwnPairs = field(repr=False)

    @classmethod
    def of(cls, features: npt.NDArray[np.float32], neighbours: int) -> "Reference":
        """Build the reference of real features (n, d), keeping the distances to so many neighbours.

        Raises:
            MetricError: not a finite matrix, or no more images than neighbours.
        """
        check_features("real", features)
        mean, covariance = moments(features)
        return cls(features, mean, covariance, factor_of(features), own_pairs(features, neighbours))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All of it as plain arrays, read back by `restore`."""
        return {
            "features": self.features,
            "mean": self.mean,
            "covariance": self.covariance,
            "factor": self.factor,
            "squared_radii": self.pairs.squared_radii,
            "kernel_mean": np.array([self.pairs.kernel_mean]),
        }

    @classmethod
    def restore(cls, arrays: dict[str, npt.NDArray[Any]]) -> "Reference":
        """The inverse of `arrays`."""
        pairs = OwnPairs(arrays["squared_radii"], float(arrays["kernel_mean"][0]))
        return cls(arrays["features"], arrays["mean"], arrays["covariance"], arrays["factor"], pairs)


def moments(features: npt.NDArray[np.floating]) -> tuple[Float64, Float64]:
    """Mean (d,) and unbiased covariance (d, d), in float64; of more than BLOCK values, summed over blocks of rows."""
    n, d = features.shape
    rows = max(1, BLOCK // d)
    if n <= rows:
        exact = features.astype(np.float64)
        mean = exact.mean(axis=0)
        exact -= mean
        return mean, exact.T @ exact / (n - 1)
    blocks = [features[start : start + rows] for start in range(0, n, rows)]
    mean = sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / n
    products = np.zeros((d, d))
    for block in blocks:
        exact = block - mean
        products += exact.T @ exact
    return mean, products / (n - 1)


def factor_of(features: npt.NDArray[np.floating]) -> Float64:
    """A factor F of the unbiased covariance, F Fᵀ = Σ: (d, n) if n < d, else the symmetric root (d, d)."""
    n, d = features.shape
    if n < d:
        exact = features.astype(np.float64)
        return np.ascontiguousarray((exact - exact.mean(axis=0)).T / np.sqrt(n - 1))
    values, vectors = np.linalg.eigh(moments(features)[1])
    root: Float64 = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root
