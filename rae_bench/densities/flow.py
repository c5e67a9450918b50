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

from rae_bench.base.rng import derive
from rae_bench.densities import learning
from rae_bench.densities.codes import CodeArray, Float64, State, check_samples, mean_log_density
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.specs import SplineFlow

BLOCK = 1000
"""Codes passed through the flow at once; it bounds memory."""


def _build(spec: SplineFlow, d: int, seed: int) -> nn.Module:
    """The transformation f alone: zuko's base distribution has nothing to learn."""
    with learning.initialising(seed):
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


@dataclass(frozen=True)
class FittedFlow:
    """`white_`, the whitening, and `model_`, the transformation f of whitened codes to N(0, I)."""

    white_: FittedGaussian
    model_: nn.Module

    @classmethod
    def fit(cls, spec: SplineFlow, codes: CodeArray, validation: CodeArray, seed: int) -> "FittedFlow":
        """Train on codes (n, d); `validation` codes choose the best epoch.

        Raises:
            DensityError: fewer codes than a batch, a singular covariance, or a loss that is not finite.
        """
        seed = derive(seed, "flow")
        white = FittedGaussian.fit(codes)
        model = _build(spec, codes.shape[1], seed)

        def loss(batch: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG001  a likelihood needs no noise
            return -_log_density(model, batch).mean()

        data, held_out = (torch.from_numpy(white.whiten(part)).float() for part in (codes, validation))
        learning.optimise(model, loss, data, held_out, spec.optimisation, seed)
        return cls(white, model)

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """N codes, float32 (n, d): noise of `rng` through the inverse of f.

        Raises:
            DensityError: a sample that is not finite.
        """
        noise = torch.from_numpy(rng.standard_normal((n, len(self.white_.mean_)))).float()
        with torch.no_grad():
            parts = [self.model_().inv(noise[start : start + BLOCK]) for start in range(0, n, BLOCK)]
        return check_samples(self.white_.colour(torch.cat(parts).double().numpy()))

    def log_density(self, codes: CodeArray) -> Float64:
        """Log density of each code, (n,), in nats."""
        white = torch.from_numpy(self.white_.whiten(codes)).float()
        with torch.no_grad():
            parts = [_log_density(self.model_, white[start : start + BLOCK]) for start in range(0, len(white), BLOCK)]
        density: Float64 = torch.cat(parts).double().numpy() - self.white_.log_volume
        return density

    def log_likelihood(self, codes: CodeArray) -> float:
        """Mean log density in nats per code."""
        return mean_log_density(self.log_density(codes))

    def state(self) -> State:
        """The learned arrays."""
        return {**self.white_.white_state(), **learning.weights(self.model_)}

    @classmethod
    def restore(cls, spec: SplineFlow, state: State) -> "FittedFlow":
        """The inverse of `state`."""
        white = FittedGaussian.restore_white(state)
        model = _build(spec, len(white.mean_), seed=0)
        learning.load_weights(model, state)
        return cls(white, model)
