"""The one training loop: batches, Adam, schedule, validation, best weights; for images and for codes alike.

Data stay as they are on the compute device (uint8 images, float vectors), on a CPU large sets in their file; a batch is
sliced and scaled there. Losses are summed on the device and fetched once an epoch. The weights with the best validation
loss (all weighted terms, as in the official code) are the result.
"""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from rae_bench.base import memory, rng
from rae_bench.base.checkpoints import Checkpoint
from rae_bench.base.specs import Precision
from rae_bench.base.storage import MappedRows
from rae_bench.models import networks, objectives
from rae_bench.models.autoencoder import Autoencoder, build
from rae_bench.models.specs import Cosine, Network, Objective, Optimisation, Plateau

TERMS = ("reconstruction", "latent", "regulariser", "total")
VALIDATION_BATCH = 500
WIDEST = 2**27
"""Bytes of a layer's results for a batch of validation images."""
TRANSFER = 4096
"""Images of a mapped file that go to a GPU at once."""
log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told the number of finished epochs and of all epochs."""
Scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau | torch.optim.lr_scheduler.CosineAnnealingLR


class TrainingError(RuntimeError):
    """Training cannot go on; the message names epoch, batch and every term."""


@dataclass(frozen=True)
class Trained:
    """The model with its best weights, in evaluation mode, and one row per epoch of unweighted terms."""

    model: Autoencoder
    history: list[dict[str, float]]
    best_epoch: int


def as_input(data: Tensor) -> Tensor:
    """What the network sees: uint8 images scaled to [0, 1], float vectors as they are."""
    return data.float().div_(255) if data.dtype == torch.uint8 else data


@dataclass(frozen=True)
class OnDisk:
    """Images (n, C, H, W) that stay in their file, for a CPU; indexed like the tensor that would hold them all."""

    images: MappedRows

    @property
    def device(self) -> torch.device:
        """Where a batch of them is."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        """A batch as the tensor would give it, to the byte and in the same memory order."""
        rows = which.numpy() if isinstance(which, Tensor) else which
        return torch.from_numpy(self.images[rows]).contiguous(memory_format=torch.channels_last)


Samples = Tensor | OnDisk
"""Images or vectors to learn from, on the device that computes."""


def to_device(data: npt.NDArray[np.uint8] | npt.NDArray[np.float32] | MappedRows, device: str) -> Samples:
    """An array's samples on `device`, images in channels-last memory order: for a CPU, what is mapped stays so.

    A GPU holds them all. They come there in blocks: neither side ever has a second copy.
    """
    if isinstance(data, MappedRows):
        if device == "cpu":
            return OnDisk(data)
        held = torch.empty(data.shape, dtype=torch.uint8, device=device, memory_format=torch.channels_last)
        for start in range(0, len(data), TRANSFER):
            held[start : start + TRANSFER] = torch.from_numpy(data[start : start + TRANSFER]).to(device)
        return held
    tensor = torch.from_numpy(data).to(device)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


@contextlib.contextmanager
def computing_in(precision: Precision, model: Autoencoder, device: str) -> Iterator[None]:
    """A scope in which the layers of `model` compute in `precision`; weights, codes, x_hat and losses stay float32.

    Weights are divided by their spectral norms before it: those are found in float32.
    """
    if precision == "float32":
        yield
        return
    with parametrize.cached():
        _ = [layer.weight for layer in networks.weighted_layers(model)]
        with torch.autocast(device, torch.bfloat16):
            yield


def train(
    network: Network,
    objective: Objective,
    optimisation: Optimisation,
    data: Samples,
    validation: Samples,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    precision: Precision = "float32",
) -> Trained:
    """Train on `data` (n, ...), choose the weights on `validation`; both on the device, uint8 images or float vectors.

    With a `checkpoint` the state is saved when that is due, and a run whose state is there goes on from it: the result
    is the same to the bit.

    Raises:
        TrainingError: a loss is not finite, or there are fewer samples than one batch.
        StoppedError: the process was asked to end; the checkpoint is saved.
    """
    run = Run.start(network, objective, optimisation, data, seed)
    if checkpoint is not None and (state := checkpoint.load()) is not None:
        run.restore(*state)
        log.info("carrying on at epoch %d, batch %d", run.epoch + 1, run.batch)

    while run.epoch < optimisation.epochs:
        started, before = time.monotonic(), run.batch
        terms = _train_epoch(run, objective, optimisation, data, precision, checkpoint)
        memory.give_back()
        row = run.end_epoch(terms, objective, validation, precision)
        memory.give_back()
        if progress is not None:
            progress(run.epoch, optimisation.epochs)
        log.info(
            "epoch %d/%d: train %.4f, validation %.4f, %.0f samples/s",
            run.epoch,
            optimisation.epochs,
            row["train_total"],
            row["validation_total"],
            (len(data) - before * optimisation.batch_size) / (time.monotonic() - started),
        )
    return run.trained()


_COUNTERS = ("best_total", "best_epoch", "epoch", "batch", "rate")


@dataclass
class Run:
    """What training carries from one update to the next; `batch` updates of `epoch` are done, their `terms` kept."""

    seed: int
    model: Autoencoder
    optimiser: torch.optim.Adam
    scheduler: Scheduler
    order: torch.Generator
    noise: torch.Generator
    best_state: dict[str, Tensor]
    permutation: Tensor
    history: list[dict[str, float]] = field(default_factory=list)
    terms: list[Tensor] = field(default_factory=list)
    best_total: float = math.inf
    best_epoch: int = -1
    epoch: int = 0
    batch: int = 0
    rate: float = 0.0

    @classmethod
    def start(
        cls,
        network: Network,
        objective: Objective,
        optimisation: Optimisation,
        data: Samples,
        seed: int,
    ) -> "Run":
        """A run before its first update.

        Raises:
            TrainingError: there are fewer samples than one batch.
        """
        if len(data) < optimisation.batch_size:
            raise TrainingError(f"{len(data)} training samples are fewer than one batch of {optimisation.batch_size}")
        model = build(network, objective, seed).to(data.device)
        optimiser = torch.optim.Adam(
            model.parameters(), lr=optimisation.learning_rate, eps=optimisation.adam_epsilon, fused=True
        )
        scheduler = scheduler_of(optimiser, optimisation, updates=len(data) // optimisation.batch_size)
        order, noise = rng.torch_generator(seed, "order"), rng.torch_generator(seed, "noise")
        first = torch.empty(0, dtype=torch.int64)
        return cls(seed, model, optimiser, scheduler, order, noise, model.state_dict(), first)

    def begin_epoch(self, n: int, optimisation: Optimisation, device: torch.device) -> None:
        """Draw the order of an epoch over `n` samples; one that had begun already keeps its own."""
        if self.batch == 0:
            self.rate = self.optimiser.param_groups[0]["lr"]
            self.permutation = epoch_order(n, optimisation, self.order).to(device)

    def next_samples(self, size: int) -> Tensor:
        """The indices of the next batch of `size` samples."""
        return self.permutation[self.batch * size : (self.batch + 1) * size]

    def update(self, terms: Tensor) -> None:
        """Adam's step by the gradients at hand; `terms` (4,) are the batch's."""
        self.optimiser.step()
        if isinstance(self.scheduler, torch.optim.lr_scheduler.CosineAnnealingLR):
            self.scheduler.step()
        self.terms.append(terms)
        self.batch += 1

    def end_epoch(
        self, terms: Tensor, objective: Objective, validation: Samples, precision: Precision
    ) -> dict[str, float]:
        """Validate, keep the best weights, step the plateau; the epoch's row of the history.

        Raises:
            TrainingError: a loss is not finite.
        """
        _check_finite(terms, self.epoch)
        checked = validate(self.model, objective, validation, self.seed, precision)
        row = {"epoch": self.epoch, "learning_rate": self.rate}
        row |= {f"train_{term}": float(value) for term, value in zip(TERMS, terms.mean(dim=0), strict=True)}
        row |= {f"validation_{term}": value for term, value in checked.items()}
        self.history.append(row)
        if not math.isfinite(checked["total"]):
            raise TrainingError(f"epoch {self.epoch}: the validation loss is not finite: {_listed(checked)}")
        if checked["total"] < self.best_total:
            self.best_total, self.best_epoch = checked["total"], self.epoch
            self.best_state = {name: value.clone() for name, value in self.model.state_dict().items()}
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(checked["total"])
        self.epoch, self.batch, self.terms = self.epoch + 1, 0, []
        return row

    def trained(self) -> Trained:
        """The result."""
        self.model.load_state_dict(self.best_state)
        return Trained(self.model.eval(), self.history, self.best_epoch)

    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Everything as arrays and plain data, read back by `restore`."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_state.items()}
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in moments.items()}
        tensors |= {"order": self.order.get_state(), "noise": self.noise.get_state(), "permutation": self.permutation}
        if self.terms:
            tensors["terms"] = torch.stack(self.terms)
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
        self.terms = list(tensors["terms"].to(device)) if "terms" in tensors else []
        self.history = [dict(row) for row in about["history"]]
        for name in _COUNTERS:
            setattr(self, name, about[name])


def scheduler_of(optimiser: torch.optim.Optimizer, spec: Optimisation, updates: int) -> Scheduler:
    """The schedule of `optimiser`; `updates` are an epoch's. Cosine is stepped every update, plateau every epoch."""
    match spec.schedule:
        case Cosine():
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=spec.epochs * updates)
        case Plateau(factor=factor, patience=patience, threshold=threshold):
            # Keras'. PyTorch's own reduces after patience + 1 epochs without improvement, and by no less than 1e-8.
            return torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimiser, factor=factor, patience=patience - 1, threshold=threshold, threshold_mode="abs", eps=0.0
            )
        case _:
            assert_never(spec.schedule)


