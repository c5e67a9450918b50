"""One Gaussian: N(0, I), or the codes' mean and covariance (unbiased), full or its diagonal.

log p(z) = −½ ((z − mean)ᵀ Σ⁻¹ (z − mean) + log det Σ + d log 2π)
"""

from dataclasses import dataclass

import numpy as np

from rae_bench.densities.codes import CodeArray, DensityError, Float64, Observed
from rae_bench.densities.density import FittedDensity, State
from rae_bench.densities.specs import SingleGaussian, StandardNormal

UNEXPLAINED = 1e-12
"""A dimension of which the ones before explain all but this share is dependent on them, up to float32 rounding."""


def _singular(unused: int, d: int) -> DensityError:
    return DensityError(
        f"the covariance of the codes is singular: they vary in only {d - unused} of {d} dimensions; most often"
        " training diverged (its losses: history.parquet), or the encoder makes no use of the rest"
    )


def _unused(covariance: Float64) -> int:
    """How many dimensions codes of this covariance (d, d) do not vary in, by their correlations' eigenvalues."""
    sd = np.sqrt(np.diag(covariance))
    scaled = covariance / np.outer(np.where(sd > 0, sd, 1), np.where(sd > 0, sd, 1))
    return int((np.linalg.eigvalsh(scaled) < UNEXPLAINED * len(sd)).sum())


@dataclass(frozen=True)
class FittedGaussian(FittedDensity):
    """`mean_` (d,) and `factor_` (d, d), the lower Cholesky factor of the covariance."""

    mean_: Float64
    factor_: Float64

    @classmethod
    def fit(cls, spec: StandardNormal | SingleGaussian, observed: Observed, seed: int) -> "FittedGaussian":  # noqa: ARG003
        """N(0, I), or the Gaussian of the codes' mean and covariance.

        Raises:
            DensityError: too few codes, or a direction in which they do not vary.
        """
        if isinstance(spec, StandardNormal):
            return cls.standard(observed.train.shape[1])
        return cls.of(observed.train) if spec.covariance == "full" else cls.diagonal_of(observed.train)

    @classmethod
    def standard(cls, d: int) -> "FittedGaussian":
        """N(0, I) in d dimensions."""
        return cls(np.zeros(d), np.eye(d))

    @classmethod
    def of(cls, codes: CodeArray) -> "FittedGaussian":
        """The Gaussian of mean and full covariance of codes (n, d): also what whitens them for other densities.

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
            raise _singular(max(1, _unused(covariance)), d) from None
        if (np.diag(factor) ** 2 < UNEXPLAINED * np.diag(covariance)).any():
            raise _singular(max(1, _unused(covariance)), d)
        return cls(exact.mean(axis=0), factor)

    @classmethod
    def diagonal_of(cls, codes: CodeArray) -> "FittedGaussian":
        """The Gaussian of mean and variance of each dimension of codes (n, d).

        Raises:
            DensityError: fewer than two codes, or a dimension in which they do not vary.
        """
        n, d = codes.shape
        if n < 2:
            raise DensityError(f"{n} codes are too few for a variance; at least 2 are needed")
        varies = np.ptp(codes, axis=0) > 0  # exact, where the SD of a constant is not
        if not varies.all():
            raise _singular(int((~varies).sum()), d)
        exact = codes.astype(np.float64)
        return cls(exact.mean(axis=0), np.diag(exact.std(axis=0, ddof=1)))

    def whiten(self, codes: CodeArray) -> Float64:
        """Codes in the coordinates in which this density is N(0, I)."""
        return np.linalg.solve(self.factor_, (codes.astype(np.float64) - self.mean_).T).T.astype(np.float64)

    def colour(self, white: Float64) -> CodeArray:
        """The inverse of `whiten`."""
        return (self.mean_ + white @ self.factor_.T).astype(np.float32)

    @property
    def log_volume(self) -> float:
        """Log det of `factor_`: what whitening adds to a log density."""
        return float(np.log(np.diag(self.factor_)).sum())

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d)."""
        return self.colour(rng.standard_normal((n, len(self.mean_))))

    def log_density(self, codes: CodeArray) -> Float64:
        """Log density of each code, (n,), in nats."""
        white = self.whiten(codes)
        density: Float64 = -0.5 * ((white**2).sum(axis=1) + white.shape[1] * np.log(2 * np.pi)) - self.log_volume
        return density

    def state(self) -> State:
        """The learned arrays."""
        return {"mean": self.mean_, "factor": self.factor_}

    @classmethod
    def restore(cls, spec: StandardNormal | SingleGaussian, state: State) -> "FittedGaussian":  # noqa: ARG003
        """The inverse of `state`."""
        return cls(state["mean"].astype(np.float64), state["factor"].astype(np.float64))

    def white_state(self) -> State:
        """The learned arrays under the names they have where this whitens codes for another density."""
        return {f"white_{name}": array for name, array in self.state().items()}

    @classmethod
    def restore_white(cls, state: State) -> "FittedGaussian":
        """The inverse of `white_state`."""
        return cls(state["white_mean"].astype(np.float64), state["white_factor"].astype(np.float64))
