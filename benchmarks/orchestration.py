"""What a study costs beside its work: processes outside its stages, imports, and how two cores compare with one.

Run with [STUDY], `digits` by default (some 10 min on two cores, 20 on one); or with `--runs N`, which plans a study of
so many runs and submits some of its trainings to nobody (`many_runs.py`). The study runs in two copies of the
checkout with nothing in results/, with `snakemake --cores 2`, then with `--cores 1`; the copies must end with equal
metrics. Core time is that of the whole process tree, from the kernel; what the stages used, their imports included,
they leave in costs.csv.
"""

import argparse
import contextlib
import ctypes
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import many_runs
import pandas as pd
import records

ROOT = Path(__file__).parent.parent
SET_CHILD_SUBREAPER = 36
"""Of prctl (Linux): what a child leaves behind is this process's child, so that its core time is counted here."""
COPIED = ("Snakefile", "environment.yml", "profiles", "workflow", "rae_bench")


@dataclass(frozen=True)
class Run:
    """Seconds on the clock and of cores, the latter of the whole process tree; a row for each job; what came out."""

    cores: int
    wall: float
    cpu: float
    planning: float
    jobs: pd.DataFrame
    metrics: str

    @property
    def work(self) -> float:
        """Core seconds of the stages, without imports."""
        return float(self.jobs["cpu_seconds"].sum() - self.imports)

    @property
    def imports(self) -> float:
        """Core seconds of the stages before their work."""
        return float(self.jobs["import_seconds"].sum())

    @property
    def outside(self) -> float:
        """Core seconds of everything else: Snakemake, shells, the report of costs."""
        return self.cpu - self.work - self.imports


def run(study: str, cores: int, folder: Path) -> Run:
    """Run `study` from nothing in a copy of the checkout."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "rae_bench"], cwd=folder, check=True)
    planning, _ = _snakemake(study, cores, folder, "--dry-run")
    wall, cpu = _snakemake(study, cores, folder)
    results = folder / "results" / study
    metrics = hashlib.sha256((results / "metrics.parquet").read_bytes()).hexdigest()
    return Run(cores, wall, cpu, planning, pd.read_csv(results / "costs.csv"), metrics)


def _snakemake(study: str, cores: int, folder: Path, *arguments: str) -> tuple[float, float]:
    """Seconds on the clock, and core seconds of the command and of all that it started and waited for."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--config", f"study={study}", *arguments]
    started = time.perf_counter()
    before = _core_time()
    with (folder / "driver.log").open("ab") as log:
        status = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log).returncode
    seconds = time.perf_counter() - started
    with contextlib.suppress(ChildProcessError):
        while True:  # what the command left behind
            os.waitpid(-1, 0)
    if status:
        sys.exit((folder / "driver.log").read_text())
    return seconds, _core_time() - before


def _core_time() -> float:
    """Of all processes that this one has waited for, theirs included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(study: str) -> None:
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        two_cores = run(study, 2, Path(one))
        one_core = run(study, 1, Path(other))
    equal = two_cores.metrics == one_core.metrics
    print(f"metrics of two cores and of one: {'the same bytes' if equal else 'DIFFERENT BYTES'}")
    for each in (two_cores, one_core):
        print(f"{each.cores} cores: {each.wall:.1f} s, core time {each.cpu:.1f} s, plan {each.planning:.1f} s")
    ratios = [
        *(_share("outside the stages' processes", each, each.outside, 5) for each in (two_cores, one_core)),
        *(_share("in imports", each, each.imports, 10) for each in (two_cores, one_core)),
        records.Ratio(
            f"time of {study}: one core against two",
            two_cores.wall,
            one_core.wall,
            "s",
            one_core.wall / two_cores.wall,
            bar=1.8,
            remark="equal metrics" if equal else "DIFFERENT METRICS",
        ),
        records.Ratio(
            f"planning {study}: a dry run against the run, percent",
            two_cores.planning,
            two_cores.wall,
            "s",
            100 * two_cores.planning / two_cores.wall,
        ),
    ]
    records.write(
        "orchestration",
        f"Orchestration of the study {study}",
        ratios,
        tables=[_table(study, two_cores), _table(study, one_core)],
        packages=("snakemake", "torch", "scikit-learn", "pandas"),
    )
    if not equal:
        sys.exit("two cores and one gave different metrics")


def _share(where: str, each: Run, seconds: float, bar: float) -> records.Ratio:
    what = f"core time {where}, percent, {each.cores} core{'s' * (each.cores > 1)}"
    return records.Ratio(what, seconds, each.cpu, "core s", 100 * seconds / each.cpu, bar=bar, at_most=True)


def _table(study: str, each: Run) -> records.Table:
    """Core time by stage."""
    rows: list[tuple[str | float | int, ...]] = []
    for stage, jobs in each.jobs.groupby("stage", sort=False):
        imports = round(float(jobs["import_seconds"].sum()), 1)
        work = round(float(jobs["cpu_seconds"].sum()) - imports, 1)
        rows.append((str(stage), len(jobs), work, imports, f"{100 * (work + imports) / each.cpu:.1f} %"))
    rows.append(("outside", "", round(each.outside, 1), "", f"{100 * each.outside / each.cpu:.1f} %"))
    rows.append(
        ("all", len(each.jobs), round(each.work + each.outside, 1), round(each.imports, 1), f"{each.cpu:.1f} s")
    )
    columns = ("stage", "processes", "work, core s", "imports, core s", "of all")
    return records.Table(f"Core time of {study} on {each.cores} core{'s' * (each.cores > 1)}", columns, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", nargs="?", default="digits")
    parser.add_argument("--runs", type=int, help="plan a study of so many runs instead")
    asked = parser.parse_args()
    if asked.runs:
        with tempfile.TemporaryDirectory() as folder:
            many_runs.main(asked.runs, Path(folder))
    else:
        main(asked.study)
