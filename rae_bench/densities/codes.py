"""What densities are fitted to and judged on: the posteriors q(z|x) of images, as arrays, and codes taken from them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rae_bench.base.rng import numpy_generator
from rae_bench.densities.specs import CodeKind

CodeArray = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class DensityError(RuntimeError):
    """Codes a density cannot be fitted to; the message says what would be enough."""


@dataclass(frozen=True)
class Posteriors:
    """Parameters of q(z|x) of n images: `mean` (n, d), and `log_sigma` (n, d), or None where a code is a point.

    Raises:
        DensityError: not two-dimensional, of different shapes, or not finite.
    """

    mean: CodeArray
    log_sigma: CodeArray | None

    def __post_init__(self) -> None:
        if self.mean.ndim != 2 or not np.isfinite(self.mean).all():
            raise DensityError(f"codes of shape {self.mean.shape} must be finite and two-dimensional")
        if self.log_sigma is not None and self.log_sigma.shape != self.mean.shape:
            raise DensityError(f"log_sigma of shape {self.log_sigma.shape} must be as the codes, {self.mean.shape}")
        if self.log_sigma is not None and not np.isfinite(self.log_sigma).all():
            raise DensityError(f"log_sigma of shape {self.log_sigma.shape} must be finite")

    def without_last(self, n: int) -> "Posteriors":
        """All but those of the last `n` images."""
        kept = len(self.mean) - n
        return Posteriors(self.mean[:kept], None if self.log_sigma is None else self.log_sigma[:kept])

    def codes(self, kind: CodeKind, seed: int, split: str) -> CodeArray:
        """One code per image, float32 (n, d): its mean, or a draw that `seed` and `split` alone decide."""
        if self.log_sigma is None or kind == "mean":
            return self.mean
        noise = numpy_generator(seed, "codes", split).standard_normal(self.mean.shape)
        return (self.mean + np.exp(self.log_sigma.astype(np.float64)) * noise).astype(np.float32)


@dataclass(frozen=True)
class Observed:
    """What a density is fitted to: the codes `train` (n, d) of training images, and their posteriors.

    The codes `validation` (m, d) of validation images only choose: a network's best epoch, a kernel's bandwidth.
    `prior`: the components (K, d) of the model's own prior, if it learnt one; `codebook`: the entries (K, length) that
    its codes are made of, if they are quantised.
    """

    train: CodeArray
    validation: CodeArray
    posteriors: Posteriors
    prior: Posteriors | None
    codebook: CodeArray | None = None
