"""The device of a study, and real processes that spread over GPUs by real locks. No GPU is needed, but where marked."""

import contextlib
import ctypes
import os
import re
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
    """A stand-in for `nvidia-smi -L` that lists so many GPUs, or those told with their MIG instances, or fails."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def lists(gpus, status=0):
        if isinstance(gpus, int):
            gpus = {f"GPU-{i}": () for i in range(gpus)}
        lines = []
        for i, (gpu, instances) in enumerate(gpus.items()):
            lines.append(f"GPU {i}: NVIDIA A100-SXM4-40GB (UUID: {gpu})")
            lines += [f"  MIG 1g.5gb      Device  {j}: (UUID: {one})" for j, one in enumerate(instances)]
        (folder / "nvidia-smi").write_text("#!/bin/sh\ncat <<.\n" + "\n".join(lines) + f"\n.\nexit {status}\n")
        (folder / "nvidia-smi").chmod(0o755)

    return lists


@pytest.fixture
def counts(tmp_path, monkeypatch):
    """No `nvidia-smi`, and a stand-in for torch that counts as told; and, if told, one for the driver's library."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def count(body, library=True):
        (tmp_path / "torch.py").write_text(f"import os\nclass cuda:\n    def device_count():\n        {body}\n")
        if library:
            loaded = re.search(r"\S+/libc\.so\S*", Path("/proc/self/maps").read_text())[0]
            (tmp_path / "libcuda.so.1").symlink_to(loaded)
            monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    return count


# --- which device -----------------------------------------------------------------------------------------


def test_a_machine_without_a_driver_has_no_gpu_and_loads_no_torch_to_know(counts, caplog):
    with contextlib.suppress(OSError):
        ctypes.CDLL("libcuda.so.1")
        pytest.skip("this machine has a driver")
    counts("return 5", library=False)
    assert devices.n_gpus() == 0
    assert devices.settled("auto") == "cpu"
    assert not caplog.messages


WHOLE = {f"GPU-{name}": () for name in ("8932f937-d72c", "8932aaaa-0000", "5d5ba0d6-d33d")}
FIRST, SECOND, THIRD = WHOLE


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [FIRST, SECOND, THIRD]),
        ("0", [FIRST]),
        ("2,0", [THIRD, FIRST]),
        (" 2 , 0 ", [THIRD, FIRST]),
        ("0,1,2,3", [FIRST, SECOND, THIRD]),
        ("0,2,-1,1", [FIRST, THIRD]),  # the manual's own example
        ("0,7,1", [FIRST]),
        ("0,,1", [FIRST]),
        ("7,0", []),
        ("1,1", []),
        ("1gpu,+2", [SECOND, THIRD]),  # read as C reads numbers
        (THIRD, [THIRD]),
        (f"{THIRD},{FIRST}", [THIRD, FIRST]),
        ("GPU-5,GPU-8932f", [THIRD, FIRST]),
        ("GPU-5,GPU-8932,GPU-8932f", [THIRD]),  # which of two?
        ("GPU-ff,GPU-5", []),
        (f"GPU-5,{THIRD}", []),
        (f"{THIRD},0", [THIRD]),
        (f"0,{THIRD}", [FIRST]),
        ("8932f937-d72c", []),  # an index, by its beginning
        ("MIG-8932", []),
        ("", []),
        (" ", []),
        ("-1", []),
        ("-1,0", []),
        ("NoDevFiles", []),
    ],
)
def test_gpus_are_those_the_driver_lists_and_the_user_allows(driver, monkeypatch, visible, expected):
    driver(WHOLE)
    if visible is not None:
        monkeypatch.setenv(devices.VISIBLE, visible)
    assert list(devices.usable()) == expected
    assert devices.n_gpus() == len(expected)
    assert devices.settled("auto") == ("cuda" if expected else "cpu")


ONE, TWO = "MIG-c6d4f1ef-42e4", "MIG-ffff0000-1111"
OLD = "MIG-GPU-5d5ba0d6-d33d/1/0"
CUT = {FIRST: (ONE, TWO), SECOND: (), THIRD: (OLD, "MIG-GPU-5d5ba0d6-d33d/1/1")}


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [ONE, TWO, SECOND, *CUT[THIRD]]),
        (TWO, [TWO]),
        (f"{TWO},{ONE}", [TWO, ONE]),
        ("MIG-c", [ONE]),
        ("MIG-", []),
        (f"{TWO},MIG-0,{ONE}", [TWO]),
        (f"{ONE},{ONE}", []),
        (OLD, [OLD]),
        (f"MIG-{FIRST}/3/0", [f"MIG-{FIRST}/3/0"]),  # the older form of what is listed by the newer
        (f"MIG-{SECOND}/3/0", []),  # a GPU that is not cut
        ("MIG-GPU-ffff/1/0", []),
        (f"{ONE},{SECOND}", [ONE]),
        ("0", [FIRST]),
        (FIRST, [FIRST]),
    ],
)
def test_mig_instances_are_found_by_either_form_of_their_names(driver, monkeypatch, visible, expected):
    driver(CUT)
    if visible is not None:
        monkeypatch.setenv(devices.VISIBLE, visible)
    assert list(devices.usable()) == expected


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1"]),
        ("3,1", ["3", "1"]),
        ("GPU-b,GPU-a,GPU-c", ["GPU-b", "GPU-a"]),
        ("-1", []),
        ("", []),
    ],
)
def test_without_nvidia_smi_a_torch_of_another_process_counts(counts, monkeypatch, visible, expected):
    counts("return 2")
    if visible is not None:
        monkeypatch.setenv(devices.VISIBLE, visible)
    assert list(devices.usable()) == expected
    assert devices.settled("auto") == ("cuda" if expected else "cpu")


