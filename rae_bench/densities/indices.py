"""Densities over the entries of a codebook: of a quantised code, which entry stands at each of its positions.

    uniform       P(k) = Π_i 1/K
    categorical   P(k) = Π_i (n_i(k_i) + a) / (n + K a),  n_i(k) the training codes with entry k at position i

A code of d dimensions is P = d / length vectors, each one of the codebook's K entries (van den Oord et al. 2017, who
train under the first and sample from an autoregressive one, `rae_bench.densities.autoregressive`). What comes in and
goes out are codes (n, d), as everywhere; the log densities are log probabilities.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rae_bench.densities.codes import CodeArray, DensityError, Float64, Observed
from rae_bench.densities.density import FittedDensity, State
from rae_bench.densities.specs import CategoricalIndices, UniformIndices

Indices = npt.NDArray[np.int64]
BLOCK = 1000
"""Codes whose distances to all entries are in memory at once."""


def codebook_of(observed: Observed) -> CodeArray:
    """The codebook (K, length).

    Raises:
        DensityError: the model has none.
    """
    if observed.codebook is None:
        raise DensityError("the model's codes are not quantised; they hold no codebook")
    return observed.codebook


def indices_of(codes: CodeArray, codebook: CodeArray) -> Indices:
    """The entry nearest to each vector of codes (n, d), as its number in the codebook (K, length): (n, P)."""
    found = []
    for start in range(0, len(codes), BLOCK):
        block = codes[start : start + BLOCK]
        vectors = block.reshape(len(block), -1, 1, codebook.shape[1])
        found.append(np.square(vectors - codebook).sum(axis=3).argmin(axis=2))
    return np.concatenate(found)


def codes_of(indices: Indices, codebook: CodeArray) -> CodeArray:
    """The inverse of `indices_of`: codes (n, d), float32."""
    return codebook[indices].reshape(len(indices), -1)


def drawn(probabilities: Float64, uniform: Float64) -> Indices:
    """Index k of each row of probabilities (n, K) whose share of [0, 1) holds the number `uniform` (n,): (n,)."""
    reached = np.cumsum(probabilities, axis=1)
    k = (reached <= uniform[:, None] * reached[:, -1:]).sum(axis=1)
    # the last sum times a number near 1 may round up to that sum
    found: Indices = np.minimum(k, probabilities.shape[1] - 1)
    return found


@dataclass(frozen=True)
class FittedCategorical(FittedDensity):
    """`probabilities_` (P, K) of the entries at each position, and the entries themselves, `codebook_` (K, length)."""

    probabilities_: Float64
    codebook_: CodeArray

    @classmethod
    def fit(cls, spec: UniformIndices | CategoricalIndices, observed: Observed, seed: int) -> "FittedCategorical":  # noqa: ARG003
        """The smoothed frequencies of training codes; or, of a uniform one, the same of every entry.

        Raises:
            DensityError: the model's codes are not quantised.
        """
        codebook = codebook_of(observed)
        indices = indices_of(observed.train, codebook)
        k, positions = len(codebook), indices.shape[1]
        if isinstance(spec, UniformIndices):
            return cls(np.full((positions, k), 1 / k), codebook)
        counts = np.stack([np.bincount(indices[:, i], minlength=k) for i in range(positions)]).astype(np.float64)
        return cls((counts + spec.pseudo_count) / (len(indices) + k * spec.pseudo_count), codebook)

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Codes, float32 (n, d): at every position an entry by its probability."""
        positions, k = self.probabilities_.shape
        uniform = rng.random((n, positions))
        columns = [drawn(np.broadcast_to(self.probabilities_[i], (n, k)), uniform[:, i]) for i in range(positions)]
        return codes_of(np.stack(columns, axis=1), self.codebook_)

    def log_density(self, codes: CodeArray) -> Float64:
        """Log probability of each code's entries, (n,), in nats."""
        indices = indices_of(codes, self.codebook_)
        found: Float64 = np.log(self.probabilities_[np.arange(indices.shape[1]), indices]).sum(axis=1)
        return found

    def state(self) -> State:
        """The learned arrays."""
        return {"probabilities": self.probabilities_, "codebook": self.codebook_}

    @classmethod
    def restore(cls, spec: Any, state: State) -> "FittedCategorical":  # noqa: ARG003
        """The inverse of `state`."""
        return cls(state["probabilities"].astype(np.float64), state["codebook"].astype(np.float32))
