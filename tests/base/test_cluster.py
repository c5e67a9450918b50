"""When a stage must have ended: asked of Slurm in a cluster job, never on a single machine."""

import math
import os
import time

import pytest

from rae_bench.base.cluster import MARGIN, STOP_AT, announce, stop_at


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    """No limit to begin with; what `announce` sets is undone."""
    monkeypatch.setenv(STOP_AT, "0")
    monkeypatch.delenv(STOP_AT)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Inside a job of which `squeue` says what it is told to say; the real one answers in test_slurm.py."""

    def says(text):
        script = tmp_path / "squeue"
        script.write_text(f'#!/bin/sh\n[ "$SLURM_TIME_FORMAT" = %s ] && [ "$2" = --jobs=42 ] && {text}\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_JOB_ID", "42")

    return says


def test_on_a_single_machine_there_is_no_limit(slurm):
    slurm(f"echo {time.time() + 3600:.0f}")  # not even in a job: that is the driver's limit, not its stages'
    announce(in_job=False)
    assert stop_at() == math.inf


@pytest.mark.parametrize(("left", "margin"), [(3600, MARGIN), (240, 60)])
def test_in_a_job_a_margin_is_kept(slurm, left, margin):
    end = round(time.time() + left)
    slurm(f"echo {end}")
    announce(in_job=True)
    assert stop_at() == pytest.approx(end - margin, abs=5)  # a process was started meanwhile


def test_slurm_is_asked_once_a_job(slurm, monkeypatch):
    monkeypatch.setenv(STOP_AT, "1000.5")  # by the outer Snakemake of this job
    slurm("exit 1")
    announce(in_job=True)
    assert stop_at() == 1000.5


def test_the_limit_of_the_job_a_driver_runs_in_is_not_passed_on(monkeypatch):
    monkeypatch.setenv(STOP_AT, "1000.5")
    announce(in_job=False)
    assert STOP_AT not in os.environ


@pytest.mark.parametrize("text", ["exit 1", "echo NOT_SET", "true", "kill -9 $$"])
def test_without_an_answer_nothing_stops_by_itself(slurm, caplog, text):
    slurm(text)
    announce(in_job=True)
    assert stop_at() == math.inf
    assert "Slurm does not say when job 42 ends" in caplog.text


def test_another_kind_of_cluster_gives_no_limit():
    announce(in_job=True)
    assert stop_at() == math.inf
