"""The loop that trains a density's network on whitened or standardised codes: Adam, best epoch by validation loss.

As `training.train` does for autoencoders, whose loss has named terms and whose posterior is drawn from; here the loss
is one function of a batch. Noise and order come from generators of their own, initial weights from a forked scope.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rae_bench.base import rng
from rae_bench.densities.codes import State
from rae_bench.densities.errors import DensityError
from rae_bench.models.specs import Optimisation
from rae_bench.models.training import VALIDATION_BATCH, epoch_order, scheduler_of

log = logging.getLogger(__name__)

BatchLoss = Callable[[Tensor, torch.Generator], Tensor]
"""The mean loss of a batch (B, d), a scalar, with a generator (CPU) for its noise."""
PREFIX = "model."


@contextmanager
def initialising(seed: int) -> Iterator[None]:
    """A scope in which layers are initialised from `seed` alone; torch's global generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(seed, "initialise"))
        yield


def optimise(
    model: nn.Module,
    loss: BatchLoss,
    data: Tensor,
    validation: Tensor,
    optimisation: Optimisation,
    seed: int,
) -> None:
    """Train `model` on codes `data` (n, d) in place; it ends in evaluation mode with its best epoch's weights.

    The best is the lowest `loss` of `validation` (m, d), with the same noise at every epoch.

    Raises:
        DensityError: fewer codes than a batch, or a loss that is not finite.
    """
    size = optimisation.batch_size
    if len(data) < size:
        raise DensityError(f"{len(data)} codes are fewer than one batch of {size}")
    optimiser = torch.optim.Adam(
        model.parameters(), lr=optimisation.learning_rate, eps=optimisation.adam_epsilon, fused=True
    )
    scheduler = scheduler_of(optimiser, optimisation, updates=len(data) // size)
    order, noise = rng.torch_generator(seed, "order"), rng.torch_generator(seed, "noise")
    best, best_epoch, best_state = math.inf, -1, model.state_dict()

    for epoch in range(optimisation.epochs):
        model.train()
        permutation = epoch_order(len(data), optimisation, order)
        total = torch.zeros(())
        for start in range(0, len(data) - size + 1, size):
            value = loss(data[permutation[start : start + size]], noise)
            optimiser.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if isinstance(scheduler, torch.optim.lr_scheduler.CosineAnnealingLR):
                scheduler.step()
            total += value.detach()
        trained = float(total) / (len(data) // size)
        checked = _validate(model, loss, validation, seed)
        if not (math.isfinite(trained) and math.isfinite(checked)):
            raise DensityError(
                f"epoch {epoch}: the loss is not finite: train {trained:.6g}, validation {checked:.6g};"
                " lower the learning rate"
            )
        if checked < best:
            best, best_epoch = checked, epoch
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(checked)
        log.debug("epoch %d/%d: train %.4f, validation %.4f", epoch + 1, optimisation.epochs, trained, checked)

    log.info("best epoch %d of %d: validation %.4f", best_epoch + 1, optimisation.epochs, best)
    model.load_state_dict(best_state)
    model.eval()


def _validate(model: nn.Module, loss: BatchLoss, data: Tensor, seed: int) -> float:
    model.eval()
    noise = rng.torch_generator(seed, "validation")
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(data), VALIDATION_BATCH):
            batch = data[start : start + VALIDATION_BATCH]
            total += float(loss(batch, noise)) * len(batch)
    return total / len(data)


def weights(model: nn.Module) -> State:
    """The weights of `model` as named arrays."""
    return {f"{PREFIX}{name}": value.numpy() for name, value in model.state_dict().items()}


def load_weights(model: nn.Module, state: State) -> None:
    """The inverse of `weights`: into a model of the same layout, then in evaluation mode."""
    named = {
        name.removeprefix(PREFIX): torch.from_numpy(array) for name, array in state.items() if name.startswith(PREFIX)
    }
    model.load_state_dict(named)
    model.eval()
