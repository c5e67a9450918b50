"""Which device a study computes on, and which GPU of several a process takes; settled without loading torch.

The device decides bytes, so a stage is told `cpu` or `cuda` in its settings. `auto` is a study's word: the command that
runs the study settles it, once, and its jobs find the answer in the environment, wherever they run.
"""

import fcntl
import itertools
import logging
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from rae_bench.base.plain import ConfigError

DEVICE = "RAE_BENCH_DEVICE"
"""Environment variable: what `device: auto` stands for. A cluster's login node has no GPU, its jobs do."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
log = logging.getLogger(__name__)


def settled(device: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """The device that `auto` stands for: RAE_BENCH_DEVICE, else `cuda` where there is a GPU; others as they are.

    Raises:
        ConfigError: RAE_BENCH_DEVICE is something else.
    """
    match os.environ.get(DEVICE) if device == "auto" else device:
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


def choose_gpu() -> None:
    """Leave torch one GPU of several, where nobody has said which; before torch is loaded.

    Snakemake counts how many of its jobs use a GPU, but tells none of them which.

    Raises:
        ConfigError: the folder of locks is not this user's.
    """
    if VISIBLE in os.environ or (count := n_gpus()) < 2:
        return
    gpu = take(count, _folder())
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # numbered as nvidia-smi does
    os.environ[VISIBLE] = str(gpu)
    log.info("GPU %d of %d", gpu, count)


def take(count: int, folder: Path) -> int:
    """The first of `count` GPUs with the fewest processes on it; this one counts there as long as it lives.

    The k-th process on a GPU holds the lock on that GPU's k-th file, and the kernel frees it however the process ends.
    So jobs spread evenly; more of them than GPUs share, which small networks can afford, and none ever waits.
    """
    for place, gpu in ((place, gpu) for place in itertools.count() for gpu in range(count)):
        handle = os.open(folder / f"gpu{gpu}.{place}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        else:
            return gpu  # the handle stays open
    raise AssertionError("there is always another place")


def _folder() -> Path:
    """Where this user's locks lie: not in results/, which several machines may share."""
    folder = Path(tempfile.gettempdir()) / f"rae_bench-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}; set TMPDIR, or {VISIBLE}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(f"{folder}: is not a folder of your own; remove it, or set TMPDIR or {VISIBLE}")
    return folder


def used() -> dict[str, Any]:
    """What this process had of a GPU: its name (`gpu`, empty without one) and `gpu_peak_mib`."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"gpu": "", "gpu_peak_mib": 0.0}
    return {"gpu": torch.cuda.get_device_name(), "gpu_peak_mib": round(torch.cuda.max_memory_reserved() / 2**20, 1)}
