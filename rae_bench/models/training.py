"""Training and use of an autoencoder on images or vectors: its loss as a task of the training loop, and its codes.

Data stay as they are on the compute device (uint8 images, float vectors), on a CPU large sets in their file; a batch is
sliced and scaled there.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from rae_bench.base.checkpoints import Checkpoint
from rae_bench.base.rng import torch_generator
from rae_bench.base.specs import Precision
from rae_bench.base.storage import MappedRows
from rae_bench.models import networks, objectives, pca
from rae_bench.models.autoencoder import Autoencoder, Model
from rae_bench.models.catalogue import build
from rae_bench.models.layouts.specs import LinearNetwork
from rae_bench.models.optimisation import (
    VALIDATION_BATCH,
    Progress,
    Samples,
    Task,
    Trained,
    TrainingError,
    optimise,
    validate,
)
from rae_bench.models.own import ForeignModel
from rae_bench.models.priors import PseudoInputs
from rae_bench.models.specs import TrainingSpec, at_once
from rae_bench.models.terms.specs import Objective, codes_per_image

WIDEST = 2**27
"""Bytes of a layer's results for a batch of validation images."""
TRANSFER = 4096
"""Images of a mapped file that go to a GPU at once."""


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
        return torch.from_numpy(self.images[rows]).contiguous(memory_format=networks.MEMORY_ORDER["cpu"])


def to_device(data: npt.NDArray[np.uint8] | npt.NDArray[np.float32] | MappedRows, device: str) -> Samples:
    """An array's samples on `device`, images in the order of memory for it: for a CPU, what is mapped stays so.

    A GPU holds them all. They come there in blocks: neither side ever has a second copy.
    """
    order = networks.MEMORY_ORDER[device]
    if isinstance(data, MappedRows):
        if device == "cpu":
            return OnDisk(data)
        held = torch.empty(data.shape, dtype=torch.uint8, device=device, memory_format=order)
        for start in range(0, len(data), TRANSFER):
            held[start : start + TRANSFER] = torch.from_numpy(data[start : start + TRANSFER]).to(device)
        return held
    tensor = torch.from_numpy(data).to(device)
    return tensor.contiguous(memory_format=order) if tensor.dim() == 4 else tensor


@contextlib.contextmanager
def computing_in(precision: Precision, model: Model, device: str) -> Iterator[None]:
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
    spec: TrainingSpec,
    data: Samples,
    validation: Samples,
    seed: int,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> Trained[Model]:
    """Train a new model on `data` (n, ...), choose its weights on `validation`; uint8 images or float vectors.

    Both are on the device that computes; all else is as `optimise` does it, and raises. A linear network is solved for,
    a model trained elsewhere is as it was loaded: the history of these is one row, of the loss with these weights.
    """
    model = networks.placed(build(spec.network, spec.objective, seed), data.device.type)
    if isinstance(model, Autoencoder) and isinstance(model.prior, PseudoInputs):
        _start(model.prior, data, seed)
    task = learning(spec, model, validation[:1][0, 0].numel())
    if spec.network.is_optimised:
        return optimise(task, spec.optimisation, data, validation, seed, progress, checkpoint)
    if isinstance(spec.network, LinearNetwork):
        _solve(task.model, spec.network.latent_dim, data, seed)
    row = {"epoch": 0, "learning_rate": 0.0}
    for split, samples in (("train", data), ("validation", validation)):
        row |= {f"{split}_{term}": value for term, value in validate(task, samples, seed).items()}
    return Trained(model.eval(), [row], 0)


def _start(prior: PseudoInputs, data: Samples, seed: int) -> None:
    """Let pseudo-inputs start from samples drawn without replacement.

    Raises:
        TrainingError: fewer samples than pseudo-inputs.
    """
    if len(data) < (n := len(prior.images)):
        raise TrainingError(
            f"{len(data)} training samples are fewer than {n} pseudo-inputs (n_components), which start there"
        )
    chosen = torch.randperm(len(data), generator=torch_generator(seed, "pseudo_inputs"))[:n]
    prior.start(as_input(data[chosen.to(data.device)]))


def _solve(model: Autoencoder, components: int, data: Samples, seed: int) -> None:
    """Give `model` the weights of the linear autoencoder of least squared error of images `data`: principal components.

    With directions W (k, pixels), their standard deviations s and the mean m, z = W (x − m) / s and x̂ = m + Wᵀ (s z).
    A GPU's images are brought back: the sums are those of the CPU.
    """
    images = data.images if isinstance(data, OnDisk) else data[:].cpu().numpy()
    found = pca.fit(images, components, seed)
    # images may vary in fewer directions than there are components: rounding is not divided by
    scale = np.where(found.sds > 1e-6 * found.sds[0], found.sds, np.float32(255)) / np.float32(255)
    mean = found.mean / np.float32(255)
    to_code = found.directions / scale[:, None]
    encoder, decoder = model.mean, networks.weighted_layers(model.decoder)[0]
    with torch.no_grad():
        encoder.weight.copy_(torch.from_numpy(to_code))
        encoder.bias.copy_(torch.from_numpy(-to_code @ mean))
        decoder.weight.copy_(torch.from_numpy(found.directions.T * scale))
        decoder.bias.copy_(torch.from_numpy(mean))  # type: ignore[union-attr]


