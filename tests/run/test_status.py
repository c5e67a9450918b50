"""What a study has done, is doing and has cost, from planted traces of its jobs."""

import contextlib
import fcntl
import json
import time

import pandas as pd
import pytest

from rae_bench.run.jobs import study_jobs
from rae_bench.run.status import cost_frame, describe, write_costs
from rae_bench.study.config import load_study


@pytest.fixture(scope="module")
def study():
    return load_study("smoke")


@pytest.fixture
def jobs(study, tmp_path):
    """The study's jobs by stage and name, none of which has left anything."""
    return {f"{job.stage} {job.name}": job for job in study_jobs(study, tmp_path)}


def _plant(job, status, exists=None, **state):
    job.output.parent.mkdir(parents=True, exist_ok=True)
    state = {"stage": job.stage, "status": status, "started": time.time(), **state}
    job.output.with_suffix(".job.json").write_text(json.dumps(state))
    if status == "done" if exists is None else exists:
        job.output.write_text("")


def _done(job, seconds, cpu=1.0, imports=0.5, peak=100.0, started=None):
    costs = {"seconds": seconds, "cpu_seconds": cpu, "import_seconds": imports, "peak_mib": peak}
    _plant(job, "done", started=time.time() if started is None else started, **costs)


@contextlib.contextmanager
def _locked(job):
    with job.output.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _counts(text, stage):
    line = next(line for line in text.splitlines() if line.startswith(f"{stage} "))
    return dict(zip(["done", "running", "failed", "interrupted", "waiting"], map(int, line.split()[1:]), strict=True))


def test_a_study_that_has_not_begun_waits(study, tmp_path):
    text = describe(study, tmp_path)
    assert _counts(text, "train") == {"done": 0, "running": 0, "failed": 0, "interrupted": 0, "waiting": 6}
    assert _counts(text, "fit")["waiting"] == 20
    assert _counts(text, "floor")["waiting"] == 1
    assert _counts(text, "protocols")["waiting"] == 4
    assert not any(tmp_path.iterdir())


def test_every_state_is_counted_and_told(study, jobs, tmp_path):
    _done(jobs["prepare digits_mini"], 3.0)
    _done(jobs["train digits_mini/vae/seed0"], 120.0)
    _plant(jobs["train digits_mini/vae/seed1"], "running", started=time.time() - 60, done=3, of=10)
    _plant(jobs["train digits_mini/rae_l2/seed0"], "failed", error="the loss is not finite")
    _plant(jobs["train digits_mini/rae_l2/seed1"], "running")  # nobody holds its lock: it was killed
    with _locked(jobs["train digits_mini/vae/seed1"]):
        text = describe(study, tmp_path)
    assert _counts(text, "prepare")["done"] == 1
    assert _counts(text, "train") == {"done": 1, "running": 1, "failed": 1, "interrupted": 1, "waiting": 2}
    assert "running: train digits_mini/vae/seed1, for 60 s, 3 of 10 epochs" in text
    assert "failed: train digits_mini/rae_l2/seed0: the loss is not finite" in text
    # at 120 s a training: 60 s of the running one and four more
    rest = "collect, evaluate, figures, fit, floor, protocols, reference, report, tables, none of which has finished"
    assert f"left: about 9.0 min with 1 at once, and {rest} yet" in text


def test_a_finished_study_has_nothing_left(study, jobs, tmp_path):
    for job in jobs.values():
        _done(job, 1.0)
    assert describe(study, tmp_path).endswith("nothing left to do")


def test_references_are_shared_by_studies_and_floors_are_not(tmp_path):
    outputs = {}
    for name in ("digits", "densities"):
        jobs = study_jobs(load_study(name), tmp_path)
        outputs[name] = {stage: {job.output for job in jobs if job.stage == stage} for stage in ("reference", "floor")}
    assert outputs["digits"]["reference"] < outputs["densities"]["reference"]
    assert all(path.parent == tmp_path / "references" / "digits" for path in outputs["densities"]["reference"])
    assert outputs["digits"]["floor"] == {tmp_path / "digits" / "digits" / "floor.json"}
    assert outputs["densities"]["floor"] == {tmp_path / "densities" / "digits" / "floor.json"}


def test_costs_are_those_of_finished_jobs(study, jobs, tmp_path):
    _done(jobs["train digits_mini/vae/seed0"], 12.0, cpu=10.0, imports=4.0, peak=850.0)
    _done(jobs["fit digits_mini/vae/seed0/gmm10"], 7.0, cpu=6.0, imports=2.0, peak=300.0)
    _plant(jobs["train digits_mini/vae/seed1"], "failed", error="x")
    _done(jobs["train digits_mini/rae_l2/seed0"], 12.0)
    jobs["train digits_mini/rae_l2/seed0"].output.with_suffix(".job.json").write_text("{")  # it stops no report
    frame = cost_frame(study, tmp_path)
    assert frame["job"].tolist() == ["digits_mini/vae/seed0", "digits_mini/vae/seed0/gmm10"]
    assert frame["seconds"].tolist() == [12.0, 7.0]


def test_core_time_divides_into_stages_and_imports(study, jobs, tmp_path):
    since = time.time() - 10
    _done(jobs["train digits_mini/vae/seed0"], 12.0, cpu=10.0, imports=4.0, peak=850.0)
    _done(jobs["fit digits_mini/vae/seed0/gmm10"], 7.0, cpu=6.0, imports=2.0, peak=300.0)
    _done(jobs["prepare digits_mini"], 7.0, cpu=4.0, imports=0.0, started=since - 1000)  # by an earlier command
    text = write_costs(study, tmp_path, cores=2, since=since)
    lines = {line.split()[0]: line.split() for line in text.splitlines()}
    assert text.splitlines()[0] == "core time of 3 jobs: 20 s"
    assert lines["train"][1:] == ["6.0", "s", "30.0", "%"]
    assert lines["fit"][1:] == ["4.0", "s", "20.0", "%"]
    assert lines["imports"][1:] == ["6.0", "s", "30.0", "%"]
    # 16 of 2 x 10 core seconds were the jobs', or of a few more
    assert 19.9 < float(lines["wall"][-2]) < 100 * (1 - 16 / (2 * (time.time() - since))) + 0.1
    assert "largest process: 850 MiB, train digits_mini/vae/seed0" in text
    assert (tmp_path / "smoke" / "costs.txt").read_text() == text + "\n"
    assert len(pd.read_csv(tmp_path / "smoke" / "costs.csv")) == 3


def test_a_full_disk_is_told_where_no_log_can(study, small_disk):
    """64 KiB in all."""
    assert f"{small_disk}: the disk is full, 64 KiB are left; free space" in describe(study, small_disk)
