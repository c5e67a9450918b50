"""The driver that is itself a Slurm job: what it starts, and how it goes back into the queue before its limit."""

import os
import signal
import subprocess
import time

import pytest
from checkout import ROOT

SNAKEMAKE = """#!/usr/bin/env python3
import sys, time
from pathlib import Path

print(*sys.argv[1:], flush=True)
if Path("finishes").exists():
    sys.exit(3)
try:
    Path("started").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)
    print("cancelled", flush=True)
    sys.exit(1)
"""


@pytest.fixture
def start(tmp_path):
    """Start the driver in a folder with stand-ins for snakemake, and for scontrol, which repeats what it is told."""
    for name, text in {"snakemake": SNAKEMAKE, "scontrol": '#!/bin/sh\necho "scontrol $@"\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    def run(*arguments):
        return subprocess.Popen(
            # as Slurm starts it: a test run in the background may ignore SIGINT, and all that it starts would
            ["env", "--default-signal=INT", "bash", str(ROOT / "profiles/slurm/driver.sbatch"), *arguments],
            cwd=tmp_path, env={**os.environ, "PATH": path, "SLURM_JOB_ID": "7"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return run


def test_before_its_limit_it_cancels_its_jobs_and_goes_back_into_the_queue(start, tmp_path):
    with start("smoke", "--jobs", "3") as driver:
        while not (tmp_path / "started").exists():
            assert driver.poll() is None, driver.stdout.read()
            time.sleep(0.02)
        driver.send_signal(signal.SIGUSR1)
        said, _ = driver.communicate(timeout=30)
    assert said.splitlines() == [
        "--workflow-profile profiles/slurm --config study=smoke --jobs 3",
        "cancelled",
        "scontrol requeue 7",
    ]


def test_it_ends_as_snakemake_ends(start, tmp_path):
    (tmp_path / "finishes").touch()
    with start("a study.yaml") as driver:
        said, _ = driver.communicate(timeout=30)
    assert (driver.returncode, said) == (3, "--workflow-profile profiles/slurm --config study=a study.yaml\n")


def test_it_asks_for_a_study(start):
    with start() as driver:
        said, _ = driver.communicate(timeout=30)
    assert driver.returncode != 0
    assert "a study, as in: sbatch profiles/slurm/driver.sbatch NAME" in said
