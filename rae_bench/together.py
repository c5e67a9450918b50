"""Independent seeds of one model, trained in one process by one batched computation over models.

Every parameter and buffer of the models is stacked along a first axis; one forward and one backward pass, `torch.vmap`
over that axis, give the losses and gradients of all. A convolution of S models is then one with S groups, a dense layer
one batched product: as many kernels as a single model needs. Each model's own tensors are views into the stacks, so
that all else is `training.Run`'s: Adam, schedule, order, noise, validation, best weights, checkpoint.

No number of one model depends on another's; roundings do, as other kernels add in another order.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from rae_bench import objectives, specs, training
from rae_bench.autoencoder import Autoencoder, Codes, build
from rae_bench.checkpoints import Checkpoint

log = logging.getLogger(__name__)


def train_together(
    network: specs.Network,
    objective: specs.Objective,
    optimisation: specs.Optimisation,
    data: training.Samples,
    validation: training.Samples,
    seeds: Sequence[int],
    progress: training.Progress | None = None,
    checkpoint: Checkpoint | None = None,
    precision: specs.Precision = "float32",
) -> list[training.Trained]:
    """What `training.train` gives for each of `seeds`, in their order, up to rounding.

    A `checkpoint` holds the states of all; the same seeds go on from it.

    Raises:
        TrainingError: the loss of a seed, which the message names, is not finite, or there are fewer samples than one
            batch.
        StoppedError: the process was asked to end; the checkpoint is saved.
    """
    runs = [training.Run.start(network, objective, optimisation, data, seed) for seed in seeds]
    models = _Models.sharing([run.model for run in runs], network, objective, precision, data.device.type)
    if checkpoint is not None and (state := checkpoint.load()) is not None:
        _restore(runs, *state)
        log.info("carrying on at epoch %d, batch %d", runs[0].epoch + 1, runs[0].batch)

    while (epoch := runs[0].epoch) < optimisation.epochs:
        started, before = time.monotonic(), runs[0].batch
        for run in runs:
            run.model.train()
            run.begin_epoch(len(data), optimisation, data.device)
        while (runs[0].batch + 1) * optimisation.batch_size <= len(data):
            _update(runs, models, objective, data, optimisation.batch_size)
            if checkpoint is not None and checkpoint.is_due():
                checkpoint.save(*_state(runs))
        for run in runs:
            try:
                row = run.end_epoch(torch.stack(run.terms).cpu(), objective, validation, precision)
            except training.TrainingError as error:
                raise training.TrainingError(f"seed {run.seed}: {error}") from None
            losses = row["train_total"], row["validation_total"]
            log.info(
                "seed %d, epoch %d/%d: train %.4f, validation %.4f", run.seed, run.epoch, optimisation.epochs, *losses
            )
        if progress is not None:
            progress(epoch + 1, optimisation.epochs)
        seen = len(runs) * (len(data) - before * optimisation.batch_size)
        log.info("%d seeds together: %.0f samples/s", len(runs), seen / (time.monotonic() - started))

    models.part()
    return [run.trained() for run in runs]


def _update(
    runs: Sequence[training.Run], models: "_Models", objective: specs.Objective, data: training.Samples, size: int
) -> None:
    """One update of every run."""
    x = _batches(runs, data, size)
    drawn = [objectives.noise(run.model, x.shape[1:], objective, run.noise, x.device) for run in runs]
    noise = {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}
    for parameter in models.parameters.values():
        parameter.grad = None
    terms = models.loss(x, objective, noise)
    # no loss depends on another model's weights: the sum's gradient is each one's own
    terms[:, -1].sum().backward()  # type: ignore[no-untyped-call]
    for index, (run, model) in enumerate(zip(runs, models.own, strict=True)):
        for name, parameter in model.items():
            gradient = models.parameters[name].grad
            parameter.grad = None if gradient is None else gradient[index]
        run.update(terms[index].detach())


def _batches(runs: Sequence[training.Run], data: training.Samples, size: int) -> Tensor:
    """The next batch of every run, (S, B, ...); in memory a pixel's channels of all models lie side by side."""
    which = torch.stack([run.next_samples(size) for run in runs], dim=1)
    batches = training.as_input(data[which.flatten()])
    x = batches.reshape(*which.shape, *batches.shape[1:])
    if x.dim() == 5:
        flat = x.flatten(1, 2).contiguous(memory_format=torch.channels_last)
        x = flat.unflatten(1, (len(runs), -1))  # type: ignore[no-untyped-call]
    return x.movedim(1, 0)


