"""Principal components of images, one block of them in memory at a time: the randomised method of Halko et al. (2011).

It is scikit-learn's PCA(svd_solver="randomized", iterated_power=7), to the byte where the images are one block. That
one has all images in memory twice, as float32: of CelebA, 16 GB. All steps of the method but the products with the
matrix of images are small, and a product goes over blocks of its rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rae_bench.base.storage import MappedRows

Float32 = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
BLOCK = 2**26
"""Values of images that are in memory as float32 at once: 256 MiB. Those of any embedded data set are fewer."""
OVERSAMPLES = 10
POWER_ITERATIONS = 7


@dataclass(frozen=True)
class Components:
    """The mean (pixels,) of images and their leading directions (k, pixels), orthonormal; on the scale 0 to 255."""

    mean: Float32
    directions: Float32

    def rebuilt(self, images: Images) -> Float32:
        """What their first k components make of `images` (n, C, H, W): (n, C, H, W)."""
        flat = images.reshape(len(images), -1).astype(np.float32)
        scores: Float32 = flat @ self.directions.T
        scores -= self.mean.reshape(1, -1) @ self.directions.T
        rebuilt: Float32 = (scores @ self.directions + self.mean).reshape(images.shape)
        return rebuilt


def rows_of_a_block(images: Images | MappedRows) -> int:
    """How many of `images` (n, C, H, W) make a block."""
    return max(1, BLOCK // int(np.prod(images.shape[1:])))


def fit(images: Images | MappedRows, components: int, seed: int) -> Components:
    """The leading components of `images` (n, C, H, W); the same seed gives the same.

    Raises:
        ValueError: no more than so many images or pixels.
    """
    from scipy import linalg  # half a second that only the floor needs

    centred = _Centred.of(images)
    n, pixels = centred.shape
    if not 1 <= components <= min(n, pixels):
        raise ValueError(f"{components} components of {n} images of {pixels} values; at most the smaller number")
    is_wide = n < pixels  # then the range that is found is that of the transposed matrix, the shorter one
    product, transposed = centred.times, centred.transposed_times
    if is_wide:
        product, transposed = transposed, product
    random = np.random.RandomState(seed)
    basis = random.normal(size=(n if is_wide else pixels, components + OVERSAMPLES)).astype(np.float32)
    for _ in range(POWER_ITERATIONS):
        basis, _ = linalg.lu(product(basis), permute_l=True, check_finite=False)
        basis, _ = linalg.lu(transposed(basis), permute_l=True, check_finite=False)
    basis, _ = linalg.qr(product(basis), mode="economic", check_finite=False)
    left, _, right = linalg.svd(centred.projected(basis, is_wide), full_matrices=False)
    return Components(centred.mean, (basis @ left)[:, :components].T if is_wide else right[:components])


@dataclass(frozen=True)
class _Centred:
    """The matrix X (n, pixels) of images less their mean, which exists in blocks; of one block, that is kept."""

    images: Images | MappedRows
    mean: Float32
    only: Float32 | None

    @classmethod
    def of(cls, images: Images | MappedRows) -> "_Centred":
        n, rows = len(images), rows_of_a_block(images)
        total = sum(
            images[start : start + rows].reshape(min(rows, n - start), -1).sum(axis=0, dtype=np.float64)
            for start in range(0, n, rows)
        )
        mean = np.asarray(total / n, np.float32)
        made = cls(images, mean, None)
        return cls(images, mean, made._block(0, n)) if n <= rows else made

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.images), len(self.mean)

    def _block(self, start: int, stop: int) -> Float32:
        block = self.images[start:stop].reshape(stop - start, -1).astype(np.float32)
        block -= self.mean
        return block

    def _blocks(self) -> Iterator[tuple[slice, Float32]]:
        n, rows = len(self.images), rows_of_a_block(self.images)
        if self.only is not None:
            yield slice(0, n), self.only
            return
        for start in range(0, n, rows):
            stop = min(start + rows, n)
            yield slice(start, stop), self._block(start, stop)

    def times(self, other: Float32) -> Float32:
        """X other, (n, k)."""
        return _joined([block @ other for _, block in self._blocks()], axis=0)

    def transposed_times(self, other: Float32) -> Float32:
        """Xᵀ other, (pixels, k)."""
        return _summed(block.T @ other[rows] for rows, block in self._blocks())

    def projected(self, basis: Float32, is_wide: bool) -> Float32:
        """basisᵀ X, (k, pixels); or basisᵀ Xᵀ, (k, n)."""
        if is_wide:
            return _joined([basis.T @ block.T for _, block in self._blocks()], axis=1)
        return _summed(basis[rows].T @ block for rows, block in self._blocks())


def _joined(parts: list[Float32], axis: int) -> Float32:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)


def _summed(parts: Iterator[Float32]) -> Float32:
    total = next(parts)
    for part in parts:
        total += part
    return total
