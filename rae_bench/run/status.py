"""What a study has done, is doing and has cost, read from what its jobs leave behind."""

import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd

from rae_bench.base import storage
from rae_bench.base.plain import fingerprint
from rae_bench.run import origins
from rae_bench.run.jobs import STAGES, Job, read_state, study_jobs
from rae_bench.study.results import COLUMNS, collect
from rae_bench.study.study import Study

log = logging.getLogger(__name__)
STATES = ("done", "running", "failed", "interrupted", "waiting")
LEAST_FREE = 2**20
"""Bytes below which a disk is called full: a density and its record need less."""


class CostError(RuntimeError):
    """A study none of whose jobs says what it cost."""


def describe(study: Study, results: Path) -> str:
    """A table of stages and states, then every running and failed job, then the time left."""
    jobs = [(job, read_state(job)) for job in study_jobs(study, results)]
    lines = [f"{study.name}: {study.file.title}", f"{'':10}" + "".join(f"{state:>13}" for state in STATES)]
    for stage in STAGES:
        states = [state["status"] for job, state in jobs if job.stage == stage]
        lines.append(f"{stage:10}" + "".join(f"{states.count(state):13}" for state in STATES))
    for job, state in jobs:
        if state["status"] == "running":
            part = f", {state['done']} of {state['of']} epochs" if "of" in state else ""
            lines.append(f"running: {job.stage} {job.name}, for {time.time() - state['started']:.0f} s{part}")
        if state["status"] == "failed":
            lines.append(f"failed: {job.stage} {job.name}: {state['error']}")
    sources = [finding.text for finding in origins.findings(study, results, is_thorough=False)]
    return "\n".join([*lines, *sources, *_full_disk(results), _time_left(jobs)])


def _full_disk(results: Path) -> list[str]:
    """A line if the disk is full: then neither logs nor the states of jobs can have said so."""
    if not results.exists() or (free := shutil.disk_usage(results).free) >= LEAST_FREE:
        return []
    return [f"{results}: the disk is full, {free / 1024:.0f} KiB are left; free space and give the same command again"]


def _time_left(jobs: list[tuple[Job, dict[str, Any]]]) -> str:
    """How long what is not done will take, by the mean of what is done of the same stage."""
    known = pd.DataFrame([{"seconds": math.nan, "started": math.nan, **state} for _, state in jobs])
    known["stage"] = [job.stage for job, _ in jobs]
    is_done, is_running = known["status"] == "done", known["status"] == "running"
    means = known[is_done].groupby("stage")["seconds"].mean()
    spent = (time.time() - known["started"]).where(is_running, 0.0)
    left = (known["stage"].map(means) - spent).clip(lower=0)[~is_done]
    if left.empty:
        return "nothing left to do"
    at_once = max(int(is_running.sum()), 1)
    unknown = ", ".join(sorted(set(known["stage"][left.index[left.isna()]])))
    more = f", and {unknown}, none of which has finished yet" if unknown else ""
    return f"left: about {left.sum() / at_once / 60:.1f} min with {at_once} at once{more}"


def cost_frame(study: Study, results: Path) -> pd.DataFrame:
    """One row per finished job: stage, name, seconds, cpu_seconds, import_seconds, peak_mib; gpu, gpu_peak_mib."""
    keys = ("started", "seconds", "cpu_seconds", "import_seconds", "peak_mib", "gpu", "gpu_peak_mib")
    rows = []
    for job in study_jobs(study, results):
        state = read_state(job)
        if "seconds" in state:  # of an imported study outputs may be left out
            rows.append({"stage": job.stage, "job": job.name, **{key: state.get(key) for key in keys}})
    return pd.DataFrame(rows, columns=["stage", "job", *keys])


def finished_metrics(study: Study, results: Path) -> pd.DataFrame:
    """The metrics of every run that has finished under the study's present settings; perhaps of none.

    Raises:
        ResultError: runs that do not belong together.
    """
    frames = []
    for job in study_jobs(study, results):
        if job.stage != "evaluate" or not job.output.exists():
            continue
        frame = storage.read_frame(job.output)
        if (frame["evaluate_fingerprint"] == fingerprint(job.settings)).all():
            frames.append(frame)
        else:
            log.warning("%s: made with other settings than the study's; counted as not run", job.output)
    return collect(frames) if frames else pd.DataFrame(columns=COLUMNS)


def write_costs(study: Study, results: Path, cores: int | None, since: float | None) -> str:
    """Write `costs.csv` and `costs.txt`: how core time divides over stages and imports.

    With `cores` and `since`, the time a command on that many cores began: also what share of its core time went outside
    the stages' processes.
    """
    frame = cost_frame(study, results)
    if frame.empty:
        raise CostError(f"no job of {study.name} has finished; run it first")
    storage.write_frame(results / study.name / "costs.csv", frame)
    work = frame["cpu_seconds"] - frame["import_seconds"]
    total = frame["cpu_seconds"].sum()
    lines = [f"core time of {len(frame)} jobs: {total:.0f} s"]
    for stage in STAGES:
        mine = frame["stage"] == stage
        lines.append(f"  {stage:10} {work[mine].sum():8.1f} s  {100 * work[mine].sum() / total:5.1f} %")
    imports = frame["import_seconds"].sum()
    lines.append(f"  {'imports':10} {imports:8.1f} s  {100 * imports / total:5.1f} %")
    if cores and since:
        wall = time.time() - since
        rest = 1 - frame.loc[frame["started"] >= since, "cpu_seconds"].sum() / (cores * wall)
        lines.append(f"wall time {wall:.0f} s on {cores} cores; outside the stages' processes {100 * rest:.1f} %")
    peak = frame.sort_values("peak_mib").iloc[-1]
    lines.append(f"largest process: {peak['peak_mib']:.0f} MiB, {peak['stage']} {peak['job']}")
    storage.write_text(results / study.name / "costs.txt", "\n".join(lines) + "\n")
    return "\n".join(lines)
