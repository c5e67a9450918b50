"""The only door to torch-fidelity: its feature-level functions, which it does not export at top level."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def call(module: str, function: str) -> Callable[..., Any]:
    """`torch_fidelity.<module>.<function>`, of version 0.4 (pyproject.toml)."""
    target: Callable[..., Any] = getattr(importlib.import_module(f"torch_fidelity.{module}"), function)
    return target


def tensor(features: npt.NDArray[np.float32] | npt.NDArray[np.float64]) -> torch.Tensor:
    """Features as torch-fidelity takes them, in float64."""
    return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float64))
