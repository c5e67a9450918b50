"""Stages without Snakemake, one after the other; and so, or with it, the paper's network on a GPU, end to end."""

import importlib.util
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from checkout import ROOT, Checkout, differing, environment

from rae_bench.run.jobs import read_state, study_jobs
from rae_bench.study.config import load_study


def in_sequence(checkout, study):
    command = [sys.executable, ROOT / "scripts" / "run_stages.py", study]
    return subprocess.run(command, cwd=checkout.path, env=environment(checkout.path), capture_output=True, text=True)


def test_what_is_missing_is_made_in_order_and_to_the_same_bytes(smoke, tmp_path):
    checkout = smoke.copy(tmp_path / "copy")
    shutil.rmtree(checkout.results / "smoke" / "digits_mini" / "linear" / "seed1")
    for job in study_jobs(load_study("smoke"), checkout.results):
        if job.stage in ("collect", "tables", "figures", "report"):
            job.output.unlink()
    ended = in_sequence(checkout, "smoke")
    assert ended.returncode == 0, ended.stderr
    made = [line.split()[1] for line in ended.stdout.splitlines()]
    assert made == ["train", "fit", "fit", "fit", "evaluate", "collect", "tables", "figures", "report"]
    assert not differing(smoke.results, checkout.results)
    again = in_sequence(checkout, "smoke")
    assert (again.returncode, again.stdout) == (0, "")


def test_a_study_that_is_none_is_one_line(fresh):
    ended = in_sequence(fresh, "smok")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("run_stages: study: unknown study 'smok'; did you mean 'smoke'?")


@pytest.mark.gpu
def test_the_papers_network_on_a_gpu_end_to_end(tmp_path, record_property):
    checkout = Checkout(tmp_path / "checkout")
    has_snakemake = importlib.util.find_spec("snakemake") is not None
    ended = checkout.snakemake(study="smoke_cuda") if has_snakemake else in_sequence(checkout, "smoke_cuda")
    assert ended.returncode == 0, ended.stderr[-2000:]
    jobs = study_jobs(load_study("smoke_cuda"), checkout.results)
    states = [read_state(job) for job in jobs]
    assert {state["status"] for state in states} == {"done"}
    record_property("through", "Snakemake" if has_snakemake else "scripts/run_stages.py")
    frame = pd.DataFrame(states)
    on_gpu = frame[frame["gpu"].fillna("") != ""]
    assert set(on_gpu["stage"]) >= {"reference", "train", "decode"}
    for kind in ("seconds", "gpu_peak_mib"):
        record_property(kind, frame.groupby("stage")[kind].max().to_dict())
    verified = checkout.run("rae_bench", "verify", "smoke_cuda")
    assert verified.returncode == 0, verified.stdout + verified.stderr
