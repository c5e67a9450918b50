"""A real Slurm on this machine, from Debian packages (`tests/slurm`), and the workflow submitted to it."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from checkout import ROOT, environment

QUICK = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5")


class Cluster:
    """Two nodes of two cores, the second with two pretended GPUs."""

    def __init__(self, folder):
        self.folder = folder
        self.variables = {**os.environ, "RAE_BENCH_SLURM_DIR": str(folder)}

    def script(self, name, *arguments):
        return subprocess.run(
            ["bash", str(ROOT / "tests/slurm" / name), *arguments],
            env=self.variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def node(self, action, name):
        """Let a node die ("kill"), or bring it back ("start")."""
        done = self.script("node", action, name)
        assert done.returncode == 0, done.stderr

    def says(self, *command):
        """What a command of Slurm's prints."""
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=180).stdout.strip()

    def jobs(self, checkout, rule):
        """The Slurm jobs of a rule submitted from a copy of the repository: id, state and wildcards, oldest first."""
        found = []
        for line in self.says("squeue", "--states=all", "--noheader", "--format=%A|%T|%Z|%k").splitlines():
            number, state, folder, comment = line.split("|")
            if folder == str(checkout.path) and f"_{rule}" in comment:
                found.append((int(number), state, comment))
        return sorted(found)


@contextlib.contextmanager
def running_cluster(*options):
    """A running cluster; the test is skipped where it cannot be had, saying why."""
    if os.geteuid() != 0:
        pytest.skip("a Slurm of our own needs root")
    if shutil.which("slurmctld") is None and shutil.which("apt-get") is None:
        pytest.skip("neither Slurm nor apt-get is here")
    with tempfile.TemporaryDirectory(prefix="rae-bench-slurm-") as folder:  # pytest's own is closed to other users
        cluster = Cluster(Path(folder))
        try:
            up = cluster.script("up", "--nodes", "2", "--gpu-nodes", "1", "--cpus", "2", "--mem", "16000", *options)
            if "package installation failed" in up.stderr:
                pytest.skip(f"no packages to be had: {up.stderr.splitlines()[-1]}")
            assert up.returncode == 0, up.stdout + up.stderr
            yield cluster
        finally:
            assert cluster.script("down").returncode == 0


@contextlib.contextmanager
def submitted(checkout, *arguments, study="smoke", profiles=("--workflow-profile", "profiles/slurm"), **variables):
    """The workflow's driver, which submits to Slurm; killed in the end. What it says is added to driver.log."""
    with (
        (checkout.path / "driver.log").open("a") as output,
        subprocess.Popen(
            [sys.executable, "-m", "snakemake", *profiles, "--config", f"study={study}", *QUICK, *arguments],
            cwd=checkout.path,
            env={**environment(checkout.path), **variables},
            stdout=output,
            stderr=output,
        ) as driver,
    ):
        try:
            yield driver
        finally:
            driver.kill()


class Driver:
    """The workflow's driver as a job of Slurm's, by its number there; used like a process."""

    def __init__(self, cluster, number):
        self.cluster, self.number = cluster, number

    def state(self):
        """Slurm's word for where it is."""
        return self.cluster.says("squeue", "--states=all", "--noheader", f"--jobs={self.number}", "--format=%T")

    def poll(self):
        """None as long as it is queued or at work, also when it was put back; then 0, or the state it ended in."""
        ended = ("FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL")
        return {"COMPLETED": 0, **{state: state for state in ended}}.get(self.state())

    def wait(self, timeout):
        """The same once it has ended."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.5)
        return code

    def restarts(self):
        """How often it was put back into the queue."""
        return int(re.search(r"Restarts=(\d+)", self._told())[1])

    def allow(self, minutes):
        """Set its time limit to so many more minutes than it has had, which Slurm counts in whole ones."""
        hours, more, _ = map(int, re.search(r"RunTime=(\d+):(\d+):(\d+)", self._told()).groups())
        limit = 60 * hours + more + minutes
        self.cluster.says("scontrol", "update", f"JobId={self.number}", f"TimeLimit={limit}")

    def _told(self):
        return self.cluster.says("scontrol", "--oneliner", "show", "job", self.number)


@contextlib.contextmanager
def driven(cluster, checkout, *arguments, study="smoke", options=()):
    """The workflow under profiles/slurm/driver.sbatch, cancelled in the end. What it says is added to driver.log."""
    given = [*options, "--output=driver.log", "profiles/slurm/driver.sbatch", study, *QUICK, *arguments]
    command, variables = ["sbatch", "--parsable", *given], environment(checkout.path)
    number = subprocess.run(
        command, cwd=checkout.path, env=variables, capture_output=True, text=True, check=True
    ).stdout
    driver = Driver(cluster, number.strip())
    try:
        yield driver
    finally:
        cluster.says("scancel", driver.number)


def finish(checkout, driver, timeout=1200):
    """Wait for a driver's end, which must be a good one; what it said."""
    code = driver.wait(timeout)
    said = (checkout.path / "driver.log").read_text()
    assert code == 0, said[-5000:]
    return said


def run(checkout, *arguments, **options):
    """Submit the workflow and wait for its good end."""
    with submitted(checkout, *arguments, **options) as driver:
        return finish(checkout, driver)


def until(condition, driver, timeout=600):
    """Wait for a condition and return what it gave, while a driver lives."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert driver.poll() is None, "the driver has ended"
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.2)
    return found


def copy_results(one, other, *names):
    """Copy files and folders of results, their times kept, so that they need not be made again."""
    for name in names:
        for path in Path(one.results).glob(name):
            target = other.results / path.relative_to(one.results)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target)
            else:
                shutil.copy2(path, target)
