"""Process-wide settings, made in one place: threads, determinism, the GPU, TF32, the allocator.

They change bytes or speed. The libraries read the number of threads when they load: `configure` comes before heavy
imports, `configure_torch` after.
"""

import ctypes
import os
import sys

from rae_bench.base import devices
from rae_bench.base.plain import ConfigError
from rae_bench.base.specs import Compute
from rae_bench.study import loads

CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""What makes cuBLAS deterministic; it is read once, as CUDA starts, so whatever may load torch sets it before."""


def begin(compute: Compute, modules: loads.Modules) -> None:
    """Configure this process and import `modules`, each at its time; torch, if it is among them."""
    configure(compute)
    loads.load(modules)
    if "torch" in sys.modules:
        configure_torch(compute)


def configure(compute: Compute) -> None:
    """Threads of every numerical library, one GPU of several, and pages kept: before these libraries are imported.

    Raises:
        ConfigError: `auto`, which only a study may say.
    """
    if compute.device == "auto":
        raise ConfigError("compute.device: 'auto' is settled when a study is loaded; tell a stage 'cpu' or 'cuda'")
    if compute.device == "cuda":
        devices.choose_gpu()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(compute.threads)
    os.environ.update(CUBLAS)
    _keep_pages()


def configure_torch(compute: Compute) -> None:
    """Threads, determinism and TF32 of torch.

    Raises:
        ConfigError: a GPU is asked for and there is none, or one without bfloat16.
    """
    import torch

    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device: 'cuda', but this machine offers torch no GPU; use a study with device: cpu")
    if compute.device == "cuda" and compute.precision == "bfloat16" and not torch.cuda.is_bf16_supported(False):
        raise ConfigError("compute.precision: 'bfloat16', which this GPU does not have; use precision: float32")
    torch.set_num_threads(compute.threads)
    # use_deterministic_algorithms(True) less torch's compiler, which that loads: a second and 150 MiB of every stage
    torch.set_deterministic_debug_mode("error")
    # else each new tensor is filled with NaN before a kernel writes it: a guard against reading what was never written
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False  # else the fastest algorithm of the moment is taken, another each time
    torch.backends.cuda.matmul.allow_tf32 = compute.tf32
    torch.backends.cudnn.allow_tf32 = compute.tf32


def _keep_pages() -> None:
    """Let glibc keep freed pages: else large tensors are returned and page-faulted in again at every step."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)
    mallopt(mmap_max, 0)
