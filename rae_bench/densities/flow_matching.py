"""Flow matching (Lipman et al. 2023) on whitened codes, along straight paths.

    w_t = (1 − t) w_0 + t w_1,  w_0 ~ N(0, I), w_1 a code, t ~ U(0, 1):   minimise E ‖v(w_t, t) − (w_1 − w_0)‖²

the limit sigma_min → 0 of their optimal-transport paths (Liu et al. 2023 derive the same). Sampling solves
dw/dt = v(w, t) from N(0, I) at t = 0 to t = 1. The likelihood is that of the same solution run backwards (Chen et al.
2018), with the exact trace, a forward-mode derivative per dimension:

    log p(w_1) = log N(w_0; 0, I) − ∫ tr ∂v/∂w dt

Exact up to the solver's error, which `steps` decides for samples and likelihoods alike.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rae_bench.densities import learning
from rae_bench.densities.codes import CodeArray, Float64, Observed
from rae_bench.densities.density import FittedDensity, State, check_samples
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.specs import FlowMatching
from rae_bench.models.networks import dense, initialising

BLOCK = 500
"""Codes solved for at once; their tangents take more memory than codes do."""


class _Velocity(nn.Module):
    """v(w, t): a SiLU network of the code, the time and its cosines."""

    frequencies: Tensor

    def __init__(self, spec: FlowMatching, d: int) -> None:
        super().__init__()
        angular = math.pi * torch.arange(1, spec.frequencies + 1)
        self.register_buffer("frequencies", angular, persistent=False)
        hidden = dense(d + 1 + spec.frequencies, spec.width, spec.depth, nn.SiLU)
        self.layers = nn.Sequential(*hidden, nn.Linear(spec.width, d))

    def forward(self, w: Tensor, t: Tensor) -> Tensor:
        """The velocities (n, d) of codes w (n, d) at times t (n, 1)."""
        velocity: Tensor = self.layers(torch.cat([w, t, torch.cos(t * self.frequencies)], dim=1))
        return velocity


def _build(spec: FlowMatching, d: int, seed: int) -> _Velocity:
    with initialising(seed):
        return _Velocity(spec, d)


def _matching(model: _Velocity, batch: Tensor, generator: torch.Generator) -> Tensor:
    """The mean of ‖v(w_t, t) − (w_1 − w_0)‖² over a batch of codes w_1 (B, d)."""
    start = torch.randn(batch.shape, generator=generator)
    t = torch.rand((len(batch), 1), generator=generator)
    velocity: Tensor = model((1 - t) * start + t * batch, t)
    return (velocity - (batch - start)).square().sum(dim=1).mean()


def _velocity_and_trace(model: _Velocity, w: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The velocities (n, d) and tr ∂v/∂w (n,): the basis vectors' tangents, all in one pass."""

    def diagonal(direction: Tensor) -> Tensor:
        tangent: Tensor = torch.func.jvp(lambda x: model(x, t), (w,), (direction.expand_as(w),))[1]
        return (tangent * direction).sum(dim=1)

    velocity: Tensor = model(w, t)
    trace: Tensor = torch.func.vmap(diagonal)(torch.eye(w.shape[1])).sum(dim=0)
    return velocity, trace


def _solve(model: _Velocity, w: Tensor, steps: int, backwards: bool) -> tuple[Tensor, Tensor]:
    """The other end of each path (n, d), and ∫ tr ∂v/∂w dt along it, (n,), zero if only sampling is asked for.

    The classical Runge-Kutta method of fourth order, `steps` equal steps.
    """
    h = (-1.0 if backwards else 1.0) / steps
    total = w.new_zeros(len(w))

    def slope(x: Tensor, time: float) -> tuple[Tensor, Tensor]:
        t = x.new_full((len(x), 1), time)
        return _velocity_and_trace(model, x, t) if backwards else (model(x, t), total)

    for step in range(steps):
        time = (1.0 if backwards else 0.0) + step * h
        one, trace_one = slope(w, time)
        two, trace_two = slope(w + h / 2 * one, time + h / 2)
        three, trace_three = slope(w + h / 2 * two, time + h / 2)
        four, trace_four = slope(w + h * three, time + h)
        w = w + h / 6 * (one + 2 * two + 2 * three + four)
        if backwards:
            total = total - h / 6 * (trace_one + 2 * trace_two + 2 * trace_three + trace_four)
    return w, total


@dataclass(frozen=True)
class FittedFlowMatching(FittedDensity):
    """`white_`, the whitening, and `model_`, the velocity field of whitened codes; solved in `steps` steps."""

    white_: FittedGaussian
    model_: _Velocity
    steps: int

    @classmethod
    def fit(cls, spec: FlowMatching, observed: Observed, seed: int) -> "FittedFlowMatching":
        """The field, trained on the training codes; those of validation images choose the best epoch.

        Raises:
            DensityError: a singular covariance.
            TrainingError: fewer codes than a batch, or a loss that is not finite.
        """
        fitted = cls(FittedGaussian.of(observed.train), _build(spec, observed.train.shape[1], seed), spec.steps)
        learning.train(fitted.model_, _matching, fitted.white_, observed, spec.optimisation, seed)
        return fitted

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d): noise of `rng` carried along the field.

        Raises:
            DensityError: a sample that is not finite.
        """
        noise = rng.standard_normal((n, len(self.white_.mean_)))

        def end(block: Tensor) -> Tensor:
            return _solve(self.model_, block, self.steps, backwards=False)[0]

        return check_samples(self.white_.colour(learning.in_blocks(end, noise, BLOCK)))

    def log_density(self, codes: CodeArray) -> Float64:
        """Log density of each code, (n,), in nats."""

        def of_white(block: Tensor) -> Tensor:
            base, trace = _solve(self.model_, block, self.steps, backwards=True)
            return -0.5 * (base.square() + math.log(2 * math.pi)).sum(dim=1) - trace

        return learning.in_blocks(of_white, self.white_.whiten(codes), BLOCK) - self.white_.log_volume

    def state(self) -> State:
        """The learned arrays."""
        return {**self.white_.white_state(), **learning.weights(self.model_)}

    @classmethod
    def restore(cls, spec: FlowMatching, state: State) -> "FittedFlowMatching":
        """The inverse of `state`."""
        white = FittedGaussian.restore_white(state)
        return cls(white, learning.with_weights(_build(spec, len(white.mean_), seed=0), state), spec.steps)
