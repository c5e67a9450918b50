"""What densities that are networks share: training on whitened or standardised codes, blocks of codes, weights."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rae_bench.densities.codes import Float64, Observed
from rae_bench.densities.density import State
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.models.optimisation import Model, Task, optimise
from rae_bench.models.specs import Optimisation

PREFIX = "model."
BLOCK = 1000
"""Codes passed through a network at once; it bounds memory."""


def train(
    model: Model,
    loss: Callable[[Model, Tensor, torch.Generator], Tensor],
    white: FittedGaussian,
    observed: Observed,
    optimisation: Optimisation,
    seed: int,
) -> None:
    """`train_on` the codes that `white` whitens."""
    codes, held_out = (torch.from_numpy(white.whiten(part)).float() for part in (observed.train, observed.validation))
    train_on(model, loss, codes, held_out, optimisation, seed)


def train_on(
    model: Model,
    loss: Callable[[Model, Tensor, torch.Generator], Tensor],
    samples: Tensor,
    held_out: Tensor,
    optimisation: Optimisation,
    seed: int,
) -> None:
    """Train `model` in place on `samples` (n, d); it ends in evaluation mode, at the epoch best for those `held_out`.

    `loss` is the mean of a batch (B, d), a scalar, with a generator (CPU) for its noise.

    Raises:
        TrainingError: fewer samples than a batch, or a loss that is not finite.
    """

    def of_batch(batch: Tensor, noise: torch.Generator) -> tuple[Tensor]:
        return (loss(model, batch, noise),)

    optimise(Task(model, of_batch), optimisation, samples, held_out, seed)


@torch.no_grad()
def in_blocks(function: Callable[[Tensor], Tensor], codes: Float64, size: int = BLOCK) -> Float64:
    """What `function` gives of codes (n, d), of `size` of them at once, which bounds memory."""
    blocks = torch.split(torch.from_numpy(codes).float(), size)
    return torch.cat([function(block) for block in blocks]).double().numpy()


def weights(model: nn.Module) -> State:
    """The weights of `model` as named arrays."""
    return {f"{PREFIX}{name}": value.numpy() for name, value in model.state_dict().items()}


def with_weights(model: Model, state: State) -> Model:
    """The inverse of `weights`: a model of the same layout given them, then in evaluation mode."""
    named = {
        name.removeprefix(PREFIX): torch.from_numpy(array) for name, array in state.items() if name.startswith(PREFIX)
    }
    model.load_state_dict(named)
    return model.eval()
