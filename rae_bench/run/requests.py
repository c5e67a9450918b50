"""What a study's jobs ask of Slurm under a profile, and what its partitions allow.

A profile is Snakemake's: `default-resources` hold for every stage, `set-resources` for one of them, both over what
`rae_bench.study.resources` counts. `max_runtime`, a resource of ours, is the most minutes that a job may ask for.
"""

import math
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rae_bench.base.plain import ConfigError
from rae_bench.run.cost import about
from rae_bench.run.jobs import SUMMARIES, read_state, study_jobs
from rae_bench.study import resources
from rae_bench.study.study import Study
from rae_bench.study.yaml_files import read_yaml

LIMIT = "max_runtime"
GPU_STAGES = ("tryout", "reference", "train", "decode", "protocols")
"""The stages that ask for a GPU where the study computes on one; the others never do."""


@dataclass(frozen=True)
class Profile:
    """The resources that a profile states: for every stage, and for some of them by name."""

    where: str
    every: Mapping[str, Any]
    of_stage: Mapping[str, Mapping[str, Any]]

    def of(self, stage: str) -> dict[str, Any]:
        """What it states for a stage."""
        return {**self.every, **self.of_stage.get(stage, {})}

    def number(self, stage: str, name: str) -> int | None:
        """The whole number that it states for a stage, or None.

        Raises:
            ConfigError: it states something else.
        """
        value = self.of(stage).get(name)
        if name == "runtime" and (spelt := re.fullmatch(r"(\d+)([mhd])", str(value))):  # as Snakemake reads it
            return int(spelt[1]) * {"m": 1, "h": 60, "d": 1440}[spelt[2]]
        if value is None or (isinstance(value, int) and value > 0):
            return value
        raise ConfigError(f"{self.where}: {name}: {value!r}; expected a whole number above 0, as 1440")


@dataclass(frozen=True)
class Request:
    """What the jobs of a stage that are left to do ask for at their first attempt: the most of each, `hours` in all.

    `least`: the fewest minutes. `counted`: the most minutes without room for slower machines. `resumes`: they go on
    where their limit stopped them. `partition` is as the profile says, or None.
    """

    stage: str
    jobs: int
    gpus: int
    cpus: int
    mem_mb: int
    least: int
    minutes: int
    hours: float
    counted: float
    resumes: bool
    partition: str | None


@dataclass(frozen=True)
class Partition:
    """What a partition of a cluster has: its limit in minutes, and of its largest nodes megabytes and cores."""

    name: str
    is_default: bool
    minutes: float
    mem_mb: int
    cpus: int
    has_gpus: bool


def profile(folder: Path) -> Profile:
    """The resources that the profile in `folder` states.

    Raises:
        ConfigError: it is missing, or no profile.
    """
    stated = read_yaml(folder, "config.yaml")
    every = _mapping(stated.get("default-resources"))
    of_stage: dict[str, dict[str, Any]] = {}
    for name, value in _mapping(stated.get("set-resources")).items():
        stage, _, resource = name.partition(":")
        of_stage.setdefault(stage, {}).update({resource: value} if resource else _mapping(value))
    return Profile(str(folder / "config.yaml"), every, of_stage)


def _mapping(stated: Any) -> dict[str, Any]:
    """Resources by name, as a profile states them: as a mapping, or as texts NAME=VALUE."""
    if isinstance(stated, dict):
        return dict(stated)
    pairs = [str(one).partition("=") for one in stated or []]
    return {name: int(value) if value.isdigit() else value for name, _, value in pairs}


def requests(study: Study, results: Path, under: Profile) -> list[Request]:
    """What the jobs left to do ask for under a profile, by stage; without those that run where Snakemake does."""
    left: dict[str, list[resources.Need]] = {}
    for job in study_jobs(study, results):
        if job.stage not in SUMMARIES and read_state(job)["status"] != "done":
            left.setdefault(job.stage, []).append(resources.of_job(study, job.stage, about(job)))
    found = []
    for stage, needs in left.items():
        limit, runtime, mem_mb = (under.number(stage, name) for name in (LIMIT, "runtime", "mem_mb"))
        minutes = [runtime or need.minutes(1, limit) for need in needs]
        found.append(
            Request(
                stage=stage,
                jobs=len(needs),
                gpus=study.gpus if stage in GPU_STAGES else 0,
                cpus=1 if stage == "prepare" else study.file.compute.threads,
                mem_mb=mem_mb or max(need.mem_mb(1) for need in needs),
                least=min(minutes),
                minutes=max(minutes),
                hours=sum(minutes) / 60,
                counted=max(resources.START_SECONDS + need.seconds for need in needs) / 60,
                resumes=all(need.resumes for need in needs),
                partition=under.of(stage).get("slurm_partition"),
            )
        )
    return found


