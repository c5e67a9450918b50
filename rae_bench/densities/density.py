"""What every density offers, whatever its family."""

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from rae_bench.densities.codes import CodeArray, DensityError, Float64, Observed

State = dict[str, npt.NDArray[np.float32] | npt.NDArray[np.float64]]


class FittedDensity(ABC):
    """A density p(z) of codes, fitted: learned arrays end in `_`; the settings `spec` are those of its own kind."""

    @classmethod
    @abstractmethod
    def fit(cls, spec: Any, observed: Observed, seed: int) -> Self:
        """The density of settings `spec`, fitted; `seed`, of its kind alone, decides all that is random."""

    @abstractmethod
    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """Independent codes, float32 (n, d), in random order."""

    @abstractmethod
    def log_density(self, codes: CodeArray) -> Float64 | None:
        """Log density of each of codes (n, d), (n,), in nats; None where it has no closed form."""

    @abstractmethod
    def state(self) -> State:
        """The learned arrays."""

    @classmethod
    @abstractmethod
    def restore(cls, spec: Any, state: State) -> Self:
        """The density of settings `spec` whose `state` was saved."""

    def log_likelihood(self, codes: CodeArray) -> float | None:
        """The mean of `log_density`, in nats per code."""
        log_density = self.log_density(codes)
        return None if log_density is None else mean_log_density(log_density)


def mean_log_density(log_density: Float64) -> float:
    """The mean of log densities (n,), in nats per code.

    Raises:
        DensityError: one is not finite.
    """
    finite = np.isfinite(log_density)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise DensityError(
            f"the log density of code {bad} is {log_density[bad]}, of {len(finite)} codes {np.sum(~finite)} are not"
            " finite: the density is degenerate or the code far outside"
        )
    return float(log_density.mean())


def check_samples(codes: CodeArray) -> CodeArray:
    """The samples themselves, float32 (n, d).

    Raises:
        DensityError: one is not finite.
    """
    finite = np.isfinite(codes).all(axis=1)
    if not finite.all():
        raise DensityError(f"{np.sum(~finite)} of {len(codes)} samples are not finite: the density is degenerate")
    return codes
