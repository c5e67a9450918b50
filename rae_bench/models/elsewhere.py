"""Networks trained elsewhere, read from the files that others save: archives of torch.export, Pythae's model folders.

Each function gives what a study and `expost` ask for (`rae_bench.base.contracts.Trained`): a module with `encode` and
`decode`. Of a Pythae folder nothing is executed. An archive of torch.export is a program: read your own.
"""

import json
import logging
import math
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rae_bench.base.own import OwnCodeError
from rae_bench.base.plain import parse
from rae_bench.base.specs import MOST, Count

ARCHIVE = "expected an archive of torch.export.save, a .pt2 file"
FOLDER = "expected a folder as Pythae saves a model, with model_config.json and model.pt"
WIDTH = 512
"""Units of the hidden layers of Pythae's default networks."""
TRAINING_ONLY = ("discriminator.",)
"""Parts of a Pythae model that neither code nor decode images."""


def exported(encoder: str | Path | None, decoder: str | Path) -> nn.Module:
    """The autoencoder whose two networks are archives of `torch.export.save`.

    The encoder takes images (B, C, H, W) in [0, 1] and gives codes (B, d), or mean and log sigma, (B, d) each; the
    decoder takes codes and gives images. Where B is not dynamic, batches are cut, and filled up, to the exported size.
    Without an encoder there is only `decode`.

    Raises:
        OwnCodeError: no such file, no such archive, or a network of other than one input.
    """
    return _Exported(None if encoder is None else _Program(Path(encoder), "images"), _Program(Path(decoder), "codes"))