def describe(asked: list[Request]) -> str:
    """`requests` as a table to read."""
    header = f"{'':10}{'jobs':>6}{'GPUs':>6}{'cores':>7}{'memory':>11}{'minutes each':>16}"
    lines = [f"{header}{'hours in all':>14}  partition"]
    for one in asked:
        each = f"{one.least}" if one.least == one.minutes else f"{one.least} to {one.minutes}"
        cells = f"{one.jobs:6}{one.gpus:6}{one.cpus:7}{one.mem_mb:8} MB{each:>16}{one.hours:14.0f}"
        lines.append(f"{one.stage:10}{cells}  {one.partition or ''}".rstrip())
    on_gpus = sum(one.hours for one in asked if one.gpus)
    lines.append(f"asked of Slurm: {sum(one.hours for one in asked):.0f} hours, {on_gpus:.0f} of them with a GPU")
    room = f"{resources.ROOM:g} times the minutes and {resources.MEMORY_ROOM:g} times the memory that are counted"
    lines.append(f"first attempts; {room}, and again as much at each of the next two")
    return "\n".join(lines)


# --- the cluster --------------------------------------------------------------------------------------------


def partitions() -> list[Partition] | None:
    """The partitions that Slurm tells of here, or None where it cannot be asked."""
    command = ["sinfo", "--noheader", "--exact", "--format=%P|%l|%m|%c|%G"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found: dict[str, Partition] = {}
    for line in told.splitlines():  # one for each kind of node
        name, limit, mem_mb, cpus, gres = line.split("|")
        here = Partition(
            name=name.rstrip("*"),
            is_default=name.endswith("*"),
            minutes=_minutes(limit),
            mem_mb=int(mem_mb.rstrip("+")),
            cpus=int(cpus.rstrip("+")),
            has_gpus="gpu" in gres or "shard" in gres,
        )
        one = found.setdefault(here.name, here)
        most = {key: max(getattr(one, key), getattr(here, key)) for key in ("mem_mb", "cpus", "has_gpus")}
        found[here.name] = replace(one, **most)
    return list(found.values())


def _minutes(text: str) -> float:
    """Minutes of Slurm's DAYS-HOURS:MINUTES:SECONDS, of which the first may be left out."""
    if not (parts := re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)):
        return math.inf  # "infinite"
    days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return 1440 * days + 60 * hours + minutes + seconds / 60


def refusals(asked: list[Request], known: list[Partition] | None, under: Profile) -> list[str]:
    """Why Slurm would refuse, or not finish, the jobs of some stages, a line each; without `known`, by the profile."""
    return [told for one in asked if (told := _refusal(one, known, under))]


def _refusal(one: Request, known: list[Partition] | None, under: Profile) -> str:
    if one.minutes < one.counted and not one.resumes:
        told = f"asks for {one.minutes} minutes by {under.where}, {one.counted:.0f} are counted"
        return f"{one.stage}: {told}, and it does not go on after its limit; allow it more"
    if known is None:
        return ""
    names = one.partition.split(",") if one.partition else [each.name for each in known if each.is_default]
    if not names:
        return f"{one.stage}: no partition is the default; name one, slurm_partition, in {under.where}"
    by_name = {each.name: each for each in known}
    if unknown := [name for name in names if name not in by_name]:
        return f"{one.stage}: no partition {unknown[0]!r}; {under.where} may name {', '.join(by_name)}"
    reasons = [_lack(one, by_name[name], under) for name in names]
    return "" if "" in reasons else f"{one.stage}: {reasons[0]}"


def _lack(one: Request, partition: Partition, under: Profile) -> str:
    """What a partition lacks for the jobs of a stage, and what would be right; empty where it lacks nothing."""
    other = f"name another, slurm_partition, in {under.where}"
    if one.gpus and not partition.has_gpus:
        return f"asks for a GPU, partition {partition.name} has none; {other}"
    if one.cpus > partition.cpus:
        return f"asks for {one.cpus} cores, nodes of partition {partition.name} have {partition.cpus}; {other}"
    if one.mem_mb > partition.mem_mb:
        return f"asks for {one.mem_mb} MB, nodes of partition {partition.name} have {partition.mem_mb}; {other}"
    if one.minutes <= partition.minutes:
        return ""
    told = f"asks for {one.minutes} minutes, partition {partition.name} allows {partition.minutes:.0f}"
    limit = f"{LIMIT}: {partition.minutes:.0f}"
    if one.resumes:
        return f"{told}; state {limit} in {under.where}: trainings go on in the next job"
    if one.counted <= partition.minutes:
        return f"{told}; state {limit} in {under.where}: {one.counted:.0f} are counted"
    return f"{told}, {one.counted:.0f} are counted, and it does not go on after its limit; {other}"
