"""The one training loop: Adam, epochs, schedule, validation, best weights, resuming; for images and for codes alike.

What is learnt is a `Task`: a network and the loss of a batch. Autoencoders, second stages and flows differ in that
alone. Losses are summed on the device and fetched once an epoch. The weights with the best validation loss (all
weighted terms, as in the official code) are the result.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, assert_never

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from rae_bench.base import memory, rng
from rae_bench.base.checkpoints import Checkpoint
from rae_bench.models.specs import Cosine, Optimisation, Plateau

VALIDATION_BATCH = 500
log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=nn.Module)
Progress = Callable[[int, int], None]
"""A function that is told the number of finished epochs and of all epochs."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message names epoch, batch and every term."""


class Samples(Protocol):
    """Images (n, C, H, W) or vectors (n, d) to learn from, on the device that computes: a tensor, or as good as one."""

    @property
    def device(self) -> torch.device:
        """Where a batch of them is."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: Tensor | slice, /) -> Tensor: ...


@dataclass(frozen=True)
class Task(Generic[Model]):
    """What is learnt: `model`, on the device of its samples, by `loss`.

    `loss` takes a batch as the samples hold it and a generator (CPU) for its noise. It gives scalars, one for each of
    `terms`; the last, "total", is minimised. `validation_batch` samples are validated at once.
    """

    model: Model
    loss: Callable[[Tensor, torch.Generator], tuple[Tensor, ...]]
    terms: tuple[str, ...] = ("total",)
    validation_batch: int = VALIDATION_BATCH


@dataclass(frozen=True)
class Trained(Generic[Model]):
    """The model with its best weights, in evaluation mode, and one row per epoch of unweighted terms."""

    model: Model
    history: list[dict[str, float]]
    best_epoch: int


def optimise(
    task: Task[Model],
    optimisation: Optimisation,
    data: Samples,
    validation: Samples,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Trained[Model]:
    """Train the task's model in place on `data` (n, ...), choose its weights on `validation`; both on its device.

    With a `checkpoint` the state is saved when that is due, and a run whose state is there goes on from it: the result
    is the same to the bit.

    Raises:
        TrainingError: a loss is not finite, or there are fewer samples than one batch.
        StoppedError: the process was asked to end; the checkpoint is saved.
    """
    size = optimisation.batch_size
    if len(data) < size:
        raise TrainingError(f"{len(data)} training samples are fewer than one batch of {size}")
    loop = Loop.start(task.model, optimisation, len(data), seed)
    if checkpoint is not None and (state := checkpoint.load()) is not None:
        loop.restore(*state)
        log.info("carrying on at epoch %d, batch %d", loop.epoch + 1, loop.batch)

    while loop.epoch < optimisation.epochs:
        started, before = time.monotonic(), loop.batch
        losses = loop.train_epoch(task, optimisation, data, checkpoint)
        memory.give_back()
        _check_finite(task.terms, losses, loop.epoch)
        trained = dict(zip(task.terms, losses.mean(dim=0).tolist(), strict=True))
        row = loop.end_epoch(trained, validate(task, validation, seed))
        memory.give_back()
        if progress is not None:
            progress(loop.epoch, optimisation.epochs)
        log.info(
            "epoch %d/%d: train %.4f, validation %.4f, %.0f samples/s",
            loop.epoch,
            optimisation.epochs,
            row["train_total"],
            row["validation_total"],
            (len(data) - before * size) / (time.monotonic() - started),
        )
    log.info("best epoch %d of %d: validation %.4f", loop.best_epoch + 1, optimisation.epochs, loop.best_total)
    task.model.load_state_dict(loop.best_state)
    return Trained(task.model.eval(), loop.history, loop.best_epoch)


def validate(task: Task[Model], data: Samples, seed: int) -> dict[str, float]:
    """The terms of the loss on `data`, averaged over samples, in evaluation mode; the same noise at every call.

    A single sample that would be left for the last batch joins the one before: terms of pairs have none.
    """
    task.model.eval()
    noise = rng.torch_generator(seed, "validation")
    total = torch.zeros(len(task.terms), device=data.device, dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, max(len(data) - 1, 1), size := task.validation_batch):
            batch = data[start : len(data) if start + size + 1 >= len(data) else start + size]
            total += torch.stack(task.loss(batch, noise)).double() * len(batch)
    return dict(zip(task.terms, (total / len(data)).tolist(), strict=True))


_COUNTERS = ("best_total", "best_epoch", "epoch", "batch", "rate")


@dataclass
class Loop:
    """What training carries from one update to the next; `batch` updates of `epoch` are done, their `losses` kept."""

    model: nn.Module
    optimiser: torch.optim.Adam
    scheduler: CosineAnnealingLR | ReduceLROnPlateau
    order: torch.Generator
    noise: torch.Generator
    best_state: dict[str, Tensor]
    permutation: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    history: list[dict[str, float]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    best_total: float = math.inf
    best_epoch: int = -1
    epoch: int = 0
    batch: int = 0
    rate: float = 0.0

    @classmethod
    def start(cls, model: nn.Module, optimisation: Optimisation, n: int, seed: int) -> "Loop":
        """The loop over `n` samples before its first update."""
        adam = torch.optim.Adam(
            model.parameters(), lr=optimisation.learning_rate, eps=optimisation.adam_epsilon, fused=True
        )
        scheduler = _schedule(adam, optimisation, updates=n // optimisation.batch_size)
        order, noise = rng.torch_generator(seed, "order"), rng.torch_generator(seed, "noise")
        return cls(model, adam, scheduler, order, noise, model.state_dict())

    def train_epoch(
        self, task: Task[Any], optimisation: Optimisation, data: Samples, checkpoint: Checkpoint | None = None
    ) -> Tensor:
        """Every batch's terms (updates, terms) of one pass, or of its rest; an incomplete last batch is left out."""
        self.model.train()
        size = optimisation.batch_size
        if self.batch == 0:
            self.rate = self.optimiser.param_groups[0]["lr"]
            self.permutation = epoch_order(len(data), optimisation, self.order).to(data.device)
        while (self.batch + 1) * size <= len(data):
            terms = task.loss(data[self.permutation[self.batch * size : (self.batch + 1) * size]], self.noise)
            self.optimiser.zero_grad(set_to_none=True)
            terms[-1].backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            if isinstance(self.scheduler, CosineAnnealingLR):
                self.scheduler.step()
            self.losses.append(torch.stack(terms).detach())
            self.batch += 1
            if checkpoint is not None and checkpoint.is_due():
                checkpoint.save(*self.state())
        return torch.stack(self.losses).cpu()

    def end_epoch(self, trained: dict[str, float], validated: dict[str, float]) -> dict[str, float]:
        """Keep the best weights, step the plateau and return the epoch's row of the history: the means of its terms.

        Raises:
            TrainingError: the validation loss is not finite.
        """
        total = validated["total"]
        row = {"epoch": self.epoch, "learning_rate": self.rate}
        for split, terms in (("train", trained), ("validation", validated)):
            row |= {f"{split}_{term}": value for term, value in terms.items()}
        self.history.append(row)
        if not math.isfinite(total):
            raise TrainingError(f"epoch {self.epoch}: the validation loss is not finite: {_listed(validated)}")
        if total < self.best_total:
            self.best_total, self.best_epoch = total, self.epoch
            self.best_state = {name: value.clone() for name, value in self.model.state_dict().items()}
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(total)
        self.epoch, self.batch, self.losses = self.epoch + 1, 0, []
        return row

    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Everything as arrays and plain data, read back by `restore`."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_state.items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in moments.items()}
        tensors |= {"order": self.order.get_state(), "noise": self.noise.get_state(), "permutation": self.permutation}
        if self.losses:
            tensors["terms"] = torch.stack(self.losses)
        scheduled = {key: value for key, value in self.scheduler.state_dict().items() if not key.startswith("_get")}
        about = {
            "scheduler": scheduled,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "history": [list(row.items()) for row in self.history],  # pairs: JSON would sort a mapping's columns
            **{name: getattr(self, name) for name in _COUNTERS},
        }
        return {name: value.cpu().numpy() for name, value in tensors.items()}, about

    def restore(self, arrays: dict[str, npt.NDArray[Any]], about: dict[str, Any]) -> None:
        """Continue from what `state` gave, on this device."""
        parameters = list(self.model.parameters())
        device = parameters[0].device
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

        def named(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        self.model.load_state_dict(named("model."))
        self.best_state = {
            name: torch.empty_like(value).copy_(tensors[f"best.{name}"])
            for name, value in self.model.state_dict().items()
        }
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in named("optimiser.").items():
            index, _, moment = name.partition(".")
            # as Adam itself lays them out: like their parameter, the count of steps apart
            like = torch.empty_like(parameters[int(index)]) if value.dim() else torch.empty((), device=device)
            moments.setdefault(int(index), {})[moment] = like.copy_(value)
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.scheduler.load_state_dict(about["scheduler"])
        for group in self.optimiser.param_groups:
            group["lr"] = about["learning_rate"]
        self.order.set_state(tensors["order"])
        self.noise.set_state(tensors["noise"])
        self.permutation = tensors["permutation"].to(device)
        self.losses = list(tensors["terms"].to(device)) if "terms" in tensors else []
        self.history = [dict(row) for row in about["history"]]
        for name in _COUNTERS:
            setattr(self, name, about[name])


def _schedule(
    optimiser: torch.optim.Optimizer, spec: Optimisation, updates: int
) -> CosineAnnealingLR | ReduceLROnPlateau:
    """The schedule of `optimiser`; `updates` are an epoch's. Cosine is stepped every update, plateau every epoch."""
    match spec.schedule:
        case Cosine():
            return CosineAnnealingLR(optimiser, T_max=spec.epochs * updates)
        case Plateau(factor=factor, patience=patience, threshold=threshold):
            # Keras'. PyTorch's own reduces after patience + 1 epochs without improvement, and by no less than 1e-8.
            return ReduceLROnPlateau(
                optimiser, factor=factor, patience=patience - 1, threshold=threshold, threshold_mode="abs", eps=0.0
            )
        case _:
            assert_never(spec.schedule)


def epoch_order(n: int, spec: Optimisation, generator: torch.Generator) -> Tensor:
    """The order in which an epoch sees `n` samples, (n,)."""
    return torch.randperm(n, generator=generator) if spec.order == "shuffled" else torch.arange(n)


def _check_finite(names: tuple[str, ...], losses: Tensor, epoch: int) -> None:
    bad = torch.nonzero(~torch.isfinite(losses).all(dim=1))
    if len(bad):
        batch = int(bad[0])
        found = _listed(dict(zip(names, losses[batch].tolist(), strict=True)))
        raise TrainingError(f"epoch {epoch}, batch {batch}: the loss is not finite: {found}; lower the learning rate")


def _listed(terms: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in terms.items())
