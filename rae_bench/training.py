"""The one training loop: batches, Adam, schedule, validation, best weights; for images and for codes alike.

Data stay as they are on the compute device (uint8 images, float vectors); a batch is sliced and scaled there. Losses
are summed on the device and fetched once an epoch. The weights with the best validation loss (all weighted terms, as in
the official code) are the result.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rae_bench import objectives, rng, specs
from rae_bench.autoencoder import Autoencoder, build

TERMS = ("reconstruction", "latent", "regulariser", "total")
VALIDATION_BATCH = 500
log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told the number of finished epochs and of all epochs."""


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


def to_device(data: npt.NDArray[np.uint8] | npt.NDArray[np.float32], device: str) -> Tensor:
    """An array as a tensor on `device`; images in channels-last memory order."""
    tensor = torch.from_numpy(data).to(device)
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def train(
    network: specs.Network,
    objective: specs.Objective,
    optimisation: specs.Optimisation,
    data: Tensor,
    validation: Tensor,
    seed: int,
    progress: Progress | None = None,
) -> Trained:
    """Train on `data` (n, ...), choose the weights on `validation`; both on the device, uint8 images or float vectors.

    Raises:
        TrainingError: a loss is not finite, or there are fewer samples than one batch.
    """
    if len(data) < optimisation.batch_size:
        raise TrainingError(f"{len(data)} training samples are fewer than one batch of {optimisation.batch_size}")
    model = build(network, objective, seed).to(data.device)
    optimiser = torch.optim.Adam(
        model.parameters(), lr=optimisation.learning_rate, eps=optimisation.adam_epsilon, fused=True
    )
    scheduler = scheduler_of(optimiser, optimisation, updates=len(data) // optimisation.batch_size)
    order, noise = rng.torch_generator(seed, "order"), rng.torch_generator(seed, "noise")
    history: list[dict[str, float]] = []
    best_total, best_epoch, best_state = math.inf, -1, model.state_dict()

    for epoch in range(optimisation.epochs):
        started = time.monotonic()
        rate = optimiser.param_groups[0]["lr"]
        terms = _train_epoch(model, objective, optimiser, scheduler, data, optimisation, order, noise)
        _check_finite(terms, epoch)
        checked = validate(model, objective, validation, seed)
        row = {"epoch": epoch, "learning_rate": rate}
        row |= {f"train_{term}": float(value) for term, value in zip(TERMS, terms.mean(dim=0), strict=True)}
        row |= {f"validation_{term}": value for term, value in checked.items()}
        history.append(row)
        if not math.isfinite(checked["total"]):
            raise TrainingError(f"epoch {epoch}: the validation loss is not finite: {_listed(checked)}")
        if checked["total"] < best_total:
            best_total, best_epoch = checked["total"], epoch
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(checked["total"])
        if progress is not None:
            progress(epoch + 1, optimisation.epochs)
        log.info(
            "epoch %d/%d: train %.4f, validation %.4f, %.0f samples/s",
            epoch + 1,
            optimisation.epochs,
            row["train_total"],
            checked["total"],
            len(data) / (time.monotonic() - started),
        )

    model.load_state_dict(best_state)
    return Trained(model.eval(), history, best_epoch)


def scheduler_of(
    optimiser: torch.optim.Optimizer, spec: specs.Optimisation, updates: int
) -> torch.optim.lr_scheduler.ReduceLROnPlateau | torch.optim.lr_scheduler.CosineAnnealingLR:
    """The schedule of `optimiser`; `updates` are an epoch's. Cosine is stepped every update, plateau every epoch."""
    match spec.schedule:
        case specs.Cosine():
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=spec.epochs * updates)
        case specs.Plateau(factor=factor, patience=patience, threshold=threshold):
            # PyTorch reduces after patience + 1 epochs without improvement, Keras after patience.
            return torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimiser, factor=factor, patience=patience - 1, threshold=threshold, threshold_mode="abs"
            )
        case _:
            assert_never(spec.schedule)


def _train_epoch(
    model: Autoencoder,
    objective: specs.Objective,
    optimiser: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    data: Tensor,
    optimisation: specs.Optimisation,
    order: torch.Generator,
    noise: torch.Generator,
) -> Tensor:
    """One pass in a fresh random order, the incomplete last batch left out; every batch's terms, (updates, 4)."""
    model.train()
    permutation = torch.randperm(len(data), generator=order).to(data.device)
    size = optimisation.batch_size
    terms: list[Tensor] = []
    for start in range(0, len(data) - size + 1, size):
        batch = as_input(data[permutation[start : start + size]])
        loss = objectives.loss(model, batch, objective, noise)
        optimiser.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if isinstance(scheduler, torch.optim.lr_scheduler.CosineAnnealingLR):
            scheduler.step()
        terms.append(_stack(loss))
    return torch.stack(terms).cpu()


def validate(model: Autoencoder, objective: specs.Objective, data: Tensor, seed: int) -> dict[str, float]:
    """The terms of the loss on `data`, averaged over samples, in evaluation mode; the same noise at every call."""
    model.eval()
    noise = rng.torch_generator(seed, "validation")
    total = torch.zeros(len(TERMS), device=data.device, dtype=torch.float64)
    with torch.no_grad():
        for start in range(0, len(data), VALIDATION_BATCH):
            batch = as_input(data[start : start + VALIDATION_BATCH])
            total += _stack(objectives.loss(model, batch, objective, noise)).double() * len(batch)
    return dict(zip(TERMS, (total / len(data)).tolist(), strict=True))


def encode(model: Autoencoder, data: Tensor) -> dict[str, npt.NDArray[np.float32]]:
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


def _stack(loss: objectives.Loss) -> Tensor:
    return torch.stack([loss.reconstruction, loss.latent, loss.regulariser, loss.total]).detach()


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
