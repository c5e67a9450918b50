"""What a study will cost, told before anything of it runs: jobs, images, FLOPs, memory, disk and, on a device, hours.

A sum over every job's pieces of work (`demands`): FLOPs are counted, hours need the seconds a piece takes somewhere.
"""

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from rae_bench.demands import TYPICAL_ITERATIONS, Demand, about, demand
from rae_bench.jobs import STAGES, read_state, study_jobs
from rae_bench.rehearsal import count
from rae_bench.study import Study
from rae_bench.work import Pass, Work

Seconds = Callable[[Work], float]
"""How long a piece of work takes on some device."""
SUMS = ("images", "network_flops", "other_flops", "most_flops", "disk_bytes", "seconds", "most_seconds")
PEAKS = ("host_bytes", "device_bytes")
NOTES = (
    "FLOPs: products of matrices and convolutions, two a multiply-add. Networks: the autoencoders', counted."
    " Other: feature networks and networks of densities, counted; metrics and mixtures, their leading terms.",
    f"Mixtures: {TYPICAL_ITERATIONS} iterations a fit, as in a small study; at most: `max_iter`."
    " Memory: of the largest job.",
    "Not included: reading images in `prepare`, drawing figures, Snakemake's and a cluster's own time.",
)


def distinct(study: Study, results: Path) -> list[Work]:
    """Every piece of work in the study, once."""
    demands = _demands(study, results).values()
    return list(dict.fromkeys(part.piece for needs in demands for part in needs.parts))


def _demands(study: Study, results: Path) -> dict[tuple[str, ...], Demand]:
    """By stage, data set, model and density: every seed needs the same."""
    jobs = study_jobs(study, results)
    return {key: demand(study, job) for key, job in {_kind(job.stage, about(job)): job for job in jobs}.items()}


def _kind(stage: str, names: list[str]) -> tuple[str, ...]:
    return (stage, *names[:2], *names[3:])


def job_frame(study: Study, results: Path, seconds: Seconds | None) -> pd.DataFrame:
    """One row per job: stage, dataset, run, job, is_done, and the columns SUMS and PEAKS; seconds NaN if not known."""
    costs = {key: _cost(needs, seconds) for key, needs in _demands(study, results).items()}
    rows = []
    for job in study_jobs(study, results):
        names = about(job)
        row = {"stage": job.stage, "dataset": names[0] if names else "", "run": "/".join(names[:3]), "job": job.name}
        is_done = read_state(job)["status"] == "done"
        rows.append({**row, "is_done": is_done, **costs[_kind(job.stage, names)]})
    return pd.DataFrame(rows)


def _cost(needs: Demand, seconds: Seconds | None) -> dict[str, float]:
    cost = dict.fromkeys(("network_flops", "other_flops", "most_flops", "seconds", "most_seconds"), 0.0)
    for part in needs.parts:
        flops, each = count(part.piece).flops, seconds(part.piece) if seconds else float("nan")
        cost["network_flops" if isinstance(part.piece, Pass) else "other_flops"] += part.times * flops
        cost["most_flops"] += part.at_most * flops
        cost["seconds"] += part.times * each
        cost["most_seconds"] += part.at_most * each
    sizes = {"host_bytes": needs.host_bytes, "device_bytes": needs.device_bytes, "disk_bytes": needs.disk_bytes}
    return {"images": needs.images, **cost, **sizes}


def wall_seconds(frame: pd.DataFrame, at_once: int) -> float:
    """How long the jobs take with so many at once: an equal share of all, but no less than the longest run needs.

    A run: training, the longest of its fits, evaluation, one after the other.
    """
    runs = frame[frame["stage"].isin(("train", "fit", "evaluate", "protocols"))]
    chains = runs.groupby(["run", "stage"])["seconds"].max().groupby("run").sum(min_count=1)
    shared = float(frame["seconds"].sum(skipna=False)) / at_once
    return max(shared, float(chains.max())) if len(chains) else shared


def summary(study: Study, frame: pd.DataFrame, device: str, at_once: int) -> dict[str, Any]:
    """The forecast as plain data: `stages` and `datasets`, each by name, and `total`; bytes, FLOPs, hours.

    Hours are null where no device is known; `left` are the jobs that are not done, and what of the total they need.
    """
    left = frame[~frame["is_done"]]
    stages = {stage: _totals(frame[frame["stage"] == stage]) for stage in STAGES if (frame["stage"] == stage).any()}
    return {
        "study": study.name,
        "title": study.file.title,
        "device": device,
        "at_once": at_once,
        "stages": stages,
        "datasets": {name: _totals(frame[frame["dataset"] == name]) for name in study.datasets},
        "total": _totals(frame),
        "left": _totals(left),
        "wall_hours": _hours(wall_seconds(left, at_once)),
        "notes": list(NOTES),
    }


def _totals(frame: pd.DataFrame) -> dict[str, Any]:
    sums = {name: float(frame[name].sum(skipna=False)) for name in SUMS}
    return {
        "jobs": len(frame),
        "left": int((~frame["is_done"]).sum()),
        **{name: int(sums[name]) for name in SUMS if not name.endswith("seconds")},
        **{name: int(frame[name].max()) if len(frame) else 0 for name in PEAKS},
        "hours": _hours(sums["seconds"]),
        "most_hours": _hours(sums["most_seconds"]),
    }


def _hours(seconds: float) -> float | None:
    return None if pd.isna(seconds) else seconds / 3600


def describe(found: dict[str, Any]) -> str:
    """`summary` as a table to read."""
    columns = ("FLOPs networks", "other", "at most", "memory", "GPU", "disk", "hours", "at most")
    header = f"{'':10}{'jobs':>6}{'left':>6}{'images':>9}{columns[0]:>16}" + "".join(
        f"{name:>9}" for name in columns[1:]
    )
    groups = {**found["stages"], **(found["datasets"] if len(found["datasets"]) > 1 else {}), "total": found["total"]}
    lines = [f"{found['study']}: {found['title']}", header, *(_line(name, group) for name, group in groups.items())]
    left = found["left"]
    lines.append(f"left to do: {left['jobs']} of {found['total']['jobs']} jobs")
    if left["hours"] is None:
        lines.append(f"hours: {found['device']}")
    else:
        lines += [
            f"hours on {found['device']}",
            f"left: {left['hours']:.3g} device-hours, at most {left['most_hours']:.3g};"
            f" with {found['at_once']} at once {_duration(found['wall_hours'])}",
        ]
    return "\n".join([*lines, *(part for note in found["notes"] for part in textwrap.wrap(note, 110))])


def _line(name: str, group: dict[str, Any]) -> str:
    flops = [_short(group[key]) for key in ("network_flops", "other_flops", "most_flops")]
    sizes = [_short(group[key], "B") for key in (*PEAKS, "disk_bytes")]
    hours = ["-" if group[key] is None else f"{group[key]:.3g}" for key in ("hours", "most_hours")]
    values = "".join(f"{value:>9}" for value in (*flops[1:], *sizes, *hours))
    return f"{name:10}{group['jobs']:6}{group['left']:6}{_short(group['images']):>9}{flops[0]:>16}{values}"


def _duration(hours: float) -> str:
    return (
        f"{60 * hours:.1f} minutes" if hours < 1 else f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"
    )


def _short(value: float, unit: str = "") -> str:
    """Three digits and an SI prefix, 12.3 G."""
    steps = min(max(int(math.log10(value) // 3), 0), 6) if value else 0
    return f"{value / 1000**steps:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E')[steps]}{unit}".rstrip()
