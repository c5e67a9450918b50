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

from rae_bench.densities import learning
from rae_bench.densities.codes import CodeArray, Observed
from rae_bench.densities.density import FittedDensity, State, check_samples
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.specs import DaiWipfSecondStage
from rae_bench.models.autoencoder import Codes
from rae_bench.models.networks import dense, initialise, initialising
from rae_bench.models.terms.latent import kl_to_standard_normal


class _Dense(nn.Module):
    """`depth` ReLU layers of `width` units, the last beside the input: (n, d) to (n, d + width)."""

    def __init__(self, d: int, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*dense(d, width, depth))

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
        """The parameters of q(u|z) of codes z (n, d)."""
        features = self.encoder(z)
        return Codes(self.mean(features), self.log_sigma(features))

    def decode(self, u: Tensor) -> Tensor:
        """The mean of p(z|u), (n, d), of inner codes u (n, d)."""
        mean: Tensor = self.output(self.decoder(u))
        return mean


def _build(spec: DaiWipfSecondStage, d: int, seed: int) -> _SecondStage:
    with initialising(seed):
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
class FittedDaiWipf(FittedDensity):
    """`scale_`, the standardisation, the second VAE, and whether samples get the decoder's noise."""

    scale_: FittedGaussian
    model_: _SecondStage
    decoder_noise: bool

    @classmethod
    def fit(cls, spec: DaiWipfSecondStage, observed: Observed, seed: int) -> "FittedDaiWipf":
        """The second VAE, trained on the training codes; those of validation images choose the best epoch.

        Raises:
            DensityError: a dimension that does not vary.
            TrainingError: fewer codes than a batch, or a loss that is not finite.
        """
        scale = FittedGaussian.diagonal_of(observed.train)
        fitted = cls(scale, _build(spec, observed.train.shape[1], seed), spec.decoder_noise)
        learning.train(fitted.model_, _negative_bound, scale, observed, spec.optimisation, seed)
        return fitted

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d): u ~ N(0, I) decoded to the mean, with or without noise of SD γ.

        Raises:
            DensityError: a sample that is not finite.
        """
        standard = learning.in_blocks(self.model_.decode, rng.standard_normal((n, len(self.scale_.mean_))))
        if self.decoder_noise:
            gamma = float(self.model_.log_gamma.detach().exp())
            standard = standard + gamma * rng.standard_normal(standard.shape)
        return check_samples(self.scale_.colour(standard))

    def log_density(self, codes: CodeArray) -> None:
        """None: a VAE bounds its likelihood but does not give it."""

    def state(self) -> State:
        """The learned arrays."""
        return {**self.scale_.white_state(), **learning.weights(self.model_)}

    @classmethod
    def restore(cls, spec: DaiWipfSecondStage, state: State) -> "FittedDaiWipf":
        """The inverse of `state`."""
        scale = FittedGaussian.restore_white(state)
        return cls(scale, learning.with_weights(_build(spec, len(scale.mean_), seed=0), state), spec.decoder_noise)
