"""Second-stage VAE on codes (Dai and Wipf 2019), in the simplified form of the official RAE code.

A VAE with dense networks, trained by the same loop on posterior means standardised per dimension. Sampling: u ~
N(0, I), decoded to the mean, standardisation undone; no decoder noise. It also reconstructs codes (`through`):
the mean of its posterior, decoded. It has no closed-form likelihood.
"""

from dataclasses import dataclass

import numpy as np
import torch

from rae_bench.densities import learning
from rae_bench.densities.codes import CodeArray, DensityError, Observed
from rae_bench.densities.density import FittedDensity, State
from rae_bench.densities.specs import SecondStage
from rae_bench.models.autoencoder import Autoencoder, build
from rae_bench.models.layouts.specs import DenseNetwork
from rae_bench.models.optimisation import optimise
from rae_bench.models.training import task_of


def _build(spec: SecondStage, d: int, seed: int) -> Autoencoder:
    network = DenseNetwork(kind="dense", input_dim=d, width=spec.width, depth=spec.depth, latent_dim=d)
    return build(network, spec.objective, seed)


@dataclass(frozen=True)
class FittedSecondStage(FittedDensity):
    """`mean_`, `scale_` (d,) of the standardisation, and the second VAE."""

    mean_: CodeArray
    scale_: CodeArray
    model_: Autoencoder

    @classmethod
    def fit(cls, spec: SecondStage, observed: Observed, seed: int) -> "FittedSecondStage":
        """The second VAE, trained on the training codes; those of validation images choose the best epoch.

        Raises:
            DensityError: a dimension in which the codes do not vary.
            TrainingError: fewer codes than a batch, or a loss that is not finite.
        """
        codes = observed.train
        varies = np.ptp(codes, axis=0) > 0  # exact, where the float32 SD of a constant is not
        if not varies.all():
            raise DensityError(
                f"dimension {int(np.argmin(varies))} of the codes does not vary; a second stage needs it to"
            )
        fitted = cls(codes.mean(axis=0), codes.std(axis=0), _build(spec, codes.shape[1], seed))
        data, held_out = (fitted._standardise(part) for part in (codes, observed.validation))
        optimise(task_of(fitted.model_, spec.objective), spec.optimisation, data, held_out, seed)
        return fitted

    def _standardise(self, codes: CodeArray) -> torch.Tensor:
        return torch.from_numpy((codes - self.mean_) / self.scale_)

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d), decoded from u ~ N(0, I)."""
        return self.from_inner(rng.standard_normal((n, len(self.mean_))).astype(np.float32))

    def through(self, codes: CodeArray) -> CodeArray:
        """Codes (n, d) as this stage reconstructs them from its posterior's mean."""
        return self.from_inner(self.to_inner(codes))

    @torch.no_grad()
    def to_inner(self, codes: CodeArray) -> CodeArray:
        """The second stage's own codes (n, d): its posterior's means."""
        return self.model_.encode(self._standardise(codes)).mean.numpy()

    @torch.no_grad()
    def from_inner(self, inner: CodeArray) -> CodeArray:
        """The codes (n, d) that the second stage's own codes (n, d) decode to."""
        return self.model_.decode(torch.from_numpy(inner)).numpy() * self.scale_ + self.mean_

    def log_density(self, codes: CodeArray) -> None:
        """None: a VAE bounds its likelihood but does not give it."""

    def state(self) -> State:
        """The learned arrays."""
        return {"mean": self.mean_, "scale": self.scale_, **learning.weights(self.model_)}

    @classmethod
    def restore(cls, spec: SecondStage, state: State) -> "FittedSecondStage":
        """The inverse of `state`."""
        mean, scale = (state[name].astype(np.float32) for name in ("mean", "scale"))
        return cls(mean, scale, learning.with_weights(_build(spec, len(mean), seed=0), state))
