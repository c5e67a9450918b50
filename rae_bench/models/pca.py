"""Principal components of images, one block of them in memory at a time: the randomised method of Halko et al. (2011).

It is scikit-learn's PCA(svd_solver="randomized", iterated_power=7), to the byte where the images are one block. That
one has all images in memory twice, as float32: of CelebA, 16 GB. Every step of the method is small but the products
with the matrix of images, and these go over blocks of its rows.
"""

import functools
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
    """The mean (pixels,) of images and their leading directions (k, pixels), orthonormal; on the scale 0 to 255.

    `sds` (k,): the standard deviations of the images along them, largest first.
    """

    mean: Float32
    directions: Float32
    sds: Float32


def blocks_of(images: Images | MappedRows) -> list[slice]:
    """The blocks that `images` (n, C, H, W) are gone through in."""
    rows = max(1, BLOCK // int(np.prod(images.shape[1:])))
    return [slice(start, min(start + rows, len(images))) for start in range(0, len(images), rows)]


def fit(images: Images | MappedRows, components: int, seed: int) -> Components:
    """The leading components of `images` (n, C, H, W); the same seed gives the same.

    Raises:
        ValueError: no more than so many images or pixels.
    """
    from scipy import linalg  # half a second that only a linear autoencoder needs

    n, pixels, blocks = len(images), int(np.prod(images.shape[1:])), blocks_of(images)
    if not 1 <= components <= min(n, pixels):
        raise ValueError(f"{components} components of {n} images of {pixels} values; at most the smaller number")
    total = sum(images[rows].sum(axis=0, dtype=np.float64).ravel() for rows in blocks)
    mean = np.asarray(total / n, np.float32)

    @functools.lru_cache(maxsize=1)  # a single block is made once
    def centred(i: int) -> Float32:
        return _flat(images[blocks[i]]) - mean

    def times(other: Float32) -> Float32:
        return np.concatenate([centred(i) @ other for i in range(len(blocks))])

    def transposed_times(other: Float32) -> Float32:
        return functools.reduce(np.add, (centred(i).T @ other[rows] for i, rows in enumerate(blocks)))

    is_wide = n < pixels  # then the range that is found is that of the transposed matrix, the shorter one
    product, transposed = (transposed_times, times) if is_wide else (times, transposed_times)
    random = np.random.RandomState(seed)
    basis = random.normal(size=(n if is_wide else pixels, components + OVERSAMPLES)).astype(np.float32)
    for _ in range(POWER_ITERATIONS):
        basis, _ = linalg.lu(product(basis), permute_l=True, check_finite=False)
        basis, _ = linalg.lu(transposed(basis), permute_l=True, check_finite=False)
    basis, _ = linalg.qr(product(basis), mode="economic", check_finite=False)
    if is_wide:
        projected = np.concatenate([basis.T @ centred(i).T for i in range(len(blocks))], axis=1)
    else:
        projected = functools.reduce(np.add, (basis[rows].T @ centred(i) for i, rows in enumerate(blocks)))
    left, singular, right = linalg.svd(projected, full_matrices=False)
    sds = singular[:components] / np.sqrt(np.float32(n))
    return Components(mean, (basis @ left)[:, :components].T if is_wide else right[:components], sds)


def _flat(images: Images) -> Float32:
    return images.reshape(len(images), -1).astype(np.float32)
