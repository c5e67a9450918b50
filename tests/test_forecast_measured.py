"""The forecast of a study held against what the study then did: operations, memory and time."""

import json
import re
import shlex
import subprocess
import sys

import pandas as pd
import pytest
from checkout import Checkout, environment

from rae_bench import work
from rae_bench.config import load_study
from rae_bench.demands import demand
from rae_bench.jobs import study_jobs
from rae_bench.rehearsal import count

pytestmark = pytest.mark.slow
STUDY = load_study("smoke")
WHOLE = ("reference", "floor", "train", "fit", "evaluate", "protocols")
"""Stages whose whole work is forecast, not only the start of their process."""
COUNTING = """
import sys
from torch.utils.flop_counter import FlopCounterMode
from rae_bench import cli
with FlopCounterMode(display=False) as flops:
    cli.main(sys.argv[1:])
print(flops.get_total_flops())
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The smoke study in a checkout of its own: its forecast from a calibration, and then itself, one job at a time."""
    checkout = Checkout(tmp_path_factory.mktemp("forecast"))
    told = checkout.run("rae_bench", "cost", "smoke", "--calibrate", "--at-once", "1", "--json")
    assert told.returncode == 0, told.stderr
    ran = checkout.snakemake(cores=1)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return checkout, json.loads(told.stdout), pd.read_csv(checkout.results / "smoke" / "costs.csv")


def test_every_job_was_told(measured):
    _, told, costs = measured
    assert {stage: group["jobs"] for stage, group in told["stages"].items()} == costs.groupby("stage").size().to_dict()


def test_time_is_told_within_a_factor_of_two(measured):
    """CPU time: one thread's, whatever else runs here."""
    _, told, costs = measured
    spent = costs.groupby("stage")["cpu_seconds"].sum()
    ratios = {stage: 3600 * told["stages"][stage]["hours"] / spent[stage] for stage in WHOLE}
    assert all(0.5 < ratio < 2 for ratio in ratios.values()), ratios
    assert 0.5 < sum(3600 * told["stages"][stage]["hours"] for stage in WHOLE) / spent[list(WHOLE)].sum() < 2


def test_memory_is_told_within_a_factor_of_two(measured):
    _, told, costs = measured
    peaks = costs.groupby("stage")["peak_mib"].max() * 2**20
    ratios = {stage: told["stages"][stage]["host_bytes"] / peaks[stage] for stage in WHOLE}
    assert all(0.5 < ratio < 2 for ratio in ratios.values()), ratios


@pytest.mark.parametrize("stage", ["reference", "train", "fit", "evaluate", "protocols"])
def test_operations_are_told_to_the_percent(measured, stage):
    """The stage's own command under PyTorch's counter, against the forecast without what PyTorch does not see."""
    checkout, _, _ = measured
    name = {"reference": "", "train": "vae/seed0", "fit": "vae/seed0/second_stage"}.get(stage, "vae/seed0")
    job = next(job for job in study_jobs(STUDY, checkout.results) if job.stage == stage and job.name.endswith(name))
    target = job.output.relative_to(checkout.path)
    loud = ("--quiet", "progress", "--printshellcmds")
    dry = checkout.snakemake("--dry-run", *loud, "--forcerun", stage, "--", str(target))
    commands = re.findall(r"^Shell command: (python -m rae_bench .*)$", dry.stdout, re.MULTILINE)
    (command,) = [line for line in commands if line.split()[3] == stage and str(target) in line]
    arguments = shlex.split(command.partition(">>")[0])[3:]
    counted = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COUNTING, *arguments],
        cwd=checkout.path,
        env=environment(checkout.path),
        capture_output=True,
        text=True,
        check=True,
    )
    parts = demand(STUDY, job).parts
    expected = sum(part.times * (count(part.piece).flops - work.host_flops(part.piece)) for part in parts)
    assert expected == pytest.approx(float(counted.stdout), rel=0.01)
