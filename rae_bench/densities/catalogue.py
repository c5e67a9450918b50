"""Densities p(z) fitted ex post on the codes of training images: a module per family, and here each one's line.

`fit` gives a `FittedDensity`; its state is a dict of plain arrays (`state`), read back by `restore`. Which codes of an
image stand for it, mean or sample, is `spec.codes`.
"""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from rae_bench.base.rng import derive
from rae_bench.densities.codes import CodeArray, DensityError, Observed, Posteriors
from rae_bench.densities.density import FittedDensity, State
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.indices import FittedCategorical
from rae_bench.densities.kernels import FittedAggregatePosterior, FittedKernelDensity
from rae_bench.densities.mixture import FittedMixture, FittedSelectedMixture
from rae_bench.densities.specs import (
    AggregatePosterior,
    AutoregressiveIndices,
    CategoricalIndices,
    DaiWipfSecondStage,
    Density,
    DirichletMixture,
    FlowMatching,
    GaussianMixture,
    KernelDensity,
    LearntPriorDensity,
    OwnDensity,
    SecondStage,
    SelectedMixture,
    SingleGaussian,
    SplineFlow,
    StandardNormal,
    UniformIndices,
)


def family(spec: Density) -> type[FittedDensity]:
    """The class that fits and restores the densities of this kind; a network's module is loaded for its own alone."""
    match spec:
        case StandardNormal() | SingleGaussian():
            return FittedGaussian
        case GaussianMixture() | DirichletMixture():
            return FittedMixture
        case SelectedMixture():
            return FittedSelectedMixture
        case KernelDensity():
            return FittedKernelDensity
        case AggregatePosterior() | LearntPriorDensity():
            return FittedAggregatePosterior
        case UniformIndices() | CategoricalIndices():
            return FittedCategorical
        case AutoregressiveIndices():
            from rae_bench.densities.autoregressive import FittedAutoregressive

            return FittedAutoregressive
        case SplineFlow():
            from rae_bench.densities.flow import FittedFlow

            return FittedFlow
        case FlowMatching():
            from rae_bench.densities.flow_matching import FittedFlowMatching

            return FittedFlowMatching
        case SecondStage():
            from rae_bench.densities.second_stage import FittedSecondStage

            return FittedSecondStage
        case DaiWipfSecondStage():
            from rae_bench.densities.dai_wipf import FittedDaiWipf

            return FittedDaiWipf
        case OwnDensity():
            from rae_bench.densities.own import FittedOwn

            return FittedOwn
        case _:
            assert_never(spec)


def fit(
    spec: Density,
    train: Posteriors,
    validation: Posteriors,
    seed: int,
    prior: Posteriors | None = None,
    codebook: CodeArray | None = None,
) -> FittedDensity:
    """Fit `spec` to the codes of training images, on the CPU.

    `prior`: the components of one that the model learnt; `codebook`: the entries (K, length) of its quantised codes.

    Raises:
        DensityError: codes that are not finite, too few or singular, or a fit that does not end in finite numbers.
        TrainingError: fewer codes than a network's batch, or a loss that is not finite.
    """
    codes, held_out = train.codes(spec.codes, seed, "train"), validation.codes(spec.codes, seed, "validation")
    d, found = codes.shape[1], held_out.shape[1]
    if found != d:
        raise DensityError(f"validation codes of {found} dimensions, training codes of {d}")
    fitted = family(spec).fit(spec, Observed(codes, held_out, train, prior, codebook), derive(seed, spec.kind))
    for name, array in fitted.state().items():
        if not np.isfinite(array).all():
            raise DensityError(f"the fit of {spec.kind!r} is degenerate: its array {name!r} is not finite")
    return fitted


def log_likelihoods(
    fitted: FittedDensity, spec: Density, posteriors: Mapping[str, Posteriors], seed: int
) -> dict[str, float | None]:
    """The mean log density of every split's codes, in nats per code, of a density fitted with `seed`; None: no formula.

    Of a selected mixture also "validation_K" for each number K of components that it was selected from.

    Raises:
        DensityError: one is not finite.
    """
    found = {split: fitted.log_likelihood(part.codes(spec.codes, seed, split)) for split, part in posteriors.items()}
    if isinstance(fitted, FittedSelectedMixture):
        grid = zip(fitted.grid_, fitted.held_out_, strict=True)
        found |= {f"validation_{n_components:.0f}": float(value) for n_components, value in grid}
    return found


def restore(spec: Density, state: State) -> FittedDensity:
    """The fitted density whose `state` was saved."""
    return family(spec).restore(spec, state)
