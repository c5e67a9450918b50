"""The process that forks to be each stage: the same results, endings and costs as processes of their own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT, environment

from rae_bench import fork_client, records, storage
from rae_bench.config import load_study
from rae_bench.locks import holder
from rae_bench.plain import to_json

STUDY = load_study("smoke")
DRIVER = """
import os, sys, time
from rae_bench import fork_client

fork_client.start(sys.argv[1])
print(os.environ[fork_client.ADDRESS], flush=True)
time.sleep(600)
"""


@pytest.fixture
def server():
    """A driver that has started one: its process, and the environment of what it starts."""
    env = environment(ROOT)
    command = [sys.executable, "-c", DRIVER, to_json(STUDY.file.compute)]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as driver:
        try:
            address = driver.stdout.readline().strip()
            assert address
            yield driver, env | {fork_client.ADDRESS: address}
        finally:
            driver.kill()


@pytest.fixture
def codes(tmp_path):
    """Codes in 8 dimensions, as `train` leaves them."""
    rng = np.random.default_rng(0)
    arrays = {f"{split}.mean": rng.standard_normal((400, 8), dtype=np.float32) for split in ("train", "validation")}
    path = tmp_path / "codes.safetensors"
    storage.write_arrays(path, arrays, {"fingerprint": "", "seed": 0})
    records.write("train", {}, {"seed": 0}, {}, [path])
    return path


def _fit(env, codes, output, density="gmm10", spec=None):
    spec = spec or to_json(STUDY.fit("digits_mini", "rae_l2", density))
    command = [sys.executable, "-m", "rae_bench", "fit", "--spec", spec, "--seed", "0"]
    command += ["--codes", str(codes), "--density", str(output)]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _costs(output):
    return json.loads(output.with_suffix(".job.json").read_text())


def test_a_fork_writes_the_same_bytes_and_only_the_first_pays_for_the_libraries(server, codes, tmp_path):
    _, env = server
    outputs = [tmp_path / name / "density.safetensors" for name in ("alone", "first", "second")]
    for output, how in zip(outputs, (environment(ROOT), env, env), strict=True):
        process = _fit(how, codes, output)
        _, said = process.communicate()
        assert process.returncode == 0, said
        assert "fit: done" in said
    alone, first, second = (output.read_bytes() for output in outputs)
    assert alone == first == second
    paid = [_costs(output)["import_seconds"] for output in outputs]
    assert paid[1] > 0.5 * paid[0]  # loading is counted, where it is done
    assert paid[2] < 0.5 * paid[0]
    assert all(_costs(output)["cpu_seconds"] >= _costs(output)["import_seconds"] for output in outputs)


def test_a_fork_fails_as_a_process_does(server, tmp_path):
    _, env = server
    said = []
    for how in (environment(ROOT), env):
        process = _fit(how, tmp_path / "none.safetensors", tmp_path / "density.safetensors", "gaussian")
        said.append((process.communicate()[1].splitlines()[-1], process.returncode))
    assert said[0] == said[1]
    assert said[0][1] == 1


@pytest.mark.parametrize("spec", ["{", "{}"])
def test_settings_that_cannot_be_read_are_told_by_the_process_itself(server, codes, tmp_path, spec):
    process = _fit(server[1], codes, tmp_path / "density.safetensors", spec=spec)
    said = process.communicate()[1]
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith("rae_bench fit: --spec")


def test_another_environment_is_not_served(server, codes, tmp_path):
    """A module that is found first there, as in the environment of a rule of its own, is what the stage loads."""
    other = tmp_path / "other"
    other.mkdir()
    output = tmp_path / "density.safetensors"
    process = _fit(server[1] | environment(ROOT, other), codes, output, "gmm10")
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert _costs(output)["pid"] == process.pid


def test_the_stage_ends_when_who_asked_for_it_is_killed(server, tmp_path):
    _, env = server
    output = tmp_path / "density.safetensors"
    lock = output.with_suffix(".lock")
    fifo = tmp_path / "codes.fifo"
    os.mkfifo(fifo)  # reading it waits for a writer who does not come
    with _fit(env, fifo, output, "gaussian") as process:
        _until(lambda: lock.exists() and holder(lock) is not None)
        assert holder(lock).pid != process.pid
        process.send_signal(signal.SIGKILL)
    _until(lambda: holder(lock) is None)


def test_a_signal_reaches_the_stage(server, tmp_path):
    _, env = server
    fifo = tmp_path / "codes.fifo"
    os.mkfifo(fifo)
    lock = tmp_path / "density.lock"
    with _fit(env, fifo, tmp_path / "density.safetensors", "gaussian") as process:
        _until(lambda: lock.exists() and holder(lock) is not None)
        process.terminate()
    assert process.returncode == fork_client.KILLED
    _until(lambda: holder(lock) is None)  # the kernel closes a dead process's socket before its lock, or after it


def test_it_ends_with_its_driver_and_then_stages_are_processes(server, codes, tmp_path):
    driver, env = server
    driver.kill()
    driver.wait()
    _until(lambda: not Path(env[fork_client.ADDRESS]).exists())
    output = tmp_path / "density.safetensors"
    process = _fit(env, codes, output, "gaussian")
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert output.exists()


def _until(true, seconds=30.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if true():
                return
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")
