"""Densities p(z) fitted ex post on the codes of training images: a module per family.

`fit(spec, train, validation, seed)` returns an estimator with learned arrays ending in `_`; `sample(n, rng)` gives
float32 (n, d) in random order; `log_density(codes)` the log density of each code in nats, or None where the family has
no closed form, `log_likelihood(codes)` its mean. Their state is a dict of plain arrays (`state`), read back by
`restore`. Which codes of an image stand for it, mean or sample, is `spec.codes`; `codes_of` gives them.
"""

from typing import Protocol, assert_never

import numpy as np

from rae_bench.densities.codes import CodeArray, Float64, Posteriors, State
from rae_bench.densities.errors import DensityError
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.kernels import FittedAggregatePosterior, FittedKernelDensity
from rae_bench.densities.mixture import FittedMixture
from rae_bench.densities.specs import (
    AggregatePosterior,
    DaiWipfSecondStage,
    Density,
    DirichletMixture,
    FlowMatching,
    GaussianMixture,
    KernelDensity,
    SecondStage,
    SingleGaussian,
    SplineFlow,
    StandardNormal,
)


class FittedDensity(Protocol):
    """What every density offers once fitted."""

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """N independent codes, float32 (n, d), in random order."""

    def log_density(self, codes: CodeArray) -> Float64 | None:
        """Log density of each of codes (n, d), (n,), in nats; None where it has no closed form."""

    def log_likelihood(self, codes: CodeArray) -> float | None:
        """The mean of `log_density`, in nats per code."""

    def state(self) -> State:
        """The learned arrays."""


def codes_of(spec: Density, posteriors: Posteriors, seed: int, split: str) -> CodeArray:
    """The codes (n, d) of the images of `split` that a density is fitted to or judged on."""
    return posteriors.codes(spec.codes, seed, split)


def fit(spec: Density, train: Posteriors, validation: Posteriors, seed: int) -> FittedDensity:
    """Fit `spec` to the codes of training images.

    On the CPU. Codes of validation images only choose: a network's best epoch, a kernel's bandwidth.

    Raises:
        DensityError: codes that are not finite, too few or singular, or a fit that does not end in finite numbers.
    """
    codes, held_out = codes_of(spec, train, seed, "train"), codes_of(spec, validation, seed, "validation")
    if held_out.shape[1] != codes.shape[1]:
        raise DensityError(f"validation codes of {held_out.shape[1]} dimensions, training codes of {codes.shape[1]}")
    fitted = _fit(spec, codes, held_out, train, seed)
    for name, array in fitted.state().items():
        if not np.isfinite(array).all():
            raise DensityError(f"the fit of {spec.kind!r} is degenerate: its array {name!r} is not finite")
    return fitted


def _fit(spec: Density, codes: CodeArray, validation: CodeArray, train: Posteriors, seed: int) -> FittedDensity:
    match spec:
        case StandardNormal():
            return FittedGaussian.standard(codes.shape[1])
        case SingleGaussian(covariance=covariance):
            return FittedGaussian.fit(codes) if covariance == "full" else FittedGaussian.fit_diagonal(codes)
        case GaussianMixture():
            return FittedMixture.fit(spec, codes, seed)
        case DirichletMixture():
            return FittedMixture.fit_dirichlet(spec, codes, seed)
        case KernelDensity():
            return FittedKernelDensity.fit(spec, codes, validation)
        case AggregatePosterior():
            return FittedAggregatePosterior.fit(spec, train, seed)
        case SplineFlow():
            from rae_bench.densities.flow import FittedFlow

            return FittedFlow.fit(spec, codes, validation, seed)
        case FlowMatching():
            from rae_bench.densities.flow_matching import FittedFlowMatching

            return FittedFlowMatching.fit(spec, codes, validation, seed)
        case SecondStage():
            from rae_bench.densities.second_stage import FittedSecondStage

            return FittedSecondStage.fit(spec, codes, validation, seed)
        case DaiWipfSecondStage():
            from rae_bench.densities.dai_wipf import FittedDaiWipf

            return FittedDaiWipf.fit(spec, codes, validation, seed)
        case _:
            assert_never(spec)


def restore(spec: Density, state: State) -> FittedDensity:
    """The fitted density whose `state` was saved."""
    match spec:
        case StandardNormal() | SingleGaussian():
            return FittedGaussian.restore(state)
        case GaussianMixture() | DirichletMixture():
            return FittedMixture.restore(state)
        case KernelDensity():
            return FittedKernelDensity.restore(state)
        case AggregatePosterior():
            return FittedAggregatePosterior.restore(state)
        case SplineFlow():
            from rae_bench.densities.flow import FittedFlow

            return FittedFlow.restore(spec, state)
        case FlowMatching():
            from rae_bench.densities.flow_matching import FittedFlowMatching

            return FittedFlowMatching.restore(spec, state)
        case SecondStage():
            from rae_bench.densities.second_stage import FittedSecondStage

            return FittedSecondStage.restore(spec, state)
        case DaiWipfSecondStage():
            from rae_bench.densities.dai_wipf import FittedDaiWipf

            return FittedDaiWipf.restore(spec, state)
        case _:
            assert_never(spec)
