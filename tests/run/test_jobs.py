"""Stage processes: one writer at a time, none outliving its driver, each leaving what it did."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from checkout import ROOT, environment

from rae_bench.base.cluster import STOP_AT, FinishedError
from rae_bench.base.locks import HeldError
from rae_bench.run import jobs
from rae_bench.run.jobs import Job, read_state
from rae_bench.run.records import RecordError

WRITER = """
import sys, time
from pathlib import Path
from rae_bench.run import jobs

with jobs.running("train", {}, {}, {"model": Path(sys.argv[1])}) as progress:
    progress(3, 10)
    print("started", flush=True)
    time.sleep(120)
"""


@pytest.fixture(autouse=True)
def no_driver(monkeypatch):
    monkeypatch.delenv(jobs.DRIVER, raising=False)
    monkeypatch.delenv(STOP_AT, raising=False)


@pytest.fixture
def job(tmp_path):
    return Job("train", "digits/vae/seed0", tmp_path / "run" / "model.safetensors", {"version": 1})


@contextlib.contextmanager
def _writing(job, driver=None, code=WRITER):
    """Another process at work on the job's output."""
    env = environment(ROOT) | ({} if driver is None else {jobs.DRIVER: str(driver)})
    command = [sys.executable, "-c", code, str(job.output)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "started\n"
            yield process
        finally:
            process.kill()


def _run(job, body=lambda: None):
    with jobs.running(job.stage, {"version": 1}, {}, {"model": job.output}):
        job.output.write_text("weights")
        body()


def test_a_finished_job_leaves_its_cost_and_what_it_read_and_wrote(job, tmp_path):
    images = tmp_path / "images.npy"
    with jobs.running("prepare", {}, {}, {"images": images}, {"dataset": "digits"}):
        images.write_text("images")
    before = time.time()
    with jobs.running("train", {"version": 1}, {"images": images}, {"model": job.output}, {"seed": 3}):
        job.output.write_text("weights")
        time.sleep(0.2)
    state = read_state(job)
    assert state["status"] == "done"
    assert state["pid"] == os.getpid()
    assert before <= state["started"] <= time.time()
    assert state["seconds"] >= 0.2
    assert state["cpu_seconds"] >= state["import_seconds"] > 0
    assert 10 < state["peak_mib"] < 10_000
    record = json.loads((tmp_path / "run" / "model.record.json").read_text())
    assert record["read"] == {"../images.npy": hashlib.sha256(b"images").hexdigest()}
    assert record["wrote"] == {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}
    assert (record["stage"], record["settings"]) == ("train", {"version": 1})
    assert record["run"] == {"dataset": "digits", "seed": 3}


def test_a_failed_job_says_why_and_can_run_again(job):
    def fail():
        raise RuntimeError("the loss\nis not finite")

    with pytest.raises(RuntimeError, match="not finite"):
        _run(job, fail)
    state = read_state(job)
    assert (state["status"], state["error"]) == ("failed", "the loss is not finite")
    assert not job.output.with_suffix(".record.json").exists()
    _run(job)
    assert read_state(job)["status"] == "done"


@pytest.fixture
def finished(job, tmp_path):
    """A training that is done, and the images it read; what it is asked for again, with what then goes wrong."""
    images = tmp_path / "images.npy"
    with jobs.running("prepare", {}, {}, {"images": images}, {"dataset": "digits"}):
        images.write_text("images")
    run = {"dataset": "digits", "seed": 0}

    def train(body):
        with jobs.running("train", {"version": 1}, {"images": images}, {"model": job.output}, run):
            body()

    train(lambda: job.output.write_text("weights"))
    return replace(job, run=run), images, train


def test_a_refused_job_leaves_what_is_said_of_the_finished_one(finished):
    """A damaged input is told by the command that finds it; put back, nothing contradicts what is there."""
    job, images, train = finished
    before = read_state(job)
    assert before["status"] == "done"
    images.write_text("imagse")
    with pytest.raises(RecordError, match=r"images\.npy: differs from what prepare wrote"):
        train(lambda: None)
    images.write_text("images")
    assert read_state(job) == before


@pytest.mark.parametrize(("wrote", "status"), [("", "done"), ("weights", "done"), ("wei", "failed")])
def test_a_job_that_failed_over_what_was_finished_is_done_if_that_is_whole(finished, wrote, status):
    job, _, train = finished

    def body():
        if wrote:
            job.output.write_text(wrote)
        raise RuntimeError("the loss is not finite")

    with pytest.raises(RuntimeError):
        train(body)
    assert read_state(job)["status"] == status


def test_a_job_that_was_killed_over_what_was_finished_is_done(finished):
    job, _, _ = finished
    with _writing(job) as process:
        assert read_state(job)["status"] == "running"
        process.kill()
        process.wait()
    assert read_state(job)["status"] == "done"
    job.output.write_text("wei")
    assert read_state(job)["status"] == "interrupted"


def test_a_job_that_ran_with_other_settings_than_the_studys_waits(finished):
    job, _, _ = finished
    assert read_state(replace(job, spec={"version": 2}))["status"] == "waiting"


def test_a_job_waits_until_its_output_exists(job):
    assert read_state(job)["status"] == "waiting"
    _run(job)
    job.output.unlink()
    assert read_state(job)["status"] == "waiting"
    job.output.with_suffix(".job.json").unlink()
    job.output.write_text("weights")
    assert read_state(job)["status"] == "done"


@pytest.mark.parametrize(
    "content",
    ["{", "", "[]", "3", "{}", '{"status": "done", "started": "now"}', '{"status": "failed", "started": 1}', "\0", "é"],
)
def test_a_state_that_is_damaged_is_named_and_stops_nothing(job, content, caplog):
    """It is only status: the output says whether the job is done."""
    _run(job)
    job.output.with_suffix(".job.json").write_bytes(content.encode("latin-1"))
    assert read_state(job) == {"stage": "train", "status": "done"}
    (message,) = caplog.messages[-1:]
    assert "model.job.json: not " in message
    _run(job)
    assert read_state(job)["status"] == "done"


def test_a_second_writer_is_refused_while_the_first_lives_and_starts_when_it_was_killed(job, monkeypatch):
    monkeypatch.setattr(jobs, "LOCK_WAIT", 0.3)
    with _writing(job) as first:
        state = read_state(job)
        assert (state["status"], state["done"], state["of"]) == ("running", 3, 10)
        with pytest.raises(HeldError, match=rf"written by process {first.pid} on .*; wait for it or end it$"):
            _run(job)
        assert read_state(job)["pid"] == first.pid
        first.kill()
        first.wait()
        assert read_state(job)["status"] == "interrupted"
        _run(job)
    assert read_state(job)["status"] == "done"


FINISHER = WRITER.replace("time.sleep(120)", "time.sleep(2); Path(sys.argv[1]).write_text('weights')")


@pytest.mark.parametrize(("settings", "is_same"), [({}, True), ({"version": 2}, False)])
def test_what_was_waited_for_is_not_made_again(job, settings, is_same):
    """A driver that was killed and started again: its second job finds the first at work, and then finished."""
    ends = pytest.raises(FinishedError, match=r"model\.safetensors") if is_same else contextlib.nullcontext()
    with _writing(job, code=FINISHER), ends, jobs.running("train", settings, {}, {"model": job.output}):
        job.output.write_text("other weights")
    assert job.output.read_text() == ("weights" if is_same else "other weights")
    assert read_state(replace(job, spec=settings))["status"] == "done"


def test_in_a_cluster_job_a_writer_waits_as_long_as_the_job_may_run(job, monkeypatch):
    monkeypatch.setattr(jobs, "LOCK_WAIT", 0.0)
    with _writing(job) as first:
        monkeypatch.setenv(STOP_AT, str(time.time() + 1.0))
        began = time.monotonic()
        with pytest.raises(HeldError, match=f"process {first.pid} on"):
            _run(job)
        assert time.monotonic() - began > 0.8
        monkeypatch.setenv(STOP_AT, str(time.time() + 60.0))
        subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {first.pid}"]).wait()
        _run(job)
    assert read_state(job)["status"] == "done"


def test_a_stage_ends_with_its_driver(job):
    driver = subprocess.Popen(["sleep", "300"])
    try:
        with _writing(job, driver=driver.pid) as stage:
            assert stage.poll() is None
            driver.kill()
            driver.wait()
            assert stage.wait(timeout=60) != 0
    finally:
        driver.kill()
    assert read_state(job)["status"] == "interrupted"
    assert not job.output.exists()


def test_a_stage_whose_driver_is_gone_ends_at_once(job):
    driver = subprocess.Popen(["true"])
    driver.wait()
    env = environment(ROOT) | {jobs.DRIVER: str(driver.pid)}
    stage = subprocess.Popen([sys.executable, "-c", WRITER, str(job.output)], env=env, stdout=subprocess.DEVNULL)
    assert stage.wait(timeout=60) != 0


def test_one_driver_holds_a_results_folder_until_it_ends(tmp_path):
    with (
        jobs.claim(tmp_path / "results"),
        pytest.raises(
            HeldError, match=rf"results/ is in use by another command, process {os.getpid()} on .*; wait for it"
        ),
    ):
        jobs.claim(tmp_path / "results")
    jobs.claim(tmp_path / "results").close()
