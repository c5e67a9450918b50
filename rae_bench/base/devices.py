"""Which device a study computes on, and which GPU of several a process takes; settled without loading torch.

The device decides bytes, so a stage is told `cpu` or `cuda` in its settings. `auto` is a study's word: the command that
runs the study settles it, once, and its jobs find the answer in the environment, wherever they run.
"""

import fcntl
import itertools
import logging
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rae_bench.base.plain import ConfigError

DEVICE = "RAE_BENCH_DEVICE"
"""Environment variable: what `device: auto` stands for. A cluster's login node has no GPU, its jobs do."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
KERNEL = Path("/sys/module/nvidia/version")
"""Where the kernel tells which driver it has."""
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
    """How many NVIDIA GPUs the jobs of this process may use; of a GPU that is cut (MIG), how many instances."""
    return len(usable())


def usable() -> dict[str, str]:
    """The GPUs and MIG instances that CUDA_VISIBLE_DEVICES leaves of those there are, in its order.

    The name of each and what that variable calls it, which is the same where it is not set: an index, or the beginning
    of a name. As CUDA reads the list, it holds names of one kind, and ends before the first that is none or could be
    two; one twice leaves nothing. A process sees one MIG instance, whatever it is given: each job has another.
    """
    named = os.environ.get(VISIBLE)
    entries = [entry.strip() for entry in (named or "").split(",")]
    kind = next((kind for kind in _KINDS if kind.match(entries[0])), None)
    if named is not None and kind is None:
        return {}
    known = _listed()
    if known is None:
        count = _counted()
        found = entries[:count] if kind else [str(gpu) for gpu in range(count)]
        return dict(zip(found, found, strict=True))
    if kind is None:
        return {name: name for gpu, instances in known.items() for name in instances or [gpu]}
    left: dict[str, str] = {}
    for entry in entries:
        meant = _meant(entry, known) if kind.match(entry) else None
        if meant is None:
            break
        if meant in left:
            return {}
        left[meant] = entry
    return left


_KINDS = tuple(map(re.compile, (r"\+?\d+", "GPU-", "MIG-")))


def _meant(entry: str, known: dict[str, list[str]]) -> str | None:
    """The one GPU or instance that an entry of CUDA_VISIBLE_DEVICES means."""
    if number := _KINDS[0].match(entry):
        return dict(enumerate(known)).get(int(number[0]))
    found = [name for names in ([*known], *known.values()) for name in names if name.startswith(entry)]
    if not found and known.get(entry.removeprefix("MIG-").partition("/")[0]):
        return entry  # MIG-GPU-.../1/0, the older form, of a driver that lists the newer
    return found[0] if len(found) == 1 else None


def _listed() -> dict[str, list[str]] | None:
    """The GPUs that the driver lists, each with its MIG instances; None where it cannot be asked."""
    listed = _nvidia_smi("-L")
    if listed is None:
        return None
    known: dict[str, list[str]] = {}
    for what, name in re.findall(r"^\s*(GPU|MIG) .*\(UUID: (.+)\)", listed, re.MULTILINE):
        if what == "GPU":
            known[name] = []
        else:
            [*known.values()][-1].append(name)
    return known


def _nvidia_smi(*arguments: str) -> str | None:
    """What `nvidia-smi` prints; None where it is not there, or fails, which is said."""
    try:
        ended = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if ended.returncode:
        log.warning("nvidia-smi: %s", " ".join((ended.stdout + ended.stderr).split()))
        return None
    return ended.stdout


_COUNT = """
import ctypes
try:
    ctypes.CDLL("libcuda.so.1")
except OSError:
    print(0)
else:
    import torch
    print(torch.cuda.device_count())
"""


def _counted() -> int:
    """How many GPUs torch counts where the driver is there without `nvidia-smi`, as in containers.

    In a process of its own: once it has counted, CUDA heeds no other CUDA_VISIBLE_DEVICES. Where no driver is there to
    be loaded, torch, which takes seconds, is not loaded either.
    """
    command = [sys.executable, "-c", _COUNT]
    try:
        return int(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        told = str(getattr(error, "stderr", None) or error).strip().rpartition("\n")[2]
        log.warning("torch cannot count the GPUs of this machine: %s", told)
        return 0


def choose_gpu() -> None:
    """Leave torch one GPU, or MIG instance, of several, where nobody has said which one; before torch is loaded.

    Snakemake counts how many of its jobs use a GPU, but tells none of them which.

    Raises:
        ConfigError: the folder of locks is not this user's.
    """
    if "," not in os.environ.get(VISIBLE, ",") or len(names := usable()) < 2:
        return
    gpu = take([*names], _folder())
    os.environ[VISIBLE] = names[gpu]
    log.info("GPU %s, one of %d", names[gpu], len(names))


def take(gpus: Sequence[str], folder: Path) -> str:
    """The first of `gpus` with the fewest processes on it; this one counts there as long as it lives.

    The k-th process on a GPU holds the lock on that GPU's k-th file, and the kernel frees it however the process ends.
    So jobs spread evenly; more of them than GPUs share, which small networks can afford, and none ever waits.
    """
    for place, gpu in ((place, gpu) for place in itertools.count() for gpu in gpus):
        name = f"{gpu.replace('/', '_')}.{place}.lock"
        handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
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


def computed_on() -> dict[str, str]:
    """The GPU that this process computed on, `gpu`, and its versions: `driver`, `cuda`, `cudnn`; empty without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    versions = {"driver": _driver(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"gpu": torch.cuda.get_device_name(), **{name: str(version) for name, version in versions.items()}}


def _driver() -> str:
    """The version of the driver, as the kernel tells it, or as `nvidia-smi` does where the kernel's word is hidden."""
    try:
        return KERNEL.read_text().strip()
    except OSError:
        told = _nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
        return told.split()[0] if told else "unknown"


def used() -> dict[str, Any]:
    """What this process had of a GPU: its name (`gpu`, empty without one) and `gpu_peak_mib`."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"gpu": "", "gpu_peak_mib": 0.0}
    return {"gpu": torch.cuda.get_device_name(), "gpu_peak_mib": round(torch.cuda.max_memory_reserved() / 2**20, 1)}