def epoch_order(n: int, spec: Optimisation, generator: torch.Generator) -> Tensor:
    """The order in which an epoch sees `n` samples, (n,)."""
    return torch.randperm(n, generator=generator) if spec.order == "shuffled" else torch.arange(n)


def _train_epoch(
    run: Run,
    objective: Objective,
    optimisation: Optimisation,
    data: Samples,
    precision: Precision,
    checkpoint: Checkpoint | None,
) -> Tensor:
    """One pass, the incomplete last batch left out; every batch's terms, (updates, 4)."""
    run.model.train()
    run.begin_epoch(len(data), optimisation, data.device)
    size = optimisation.batch_size
    while (run.batch + 1) * size <= len(data):
        batch = as_input(data[run.next_samples(size)])
        with computing_in(precision, run.model, data.device.type):
            loss = objectives.loss(run.model, batch, objective, run.noise)
        run.optimiser.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        run.update(listed(loss).detach())
        if checkpoint is not None and checkpoint.is_due():
            checkpoint.save(*run.state())
    return torch.stack(run.terms).cpu()


def validate(
    model: Autoencoder,
    objective: Objective,
    data: Samples,
    seed: int,
    precision: Precision = "float32",
) -> dict[str, float]:
    """The terms of the loss on `data`, averaged over samples, in evaluation mode; the same noise at every call."""
    model.eval()
    size = validation_batch(model, data[:1][0, 0].numel())
    noise = rng.torch_generator(seed, "validation")
    total = torch.zeros(len(TERMS), device=data.device, dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, len(data), size):
            batch = as_input(data[start : start + size])
            with computing_in(precision, model, data.device.type):
                loss = objectives.loss(model, batch, objective, noise)
            total += listed(loss).detach().double() * len(batch)
    return dict(zip(TERMS, (total / len(data)).tolist(), strict=True))


