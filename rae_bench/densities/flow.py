"""Neural spline flow (Durkan et al. 2019) on whitened codes, built with zuko.

    log p(z) = log N(f(w); 0, I) + log |det ∂f/∂w| − log |det L|,   w = L⁻¹ (z − mean), L the codes' Cholesky factor

f is a composition of monotonic rational-quadratic splines, one per dimension, whose knots depend on the dimensions
before it (autoregressive) or on the first half (coupling); the order turns round from layer to layer. Trained by
maximum likelihood; exact likelihood, and exact sampling by inverting f.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import zuko
from torch import Tensor, nn

from rae_bench.densities import learning
from rae_bench.densities.codes import CodeArray, Float64, Observed
from rae_bench.densities.density import FittedDensity, State, check_samples
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.specs import SplineFlow
from rae_bench.models.networks import initialising


def _build(spec: SplineFlow, d: int, seed: int) -> nn.Module:
    """The transformation f alone: zuko's base distribution has nothing to learn."""
    with initialising(seed):
        flow = zuko.flows.NSF(
            d,
            transforms=spec.transforms,
            bins=spec.bins,
            passes={"autoregressive": None, "coupling": 2}[spec.layers],
            hidden_features=(spec.width,) * spec.depth,
        )
    transform: nn.Module = flow.transform
    return transform


def _log_density(model: nn.Module, white: Tensor) -> Tensor:
    """Log density of whitened codes (n, d), (n,)."""
    base, log_det = model().call_and_ladj(white)
    total: Tensor = -0.5 * (base.square() + math.log(2 * math.pi)).sum(dim=1) + log_det
    return total


def _loss(model: nn.Module, batch: Tensor, noise: torch.Generator) -> Tensor:  # noqa: ARG001  a likelihood needs none
    return -_log_density(model, batch).mean()


@dataclass(frozen=True)
class FittedFlow(FittedDensity):
    """`white_`, the whitening, and `model_`, the transformation f of whitened codes to N(0, I)."""

    white_: FittedGaussian
    model_: nn.Module

    @classmethod
    def fit(cls, spec: SplineFlow, observed: Observed, seed: int) -> "FittedFlow":
        """The flow, trained on the training codes; those of validation images choose the best epoch.

        Raises:
            DensityError: a singular covariance.
            TrainingError: fewer codes than a batch, or a loss that is not finite.
        """
        fitted = cls(FittedGaussian.of(observed.train), _build(spec, observed.train.shape[1], seed))
        learning.train(fitted.model_, _loss, fitted.white_, observed, spec.optimisation, seed)
        return fitted

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d): noise of `rng` through the inverse of f.

        Raises:
            DensityError: a sample that is not finite.
        """
        noise = rng.standard_normal((n, len(self.white_.mean_)))
        return check_samples(self.white_.colour(learning.in_blocks(lambda block: self.model_().inv(block), noise)))

    def log_density(self, codes: CodeArray) -> Float64:
        """Log density of each code, (n,), in nats."""
        white = self.white_.whiten(codes)
        return learning.in_blocks(lambda block: _log_density(self.model_, block), white) - self.white_.log_volume

    def state(self) -> State:
        """The learned arrays."""
        return {**self.white_.white_state(), **learning.weights(self.model_)}

    @classmethod
    def restore(cls, spec: SplineFlow, state: State) -> "FittedFlow":
        """The inverse of `state`."""
        white = FittedGaussian.restore_white(state)
        return cls(white, learning.with_weights(_build(spec, len(white.mean_), seed=0), state))
