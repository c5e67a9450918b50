"""The only door to torch-fidelity: its feature-level functions, which it does not export at top level."""

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

VERSION = "0.4"


def call(module: str, function: str) -> Callable[..., Any]:
    """`torch_fidelity.<module>.<function>`.

    Raises:
        ImportError: another version than 0.4, whose precision and recall may be swapped (before) or moved (after).
    """
    found = importlib.metadata.version("torch-fidelity")
    if not found.startswith(f"{VERSION}."):
        raise ImportError(f"torch-fidelity {found} is installed, {VERSION}.x is needed: make environment")
    target: Callable[..., Any] = getattr(importlib.import_module(f"torch_fidelity.{module}"), function)
    return target


def tensor(features: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> torch.Tensor:
    """Features as torch-fidelity takes them, in float64."""
    return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float64))
