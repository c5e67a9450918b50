"""Independent random generators, one per (seed, purpose).

Every purpose hashes to a seed of its own, so that adding a stage, a density or a sample seed never shifts the
numbers of another. Nothing in the suite reads a global generator, but for layer initialisation, which runs in a
forked scope (`autoencoder.build`).
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for `purpose` under `seed`: the first bytes of a SHA-256 of both."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A numpy generator independent of every other purpose's."""
    return np.random.default_rng(derive(seed, *purpose))


def torch_generator(seed: int, *purpose: str | int) -> "torch.Generator":
    """A torch generator on the CPU: draws do not depend on the device or the batch size used afterwards."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *purpose))


def normal(shape: "torch.Size", generator: "torch.Generator", device: "torch.device") -> "torch.Tensor":
    """Float32 draws from N(0, I), made on the CPU and sent to `device`; a GPU goes on with its work meanwhile."""
    import torch

    drawn = torch.randn(shape, generator=generator)
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn.to(device)