def learning(spec: TrainingSpec, model: Model, pixels: int = 1) -> Task[Any]:
    """What `model`, built of `spec`, learns of images of so many `pixels`, or of vectors: its objective, or its own."""
    if not isinstance(model, ForeignModel):
        assert isinstance(model, Autoencoder)
        assert spec.objective is not None
        return task_of(model, spec.objective, pixels, spec.compute.precision)
    device = next(model.parameters()).device.type

    def loss(batch: Tensor, noise: torch.Generator) -> tuple[Tensor, ...]:
        with computing_in(spec.compute.precision, model, device):
            return model.loss(as_input(batch), noise)

    return Task(model, loss, model.named_terms(), at_once(VALIDATION_BATCH, model.pixels))


def task_of(
    model: Autoencoder, objective: Objective, pixels: int = 1, precision: Precision = "float32"
) -> Task[Autoencoder]:
    """What `model` learns: the objective of a batch of images of so many `pixels`, or of vectors."""
    device = next(model.parameters()).device.type

    def loss(batch: Tensor, noise: torch.Generator) -> objectives.Loss:
        with computing_in(precision, model, device):
            return objectives.loss(model, as_input(batch), objective, noise)

    together = max(1, validation_batch(model, pixels) // codes_per_image(objective.latent))
    return Task(model, loss, objectives.Loss._fields, together)


def validation_batch(model: Autoencoder, pixels: int) -> int:
    """VALIDATION_BATCH, fewer of large images; halved until a layer's results fit into WIDEST.

    Of CelebA at full width they are 62. Three such results are in memory at a time. The widest are those that the
    decoder's last layer reads.
    """
    size = at_once(VALIDATION_BATCH, pixels)
    last = next(reversed(networks.weighted_layers(model.decoder)), None)
    if isinstance(last, torch.nn.ConvTranspose2d | torch.nn.Conv2d):
        one = 4 * last.in_channels * pixels
        while size > 1 and size * one > WIDEST:
            size //= 2
    return size


def _batches(data: Samples) -> Iterator[Tensor]:
    batch = at_once(VALIDATION_BATCH, data[:1][0, 0].numel())
    for start in range(0, len(data), batch):
        yield as_input(data[start : start + batch])


def encode(model: Model, data: Samples) -> dict[str, npt.NDArray[np.float32]]:
    """`mean` (n, d) and, where the posterior has one, `log_sigma` (n, d) of every sample."""
    model.eval()
    with torch.no_grad():
        codes = [model.encode(batch) for batch in _batches(data)]
    encoded = {"mean": torch.cat([part.mean for part in codes]).cpu().numpy()}
    if log_sigmas := [part.log_sigma for part in codes if part.log_sigma is not None]:
        encoded["log_sigma"] = torch.cat(log_sigmas).cpu().numpy()
    return encoded


def draw_codes(model: Model, data: Samples, generator: torch.Generator) -> npt.NDArray[np.float32]:
    """One code of every sample drawn through the full model, (n, d): with what noise its posterior has."""
    model.eval()
    with torch.no_grad():
        drawn = [model.draw(batch, generator)[1] for batch in _batches(data)]
    return torch.cat(drawn).cpu().numpy()


def encode_splits(model: Model, splits: Mapping[str, Samples]) -> dict[str, npt.NDArray[np.float32]]:
    """What `encode` gives of each split, named "SPLIT.mean" and "SPLIT.log_sigma".

    Of a model that learnt a prior also its components, as "prior.mean" and "prior.log_sigma" (K, d); of one with a
    codebook its entries, as "codebook" (K, length).
    """
    found = {f"{split}.{name}": array for split, data in splits.items() for name, array in encode(model, data).items()}
    if isinstance(model, Autoencoder) and model.prior is not None:
        prior = model.eval().prior_components()
        assert prior.log_sigma is not None
        parts = {"mean": prior.mean, "log_sigma": prior.log_sigma}
        found |= {f"prior.{name}": part.detach().cpu().numpy() for name, part in parts.items()}
    if isinstance(model, Autoencoder) and model.codebook is not None:
        found["codebook"] = model.codebook.entries.cpu().numpy()
    return found
