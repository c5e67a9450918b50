"""A model of a user's own, with its own loss or trained elsewhere (`rae_bench.base.contracts`), as the suite's."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rae_bench.base import contracts, rng
from rae_bench.base.own import OwnCode, OwnCodeError, explained
from rae_bench.models.autoencoder import Codes, Model
from rae_bench.models.layouts.specs import OwnModel, TrainedElsewhere
from rae_bench.models.terms.reconstruction import half_squared_error


def load(code: OwnCode, file: str) -> nn.Module:
    """The model trained elsewhere that `code` makes of `file`.

    Raises:
        OwnCodeError: it fails, or gives something else.
    """
    made = code.make(file=file)
    if not isinstance(made, contracts.Trained) or not isinstance(made, nn.Module):
        raise OwnCodeError(
            f"{code.place}: gives {type(made).__name__}; expected a torch.nn.Module with the methods encode and decode"
        )
    return made


def latent_of(made: nn.Module, code: OwnCode, x: Tensor) -> tuple[int, bool]:
    """The dimensions of the codes of a model trained elsewhere, and whether it has a posterior: told from images x.

    Raises:
        OwnCodeError: encode fails, or gives no codes (B, d).
    """
    with explained(code, "encode"), torch.no_grad():
        found = made.eval().encode(x)  # type: ignore[operator]
    parts = found if isinstance(found, tuple) else (found,)
    mean = parts[0] if parts else None
    if not isinstance(mean, Tensor) or mean.dim() != 2 or len(mean) != len(x):
        told = tuple(mean.shape) if isinstance(mean, Tensor) else type(mean).__name__
        raise OwnCodeError(f"{code.place}: encode gives {told}; expected codes ({len(x)}, d)")
    return mean.shape[1], len(parts) > 1


class ForeignModel(Model):
    """The user's model, and every answer of it checked: shapes, devices, types, and numbers that are finite.

    Its state is that of the user's module: the one that is `loaded` already, or made here.
    """

    def __init__(self, spec: OwnModel | TrainedElsewhere, loaded: nn.Module | None = None) -> None:
        super().__init__()
        self.spec, self.pixels = spec, spec.pixels
        if isinstance(spec, OwnModel):
            made = spec.code.make(channels=spec.channels, size=spec.size, latent_dim=spec.latent_dim)
            if not isinstance(made, contracts.Model) or not isinstance(made, nn.Module):
                raise OwnCodeError(
                    f"{spec.code.place}: a model is a torch.nn.Module with the methods encode, decode and loss;"
                    f" found {type(made).__name__}"
                )
        else:
            made = load(spec.code, spec.file) if loaded is None else loaded
        self.inner: Any = made
        self.terms: tuple[str, ...] = ()
        """The names of the loss's terms, "total" last, once it has been called."""

    def encode(self, x: Tensor) -> Codes:
        """The user's codes of images x (B, C, H, W)."""
        with explained(self.spec.code, "encode"):
            found = self.inner.encode(x)
        parts = found if isinstance(found, tuple) else (found,)
        expected = (len(x), self.spec.latent_dim)
        if len(parts) != 1 + self.spec.has_posterior:
            raise OwnCodeError(
                f"{self.spec.code.place}: encode gives {len(parts)} tensor{'s' * (len(parts) > 1)}; expected"
                f" {'mean and log sigma' if self.spec.has_posterior else 'the codes alone'}: has_posterior is"
                f" {str(self.spec.has_posterior).lower()}"
            )
        for part in parts:
            self._check("encode", part, expected, x.device)
        return Codes(parts[0].float(), parts[1].float() if self.spec.has_posterior else None)

    def draw(self, x: Tensor, generator: torch.Generator) -> tuple[Codes, Tensor]:
        """The user's posterior, and a code drawn from it."""
        codes = self.encode(x)
        return codes, codes.draw(generator)

    def decode(self, z: Tensor) -> Tensor:
        """The user's images of codes z (B, d)."""
        with explained(self.spec.code, "decode"):
            x_hat = self.inner.decode(z)
        self._check("decode", x_hat, (len(z), self.spec.channels, self.spec.size, self.spec.size), z.device)
        return x_hat.float()  # type: ignore[no-any-return]

    def loss(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The user's terms of a batch, by `terms`; of a model trained elsewhere, ½‖x − x̂‖²."""
        if isinstance(self.spec, TrainedElsewhere):
            self.terms = ("reconstruction", "total")
            error = half_squared_error(x, self.decode(self.draw(x, generator)[1]))
            return error, error
        with explained(self.spec.code, "loss"):
            found = self.inner.loss(x, generator)
        if not isinstance(found, Mapping) or "total" not in found:
            told = f"{sorted(found)}" if isinstance(found, Mapping) else type(found).__name__
            raise OwnCodeError(f"{self.spec.code.place}: loss gives {told}; expected a dict of scalars with 'total'")
        names = (*(name for name in found if name != "total"), "total")
        if self.terms and names != self.terms:
            raise OwnCodeError(f"{self.spec.code.place}: loss gives {names}, before {self.terms}; expected the same")
        self.terms = names
        for name, value in found.items():
            self._check(f"loss: {name!r}", value, (), x.device)
        return tuple(found[name].float() for name in names)

    def named_terms(self) -> tuple[str, ...]:
        """The names of the loss's terms, "total" last; where it was not called yet, from a call on two black images."""
        if not self.terms:
            was_training = self.training
            device = next(self.inner.parameters()).device
            black = torch.zeros(2, self.spec.channels, self.spec.size, self.spec.size, device=device)
            with torch.no_grad():
                self.eval().loss(black, rng.torch_generator(0, "terms"))
            self.train(was_training)
        return self.terms

    def _check(self, what: str, found: object, expected: tuple[int, ...], device: torch.device) -> None:
        place = f"{self.spec.code.place}: {what}"
        if not isinstance(found, Tensor):
            raise OwnCodeError(f"{place} gives {type(found).__name__}; expected a tensor {expected}")
        if tuple(found.shape) != expected:
            raise OwnCodeError(f"{place} gives {tuple(found.shape)}; expected {expected}")
        if not found.is_floating_point():
            raise OwnCodeError(f"{place} gives {found.dtype}; expected floating-point numbers")
        if found.device.type != device.type:
            raise OwnCodeError(f"{place} gives a tensor on {found.device}, of input on {device}")
