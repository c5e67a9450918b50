"""Image sets, and the one place where the decoder's floats become uint8.

Reconstructions of reference images; mid-points of random pairs of their codes (a fixed list of pairs); decoded samples
of a density. Posterior means stand for the codes (the official code reconstructs a VAE from sampled ones).
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from rae_bench.autoencoder import Autoencoder
from rae_bench.rng import numpy_generator

Images = npt.NDArray[np.uint8]
Rounding = Literal["round", "truncate"]
BATCH = 250


class GenerationError(RuntimeError):
    """A decoder that gave something that is no image."""


def to_uint8(x_hat: npt.NDArray[np.float32], rounding: Rounding = "round") -> Images:
    """Floats in [0, 1] to uint8 as a saved PNG would hold: clipped, then rounded to the nearest of 256 levels.

    "truncate" drops the fraction instead, as the official code does: half a level darker on average.

    Raises:
        GenerationError: not finite.
    """
    if not np.isfinite(x_hat).all():
        raise GenerationError(f"decoded images hold {int((~np.isfinite(x_hat)).sum())} values that are not finite")
    levels = np.clip(x_hat, 0, 1) * 255
    return (np.rint(levels) if rounding == "round" else levels).astype(np.uint8)


def decode(model: Autoencoder, codes: npt.NDArray[np.float32], rounding: Rounding = "round") -> Images:
    """Codes (n, d) to uint8 images (n, C, H, W); the result does not depend on the batch size."""
    device = next(model.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(codes), BATCH):
            batch = torch.from_numpy(codes[start : start + BATCH]).to(device)
            parts.append(to_uint8(model.decode(batch).cpu().numpy(), rounding))
    return np.concatenate(parts)


def interpolation_pairs(n: int, seed: int) -> npt.NDArray[np.int64]:
    """N random pairs of different indices below n, (n, 2): the same for every model of a data set."""
    rng = numpy_generator(seed, "interpolation pairs")
    first = rng.permutation(n)
    return np.stack([first, np.roll(first, 1)], axis=1)


def midpoints(codes: npt.NDArray[np.float32], pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The linear mid-point of each pair of codes, (n, d)."""
    return 0.5 * (codes[pairs[:, 0]] + codes[pairs[:, 1]])


def strip(codes: npt.NDArray[np.float32], pairs: npt.NDArray[np.int64], steps: int) -> npt.NDArray[np.float32]:
    """`steps` codes from one end of each pair to the other, both included, (pairs · steps, d)."""
    part = np.linspace(0, 1, steps, dtype=np.float32)[None, :, None]
    start, end = codes[pairs[:, 0]][:, None], codes[pairs[:, 1]][:, None]
    return ((1 - part) * start + part * end).reshape(-1, codes.shape[1])