class _Exported(nn.Module):
    """Two exported networks as an autoencoder."""

    def __init__(self, encoder: "_Program | None", decoder: "_Program") -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def encode(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.encoder is None:
            raise OwnCodeError(f"{self.decoder.path}: a decoder alone encodes nothing; give an encoder, too")
        found: Tensor | tuple[Tensor, ...] = self.encoder(x)
        return found

    def decode(self, z: Tensor) -> Tensor:
        found: Tensor = self.decoder(z)
        return found


class _Program(nn.Module):
    """An exported network of one input, called with as many rows at a time as it takes: `least` to `most`."""

    def __init__(self, path: Path, reads: str) -> None:
        super().__init__()
        self.path, self.reads = path, reads
        program = _loaded(path)
        inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
        if len(inputs) != 1:
            raise OwnCodeError(f"{path}: a network of {len(inputs)} inputs; expected one, {reads}")
        batch, *shape = inputs[0].meta["val"].shape
        self.shape = tuple(shape)
        if isinstance(batch, int):
            self.least = self.most = batch
        else:
            limits = program.range_constraints.get(batch.node.expr)
            if limits is None:
                raise OwnCodeError(f"{path}: its batch dimension is {batch}; expected a number, or any number")
            self.least, self.most = int(max(limits.lower, 1)), int(min(limits.upper, MOST))
        self.network = program.module()

    def train(self, mode: bool = True) -> "_Program":
        """Nothing but the flag: an export is in the mode it was made in, and refuses to be asked."""
        self.training = mode
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Program":
        """Move the weights, but keep their memory order: an export's views hold for that alone."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for parameter in self.parameters():
            parameter.data = parameter.data.contiguous()
        return self

    def forward(self, rows: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = tuple(rows.shape[1:])
        is_fit = len(found) == len(self.shape)
        if not is_fit or any(
            isinstance(one, int) and one != other for one, other in zip(self.shape, found, strict=True)
        ):
            raise OwnCodeError(f"{self.path}: reads {self.reads} {_spelt(self.shape)}, found {_spelt(found)}")
        parts = [self._called(part) for part in torch.split(rows.contiguous(), self.most)]
        outputs = tuple(torch.cat(output) for output in zip(*parts, strict=True))
        return outputs if len(outputs) > 1 else outputs[0]

    def _called(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The outputs of some rows, as many as there are; too few are filled up with the last."""
        missing = self.least - len(rows)
        given = rows if missing <= 0 else torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
        found = self.network(given)
        return tuple(output[: len(rows)] for output in (found if isinstance(found, tuple | list) else (found,)))


def _spelt(shape: tuple[Any, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _loaded(path: Path) -> torch.export.ExportedProgram:
    """The program of an archive; what is none is refused before torch tells of it at length."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [Path(name).name for name in archive.namelist()]
    except FileNotFoundError:
        raise OwnCodeError(f"{path}: no such file; {ARCHIVE}") from None
    except OSError as error:
        raise OwnCodeError(f"{path}: cannot be read: {error.strerror}; {ARCHIVE}") from None
    except zipfile.BadZipFile:
        raise OwnCodeError(f"{path}: {path.stat().st_size:,} bytes that are no archive; {ARCHIVE}") from None
    if "archive_format" not in names:
        kind = "a file of torch.save or torch.jit.save" if "data.pkl" in names else "a zip file"
        raise OwnCodeError(f"{path}: {kind}; {ARCHIVE}")
    logger = logging.getLogger("torch.export")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        return torch.export.load(path)
    except Exception as error:  # damaged bytes raise what they like
        raise OwnCodeError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}; {ARCHIVE}") from error
    finally:
        logger.disabled = was_disabled


@dataclass(frozen=True)
class _Config:
    """What matters here of Pythae's model_config.json."""

    input_dim: tuple[Count, ...]
    latent_dim: Count


def pythae(folder: str | Path) -> nn.Module:
    """The autoencoder in a folder as Pythae 0.1 saves it, with its default networks (one hidden layer each way).

    Images are those it was trained on, (B, *input_dim) in [0, 1]. Of a variational model `encode` gives mean and log
    sigma. Weights alone are read: encoder.pkl and decoder.pkl, where a model has networks of its own, are left closed.

    Raises:
        OwnCodeError: no such folder, networks of its own, or a model whose codes are more than its encoder's.
        ConfigError: model_config.json lacks what is needed.
    """
    folder = Path(folder)
    stated = _config(folder / "model_config.json")
    for part in ("encoder", "decoder"):
        if not stated.get(f"uses_default_{part}", True) or (folder / f"{part}.pkl").exists():
            raise OwnCodeError(
                f"{folder}: its {part} is a class of its own, pickled in {part}.pkl, which is not opened: load it in a"
                " Python file of yours and return a module with encode and decode"
            )
    known = {name: stated[name] for name in ("input_dim", "latent_dim") if name in stated}
    config: _Config = parse(_Config, known, str(folder / "model_config.json"))
    weights = _weights(folder / "model.pt")
    model = _Pythae(folder, config.input_dim, config.latent_dim, "encoder.log_var.weight" in weights)
    expected = model.state_dict()
    for name in sorted({*weights} ^ {*expected}):
        raise OwnCodeError(
            f"{folder / 'model.pt'}: {'holds' if name in weights else 'lacks'} {name!r}; expected a model whose codes"
            " are its encoder's (AE, VAE, BetaVAE, WAE_MMD, RAE_L2, RAE_GP ...) with Pythae's default networks"
        )
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            found, right = _spelt(weights[name].shape), _spelt(tensor.shape)
            raise OwnCodeError(f"{folder / 'model.pt'}: {name} is {found}, by model_config.json {right}")
    model.load_state_dict(weights)
    return model.eval()


class _Pythae(nn.Module):
    """Pythae's Encoder_AE_MLP or Encoder_VAE_MLP, and Decoder_AE_MLP, with the names of their weights."""

    def __init__(self, folder: Path, shape: tuple[int, ...], latent_dim: int, has_posterior: bool) -> None:
        super().__init__()
        self.folder, self.shape, pixels = folder, shape, math.prod(shape)
        heads = ("embedding", "log_var") if has_posterior else ("embedding",)
        hidden = nn.ModuleList([nn.Sequential(nn.Linear(pixels, WIDTH), nn.ReLU())])
        self.encoder = nn.ModuleDict({"layers": hidden, **{head: nn.Linear(WIDTH, latent_dim) for head in heads}})
        up = nn.Sequential(nn.Linear(latent_dim, WIDTH), nn.ReLU())
        out = nn.Sequential(nn.Linear(WIDTH, pixels), nn.Sigmoid())
        self.decoder = nn.ModuleDict({"layers": nn.ModuleList([up, out])})

    def encode(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if tuple(x.shape[1:]) != self.shape:
            found = _spelt(tuple(x.shape[1:]))
            raise OwnCodeError(f"{self.folder}: reads images {_spelt(self.shape)}, found {found}")
        hidden = self.encoder["layers"][0](x.flatten(1))  # type: ignore[index]
        mean: Tensor = self.encoder["embedding"](hidden)
        return (mean, 0.5 * self.encoder["log_var"](hidden)) if "log_var" in self.encoder else mean

    def decode(self, z: Tensor) -> Tensor:
        layers: Any = self.decoder["layers"]
        for layer in layers:
            z = layer(z)
        return z.reshape(len(z), *self.shape)


def _config(path: Path) -> dict[str, Any]:
    """What Pythae says of a model."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise OwnCodeError(f"{path}: no such file; {FOLDER}") from None
    except OSError as error:
        raise OwnCodeError(f"{path}: cannot be read: {error.strerror}; {FOLDER}") from None
    except ValueError as error:
        raise OwnCodeError(f"{path}: not JSON: {error}; {FOLDER}") from None
    if not isinstance(found, dict):
        raise OwnCodeError(f"{path}: holds a {type(found).__name__}; {FOLDER}")
    return found


def _weights(path: Path) -> dict[str, Tensor]:
    """The weights of a Pythae model that make codes and images, by name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a pickle's protocol
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise OwnCodeError(f"{path}: no such file; {FOLDER}") from None
    except pickle.UnpicklingError:
        raise OwnCodeError(f"{path}: holds more than weights, which is not opened; {FOLDER}") from None
    except Exception as error:  # damaged bytes raise what they like
        raise OwnCodeError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}; {FOLDER}") from error
    weights = found.get("model_state_dict") if isinstance(found, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(one, Tensor) for one in weights.values()):
        raise OwnCodeError(f"{path}: holds no model_state_dict of tensors; {FOLDER}")
    return {name: one for name, one in weights.items() if not name.startswith(TRAINING_ONLY)}
