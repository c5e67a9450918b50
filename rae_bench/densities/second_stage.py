"""Second-stage VAE on codes (Dai and Wipf 2019), in the simplified form of the official RAE code.

A VAE with dense networks, trained by the same loop on posterior means standardised per dimension. Sampling: u ~
N(0, I), decoded to the mean, standardisation undone; no decoder noise. It also reconstructs codes (`through`):
the mean of its posterior, decoded. It has no closed-form likelihood.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rae_bench.base.rng import derive
from rae_bench.densities.errors import DensityError
from rae_bench.densities.specs import SecondStage
from rae_bench.models.autoencoder import Autoencoder, build
from rae_bench.models.specs import DenseNetwork
from rae_bench.models.training import train

Float32 = npt.NDArray[np.float32]


def _network(spec: SecondStage, d: int) -> DenseNetwork:
    return DenseNetwork("dense", input_dim=d, width=spec.width, depth=spec.depth, latent_dim=d)


@dataclass(frozen=True)
class FittedSecondStage:
    """`mean_`, `scale_` (d,) of the standardisation, and the second VAE."""

    mean_: Float32
    scale_: Float32
    model_: Autoencoder

    @classmethod
    def fit(cls, spec: SecondStage, codes: Float32, validation: Float32, seed: int) -> "FittedSecondStage":
        """Train on codes (n, d); `validation` codes choose the best epoch.

        Raises:
            DensityError: fewer codes than a batch, or a dimension in which the codes do not vary.
        """
        mean, scale = codes.mean(axis=0), codes.std(axis=0)
        if len(codes) < spec.optimisation.batch_size:
            raise DensityError(
                f"{len(codes)} codes are fewer than one batch of the second stage, {spec.optimisation.batch_size}"
            )
        varies = np.ptp(codes, axis=0) > 0  # exact, where the float32 SD of a constant is not
        if not varies.all():
            raise DensityError(
                f"dimension {int(np.argmin(varies))} of the codes does not vary; a second stage needs it to"
            )
        data, held_out = ((torch.from_numpy((part - mean) / scale)) for part in (codes, validation))
        trained = train(
            _network(spec, codes.shape[1]),
            spec.objective,
            spec.optimisation,
            data,
            held_out,
            derive(seed, "second_stage"),
        )
        return cls(mean, scale, trained.model)

    def sample(self, n: int, rng: np.random.Generator) -> Float32:
        """N codes, float32 (n, d)."""
        noise = rng.standard_normal((n, len(self.mean_))).astype(np.float32)
        return self._decode(torch.from_numpy(noise))

    def through(self, codes: Float32) -> Float32:
        """Codes (n, d) as this stage reconstructs them from its posterior's mean."""
        return self.from_inner(self.to_inner(codes))

    def to_inner(self, codes: Float32) -> Float32:
        """The second stage's own codes (n, d): its posterior's means."""
        with torch.no_grad():
            inner: Float32 = self.model_.encode(torch.from_numpy((codes - self.mean_) / self.scale_)).mean.numpy()
            return inner

    def from_inner(self, inner: Float32) -> Float32:
        """The second stage's codes (n, d) back to codes."""
        return self._decode(torch.from_numpy(inner))

    def _decode(self, inner: torch.Tensor) -> Float32:
        with torch.no_grad():
            codes: Float32 = self.model_.decode(inner).numpy() * self.scale_ + self.mean_
            return codes

    def log_density(self, codes: Float32) -> None:  # noqa: ARG002  the protocol's signature
        """None: a VAE bounds its likelihood but does not give it."""
        return

    def log_likelihood(self, codes: Float32) -> None:  # noqa: ARG002  the protocol's signature
        """None, as `log_density`."""
        return

    def state(self) -> dict[str, Float32 | npt.NDArray[np.float64]]:
        """The learned arrays."""
        weights = {f"model.{name}": value.numpy() for name, value in self.model_.state_dict().items()}
        return {"mean": self.mean_, "scale": self.scale_, **weights}

    @classmethod
    def restore(cls, spec: SecondStage, state: dict[str, Float32 | npt.NDArray[np.float64]]) -> "FittedSecondStage":
        """The inverse of `state`."""
        mean, scale = (state[name].astype(np.float32) for name in ("mean", "scale"))
        model = build(_network(spec, len(mean)), spec.objective, seed=0)
        prefix = "model."
        weights = {
            name.removeprefix(prefix): torch.from_numpy(array)
            for name, array in state.items()
            if name.startswith(prefix)
        }
        model.load_state_dict(weights)
        return cls(mean, scale, model.eval())
