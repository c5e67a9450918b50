"""Second-stage VAE on codes in the form of Dai and Wipf (2019), as in their published code.

    loss = KL(q(u|z) ‖ N(0, I)) + Σ_j [ (z_j − ẑ_j(u))² / (2 γ²) + log γ + ½ log 2π ],   u ~ q(u|z)

γ is one learnt number, the decoder's SD, so the KL weight is 1 and nothing is left to tune; the loss is the negative
evidence lower bound, in nats. Encoder and decoder have dense ReLU layers whose last is concatenated with the input;
u has as many dimensions as z. Codes are standardised per dimension first, which the original does not do: γ starts
at 1, and codes of any scale must train alike. It has no closed-form likelihood.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rae_bench.base.rng import derive
from rae_bench.densities import learning
from rae_bench.densities.codes import CodeArray, State, check_samples
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.specs import DaiWipfSecondStage
from rae_bench.models.autoencoder import Codes
from rae_bench.models.networks import initialise
from rae_bench.models.objectives import kl_to_standard_normal

BLOCK = 1000
"""Codes decoded at once; it bounds memory."""


class _Dense(nn.Module):
    """`depth` ReLU layers of `width` units, the last beside the input: (n, d) to (n, d + width)."""

    def __init__(self, d: int, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(width if i else d, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], dim=1)


class _SecondStage(nn.Module):
    """Encoder, decoder and `log_gamma`, the log of the decoder's SD."""

    def __init__(self, d: int, width: int, depth: int) -> None:
        super().__init__()
        self.encoder, self.decoder = _Dense(d, width, depth), _Dense(d, width, depth)
        self.mean, self.log_sigma, self.output = (nn.Linear(d + width, d) for _ in range(3))
        self.log_gamma = nn.Parameter(torch.zeros(()))

    def encode(self, z: Tensor) -> Codes:
        """Codes (n, d) to the parameters of q(u|z)."""
        features = self.encoder(z)
        return Codes(self.mean(features), self.log_sigma(features))

    def decode(self, u: Tensor) -> Tensor:
        """U (n, d) to the mean of p(z|u)."""
        mean: Tensor = self.output(self.decoder(u))
        return mean


def _build(spec: DaiWipfSecondStage, d: int, seed: int) -> _SecondStage:
    with learning.initialising(seed):
        model = _SecondStage(d, spec.width, spec.depth)
        initialise(model)
    return model


def _negative_bound(model: _SecondStage, batch: Tensor, generator: torch.Generator) -> Tensor:
    """The mean negative evidence lower bound of codes (B, d), in nats, with one draw of u each."""
    inner = model.encode(batch)
    error = (batch - model.decode(inner.draw(generator))) / model.log_gamma.exp()
    reconstruction = (0.5 * error.square() + model.log_gamma + 0.5 * math.log(2 * math.pi)).sum(dim=1)
    return (kl_to_standard_normal(inner) + reconstruction).mean()


@dataclass(frozen=True)
class FittedDaiWipf:
    """`scale_`, the standardisation, the second VAE, and whether samples get the decoder's noise."""

    scale_: FittedGaussian
    model_: _SecondStage
    decoder_noise: bool

    @classmethod
    def fit(cls, spec: DaiWipfSecondStage, codes: CodeArray, validation: CodeArray, seed: int) -> "FittedDaiWipf":
        """Train on codes (n, d); `validation` codes choose the best epoch.

        Raises:
            DensityError: fewer codes than a batch, a dimension that does not vary, or a loss that is not finite.
        """
        seed = derive(seed, "second_stage_dai_wipf")
        scale = FittedGaussian.fit_diagonal(codes)
        model = _build(spec, codes.shape[1], seed)

        def loss(batch: Tensor, generator: torch.Generator) -> Tensor:
            return _negative_bound(model, batch, generator)

        data, held_out = (torch.from_numpy(scale.whiten(part)).float() for part in (codes, validation))
        learning.optimise(model, loss, data, held_out, spec.optimisation, seed)
        return cls(scale, model, spec.decoder_noise)

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """N codes, float32 (n, d): u ~ N(0, I) decoded to the mean, with or without noise of SD γ.

        Raises:
            DensityError: a sample that is not finite.
        """
        inner = torch.from_numpy(rng.standard_normal((n, len(self.scale_.mean_)))).float()
        with torch.no_grad():
            parts = [self.model_.decode(inner[start : start + BLOCK]) for start in range(0, n, BLOCK)]
            standard = torch.cat(parts).double().numpy()
            gamma = float(self.model_.log_gamma.exp())
        if self.decoder_noise:
            standard = standard + gamma * rng.standard_normal(standard.shape)
        return check_samples(self.scale_.colour(standard))

    def log_density(self, codes: CodeArray) -> None:  # noqa: ARG002  the protocol's signature
        """None: a VAE bounds its likelihood but does not give it."""
        return

    def log_likelihood(self, codes: CodeArray) -> None:  # noqa: ARG002  the protocol's signature
        """None, as `log_density`."""
        return

    def state(self) -> State:
        """The learned arrays."""
        return {**self.scale_.white_state(), **learning.weights(self.model_)}

    @classmethod
    def restore(cls, spec: DaiWipfSecondStage, state: State) -> "FittedDaiWipf":
        """The inverse of `state`."""
        scale = FittedGaussian.restore_white(state)
        model = _build(spec, len(scale.mean_), seed=0)
        learning.load_weights(model, state)
        return cls(scale, model, spec.decoder_noise)
