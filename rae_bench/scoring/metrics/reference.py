"""The real side of every metric: features of reference images and what can be computed from them once.

Distances come from ‖x‖² + ‖y‖² − 2 x·y, which loses the digits that ‖x‖² has above ‖x − y‖². Features that lie far from
the origin, by their spread (FAR), are therefore counted from their mean: `Reference.origin`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rae_bench.scoring.metrics.pairs import Float64, OwnPairs, is_far, own_pairs

Features = npt.NDArray[np.floating]
BLOCK = 2**25
"""Features that are in memory in double precision at once: 256 MiB. More are those of CelebA's training images."""
SMALLEST, LARGEST = 1e-130, 1e150
"""Between these lies the largest feature of a set, else squares of features, or of their last digits, leave float64."""


class MetricError(ValueError):
    """Features a metric cannot be computed from."""


def usable(name: str, features: npt.NDArray[Any], least: Mapping[str, int]) -> Features:
    """Features (n, d) in C order, in float32 if they are in float16 or float32, else in float64; often they themselves.

    `name`: how messages call them, a file. `least`: how many rows are needed, by what needs them.

    Raises:
        MetricError: no matrix of floating point, too few rows, no columns, or numbers that float64 cannot hold.
    """
    check_counts(name, features.shape, least)
    if not np.issubdtype(features.dtype, np.floating):
        raise MetricError(f"{name}: features are {features.dtype}; expected floating point")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise MetricError(
            f"{name}: features hold values that are not finite in {int((~finite).sum())} rows,"
            f" the first is row {int(np.argmin(finite))}"
        )
    size = np.longdouble(max(features.max(), -features.min()))  # as wide as any type that comes
    if size > LARGEST or 0 < size < SMALLEST:
        found = np.format_float_scientific(size, 2)
        raise MetricError(
            f"{name}: the largest feature is {found}, whose squares float64 cannot hold;"
            f" expected between {SMALLEST:g} and {LARGEST:g}: scale both sets alike"
        )
    exact = np.float32 if features.dtype.itemsize <= 4 else np.float64
    return np.ascontiguousarray(features, dtype=exact)


def check_counts(
    name: str, shape: tuple[int, ...], least: Mapping[str, int], spelt: Callable[[str], str] = str
) -> None:
    """Raise MetricError unless `shape` is that of a matrix with as many rows as `least` says, two at least.

    `spelt`: how the message calls what needs them, an option say.
    """
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
        raise MetricError(
            f"{name}: features have shape {shape}; expected (n, d) with n at least 2 and d at least 1, a row an image"
        )
    beyond = [f"{count} for {spelt(why)}" for why, count in least.items() if shape[0] < count]
    if beyond:
        raise MetricError(
            f"{name}: features have shape {shape}; expected n at least {', '.join(beyond)}: give more images, or less"
            " there"
        )


@dataclass(frozen=True)
class Reference:
    """Reference features (n, d), their moments in float64, and their distances to each other.

    `factor` (d, r) is a factor of the covariance, F Fᵀ = Σ: the symmetric root, or the centred features themselves
    where these are fewer than d (a root would fill the empty directions with rounding). `origin` (d,) is where
    `features` and `mean` are counted from; None is 0, as for all features that do not lie far from there.
    """

    features: Features
    mean: Float64 = field(repr=False)
    covariance: Float64 = field(repr=False)
    factor: Float64 = field(repr=False)
    pairs: OwnPairs = field(repr=False)
    origin: Float64 | None = field(default=None, repr=False)
    name: str = "real"

    @classmethod
    def of(cls, features: Features, neighbours: int, name: str = "real") -> "Reference":
        """Build the reference of real features (n, d), keeping the distances to so many neighbours.

        Raises:
            MetricError: as `usable`; no more images than neighbours are too few.
        """
        near, origin = usable(name, features, {"neighbours": neighbours + 1}), None
        mean, covariance = moments(near)
        if is_far(mean, float(np.trace(covariance))):
            near, origin = near - mean, mean
            mean, covariance = moments(near)
        pairs = own_pairs(near, neighbours, origin)
        return cls(near, mean, covariance, factor_of(near), pairs, origin, name)

    @property
    def raw(self) -> Features:
        """The features as they were given."""
        return self.features if self.origin is None else self.features + self.origin

    def counted_alike(self, fake: Features) -> Features:
        """Other features (m, d) counted from the same origin."""
        return fake if self.origin is None else fake - self.origin

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All of it as plain arrays, read back by `restore`."""
        return {
            "features": self.features,
            "mean": self.mean,
            "covariance": self.covariance,
            "factor": self.factor,
            "squared_radii": self.pairs.squared_radii,
            "kernel_mean": np.array([self.pairs.kernel_mean]),
            **({} if self.origin is None else {"origin": self.origin}),
        }

    @classmethod
    def restore(cls, arrays: dict[str, npt.NDArray[Any]], name: str = "real") -> "Reference":
        """The inverse of `arrays`."""
        pairs = OwnPairs(arrays["squared_radii"], float(arrays["kernel_mean"][0]))
        features, origin = arrays["features"], arrays.get("origin")
        return cls(features, arrays["mean"], arrays["covariance"], arrays["factor"], pairs, origin, name)


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


def exponent(values: npt.NDArray[np.floating]) -> int:
    """The power of two just above the largest magnitude of `values`; 0 if all are 0."""
    return int(np.frexp(max(values.max(), -values.min()))[1])
