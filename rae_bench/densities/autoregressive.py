"""An autoregressive density over the entries of a codebook: a masked network, built with zuko.

    log P(k) = Σ_i log P(k_i | k_1, ..., k_{i−1}),   softmax of a network that sees k_1 to k_{i−1} alone

The network's input has a 1 for the entry at each position, its output a number for each entry at each position, and its
masks let no position see itself or a later one (MADE, Germain et al. 2015). Trained by maximum likelihood. The VQ-VAE's
authors sample from a PixelCNN, which is this for maps of entries; codes here are short and have no neighbourhood.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
import zuko
from torch import Tensor, nn
from torch.nn import functional

from rae_bench.densities import learning
from rae_bench.densities.codes import CodeArray, DensityError, Float64, Observed
from rae_bench.densities.density import FittedDensity, State
from rae_bench.densities.indices import codebook_of, codes_of, drawn, indices_of
from rae_bench.densities.specs import AutoregressiveIndices
from rae_bench.models.networks import initialising


class _Conditionals(nn.Module):
    """The log probabilities (n, P, K) of entries at each position, given indices (n, P) as any numbers."""

    def __init__(self, spec: AutoregressiveIndices, positions: int, k: int) -> None:
        super().__init__()
        self.k = k
        earlier = torch.ones(positions, positions, dtype=torch.bool).tril(-1)
        self.net = zuko.nn.MaskedMLP(
            earlier.repeat_interleave(k, 0).repeat_interleave(k, 1), (spec.width,) * spec.depth, nn.ReLU
        )

    def forward(self, indices: Tensor) -> Tensor:
        seen = functional.one_hot(indices.round().long(), self.k).to(self.net[0].weight.dtype)
        found: Tensor = self.net(seen.flatten(1)).view(seen.shape).log_softmax(dim=2)
        return found


def _build(spec: AutoregressiveIndices, positions: int, k: int, seed: int) -> _Conditionals:
    with initialising(seed):
        return _Conditionals(spec, positions, k)


def _log_probability(model: nn.Module, indices: Tensor) -> Tensor:
    """Log probability of indices (n, P), (n,)."""
    chosen: Tensor = model(indices).gather(2, indices.round().long()[:, :, None])
    return chosen.sum(dim=(1, 2))


def _loss(model: nn.Module, batch: Tensor, noise: torch.Generator) -> Tensor:  # noqa: ARG001  a likelihood needs none
    return -_log_probability(model, batch).mean()


@dataclass(frozen=True)
class FittedAutoregressive(FittedDensity):
    """`model_`, the network, and the entries themselves, `codebook_` (K, length)."""

    model_: _Conditionals
    codebook_: CodeArray

    @classmethod
    def fit(cls, spec: AutoregressiveIndices, observed: Observed, seed: int) -> "FittedAutoregressive":
        """The network, trained on the training codes; those of validation images choose the best epoch.

        Raises:
            DensityError: the model's codes are not quantised, of one entry, or of more than the network has units.
            TrainingError: fewer codes than a batch, or a loss that is not finite.
        """
        codebook = codebook_of(observed)
        train, held_out = (
            torch.from_numpy(indices_of(codes, codebook)).float() for codes in (observed.train, observed.validation)
        )
        positions = train.shape[1]
        if said := spec.misfit(positions):
            raise DensityError(said)
        fitted = cls(_build(spec, positions, len(codebook), seed), codebook)
        learning.train_on(fitted.model_, _loss, train, held_out, spec.optimisation, seed)
        return fitted

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d): an entry by its probability given those before, position by position."""
        uniform = rng.random((n, self.model_.net.out_features // len(self.codebook_)))
        indices = np.zeros(uniform.shape, dtype=np.int64)
        for i in range(uniform.shape[1]):
            at = functools.partial(self._probabilities, i)
            indices[:, i] = drawn(learning.in_blocks(at, indices.astype(np.float64)), uniform[:, i])
        return codes_of(indices, self.codebook_)

    def _probabilities(self, position: int, indices: Tensor) -> Tensor:
        """Those of entries at a position (n, K), given indices (n, P) of which the earlier ones count."""
        found: Tensor = self.model_(indices)[:, position].double().exp()
        return found

    def log_density(self, codes: CodeArray) -> Float64:
        """Log probability of each code's entries, (n,), in nats."""
        indices = indices_of(codes, self.codebook_).astype(np.float64)
        return learning.in_blocks(lambda block: _log_probability(self.model_, block), indices)

    def state(self) -> State:
        """The learned arrays."""
        return {"codebook": self.codebook_, **learning.weights(self.model_)}

    @classmethod
    def restore(cls, spec: AutoregressiveIndices, state: State) -> "FittedAutoregressive":
        """The inverse of `state`."""
        codebook, first = state["codebook"].astype(np.float32), state[f"{learning.PREFIX}net.0.weight"]
        model = _build(spec, first.shape[1] // len(codebook), len(codebook), seed=0)
        return cls(learning.with_weights(model, state), codebook)
