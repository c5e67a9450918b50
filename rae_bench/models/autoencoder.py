"""Autoencoder = encoder + posterior + decoder; and the interface that every model has once it is trained.

The posterior q(z|x) is data: a point, of the image or of a noisy or masked one, which may be bounded, a direction or
made of a codebook's entries; or a diagonal Gaussian with a learned or a constant variance. `encode` gives its
parameters, `draw` a code from it (reparametrised, Kingma and Welling 2014), `decode` x_hat.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rae_bench.base import rng
from rae_bench.models import networks, priors
from rae_bench.models.layouts import catalogue as layouts
from rae_bench.models.layouts.specs import Network, OwnNetworks
from rae_bench.models.priors import Mixture
from rae_bench.models.quantisation import Codebook
from rae_bench.models.terms.specs import (
    Capacity,
    Deterministic,
    FixedGaussian,
    Gaussian,
    LearntVariance,
    MaskedInput,
    NoisyInput,
    Objective,
    OrthogonalFirstLayer,
    Quantised,
    Saturating,
    SpectralNorm,
    Sphere,
)


@dataclass(frozen=True)
class Codes:
    """Parameters of q(z|x): `mean` (B, d), and `log_sigma` (B, d), or None where z given x is a point.

    `distance` (B,): ‖E(x) − z‖² of codes that were moved to entries of a codebook; else None.
    """

    mean: Tensor
    log_sigma: Tensor | None
    distance: Tensor | None = None

    def draw(self, generator: torch.Generator) -> Tensor:
        """One code per image, (B, d): the mean, or mean + sigma · noise."""
        if self.log_sigma is None:
            return self.mean
        return self.at(rng.normal(self.mean.shape, generator, self.mean.device))

    def at(self, noise: Tensor) -> Tensor:
        """The code, (B, d), that standard normal `noise` (B, d) stands for: mean + sigma · noise."""
        assert self.log_sigma is not None
        return self.mean + self.log_sigma.exp() * noise


class Model(nn.Module, ABC):
    """What all that follows training asks of a model: codes of images, images of codes, and of how many `pixels`."""

    pixels: int

    @abstractmethod
    def encode(self, x: Tensor) -> Codes:
        """The posterior's parameters of images x (B, C, H, W) in [0, 1], or of vectors (B, D)."""

    @abstractmethod
    def draw(self, x: Tensor, generator: torch.Generator) -> tuple[Codes, Tensor]:
        """The posterior of each image and one code drawn from it (B, d): the way through the full model."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """x_hat of codes z (B, d): images in [0, 1] (a linear decoder's may leave it), or vectors."""


class Autoencoder(Model):
    """The model of an objective of the suite; use `build` to get one with its layers initialised and normalised.

    `decoder_log_sigma`, of a decoder's Gaussian, is learnt where the objective says so, else None. `updates` counts
    those of a loss that is annealed: part of the state, as batch norm's count is, so that a training that goes on
    knows it. `prior` is one that is learnt with its KL term, `codebook` of a quantised posterior; else None.
    """

    updates: Tensor | None

    def __init__(self, network: Network, objective: Objective) -> None:
        super().__init__()
        posterior, self.pixels = objective.posterior, network.pixels
        self.posterior = posterior
        own = networks.own(network) if isinstance(network, OwnNetworks) else None
        self.features, length = layouts.features(network) if own is None else own.features
        self.mean = nn.Linear(length, network.latent_dim)
        self.log_sigma = nn.Linear(length, network.latent_dim) if isinstance(posterior, Gaussian) else None
        self.decoder = layouts.decoder(network) if own is None else own.decoder
        if isinstance(posterior, Sphere):
            self.decoder = networks.of_directions(self.decoder)
        self.decoder_log_sigma: nn.Parameter | None = None
        if isinstance(objective.reconstruction, LearntVariance):
            self.decoder_log_sigma = nn.Parameter(torch.tensor(objective.reconstruction.initial_log_sigma))
        is_annealed = isinstance(objective.latent, Capacity)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64) if is_annealed else None)
        self.prior = priors.of(objective.latent, network)
        self.codebook = Codebook(posterior) if isinstance(posterior, Quantised) else None

    def prior_components(self) -> Codes:
        """The components of the prior that is learnt, (K, d); pseudo-inputs are encoded as in evaluation mode.

        With copies of batch norm's moments, which images move later in the same step: the backward pass reads them.
        """
        assert self.prior is not None
        if isinstance(self.prior, Mixture):
            return Codes(self.prior.mean, self.prior.log_sigma)
        modes = {module: module.training for module in self.features.modules()}
        self.features.eval()
        moments = {name: buffer.clone() for name, buffer in self.features.named_buffers()}
        features = functional_call(self.features, moments, (self.prior(),))
        for module, is_training in modes.items():
            module.training = is_training
        return self._posterior(features)

    def encode(self, x: Tensor) -> Codes:
        """The posterior's parameters of images x (B, C, H, W) in [0, 1], or of vectors (B, D)."""
        return self._posterior(self.features(x))

    def _posterior(self, features: Tensor) -> Codes:
        mean = networks.widened(self.mean(features))
        match self.posterior:
            case Deterministic() | NoisyInput() | MaskedInput():
                return Codes(mean, None)
            case Gaussian(log_sigma_bound=bound):
                assert self.log_sigma is not None
                return Codes(mean, bound * torch.tanh(networks.widened(self.log_sigma(features))))
            case Saturating():
                return Codes(torch.tanh(mean), None)
            case Sphere():
                return Codes(networks.direction(mean), None)
            case Quantised():
                assert self.codebook is not None
                code, distance = self.codebook(mean)
                return Codes(code, None, distance)
            case FixedGaussian(sigma=sigma):
                return Codes(mean, torch.full_like(mean, sigma).log())
            case _:
                assert_never(self.posterior)

    def noise(self, shape: torch.Size, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """What `draw_with` needs for images x of `shape` (B, ...) on `device`, standard normal, drawn in this order.

        "image" (B, ...) of a noisy input, "mask" (B, ...), a number a patch, of a masked one, "code" (B, d) of a
        posterior with a variance.
        """
        drawn = {}
        if isinstance(self.posterior, MaskedInput):
            sides = shape[2:] if len(shape) > 2 else shape[1:]
            patches = (-(-side // self.posterior.patch) for side in sides)
            drawn["mask"] = rng.normal(torch.Size((shape[0], *patches)), generator, device)
        if isinstance(self.posterior, NoisyInput):
            drawn["image"] = rng.normal(shape, generator, device)
        if isinstance(self.posterior, Gaussian | FixedGaussian):
            drawn["code"] = rng.normal(torch.Size((shape[0], self.mean.out_features)), generator, device)
        return drawn

    def draw(self, x: Tensor, generator: torch.Generator) -> tuple[Codes, Tensor]:
        """The posterior of each image and one code drawn from it (B, d): the way through the full model.

        For a `NoisyInput` or a `MaskedInput` the posterior is that of the changed images.
        """
        return self.draw_with(x, self.noise(x.shape, generator, x.device))

    def draw_with(self, x: Tensor, noise: Mapping[str, Tensor]) -> tuple[Codes, Tensor]:
        """`draw`, with the standard normal numbers that `noise` gives."""
        if isinstance(self.posterior, NoisyInput):
            bound = self.posterior.bound
            x = x + (self.posterior.sd * noise["image"]).clamp(-bound, bound)
        if isinstance(self.posterior, MaskedInput):
            x = x * _kept(noise["mask"], self.posterior, x.shape)
        codes = self.encode(x)
        return codes, codes.at(noise["code"]) if "code" in noise else codes.mean

    def decode(self, z: Tensor) -> Tensor:
        """x_hat of codes z (B, d): images in [0, 1] (a linear decoder's may leave it), or vectors."""
        return networks.widened(self.decoder(z if self.codebook is None else self.codebook.nearest(z)))


def _kept(noise: Tensor, posterior: MaskedInput, shape: torch.Size) -> Tensor:
    """1 where images of `shape` (B, C, H, W) are seen, 0 where hidden, (B, 1, H, W); of vectors (B, D), (B, D).

    Hidden are the patches with the smallest numbers in `noise`, one for each: as likely any as any other.
    """
    ranks = noise.flatten(1).argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    kept = (ranks >= round(posterior.share * ranks.shape[1])).to(noise.dtype).view(noise.shape)
    for dim in range(1, kept.dim()):
        side = shape[dim - kept.dim()]
        kept = kept.repeat_interleave(posterior.patch, dim=dim).narrow(dim, 0, side)
    return kept[:, None] if len(shape) > 2 else kept


def build(network: Network, objective: Objective, seed: int) -> Autoencoder:
    """A new autoencoder; layer initialisation depends on `seed` alone and leaves torch's global generator as it was."""
    with networks.initialising(seed):
        model = Autoencoder(network, objective)
        if isinstance(network, OwnNetworks) and network.initialisation == "own":
            networks.initialise(model.mean)
            if model.log_sigma is not None:
                networks.initialise(model.log_sigma)
        else:
            networks.initialise(model)
        if isinstance(network, OwnNetworks):
            networks.fit_for(objective.regulariser, model.decoder, network.code.place)
        if isinstance(objective.regulariser, SpectralNorm):
            part = model.decoder if objective.regulariser.scope == "decoder" else model
            networks.normalise_spectrally(part, objective.regulariser)
        if isinstance(objective.regulariser, OrthogonalFirstLayer):
            networks.orthogonalise(networks.weighted_layers(model.decoder)[0])
    return model.to(memory_format=networks.MEMORY_ORDER["cpu"])
