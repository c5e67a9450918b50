"""Mixtures of full-covariance Gaussians on whitened codes: by scikit-learn's EM, or under a Dirichlet process.

    p(z) = Σ_k weight_k · N(z; mean_k, covariance_k)

Whitening makes `reg_covar`, which is absolute, mean the same at every scale of codes, and the prior of the Dirichlet
process a standard one. Of the latter's posterior the mean is kept: weights (renormalised over the components there
are), means, covariances (the inverse of the expected precision). Sampling is our own: scikit-learn repeats its draws
for an integer `random_state` and returns them sorted by component.

How many components a selected mixture has is found by the mean log density of validation codes, which it is not fitted
to (Smyth 2000, with one split).
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rae_bench.densities.codes import CodeArray, DensityError, Float64, Observed
from rae_bench.densities.density import FittedDensity, State, mean_log_density
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.specs import LEAST_PER_COMPONENT, DirichletMixture, GaussianMixture, SelectedMixture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedMixture(FittedDensity):
    """`weights_` (K,), and in whitened coordinates `means_` (K, d), `factors_` (K, d, d), lower Cholesky factors."""

    white_: FittedGaussian
    weights_: Float64
    means_: Float64
    factors_: Float64

    @classmethod
    def fit(cls, spec: GaussianMixture | DirichletMixture, observed: Observed, seed: int) -> "FittedMixture":
        """The mixture by EM, or by variational inference, from k-means on the training codes.

        Raises:
            DensityError: fewer codes than ten per component, a singular covariance, or a fit that does not converge.
        """
        import warnings

        from sklearn.exceptions import ConvergenceWarning

        n, k = len(observed.train), spec.n_components
        if n < LEAST_PER_COMPONENT * k:
            raise DensityError(
                f"{n} codes are too few for {k} components; at least {LEAST_PER_COMPONENT * k} are needed"
            )
        white = FittedGaussian.of(observed.train)
        mixture = _estimator(spec, observed.train.shape[1], seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                mixture.fit(white.whiten(observed.train))
            except ConvergenceWarning as warning:
                raise DensityError(
                    f"the fit of {k} components in at most {spec.max_iter} iterations (max_iter) failed: {warning}"
                ) from None
        log.info("%d components: converged after %d iterations", k, mixture.n_iter_)
        return cls(white, mixture.weights_, mixture.means_, np.linalg.cholesky(mixture.covariances_))

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d): each draws its component, so their order is random."""
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

    def state(self) -> State:
        """The learned arrays."""
        return {
            **self.white_.white_state(),
            "weights": self.weights_,
            "means": self.means_,
            "factors": self.factors_,
        }

    @classmethod
    def restore(cls, spec: GaussianMixture | DirichletMixture, state: State) -> "FittedMixture":  # noqa: ARG003
        """The inverse of `state`."""
        arrays = (state[name].astype(np.float64) for name in ("weights", "means", "factors"))
        return cls(FittedGaussian.restore_white(state), *arrays)


@dataclass(frozen=True)
class FittedSelectedMixture(FittedDensity):
    """`mixture_`, the best of those with `grid_` (g,) components; `held_out_` (g,), the nats per validation code."""

    mixture_: FittedMixture
    grid_: Float64
    held_out_: Float64

    @classmethod
    def fit(cls, spec: SelectedMixture, observed: Observed, seed: int) -> "FittedSelectedMixture":
        """The mixture, of those with the numbers of components in the grid, under which validation codes are likeliest.

        Validation codes only choose: their own likelihood is then that of the best of a few.

        Raises:
            DensityError: what any of the mixtures raises, or a validation code outside of all its components.
        """
        fits = [FittedMixture.fit(candidate, observed, seed) for candidate in spec.candidates]
        held_out = np.array([mean_log_density(fitted.log_density(observed.validation)) for fitted in fits])
        best = int(np.argmax(held_out))
        log.info("%d components selected: %.3f nats", spec.grid[best], held_out[best])
        if best == len(fits) - 1:
            log.warning("%d components are the most of their grid; more may be better", spec.grid[best])
        if best == 0 and spec.grid[0] > 1:
            log.warning("%d components are the fewest of their grid; fewer may be better", spec.grid[best])
        return cls(fits[best], np.array(spec.grid, dtype=np.float64), held_out)

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d), in random order."""
        return self.mixture_.sample(n, rng)

    def log_density(self, codes: CodeArray) -> Float64:
        """Log density of each code, (n,), in nats."""
        return self.mixture_.log_density(codes)

    def state(self) -> State:
        """The learned arrays."""
        return {**self.mixture_.state(), "grid": self.grid_, "held_out": self.held_out_}

    @classmethod
    def restore(cls, spec: SelectedMixture, state: State) -> "FittedSelectedMixture":
        """The inverse of `state`."""
        grid, held_out = (state[name].astype(np.float64) for name in ("grid", "held_out"))
        return cls(FittedMixture.restore(spec.candidates[int(np.argmax(held_out))], state), grid, held_out)


def _estimator(spec: GaussianMixture | DirichletMixture, d: int, seed: int) -> Any:
    """scikit-learn's estimator for whitened codes in `d` dimensions."""
    from sklearn import mixture

    common = {
        "n_components": spec.n_components,
        "covariance_type": "full",
        "tol": spec.tolerance,
        "reg_covar": spec.reg_covar,
        "max_iter": spec.max_iter,
        "n_init": spec.n_init,
        "random_state": seed,
    }
    if isinstance(spec, GaussianMixture):
        return mixture.GaussianMixture(**common)
    return mixture.BayesianGaussianMixture(
        weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=spec.concentration,
        mean_precision_prior=spec.mean_precision,
        mean_prior=np.zeros(d),
        degrees_of_freedom_prior=d,
        covariance_prior=np.eye(d),
        **common,
    )
