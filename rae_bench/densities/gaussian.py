"""One Gaussian: N(0, I), or the codes' mean and full covariance (unbiased).

log p(z) = −½ ((z − mean)ᵀ Σ⁻¹ (z − mean) + log det Σ + d log 2π)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rae_bench.densities.errors import DensityError

UNEXPLAINED = 1e-12
"""A dimension of which the ones before explain all but this share is dependent on them, up to float32 rounding."""
SINGULAR = "the covariance of the codes is singular in {} dimensions: some direction is unused by the encoder"

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FittedGaussian:
    """`mean_` (d,) and `factor_` (d, d), the lower Cholesky factor of the covariance."""

    mean_: Float64
    factor_: Float64

    @classmethod
    def standard(cls, d: int) -> "FittedGaussian":
        """N(0, I) in d dimensions."""
        return cls(np.zeros(d), np.eye(d))

    @classmethod
    def fit(cls, codes: npt.NDArray[np.float32]) -> "FittedGaussian":
        """Mean and covariance of codes (n, d).

        Raises:
            DensityError: too few codes, or a direction in which they do not vary.
        """
        n, d = codes.shape
        if n <= d:
            raise DensityError(f"{n} codes are too few for a covariance in {d} dimensions; at least {d + 1} are needed")
        exact = codes.astype(np.float64)
        covariance = np.cov(exact, rowvar=False).reshape(d, d)
        try:
            factor = np.linalg.cholesky(covariance).astype(np.float64)
        except np.linalg.LinAlgError:
            raise DensityError(SINGULAR.format(d)) from None
        if (np.diag(factor) ** 2 < UNEXPLAINED * np.diag(covariance)).any():
            raise DensityError(SINGULAR.format(d))
        return cls(exact.mean(axis=0), factor)

    def whiten(self, codes: npt.NDArray[np.float32]) -> Float64:
        """Codes in the coordinates in which this density is N(0, I)."""
        white: Float64 = np.linalg.solve(self.factor_, (codes.astype(np.float64) - self.mean_).T).T.astype(np.float64)
        return white

    def colour(self, white: Float64) -> npt.NDArray[np.float32]:
        """The inverse of `whiten`."""
        return (self.mean_ + white @ self.factor_.T).astype(np.float32)

    @property
    def log_volume(self) -> float:
        """Log det of `factor_`: what whitening adds to a log density."""
        return float(np.log(np.diag(self.factor_)).sum())

    def sample(self, n: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """N codes, float32 (n, d)."""
        return self.colour(rng.standard_normal((n, len(self.mean_))))

    def log_likelihood(self, codes: npt.NDArray[np.float32]) -> float:
        """Mean log density in nats per code."""
        white = self.whiten(codes)
        squares = (white**2).sum(axis=1).mean()
        return float(-0.5 * (squares + white.shape[1] * np.log(2 * np.pi)) - self.log_volume)

    def state(self) -> dict[str, npt.NDArray[np.float32] | Float64]:
        """The learned arrays."""
        return {"mean": self.mean_, "factor": self.factor_}

    @classmethod
    def restore(cls, state: dict[str, npt.NDArray[np.float32] | Float64]) -> "FittedGaussian":
        """The inverse of `state`."""
        return cls(state["mean"].astype(np.float64), state["factor"].astype(np.float64))
