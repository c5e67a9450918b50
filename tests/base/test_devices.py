"""The device of a study, and real processes that spread over GPUs by real locks. No GPU is needed, but where marked."""

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from checkout import ROOT, environment, put

from rae_bench.base import devices
from rae_bench.base.plain import ConfigError
from rae_bench.base.specs import Compute
from rae_bench.run import process

TRAINED = "results/smoke/digits_mini/rae_l2/seed0/model.safetensors"


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    """Nothing said about devices by the environment of the tests; and what a test sets is taken back."""
    for name in (devices.DEVICE, devices.VISIBLE, "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A stand-in for `nvidia-smi -L` that lists as many GPUs as told, or fails."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def lists(count, status=0):
        lines = [
            f"GPU {i}: NVIDIA A100-SXM4-40GB (UUID: GPU-{i})\n  MIG 1g.5gb Device 0: (UUID: x)" for i in range(count)
        ]
        (folder / "nvidia-smi").write_text("#!/bin/sh\ncat <<.\n" + "\n".join(lines) + f"\n.\nexit {status}\n")
        (folder / "nvidia-smi").chmod(0o755)

    return lists


# --- which device -----------------------------------------------------------------------------------------


def test_a_machine_without_a_driver_has_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.n_gpus() == 0
    assert devices.settled("auto") == "cpu"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, 3), ("0", 1), ("2,0", 2), ("0,1,2,3", 3), ("", 0), ("-1", 0), ("NoDevFiles", 0)],
)
def test_gpus_are_those_the_driver_lists_and_the_user_allows(driver, monkeypatch, visible, expected):
    driver(3)
    if visible is not None:
        monkeypatch.setenv(devices.VISIBLE, visible)
    assert devices.n_gpus() == expected
    assert devices.settled("auto") == ("cuda" if expected else "cpu")


def test_a_broken_driver_is_no_gpu_and_said(driver, caplog):
    driver(1, status=9)
    assert devices.n_gpus() == 0
    assert "nvidia-smi: GPU 0" in caplog.text


