"""Squared distances and kernels of all pairs of images, in one pass over blocks of a Gram matrix, in float64.

From x·y follow the squared distance ‖x‖² + ‖y‖² − 2 x·y and the kernel (x·y/d + 1)³; a block of rows at a time keeps
memory bounded. Of points so near that rounding of the former is not small against it, distances are those of their
differences: what is far from the origin, or near to each other, is measured as well as all else.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
BLOCK = 512
AMONG = 2**14
"""How many training images are in double precision at once: 256 MiB of 2,048 features."""
AT_ONCE = 2**20
"""Differences in memory at once: 8 MiB."""
FAR = 2.0**8
"""Features lie far from the origin if their mean's square is so many times their total variance.

Ordinary ones do not (digits, photographs and faces: 0.2 to 1.6 times), and keep the digits they always had. Up to here
float32, in which precision-recall curves are clustered, has four digits of a squared distance, float64 thirteen.
"""
NEAR = 2.0**-20
"""Squared distances below this share of ‖x‖² + ‖y‖² come from differences: else nine digits would be left of them."""


@dataclass(frozen=True)
class OwnPairs:
    """`squared_radii` (n, K): to each image's K nearest others, ascending; the kernel's mean over distinct pairs."""

    squared_radii: Float64
    kernel_mean: float


def is_far(mean: Float64, variance: float) -> bool:
    """Whether features of this mean (d,) and total variance are to be counted from their mean."""
    return float(mean @ mean) > FAR * variance


@np.errstate(over="ignore", invalid="ignore")  # of kernels: `measure` says where float64 cannot hold them
def own_pairs(features: npt.NDArray[np.floating], neighbours: int, origin: Float64 | None = None) -> OwnPairs:
    """One pass of a set over itself; none, and a kernel mean of NaN, if no `neighbours` are to be kept.

    features: (n, d), n above `neighbours`, counted from `origin` (d,); None is 0.
    """
    n, d = features.shape
    radii, total = np.empty((n, neighbours)), 0.0
    if not neighbours:
        return OwnPairs(radii, float("nan"))
    for rows, gram, squares in blocks(features, features, origin):
        own = np.arange(rows.start, rows.stop)
        kernel = (gram / d + 1) ** 3
        kernel[own - rows.start, own] = 0
        total += float(kernel.sum())
        squares[own - rows.start, own] = np.inf
        radii[rows] = np.sort(np.partition(squares, neighbours - 1, axis=1)[:, :neighbours], axis=1)
    return OwnPairs(radii, total / (n * (n - 1)))


def nearest_distances(features: npt.NDArray[np.floating], among: npt.NDArray[np.floating]) -> Float64:
    """Euclidean distance of each of `features` (n, d) to the nearest of `among` (m, d): (n,).

    `among`, which may be all training images, is gone through AMONG at a time.
    """
    first = among[:AMONG]
    mean = first.mean(axis=0, dtype=np.float64)
    origin = mean if is_far(mean, float(first.var(axis=0, dtype=np.float64).sum())) else None
    nearest: Float64 = np.full(len(features), np.inf)
    for start in range(0, len(among), AMONG):
        one, two = features, among[start : start + AMONG]
        if origin is not None:
            one, two = one - origin, two - origin
        for rows, _, squares in blocks(one, two, None):
            nearest[rows] = np.minimum(nearest[rows], squares.min(axis=1))
    return np.sqrt(nearest)


def blocks(
    one: npt.NDArray[np.floating], two: npt.NDArray[np.floating], origin: Float64 | None
) -> Iterator[tuple[slice, Float64, Float64]]:
    """Each block of rows of `one`: where it is, its Gram matrix with `two`, and the squared distances.

    Both are counted from `origin`, the Gram matrix is not. While a block is looked at, a thread makes the next one:
    products use all cores, what is done with them uses one.
    """
    exact = two.astype(np.float64)
    lengths = (exact**2).sum(axis=1)

    def made(start: int) -> tuple[slice, Float64, Float64]:
        rows = slice(start, min(start + BLOCK, len(one)))
        block = one[rows].astype(np.float64)
        gram = block @ exact.T
        scale = (block**2).sum(axis=1)[:, None] + lengths
        squares = scale - 2 * gram
        near = np.nonzero(squares < NEAR * scale)
        squares[near] = _by_differences(block, exact, *near)
        if origin is not None:
            gram += (block @ origin)[:, None] + exact @ origin + origin @ origin
        return rows, gram, squares

    with ThreadPoolExecutor(1) as ahead:
        following = ahead.submit(made, 0)
        for start in range(BLOCK, len(one) + BLOCK, BLOCK):
            ready = following.result()
            if start < len(one):
                following = ahead.submit(made, start)
            yield ready


def _by_differences(one: Float64, two: Float64, i: npt.NDArray[np.intp], j: npt.NDArray[np.intp]) -> Float64:
    """‖one[i] − two[j]‖² for each pair of rows, (len(i),)."""
    squares, step = np.empty(len(i)), max(1, AT_ONCE // one.shape[1])
    for start in range(0, len(i), step):
        some = slice(start, start + step)
        gap = one[i[some]] - two[j[some]]
        squares[some] = np.einsum("nd,nd->n", gap, gap)
    return squares
