"""Mixture of full-covariance Gaussians by EM: scikit-learn's, on whitened codes.

Whitening makes `reg_covar`, which is absolute, mean the same at every scale of codes. Sampling is our own: scikit-learn
repeats its draws for an integer `random_state` and returns them sorted by component.
"""

import logging
from dataclasses import dataclass

import numpy as np

from rae_bench import specs
from rae_bench.densities.codes import CodeArray, Float64, State, mean_log_density
from rae_bench.densities.errors import DensityError
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.rng import derive

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedMixture:
    """`weights_` (K,), and in whitened coordinates `means_` (K, d), `factors_` (K, d, d), lower Cholesky factors."""

    white_: FittedGaussian
    weights_: Float64
    means_: Float64
    factors_: Float64

    @classmethod
    def fit(cls, spec: specs.GaussianMixture, codes: CodeArray, seed: int) -> "FittedMixture":
        """EM from k-means on codes (n, d).

        Raises:
            DensityError: fewer codes than ten per component, a singular covariance, or EM that does not converge.
        """
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        least = specs.LEAST_PER_COMPONENT * spec.n_components
        if len(codes) < least:
            raise DensityError(
                f"{len(codes)} codes are too few for {spec.n_components} components; at least {least} are needed"
            )
        white = FittedGaussian.fit(codes)
        mixture = GaussianMixture(
            spec.n_components,
            covariance_type="full",
            tol=spec.tolerance,
            reg_covar=spec.reg_covar,
            max_iter=spec.max_iter,
            n_init=spec.n_init,
            random_state=derive(seed, "mixture") % 2**32,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                mixture.fit(white.whiten(codes))
            except ConvergenceWarning as warning:
                raise DensityError(
                    f"the fit of {spec.n_components} components in at most {spec.max_iter} iterations (max_iter)"
                    f" failed: {warning}"
                ) from None
        log.info("EM converged after %d iterations", mixture.n_iter_)
        return cls(white, mixture.weights_, mixture.means_, np.linalg.cholesky(mixture.covariances_))

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """N codes, float32 (n, d): each draws its component, so their order is random."""
        component = rng.choice(len(self.weights_), size=n, p=self.weights_)
        noise = rng.standard_normal((n, self.means_.shape[1]))
        white = self.means_[component] + np.einsum("nij,nj->ni", self.factors_[component], noise)
        return self.white_.colour(white)

    def log_density(self, codes: CodeArray) -> Float64:
        """Log density of each code, (n,), in nats."""
        white = self.white_.whiten(codes)
        parts = []
        for weight, mean, factor in zip(self.weights_, self.means_, self.factors_, strict=True):
            part = FittedGaussian(mean, factor)
            squares = (np.linalg.solve(factor, (white - mean).T) ** 2).sum(axis=0)
            parts.append(np.log(weight) - 0.5 * (squares + len(mean) * np.log(2 * np.pi)) - part.log_volume)
        total: Float64 = np.logaddexp.reduce(parts, axis=0) - self.white_.log_volume
        return total

    def log_likelihood(self, codes: CodeArray) -> float:
        """Mean log density in nats per code."""
        return mean_log_density(self.log_density(codes))

    def state(self) -> State:
        """The learned arrays."""
        return {**self.white_.white_state(), "weights": self.weights_, "means": self.means_, "factors": self.factors_}

    @classmethod
    def restore(cls, state: State) -> "FittedMixture":
        """The inverse of `state`."""
        arrays = (state[name].astype(np.float64) for name in ("weights", "means", "factors"))
        return cls(FittedGaussian.restore_white(state), *arrays)
