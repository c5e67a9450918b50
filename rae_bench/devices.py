"""Which device a study computes on, settled without loading torch.

The device decides bytes, so a stage is told `cpu` or `cuda` in its settings. `auto` is a study's word: the command that
runs the study settles it, once, and its jobs find the answer in the environment, wherever they run.
"""

import logging
import os
import subprocess
import sys
from typing import Any, Literal

from rae_bench.plain import ConfigError

DEVICE = "RAE_BENCH_DEVICE"
"""Environment variable: what `device: auto` stands for. A cluster's login node has no GPU, its jobs do."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
log = logging.getLogger(__name__)


def settled(device: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """The device that `auto` stands for: RAE_BENCH_DEVICE, else `cuda` where there is a GPU; others as they are.

    Raises:
        ConfigError: RAE_BENCH_DEVICE is something else.
    """
    if device != "auto":
        return device
    match os.environ.get(DEVICE):
        case "cpu":
            return "cpu"
        case "cuda":
            return "cuda"
        case None:
            return "cuda" if n_gpus() else "cpu"
        case other:
            raise ConfigError(f"{DEVICE}: {other!r} is not one of ['cpu', 'cuda']")


def n_gpus() -> int:
    """How many NVIDIA GPUs this process may use: as many as the driver knows and CUDA_VISIBLE_DEVICES names."""
    named = os.environ.get(VISIBLE)
    if named is not None and named.split(",")[0].strip() in ("", "-1", "NoDevFiles"):
        return 0
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    if listed.returncode:
        log.warning("nvidia-smi: %s", " ".join((listed.stdout + listed.stderr).split()))
        return 0
    known = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return known if named is None else min(known, len(named.split(",")))


def used() -> dict[str, Any]:
    """What this process had of a GPU: its name (`gpu`, empty without one) and `gpu_peak_mib`."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"gpu": "", "gpu_peak_mib": 0.0}
    return {"gpu": torch.cuda.get_device_name(), "gpu_peak_mib": round(torch.cuda.max_memory_reserved() / 2**20, 1)}