def test_the_torch_that_counts_obeys_what_is_visible(counts, monkeypatch):
    counts("return os.environ['CUDA_VISIBLE_DEVICES'].count(',')")
    monkeypatch.setenv(devices.VISIBLE, "1,2,9")
    assert list(devices.usable()) == ["1", "2"]


@pytest.mark.parametrize("body", ["raise RuntimeError('the driver is too old')", "print('the driver is too old')"])
def test_a_torch_that_cannot_count_is_no_gpu_and_said(counts, caplog, body):
    counts(body)
    assert devices.n_gpus() == 0
    (told,) = caplog.messages
    assert told.startswith("torch cannot count the GPUs of this machine: ")
    assert "the driver is too old" in told


def test_a_broken_driver_is_said_and_torch_asked(counts, tmp_path, caplog):
    counts("return 1")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho Failed to initialize NVML\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert devices.n_gpus() == 1
    assert caplog.messages == ["nvidia-smi: Failed to initialize NVML"]


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
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=r"this machine offers torch no GPU; use a study with device: cpu$"):
        process.configure_torch(Compute("cuda", 1, False, "float32"))


# --- which GPU of several ---------------------------------------------------------------------------------

TAKE = """
import sys
from pathlib import Path
from rae_bench.base import devices
print(devices.take([f"GPU-{i}" for i in range(int(sys.argv[1]))], Path(sys.argv[2])), flush=True)
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
    return int(holder.stdout.readline().removeprefix("GPU-"))


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
    assert _chosen("cuda", tmp_path) == "GPU-0"
    assert locks.stat().st_mode & 0o777 == 0o700
    assert _gpu(hold(2, locks)) == 0
    assert _chosen("cuda", tmp_path) == "GPU-1"
    assert _chosen("cuda", tmp_path, CUDA_VISIBLE_DEVICES="0") == "0"  # whoever said which is obeyed
    assert _chosen("cpu", tmp_path) == "None"
    driver(1)
    assert _chosen("cuda", tmp_path) == "None"


def test_of_a_list_a_stage_takes_the_one_with_fewer_jobs_as_the_list_calls_it(driver, hold, tmp_path):
    driver(3)
    assert _chosen("cuda", tmp_path, CUDA_VISIBLE_DEVICES="0,2") == "0"
    assert _gpu(hold(3, tmp_path / f"rae_bench-{os.getuid()}")) == 0  # by another study, which was told of no list
    assert _chosen("cuda", tmp_path, CUDA_VISIBLE_DEVICES="0,2") == "2"


def test_stages_spread_over_mig_instances(driver, tmp_path):
    driver({"GPU-a": (OLD,)})
    assert _chosen("cuda", tmp_path) == "None"  # the only one
    driver({"GPU-a": (OLD,), "GPU-b": ()})
    assert _chosen("cuda", tmp_path) == OLD


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


def test_a_process_that_started_no_cuda_computed_on_no_gpu():
    assert devices.computed_on() == {}


@pytest.mark.parametrize(
    ("script", "expected"), [("echo 535.104.05; echo 535.104.05", "535.104.05"), ("exit 9", "unknown")]
)
def test_where_the_kernel_hides_it_nvidia_smi_tells_the_driver(driver, tmp_path, monkeypatch, script, expected):
    driver(1)
    (tmp_path / "bin" / "nvidia-smi").write_text(
        f'#!/bin/sh\n[ "$1" = --query-gpu=driver_version ] && {{ {script}; }}\n'
    )
    monkeypatch.setattr(devices, "KERNEL", tmp_path / "none")
    assert devices._driver() == expected
    (tmp_path / "none").write_text("550.54.14\n")
    assert devices._driver() == "550.54.14"


@pytest.mark.gpu
def test_a_process_names_the_gpu_that_it_computed_on_and_its_versions():
    import torch

    torch.zeros(1, device="cuda")
    found = devices.computed_on()
    assert found.pop("gpu") == torch.cuda.get_device_name()
    assert found.pop("cuda") == torch.version.cuda
    assert list(found) == ["driver", "cudnn"]
    assert all(re.fullmatch(r"[\d.]+", version) for version in found.values())


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

    found = devices.usable()
    assert torch.cuda.device_count() == (1 if any(name.startswith("MIG-") for name in found) else len(found))


@pytest.mark.gpu
def test_a_gpu_is_visible_to_torch_by_its_name():
    told = "import torch; print(torch.cuda.device_count(), torch.zeros(1, device='cuda').item())"
    for name, called in devices.usable().items():
        for visible in (name, called):
            told_by = {**environment(ROOT), "CUDA_VISIBLE_DEVICES": visible}
            ended = subprocess.run(
                [sys.executable, "-c", told], env=told_by, capture_output=True, text=True, check=True
            )
            assert ended.stdout.split() == ["1", "0.0"]
