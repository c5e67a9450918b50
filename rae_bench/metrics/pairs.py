"""Everything that compares each image with each other one, in one pass over blocks of a Gram matrix, in float64.

From x·y follow the squared distance ‖x‖² + ‖y‖² − 2 x·y and the kernel (x·y/d + 1)³; a block of rows at a time keeps
memory bounded. Metrics, real first:

precision: share of fake images inside a ball around a real one that reaches its k-th real neighbour; recall: the same
with the parts exchanged (Kynkäänniemi et al. 2019; balls are closed). density: balls of real images that hold a fake
one, over k times the fakes; coverage: share of real balls that hold any (Naeem et al. 2020).
kernel_mmd2: the unbiased MMD² of all images (Gretton et al. 2012, eq. 3), no subsets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rae_bench import specs
from rae_bench.metrics.errors import MetricError

if TYPE_CHECKING:
    from rae_bench.metrics.reference import Reference

Float64 = npt.NDArray[np.float64]
BLOCK = 512
AMONG = 2**14
"""Of training images, how many are in double precision at once: of 2,048 features, 256 MiB."""
COINCIDENT = 1e-12
"""Squared distances below this share of ‖x‖² + ‖y‖² are rounding of equal points: they count as 0."""


@dataclass(frozen=True)
class OwnPairs:
    """`squared_radii` (n, K): to each image's K nearest others, ascending; the kernel's mean over distinct pairs."""

    squared_radii: Float64
    kernel_mean: float


def own_pairs(features: npt.NDArray[np.floating], neighbours: int) -> OwnPairs:
    """One pass of a set over itself; none, and a kernel mean of NaN, if no `neighbours` are to be kept.

    Raises:
        MetricError: no more images than neighbours.
    """
    n, d = features.shape
    if n <= neighbours:
        raise MetricError(f"neighbours is {neighbours}, but a set has only {n} images; {neighbours + 1} are needed")
    radii, total = np.empty((n, neighbours)), 0.0
    if not neighbours:
        return OwnPairs(radii, float("nan"))
    for rows, gram, squares in _blocks(features, features):
        own = np.arange(rows.start, rows.stop)
        kernel = (gram / d + 1) ** 3
        kernel[own - rows.start, own] = 0
        total += float(kernel.sum())
        squares[own - rows.start, own] = np.inf
        radii[rows] = np.sort(np.partition(squares, neighbours - 1, axis=1)[:, :neighbours], axis=1)
    return OwnPairs(radii, total / (n * (n - 1)))


def pair_metrics(real: "Reference", fake: npt.NDArray[np.floating], settings: specs.MetricSettings) -> dict[str, float]:
    """`precision`, `recall`, `density`, `coverage` and `kernel_mmd2` of `fake` (m, d).

    Raises:
        MetricError: no more images than neighbours, or a reference that keeps fewer.
    """
    k, wide = settings.neighbours, settings.coverage_neighbours
    if max(k, wide) > real.pairs.squared_radii.shape[1]:
        kept = real.pairs.squared_radii.shape[1]
        raise MetricError(f"the reference keeps {kept} neighbours, {max(k, wide)} needed; build it with as many")
    n, m, d = len(real.features), len(fake), fake.shape[1]
    own = own_pairs(fake, k)
    real_radii, wide_radii = real.pairs.squared_radii[:, k - 1], real.pairs.squared_radii[:, wide - 1]
    precise, inside, recalled, covered, total = np.zeros(m, dtype=bool), 0, 0, 0, 0.0
    for rows, gram, squares in _blocks(real.features, fake):
        precise |= (squares <= real_radii[rows, None]).any(axis=0)
        recalled += int((squares <= own.squared_radii[None, :, k - 1]).any(axis=1).sum())
        held = squares <= wide_radii[rows, None]
        inside += int(held.sum())
        covered += int(held.any(axis=1).sum())
        total += float(((gram / d + 1) ** 3).sum())
    return {
        "precision": float(precise.mean()),
        "recall": recalled / n,
        "density": inside / (wide * m),
        "coverage": covered / n,
        "kernel_mmd2": real.pairs.kernel_mean + own.kernel_mean - 2 * total / (n * m),
    }


def nearest_distances(features: npt.NDArray[np.floating], among: npt.NDArray[np.floating]) -> Float64:
    """Euclidean distance of each of `features` (n, d) to the nearest of `among` (m, d): (n,).

    `among`, which may be all training images, is gone through AMONG at a time.
    """
    nearest: Float64 = np.full(len(features), np.inf)
    for start in range(0, len(among), AMONG):
        for rows, _, squares in _blocks(features, among[start : start + AMONG]):
            nearest[rows] = np.minimum(nearest[rows], squares.min(axis=1))
    distances: Float64 = np.sqrt(nearest)
    return distances


def _blocks(one: npt.NDArray[np.floating], two: npt.NDArray[np.floating]) -> Iterator[tuple[slice, Float64, Float64]]:
    """For each block of rows of `one`: where it is, its Gram matrix with `two`, and the squared distances."""
    exact = two.astype(np.float64)
    lengths = (exact**2).sum(axis=1)
    for start in range(0, len(one), BLOCK):
        rows = slice(start, min(start + BLOCK, len(one)))
        block = one[rows].astype(np.float64)
        gram = block @ exact.T
        scale = (block**2).sum(axis=1)[:, None] + lengths
        squares = scale - 2 * gram
        squares[squares < COINCIDENT * scale] = 0
        yield rows, gram, squares