def validation_batch(model: Autoencoder, pixels: int) -> int:
    """VALIDATION_BATCH, halved until one layer's results take no more than WIDEST: of CelebA at full width, 62 images.

    Three such results are in memory at a time. The widest are those that the decoder's last layer reads.
    """
    size = VALIDATION_BATCH
    last = networks.weighted_layers(model.decoder)[-1]
    if isinstance(last, torch.nn.ConvTranspose2d | torch.nn.Conv2d):
        one = 4 * last.in_channels * pixels
        while size > 1 and size * one > WIDEST:
            size //= 2
    return size


def encode(model: Autoencoder, data: Samples) -> dict[str, npt.NDArray[np.float32]]:
    """`mean` (n, d) and, where the posterior has one, `log_sigma` (n, d) of every sample."""
    model.eval()
    means, log_sigmas = [], []
    with torch.no_grad():
        for start in range(0, len(data), VALIDATION_BATCH):
            codes = model.encode(as_input(data[start : start + VALIDATION_BATCH]))
            means.append(codes.mean)
            if codes.log_sigma is not None:
                log_sigmas.append(codes.log_sigma)
    encoded = {"mean": torch.cat(means).cpu().numpy()}
    if log_sigmas:
        encoded["log_sigma"] = torch.cat(log_sigmas).cpu().numpy()
    return encoded


def draw_codes(model: Autoencoder, data: Samples, generator: torch.Generator) -> npt.NDArray[np.float32]:
    """One code of every sample drawn through the full model, (n, d): with what noise its posterior has."""
    model.eval()
    drawn = []
    with torch.no_grad():
        for start in range(0, len(data), VALIDATION_BATCH):
            drawn.append(model.draw(as_input(data[start : start + VALIDATION_BATCH]), generator)[1])
    codes: npt.NDArray[np.float32] = torch.cat(drawn).cpu().numpy()
    return codes


def encode_splits(model: Autoencoder, splits: Mapping[str, Samples]) -> dict[str, npt.NDArray[np.float32]]:
    """What `encode` gives of each split, named "SPLIT.mean" and "SPLIT.log_sigma"."""
    return {f"{split}.{name}": array for split, data in splits.items() for name, array in encode(model, data).items()}


def listed(loss: objectives.Loss) -> Tensor:
    """The terms (4,) in the order of `TERMS`."""
    return torch.stack([loss.reconstruction, loss.latent, loss.regulariser, loss.total])


def _check_finite(terms: Tensor, epoch: int) -> None:
    bad = torch.nonzero(~torch.isfinite(terms).all(dim=1))
    if len(bad):
        batch = int(bad[0])
        found = dict(zip(TERMS, terms[batch].tolist(), strict=True))
        raise TrainingError(
            f"epoch {epoch}, batch {batch}: the loss is not finite: {_listed(found)}; lower the learning rate"
        )


def _listed(terms: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in terms.items())
