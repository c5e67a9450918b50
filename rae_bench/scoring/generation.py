"""Image sets, and the one place where the decoder's floats become uint8.

Reconstructions of images; mid-points of random pairs of their codes (a fixed list of pairs); decoded samples of a
density. Which images and which codes: `ImageSets`.
"""

from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt
import torch

from rae_bench.base.rng import numpy_generator
from rae_bench.models.autoencoder import Model
from rae_bench.models.specs import at_once

Images = npt.NDArray[np.uint8]
Rounding = Literal["round", "truncate"]
Midpoints = Literal["linear", "rescaled", "spherical"]
BATCH = 250


class GenerationError(RuntimeError):
    """A decoder that gave something that is no image."""


def to_uint8(x_hat: npt.NDArray[np.float32], rounding: Rounding = "round") -> Images:
    """The uint8 levels of floats in [0, 1] that a saved PNG would hold: clipped, then rounded to the nearest of 256.

    "truncate" drops the fraction instead, as the official code does: half a level darker on average.

    Raises:
        GenerationError: not finite.
    """
    if not np.isfinite(x_hat).all():
        raise GenerationError(f"decoded images hold {int((~np.isfinite(x_hat)).sum())} values that are not finite")
    levels = np.clip(x_hat, 0, 1) * 255
    return (np.rint(levels) if rounding == "round" else levels).astype(np.uint8)


def decode(model: Model, codes: npt.NDArray[np.float32], rounding: Rounding = "round") -> Images:
    """Codes (n, d) to uint8 images (n, C, H, W); the result does not depend on the batch size."""
    device, at_a_time = next(model.parameters()).device, at_once(BATCH, model.pixels)
    parts = []
    with torch.no_grad():
        for start in range(0, len(codes), at_a_time):
            batch = torch.from_numpy(codes[start : start + at_a_time]).to(device)
            parts.append(to_uint8(model.decode(batch).cpu().numpy(), rounding))
    return np.concatenate(parts)


def interpolation_pairs(n: int, seed: int) -> npt.NDArray[np.int64]:
    """Random pairs of different indices below n, n of them, (n, 2): the same for every model of a data set."""
    rng = numpy_generator(seed, "interpolation pairs")
    first = rng.permutation(n)
    return np.stack([first, np.roll(first, 1)], axis=1)


def midpoints(
    codes: npt.NDArray[np.float32], pairs: npt.NDArray[np.int64], kind: Midpoints = "linear"
) -> npt.NDArray[np.float32]:
    """The mid-point of each pair of codes a, b, float32 (n, d).

    linear      (a + b) / 2
    rescaled    the same direction, its length the mean of ‖a‖ and ‖b‖
    spherical   (a + b) / (2 cos ω/2) with ω the angle between a and b: half-way of White's (2016) spherical
                interpolation; not finite for opposite codes, which have no such point
    """
    a, b = codes[pairs[:, 0]], codes[pairs[:, 1]]
    middle = 0.5 * (a + b)
    lengths_a, lengths_b, lengths = (np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b, middle))
    match kind:
        case "linear":
            return middle
        case "rescaled":
            rescaled: npt.NDArray[np.float32] = middle * (0.5 * (lengths_a + lengths_b) / lengths)
            return rescaled
        case "spherical":
            cosine = (a * b).sum(axis=1, keepdims=True) / (lengths_a * lengths_b)
            spherical: npt.NDArray[np.float32] = middle / np.sqrt(0.5 * (1 + cosine))  # cos² ω/2 = (1 + cos ω) / 2
            return spherical
        case _:
            assert_never(kind)


def strip(codes: npt.NDArray[np.float32], pairs: npt.NDArray[np.int64], steps: int) -> npt.NDArray[np.float32]:
    """`steps` codes from one end of each pair to the other, both included, (pairs · steps, d)."""
    part = np.linspace(0, 1, steps, dtype=np.float32)[None, :, None]
    start, end = codes[pairs[:, 0]][:, None], codes[pairs[:, 1]][:, None]
    return ((1 - part) * start + part * end).reshape(-1, codes.shape[1])