@dataclass(frozen=True)
class _Models:
    """S models as one: `parameters` and `buffers` by name, (S, ...) each; `template` computes with any of them.

    `own` are the models' parameters by name, views into the stacks, and `tensors` those and their buffers.
    """

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    own: list[dict[str, nn.Parameter]]
    tensors: list[Tensor]
    template: "_Applied"
    precision: specs.Precision
    device: str

    @classmethod
    def sharing(
        cls,
        models: Sequence[Autoencoder],
        network: specs.Network,
        objective: specs.Objective,
        precision: specs.Precision,
        device: str,
    ) -> "_Models":
        """Stacks of what `models` hold, which are made views into them."""
        own = [dict(model.named_parameters()) for model in models]
        buffers = [dict(model.named_buffers()) for model in models]
        return cls(
            {name: _stacked([model[name] for model in own]).requires_grad_() for name in own[0]},
            {name: _stacked([model[name] for model in buffers]) for name in buffers[0]},
            own,
            [
                *(tensor for model in own for tensor in model.values()),
                *(t for model in buffers for t in model.values()),
            ],
            _Applied(_template(network, objective).to(device).train()),
            precision,
            device,
        )

    def part(self) -> None:
        """Give every model tensors of its own again."""
        for tensor in self.tensors:
            tensor.data = tensor.data.clone()

    def loss(self, x: Tensor, objective: specs.Objective, noise: Mapping[str, Tensor]) -> Tensor:
        """The terms (S, 4), as `training.TERMS`, of batches x (S, B, ...); buffers change as in training.

        Decoders' derivatives are taken outside of `vmap`, which knows no dual tensors, of all models at once: images of
        one do not depend on codes of another.
        """

        def encode(model: Autoencoder, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            codes, z = model.draw_with(given["x"], given)
            parts = {"z": z, "mean": codes.mean, "log_sigma": codes.log_sigma}
            return {name: value for name, value in parts.items() if value is not None}

        def decode(z: Tensor) -> Tensor:
            return self._mapped(lambda model, given: {"x_hat": model.decode(given["z"])}, {"z": z})["x_hat"]

        def add_up(model: Autoencoder, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            codes, derivative = Codes(given["mean"], given.get("log_sigma")), given.get("derivative")
            passed = (given["x"], codes, given["z"], given["x_hat"], derivative)
            return {"terms": training.listed(objectives.terms(model.decoder, objective, *passed, given))}

        encoded = self._mapped(encode, {"x": x, **noise})
        x_hat, derivative = objectives.decode(decode, encoded["z"], objective.regulariser, noise)
        given = {"x": x, **noise, **encoded, "x_hat": x_hat}
        return self._mapped(add_up, given if derivative is None else {**given, "derivative": derivative})["terms"]

    def _mapped(self, function: "_Function", given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`function` of every model and its slice of `given`."""

        def one(weights: dict[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            found: dict[str, Tensor] = functional_call(self.template, weights, (computed, given))
            return found

        def computed(model: Autoencoder, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            with training.computing_in(self.precision, model, self.device):
                return function(model, given)

        weights = {
            f"model.{_renamed(name)}": value for name, value in (*self.parameters.items(), *self.buffers.items())
        }
        found: dict[str, Tensor] = vmap(one)(weights, dict(given))
        return found


_Function = Callable[[Autoencoder, Mapping[str, Tensor]], dict[str, Tensor]]


class _Applied(nn.Module):
    """A model to which functions are applied, as `functional_call` wants: by calling a module."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: _Function, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return function(self.model, given)


def _template(network: specs.Network, objective: specs.Objective) -> Autoencoder:
    """A model to compute with, whatever its weights; it normalises by the suite's code even where that is PyTorch's.

    PyTorch's own writes its vectors through `out=`, which `vmap` does not know.
    """
    regulariser = objective.regulariser
    if isinstance(regulariser, specs.SpectralNorm) and regulariser.is_pytorchs:
        objective = replace(objective, regulariser=replace(regulariser, initial_iterations=0))
    return build(network, objective, seed=0)


def _renamed(name: str) -> str:
    """The template's name of a tensor: PyTorch's spectral norm calls its vectors _u and _v, the suite's u and v."""
    return re.sub(r"\b_([uv])$", r"\1", name)


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """(S, ...), each slice in the memory order of its tensor, which is made a view of it."""
    first = tensors[0].detach()
    stack = first.new_empty_strided((len(tensors), *first.shape), (first.numel(), *first.stride()))
    for index, tensor in enumerate(tensors):
        tensor.data = stack[index].copy_(tensor.detach())
    return stack


def _state(runs: Sequence[training.Run]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The states of all runs, read back by `_restore`."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    about: dict[str, Any] = {}
    for run in runs:
        own, about[str(run.seed)] = run.state()
        arrays |= {f"{run.seed}.{name}": array for name, array in own.items()}
    return arrays, about


def _restore(runs: Sequence[training.Run], arrays: dict[str, npt.NDArray[Any]], about: dict[str, Any]) -> None:
    """Continue from what `_state` gave."""
    for run in runs:
        prefix = f"{run.seed}."
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        run.restore(own, about[str(run.seed)])
