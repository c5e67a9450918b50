"""What all tests share: one thread a process, the real digits, and the smoke study, run once for all workers."""

import logging
import os
import shutil
import subprocess

os.environ["OMP_NUM_THREADS"] = "1"  # before anything that makes threads is imported
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # before torch is, which starts CUDA with it

import pytest
import torch
from checkout import Checkout

from rae_bench.base import storage
from rae_bench.base.locks import locked
from rae_bench.base.specs import Compute
from rae_bench.data import catalogue as sources
from rae_bench.run import process, stages
from rae_bench.study.config import load_study

torch.set_num_threads(1)
WHOLE_RUNS = {"fresh", "smoke", "planned"}
TOGETHER = ("tests/workflow/test_slurm", "tests/base/test_checkpoints")
"""Files, by how they begin, whose tests share what is dear, or is one on a machine: a cluster, an undisturbed run."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling  # a machine with a GPU may lack it

    class Together(LoadScopeScheduling):
        """Tests handed out one by one, but those of `TOGETHER` to one process.

        xdist's own groups (`--dist loadgroup`) are marks that its 3.8 loses under pytest 9.2: three processes then
        brought up a Slurm each, on one machine.
        """

        def _split_scope(self, nodeid):
            return next((begin for begin in TOGETHER if nodeid.startswith(begin)), nodeid)

    return Together(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What runs the workflow, or reads a study that it has run, is of the second tier; what waits for Slurm begins."""
    items.sort(key=lambda item: not item.path.name.startswith("test_slurm"))
    for item in items:
        if item.path.parent.name == "workflow" or WHOLE_RUNS & set(item.fixturenames):
            item.add_marker("workflow")


@pytest.fixture(autouse=True)
def torch_flags():
    """Stages and tests set torch's flags for their process; a test's end with it."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    kept = [backend.allow_tf32 for backend in backends]
    deterministic, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    filled = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.set_deterministic_debug_mode(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = filled
    torch.backends.cudnn.benchmark = benchmark
    for backend, value in zip(backends, kept, strict=True):
        backend.allow_tf32 = value


@pytest.fixture(autouse=True)
def logging_levels():
    """Commands for people quieten loggers for their process; the tests' own levels come back."""
    kept = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict if "rae_bench" in name}
    yield
    for name in [name for name in logging.root.manager.loggerDict if "rae_bench" in name]:
        logging.getLogger(name).setLevel(kept.get(name, logging.NOTSET))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """The CPU, on which a test shows that it holds what it says, and a GPU; torch is set as a stage on it sets it."""
    process.configure_torch(Compute(device=request.param, threads=1, tf32=False, precision="float32"))
    return request.param


@pytest.fixture(scope="session")
def digits():
    return sources.prepare(load_study("digits").preparation("digits"))


@pytest.fixture(scope="session")
def digit_images(digits):
    return digits.images[digits.splits["validation"]]


@pytest.fixture(scope="session")
def digit_labels(digits):
    return digits.extras["labels"][digits.splits["validation"]]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """The folder of the smoke study's data set, prepared by its stage."""
    folder = tmp_path_factory.mktemp("prepared")
    stages.prepare(spec=load_study("smoke").preparation("digits_mini"), data=folder)
    return folder


# --- the workflow, run in copies of the repository --------------------------------------------------------


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """A copy of the repository in which nothing has run; for dry runs only."""
    return Checkout(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A copy of the repository in which the smoke study has run, once for all workers, which read it and no more."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with locked(folder / "smoke.lock"):
        checkout = Checkout(folder / "smoke")
        if not (checkout.results / "smoke" / "report.html").exists():
            finished = checkout.snakemake()
            assert finished.returncode == 0, finished.stderr
    return checkout


@pytest.fixture(scope="session")
def planned(smoke, tmp_path_factory):
    """A worker's own copy of the finished smoke study, for dry runs; whoever edits its configuration undoes that."""
    return smoke.copy(tmp_path_factory.mktemp("planned"))


@pytest.fixture(scope="session")
def smoke_frame(smoke):
    return storage.read_frame(smoke.results / "smoke" / "metrics.parquet")


@pytest.fixture(scope="session")
def smoke_spec():
    return load_study("smoke").summary()


@pytest.fixture
def mount_disk():
    """Mount a disk of a size, as `mount` spells it, on a folder."""
    mounted = []

    def mount(folder, size):
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if (
            os.geteuid() != 0
            or shutil.which("mount") is None
            or subprocess.run(command, capture_output=True).returncode
        ):
            pytest.skip("mounting a small disk is not allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def small_disk(mount_disk, tmp_path):
    """A disk of 64 KiB."""
    return mount_disk(tmp_path / "disk", "64k")