def test_the_environment_settles_auto_and_nothing_else(driver, monkeypatch):
    driver(1)
    monkeypatch.setenv(devices.DEVICE, "cpu")
    assert [devices.settled(device) for device in ("auto", "cpu", "cuda")] == ["cpu", "cpu", "cuda"]
    monkeypatch.setenv(devices.DEVICE, "cuda")
    assert [devices.settled(device) for device in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setenv(devices.DEVICE, "gpu")
    with pytest.raises(ConfigError, match=r"^RAE_BENCH_DEVICE: 'gpu' is not one of \['cpu', 'cuda'\]$"):
        devices.settled("auto")


def test_no_stage_is_told_auto():
    with pytest.raises(ConfigError, match=r"^compute\.device: 'auto' is settled when a study is loaded; tell a stage"):
        process.configure(Compute("auto", 1, False, "float32"))


def _slice(checkout):
    """The spec of a training as the workflow hands it over, and how many GPUs the job asks for."""
    dry = checkout.snakemake("--dry-run", "--quiet", "progress", "--printshellcmds", "--", TRAINED)
    assert dry.returncode == 0, dry.stdout + dry.stderr
    (device,) = {name for name in ("auto", "cpu", "cuda") if f'"device":"{name}"' in dry.stdout}
    return device, "gpu=1" in dry.stdout


def test_an_auto_study_is_a_cpu_study_without_a_gpu_and_a_gpu_study_with_one(fresh, driver, monkeypatch):
    with fresh.edited("studies/smoke.yaml", lambda data: put(data, ["compute", "device"], "auto")):
        assert _slice(fresh) == ("cpu", False)
        driver(1)
        assert _slice(fresh) == ("cuda", True)
        monkeypatch.setenv(devices.DEVICE, "cpu")
        assert _slice(fresh) == ("cpu", False)


def test_auto_without_a_gpu_is_cpu_to_the_byte_and_another_device_reruns_all(planned, monkeypatch):
    with planned.edited("studies/smoke.yaml", lambda data: put(data, ["compute", "device"], "auto")):
        assert planned.plan() == {}
        monkeypatch.setenv(devices.DEVICE, "cuda")
        stages = Counter(job.split()[0] for job in planned.plan())
    made = Counter(path.name for path in planned.results.rglob("*.safetensors"))
    assert stages["train"] == made["model.safetensors"] == 6
    assert stages["evaluate"] == made["sheets.safetensors"] == 8
    assert stages["reference"] == 5
    assert "prepare" not in stages


def test_a_gpu_stage_without_a_gpu_is_one_line():
    import torch

    if torch.cuda.is_available():
        pytest.skip("here is one")
    with pytest.raises(ConfigError, match=r"this machine offers torch no GPU; use a study with device: cpu$"):
        process.configure_torch(Compute("cuda", 1, False, "float32"))


# --- which GPU of several ---------------------------------------------------------------------------------

TAKE = """
import sys
from pathlib import Path
from rae_bench.base import devices
print(devices.take(int(sys.argv[1]), Path(sys.argv[2])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Starts a process that takes one of `count` GPUs and keeps it until it is killed."""
    with contextlib.ExitStack() as stack:

        def start(count, folder=tmp_path):
            command = [sys.executable, "-c", TAKE, str(count), str(folder)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            holder = stack.enter_context(subprocess.Popen(command, env=environment(ROOT), **pipes))
            stack.callback(holder.kill)
            return holder

        yield start


def _gpu(holder):
    return int(holder.stdout.readline())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_takes_the_first_gpu_that_is_free_and_frees_it_however_it_ends(hold, how):
    holders = []
    for expected in range(3):
        holders.append(hold(3))
        assert _gpu(holders[-1]) == expected
    holders[1].send_signal(how)
    holders[1].wait()
    assert _gpu(hold(3)) == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_more_processes_than_gpus_share_them_evenly(hold, count):
    started = [hold(count) for _ in range(2 * count)]  # all at once
    assert Counter(map(_gpu, started)) == dict.fromkeys(range(count), 2)


CHOOSE = """
import os, sys
from rae_bench.base.specs import Compute
from rae_bench.run import process
process.configure(Compute(sys.argv[1], 1, False, "float32"))
assert "torch" not in sys.modules
print(os.environ.get("CUDA_VISIBLE_DEVICES"))
"""


def _chosen(device, folder, **variables):
    ended = subprocess.run(
        [sys.executable, "-c", CHOOSE, device],
        env={**environment(ROOT), "TMPDIR": str(folder), **variables}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return ended.stdout.strip() or ended.stderr.splitlines()[-1]


def test_a_stage_chooses_before_torch_is_loaded(driver, hold, tmp_path):
    driver(2)
    locks = tmp_path / f"rae_bench-{os.getuid()}"
    assert _chosen("cuda", tmp_path) == "0"
    assert locks.stat().st_mode & 0o777 == 0o700
    assert _gpu(hold(2, locks)) == 0
    assert _chosen("cuda", tmp_path) == "1"
    assert _chosen("cuda", tmp_path, CUDA_VISIBLE_DEVICES="0") == "0"  # whoever said which is obeyed
    assert _chosen("cpu", tmp_path) == "None"
    driver(1)
    assert _chosen("cuda", tmp_path) == "None"


def test_a_folder_of_locks_that_is_not_ones_own_is_refused(driver, tmp_path):
    driver(2)
    locks = tmp_path / f"rae_bench-{os.getuid()}"
    locks.symlink_to(Path("/"))
    assert "is not a folder of your own; remove it" in _chosen("cuda", tmp_path)
    locks.unlink()
    locks.write_text("")
    assert "cannot be made: File exists; set TMPDIR, or CUDA_VISIBLE_DEVICES" in _chosen("cuda", tmp_path)


def test_a_process_without_a_gpu_used_none():
    assert devices.used() == {"gpu": "", "gpu_peak_mib": 0.0}


@pytest.mark.gpu
def test_a_process_says_which_gpu_it_used():
    import torch

    torch.zeros(2**20, device="cuda")
    found = devices.used()
    assert found["gpu"] == torch.cuda.get_device_name()
    assert found["gpu_peak_mib"] >= 4


@pytest.mark.gpu
def test_torch_sees_as_many_gpus_as_the_driver_lists():
    import torch

    assert torch.cuda.device_count() == devices.n_gpus()
