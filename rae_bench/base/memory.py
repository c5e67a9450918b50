"""A full memory told in one line: how large the batches were, how much memory there was, and what would be right.

Nothing is tried again with smaller batches: they would be another computation under the same name. And pages that the
allocator keeps (`rae_bench.run.process`) are given back where the next work needs others.
"""

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

MIB = 2**20
KEPT = 2**30
"""Bytes of freed memory that are worth keeping: small networks never give anything back."""
_GPU = (
    *("CUDA out of memory", "CUDA error: out of memory", "CUDA driver error: out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
_CPU = ("DefaultCPUAllocator", "std::bad_alloc", "could not create a primitive")
"""The last is oneDNN's, which does not say why; of networks that ran before, a full memory is the reason."""


class OutOfMemoryError(RuntimeError):
    """Memory ran out; the message says how much of it there was."""


@contextlib.contextmanager
def explained(batches: str, change: str = "") -> Iterator[None]:
    """Turn a full memory into one line: `batches` ("batch_size 64"), the memory, and the remedy, `change` first.

    Behind it stands what numpy or torch said, which tells how much was asked for, without torch's advice.

    Raises:
        OutOfMemoryError: numpy, torch or Python could not allocate, on the CPU or a GPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # its frames still hold what filled the memory
        text = str(error)
        if any(part in text for part in _GPU):
            place, held, other = *_gpu(), "another GPU"
        elif isinstance(error, MemoryError) or any(part in text for part in _CPU):
            place, held, other = "the CPU", _main(), "a machine with more memory"
        else:
            raise
        remedy = f"{change} or {other}" if change else other
        told = next((line for line in text.splitlines() if any(part in line for part in _GPU + _CPU)), text)
        told = told.partition(" If reserved")[0]
        said = f" ({told})" if told else ""
        raise OutOfMemoryError(f"out of memory on {place}: {batches}; {held}; use {remedy}{said}") from None


class _Heap(ctypes.Structure):
    """What glibc's mallinfo2 tells of the heap; `fordblks` are its free bytes."""

    _fields_ = [(name, ctypes.c_size_t) for name in (*"abcdefgh", "fordblks", "keepcost")]


def give_back() -> None:
    """Return freed memory to the kernel, where there is more than KEPT of it; between works of different shapes.

    Updates free tensors of one set of sizes, a validation asks for larger ones: these do not fit where those were, and
    both together would be the peak.
    """
    try:
        libc = ctypes.CDLL(None)
        info, trim = libc.mallinfo2, libc.malloc_trim
    except (OSError, AttributeError):  # not glibc, or an old one
        return
    info.restype = _Heap
    if info().fordblks > KEPT:
        trim(0)


def _gpu() -> tuple[str, str]:
    torch = sys.modules["torch"]
    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError:  # too full to begin with
        return "the GPU", "how full it is CUDA does not say"
    held = torch.cuda.memory_allocated()
    sizes = f"{total / MIB:,.0f} MiB in all, {free / MIB:,.0f} free, {held / MIB:,.0f} in use by this process"
    return torch.cuda.get_device_name(), sizes


def _main() -> str:
    """How much main memory the machine has, or this process is allowed (`ulimit -v`), and how much of it is free."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
        if limit != resource.RLIM_INFINITY and limit < total:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            total, free = limit, min(free, limit - pages * resource.getpagesize())
    except OSError:  # not Linux
        return f"{os.sysconf('SC_PHYS_PAGES') * resource.getpagesize() / MIB:,.0f} MiB in all"
    return f"{total / MIB:,.0f} MiB in all, {free / MIB:,.0f} free"
