"""Mixtures of full-covariance Gaussians on whitened codes: by scikit-learn's EM, or under a Dirichlet process.

    p(z) = Σ_k weight_k · N(z; mean_k, covariance_k)

Whitening makes `reg_covar`, which is absolute, mean the same at every scale of codes, and the prior of the Dirichlet
process a standard one. Of the latter's posterior the mean is kept: weights (renormalised over the components there
are), means, covariances (the inverse of the expected precision). Sampling is our own: scikit-learn repeats its draws
for an integer `random_state` and returns them sorted by component.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rae_bench.base.rng import derive
from rae_bench.densities.codes import CodeArray, Float64, State, mean_log_density
from rae_bench.densities.errors import DensityError
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.specs import LEAST_PER_COMPONENT, DirichletMixture, GaussianMixture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedMixture:
    """`weights_` (K,), and in whitened coordinates `means_` (K, d), `factors_` (K, d, d), lower Cholesky factors."""

    white_: FittedGaussian
    weights_: Float64
    means_: Float64
    factors_: Float64

    @classmethod
    def fit(cls, spec: GaussianMixture, codes: CodeArray, seed: int) -> "FittedMixture":
        """EM from k-means on codes (n, d).

        Raises:
            DensityError: fewer codes than ten per component, a singular covariance, or EM that does not converge.
        """
        from sklearn import mixture as sklearn_mixture

        mixture = sklearn_mixture.GaussianMixture(
            spec.n_components,
            covariance_type="full",
            tol=spec.tolerance,
            reg_covar=spec.reg_covar,
            max_iter=spec.max_iter,
            n_init=spec.n_init,
            random_state=derive(seed, "mixture") % 2**32,
        )
        return cls._fit(mixture, spec, codes)

    @classmethod
    def fit_dirichlet(cls, spec: DirichletMixture, codes: CodeArray, seed: int) -> "FittedMixture":
        """Variational inference from k-means on codes (n, d); the posterior's mean.

        Raises:
            DensityError: as `fit`.
        """
        from sklearn import mixture as sklearn_mixture

        mixture = sklearn_mixture.BayesianGaussianMixture(
            n_components=spec.n_components,
            covariance_type="full",
            tol=spec.tolerance,
            reg_covar=spec.reg_covar,
            max_iter=spec.max_iter,
            n_init=spec.n_init,
            weight_concentration_prior_type="dirichlet_process",
            weight_concentration_prior=spec.concentration,
            mean_precision_prior=spec.mean_precision,
            mean_prior=np.zeros(codes.shape[1]),
            degrees_of_freedom_prior=codes.shape[1],
            covariance_prior=np.eye(codes.shape[1]),
            random_state=derive(seed, "dirichlet_mixture") % 2**32,
        )
        return cls._fit(mixture, spec, codes)

    @classmethod
    def _fit(cls, mixture: Any, spec: GaussianMixture | DirichletMixture, codes: CodeArray) -> "FittedMixture":
        """Run scikit-learn's `mixture` on whitened codes to its end."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning

        white = _whitening(spec, codes)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                mixture.fit(white.whiten(codes))
            except ConvergenceWarning as warning:
                raise DensityError(
                    f"the fit of {spec.n_components} components in at most {spec.max_iter} iterations (max_iter)"
                    f" failed: {warning}"
                ) from None
        log.info("%d components: converged after %d iterations", spec.n_components, mixture.n_iter_)
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
        total: Float64 = np.logaddexp.reduce(list(self._parts(white)), axis=0) - self.white_.log_volume
        return total

    def _parts(self, white: Float64) -> Iterable[Float64]:
        """Log of weight · density, (n,), of each component that has weight."""
        for weight, mean, factor in zip(self.weights_, self.means_, self.factors_, strict=True):
            if weight == 0:  # a Dirichlet process may leave some no mass at all
                continue
            squares = (np.linalg.solve(factor, (white - mean).T) ** 2).sum(axis=0)
            volume = FittedGaussian(mean, factor).log_volume
            yield np.log(weight) - 0.5 * (squares + len(mean) * np.log(2 * np.pi)) - volume

    def log_likelihood(self, codes: CodeArray) -> float:
        """Mean log density in nats per code."""
        return mean_log_density(self.log_density(codes))

    def state(self) -> State:
        """The learned arrays."""
        return {
            **self.white_.white_state(),
            "weights": self.weights_,
            "means": self.means_,
            "factors": self.factors_,
        }

    @classmethod
    def restore(cls, state: State) -> "FittedMixture":
        """The inverse of `state`."""
        arrays = (state[name].astype(np.float64) for name in ("weights", "means", "factors"))
        return cls(FittedGaussian.restore_white(state), *arrays)


def _whitening(spec: GaussianMixture | DirichletMixture, codes: CodeArray) -> FittedGaussian:
    """What whitens codes (n, d) for a mixture.

    Raises:
        DensityError: fewer codes than ten per component, or a singular covariance.
    """
    least = LEAST_PER_COMPONENT * spec.n_components
    if len(codes) < least:
        raise DensityError(
            f"{len(codes)} codes are too few for {spec.n_components} components; at least {least} are needed"
        )
    return FittedGaussian.fit(codes)
