"""The Slurm profile where accounting is on: the same status command works, and Slurm's other one."""

import pytest
from checkout import Checkout
from clusters import run, running_cluster


@pytest.fixture(scope="module")
def cluster():
    with running_cluster("--accounting") as cluster:
        yield cluster


@pytest.mark.parametrize("command", [(), ("--slurm-status-command", "sacct")], ids=["profile", "sacct"])
def test_jobs_are_seen_to_finish(cluster, tmp_path, command):
    checkout = Checkout(tmp_path)
    run(checkout, *command, "--", "results/datasets/digits_mini/manifest.json")
    assert (checkout.results / "datasets/digits_mini/images.npy").exists()
    told = cluster.says("sacct", "--noheader", "--allocations", "--parsable2", "--format=State,Comment")
    assert any(line.startswith("COMPLETED|rule_prepare") for line in told.splitlines())
