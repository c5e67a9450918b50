"""Densities with a Gaussian at every one of many codes: kernel density, and the aggregate posterior.

    kernel density (Parzen 1962):   p(z) = 1/n Σ_i N(z; z_i, h² I), in whitened coordinates
    aggregate posterior:            p(z) = 1/M Σ_m N(z; mean(x_m), diag sigma(x_m)²)

The second is the distribution a stochastic encoder gives the codes of its training images. A VampPrior (Tomczak and
Welling 2018) is that of learnt pseudo-inputs, trained with the autoencoder; here the inputs are the training images
and nothing is trained. Both are judged on the codes they were made of, too: the training likelihood is then a bound
to be seen with that in mind, the validation likelihood is not. The prior that a model did learn, a VampPrior or a plain
mixture, has the second's form: its components come with the model's codes.
"""

import logging
from dataclasses import dataclass

import numpy as np

from rae_bench.densities.codes import CodeArray, DensityError, Float64, Observed
from rae_bench.densities.density import FittedDensity, State, mean_log_density
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.specs import AggregatePosterior, ImageSubset, KernelDensity, LearntPriorDensity

BLOCK = 256
"""Codes whose densities are computed at once: memory is bounded by BLOCK x components float64."""
log = logging.getLogger(__name__)


def log_mean_of_gaussians(codes: Float64, means: Float64, sigmas: Float64) -> Float64:
    """Log of the mean of N(z; means_m, diag sigmas_m²) over m at each code, (n,), in nats.

    `codes` (n, d), `means` (M, d), `sigmas` (M, d), or (1, 1) where all are equal.
    """
    d = means.shape[1]
    precision = np.broadcast_to(sigmas**-2.0, means.shape)
    log_norm = -np.broadcast_to(np.log(sigmas), means.shape).sum(axis=1) - 0.5 * d * np.log(2 * np.pi)
    weighted = means * precision
    constant = log_norm - 0.5 * (means * weighted).sum(axis=1)
    result = np.empty(len(codes))
    for start in range(0, len(codes), BLOCK):
        block = codes[start : start + BLOCK]
        parts = constant + block @ weighted.T - 0.5 * (block**2) @ precision.T
        largest = parts.max(axis=1, keepdims=True)
        result[start : start + BLOCK] = (largest + np.log(np.exp(parts - largest).mean(axis=1, keepdims=True)))[:, 0]
    return result


@dataclass(frozen=True)
class FittedKernelDensity(FittedDensity):
    """`points_` (n, d), the training codes, whitened, and `bandwidth_` (1,), the SD of the Gaussian at each."""

    white_: FittedGaussian
    points_: Float64
    bandwidth_: Float64

    @classmethod
    def fit(cls, spec: KernelDensity, observed: Observed, seed: int) -> "FittedKernelDensity":  # noqa: ARG003
        """The kernels at the training codes, of the bandwidth under which validation codes are likeliest.

        Validation codes only choose: their own likelihood is then that of the best of a few.

        Raises:
            DensityError: a singular covariance, or no bandwidth with a finite likelihood.
        """
        white = FittedGaussian.of(observed.train)
        fits = [cls(white, white.whiten(observed.train), np.array([bandwidth])) for bandwidth in spec.bandwidths]
        scores = [mean_log_density(fitted.log_density(observed.validation)) for fitted in fits]
        best = int(np.argmax(scores))
        log.info("bandwidth %g: %.3f nats", spec.bandwidths[best], scores[best])
        if len(fits) > 1 and best in (0, len(fits) - 1):
            log.warning("bandwidth %g is the edge of its grid; a wider one may hold a better", spec.bandwidths[best])
        return fits[best]

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d), each around a training code drawn with replacement."""
        point = rng.integers(len(self.points_), size=n)
        noise = rng.standard_normal((n, self.points_.shape[1]))
        return self.white_.colour(self.points_[point] + self.bandwidth_ * noise)

    def log_density(self, codes: CodeArray) -> Float64:
        """Log density of each code, (n,), in nats."""
        white = self.white_.whiten(codes)
        return log_mean_of_gaussians(white, self.points_, self.bandwidth_[:, None]) - self.white_.log_volume

    def state(self) -> State:
        """The learned arrays."""
        return {**self.white_.white_state(), "points": self.points_, "bandwidth": self.bandwidth_}

    @classmethod
    def restore(cls, spec: KernelDensity, state: State) -> "FittedKernelDensity":  # noqa: ARG003
        """The inverse of `state`."""
        points, bandwidth = (state[name].astype(np.float64) for name in ("points", "bandwidth"))
        return cls(FittedGaussian.restore_white(state), points, bandwidth)


@dataclass(frozen=True)
class FittedAggregatePosterior(FittedDensity):
    """`means_`, `sigmas_` (M, d) of the posteriors of M training images, or of the components of a learnt prior."""

    means_: Float64
    sigmas_: Float64

    @classmethod
    def fit(
        cls, spec: AggregatePosterior | LearntPriorDensity, observed: Observed, seed: int
    ) -> "FittedAggregatePosterior":
        """The mixture of the posteriors of all training images, or of a subset that `seed` draws; or the learnt prior.

        Raises:
            DensityError: a deterministic encoder's codes, fewer images than components, or no prior that was learnt.
        """
        train = observed.posteriors if isinstance(spec, AggregatePosterior) else observed.prior
        if train is None:
            raise DensityError("the model learnt no prior; its codes hold no components of one")
        if train.log_sigma is None:
            raise DensityError("a deterministic encoder has no posterior to aggregate; the codes hold no log_sigma")
        n = len(train.mean)
        chosen = np.arange(n)
        if isinstance(spec, AggregatePosterior) and isinstance(spec.components, ImageSubset):
            size = spec.components.n_components
            if n < size:
                raise DensityError(f"{n} codes are too few for {size} components")
            chosen = np.random.default_rng(seed).choice(n, size=size, replace=False)
        return cls(train.mean[chosen].astype(np.float64), np.exp(train.log_sigma[chosen].astype(np.float64)))

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d), each from the posterior of an image drawn with replacement."""
        image = rng.integers(len(self.means_), size=n)
        noise = rng.standard_normal((n, self.means_.shape[1]))
        return (self.means_[image] + self.sigmas_[image] * noise).astype(np.float32)

    def log_density(self, codes: CodeArray) -> Float64:
        """Log density of each code, (n,), in nats."""
        centre = self.means_.mean(axis=0)  # differences of large squares lose digits far from the origin
        return log_mean_of_gaussians(codes.astype(np.float64) - centre, self.means_ - centre, self.sigmas_)

    def state(self) -> State:
        """The learned arrays."""
        return {"means": self.means_, "sigmas": self.sigmas_}

    @classmethod
    def restore(cls, spec: AggregatePosterior | LearntPriorDensity, state: State) -> "FittedAggregatePosterior":  # noqa: ARG003
        """The inverse of `state`."""
        means, sigmas = (state[name].astype(np.float64) for name in ("means", "sigmas"))
        return cls(means, sigmas)
