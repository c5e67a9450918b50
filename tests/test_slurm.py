"""The smoke study on a real Slurm: two nodes on this machine, brought up from Debian packages and taken down again."""

import os
import shutil
import subprocess

import pytest
from checkout import ROOT, Checkout, environment

from rae_bench.config import load_study
from rae_bench.jobs import read_state, study_jobs

pytestmark = pytest.mark.slow
QUICK = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A running cluster; skipped where it cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("a Slurm of our own needs root")
    if shutil.which("slurmctld") is None and shutil.which("apt-get") is None:
        pytest.skip("neither Slurm nor apt-get is here")
    folder = tmp_path_factory.mktemp("slurm")
    variables = {**os.environ, "RAE_BENCH_SLURM_DIR": str(folder)}
    up = subprocess.run(
        ["bash", str(ROOT / "tests/slurm/up"), "--nodes", "2", "--gpu-nodes", "1", "--cpus", "2", "--mem", "10000"],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "package installation failed" in up.stderr:
        pytest.skip(f"no packages to be had: {up.stderr.splitlines()[-1]}")
    assert up.returncode == 0, up.stderr
    yield folder
    subprocess.run(["bash", str(ROOT / "tests/slurm/down")], env=variables, check=True, capture_output=True)


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory):  # noqa: ARG001  the cluster must be up
    """A copy in which the smoke study has run through Slurm, and how the command ended."""
    checkout = Checkout(tmp_path_factory.mktemp("submitted"))
    ended = subprocess.run(
        ["python", "-m", "snakemake", "--workflow-profile", "profiles/slurm", "--config", "study=smoke", *QUICK],
        cwd=checkout.path, env=environment(checkout.path), capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    return checkout, ended


def test_the_study_finishes_through_slurm(finished):
    checkout, ended = finished
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    states = {read_state(job)["status"] for job in study_jobs(load_study("smoke"), checkout.results)}
    assert states == {"done"}
    assert "has been submitted with SLURM jobid" in ended.stdout + ended.stderr


def test_its_results_are_those_of_one_machine(finished, smoke):
    checkout, _ = finished
    names = [
        "metrics.parquet",
        "protocols.parquet",
        *(f"tables/{p.name}" for p in (smoke.results / "smoke/tables").glob("*.csv")),
    ]
    assert len(names) > 10
    for name in names:
        assert (checkout.results / "smoke" / name).read_bytes() == (smoke.results / "smoke" / name).read_bytes(), name
