"""Densities p(z) fitted ex post on the codes of training images: a module per family.

`fit(spec, codes, seed)` returns an estimator with learned arrays ending in `_`; `sample(n, rng)` gives float32
(n, d) in random order; `log_likelihood(codes)` the mean log density in nats, or None where the family has no
closed form. Their state is a dict of plain arrays (`state`), read back by `restore`.
"""

from typing import Protocol, assert_never

import numpy as np
import numpy.typing as npt

from rae_bench import specs
from rae_bench.densities.errors import DensityError
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.mixture import FittedMixture

CodeArray = npt.NDArray[np.float32]
State = dict[str, npt.NDArray[np.float32] | npt.NDArray[np.float64]]


class FittedDensity(Protocol):
    """What every density offers once fitted."""

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """N independent codes, float32 (n, d), in random order."""

    def log_likelihood(self, codes: CodeArray) -> float | None:
        """Mean log density of codes (n, d), in nats per code; None where it has no closed form."""

    def state(self) -> State:
        """The learned arrays."""


def fit(spec: specs.Density, codes: CodeArray, validation: CodeArray, seed: int) -> FittedDensity:
    """Fit `spec` to training codes (n, d); `validation` codes only choose a second stage's best epoch.

    Raises:
        DensityError: codes that are not finite, or too few for the density.
    """
    if codes.ndim != 2 or not np.isfinite(codes).all():
        raise DensityError(f"codes of shape {codes.shape} must be finite and two-dimensional")
    match spec:
        case specs.StandardNormal():
            return FittedGaussian.standard(codes.shape[1])
        case specs.FullGaussian():
            return FittedGaussian.fit(codes)
        case specs.GaussianMixture():
            return FittedMixture.fit(spec, codes, seed)
        case specs.SecondStage():
            from rae_bench.densities.second_stage import FittedSecondStage

            return FittedSecondStage.fit(spec, codes, validation, seed)
        case _:
            assert_never(spec)


def restore(spec: specs.Density, state: State) -> FittedDensity:
    """The fitted density whose `state` was saved."""
    match spec:
        case specs.StandardNormal() | specs.FullGaussian():
            return FittedGaussian.restore(state)
        case specs.GaussianMixture():
            return FittedMixture.restore(state)
        case specs.SecondStage():
            from rae_bench.densities.second_stage import FittedSecondStage

            return FittedSecondStage.restore(spec, state)
        case _:
            assert_never(spec)
