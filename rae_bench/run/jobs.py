"""The processes of a study: one writer at a time, none outliving its driver, each leaving what it cost.

A stage process locks `<first output>.lock` (`rae_bench.base.locks`), so that a run has one writer, whatever started a
second. It watches the Snakemake that started it and ends when that ends, so a killed driver leaves no orphans; in a
cluster job that is the job's own Snakemake, on the same node. What it is doing and what it cost stands in
`<first output>.job.json`, what it read and wrote in `<first output>.record.json` (`rae_bench.run.records`).
"""

import contextlib
import logging
import math
import os
import resource
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rae_bench import __version__
from rae_bench.base import devices, storage
from rae_bench.base.cluster import STOPPED, FinishedError, StoppedError, stop_at
from rae_bench.base.locks import holder, locked
from rae_bench.base.plain import fingerprint, to_json, to_plain
from rae_bench.run import records
from rae_bench.run.records import Record, RecordError, Run
from rae_bench.study.files import RunFiles, StudyFiles
from rae_bench.study.specs import SummarySpec
from rae_bench.study.study import Study

DRIVER = "RAE_BENCH_DRIVER"
"""Environment variable: process id of the Snakemake that started a stage, on this machine (in a cluster job: the job's
own, which the Snakefile names when it is read there)."""
DRIVER_LOCK = ".driver.lock"
"""The lock in the results folder that says who is at work there."""
GRACE = 10.0
"""Seconds a stage has to save its state after its driver has ended."""
LOCK_WAIT = 20.0
"""Seconds to wait for another writer: an orphan of a killed driver ends within one. In a cluster job, as long as that
may run: a driver that was killed and started again submits a second job beside the first, which goes on."""

SUMMARIES = ("collect", "tables", "figures", "report")
"""Stages of a whole study."""
STAGES = ("prepare", "tryout", "reference", "floor", "train", "fit", "decode", "evaluate", "protocols", *SUMMARIES)
NOTHING: Mapping[str, str] = {}

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """One process of a study: its stage, what tells it from its siblings, its first output, what it is told, its run.

    `spec`, the stage's settings, and `arguments` are what its function takes. `run` is what its record calls its run.
    `read_by`: the first output of the one job that reads this one's output, which is removed when that is done.
    """

    stage: str
    name: str
    output: Path
    spec: Any
    arguments: Mapping[str, Path | RunFiles | str] = field(default_factory=dict)
    run: Run = field(default_factory=dict)
    read_by: Path | None = None

    @property
    def settings(self) -> Any:
        """Its settings as its record has them."""
        return summary_settings(self.spec) if isinstance(self.spec, SummarySpec) else self.spec

    def file(self, name: str) -> Path:
        """The file that the job's record calls `name`, by path from its own folder."""
        return Path(os.path.normpath(self.output.parent / name))

    def command(self) -> list[str]:
        """The subcommand with its options."""
        options = {"spec": to_json(self.spec), **self.arguments}
        texts = {name: str(one.root if isinstance(one, RunFiles) else one) for name, one in options.items()}
        return [self.stage, *(part for name, text in texts.items() for part in (f"--{name.replace('_', '-')}", text))]


def study_jobs(study: Study, results: Path) -> list[Job]:
    """Every job of `study`, in the order of its stages; the same as Snakemake's."""
    files = StudyFiles(results, study.name)
    jobs = []
    for d in study.datasets:
        data = {"data": files.data(d)}
        real, prd_real, training, other = (
            files.reference(d, of(d).name)
            for of in (study.reference, study.prd_reference, study.training_reference, study.floor_reference)
        )
        jobs.append(Job("prepare", d, files.manifest(d), study.preparation(d), data, {"dataset": d}))
        for name, spec in study.references(d).items():
            out = files.reference(d, name)
            jobs.append(Job("reference", f"{d}/{name}", out, spec, {**data, "out": out}, {"dataset": d}))
        for name, tried in study.tryouts(d).items():
            out = files.tryout(d, name)
            jobs.append(Job("tryout", f"{d}/{name}", out, tried, {**data, "out": out}, {"dataset": d}))
        floor = {**data, "reference": real, "other": other, "training": training, "out": files.floor(d)}
        jobs.append(Job("floor", d, files.floor(d), study.floor(d), floor, {"dataset": d}))
        scored = {**data, "reference": real, "prd_reference": prd_real, "training": training}
        evaluations = {m: study.evaluation(d, m) for m in study.scored}
        panels = {m: study.protocol_panel(d, m) for m in study.competing if study.file.protocols}
        for m, s in [(m, s) for m in study.scored for s in study.train_seeds]:
            name, run, known = f"{d}/{m}/seed{s}", files.run(d, m, s), {"dataset": d, "seed": s}
            if m in study.models:
                jobs.append(Job("train", name, run.model, study.training(d, m), {**data, "run": run}, known))
            for p in study.densities_of(m):
                fit = Job("fit", f"{name}/{p}", run.density(p), study.fit(d, m, p), {"run": run, "density": p}, known)
                jobs.append(fit)
            known = {**known, "model": m}
            whole = {**known, "study": study.name}
            evaluation, handed = evaluations[m], {"decoded": run.decoded} if study.decodes_apart else {}
            if handed:
                made = {**data, "reference": real}
                jobs.append(Job("decode", name, run.decoded, evaluation, {**made, "run": run}, whole, run.metrics))
            jobs.append(Job("evaluate", name, run.metrics, evaluation, {**scored, "run": run, **handed}, whole))
            if m in panels:
                jobs.append(Job("protocols", name, run.panel, panels[m], {"run": run}, known))
    outputs = {"collect": files.metrics, "tables": files.tables, "figures": files.figures, "report": files.report}
    for stage, output in outputs.items():
        jobs.append(Job(stage, study.name, output, study.summary(), {"results": results}))
    return sorted(jobs, key=lambda job: STAGES.index(job.stage))


def summary_settings(spec: SummarySpec) -> dict[str, str]:
    """What stands for the settings of a whole study in records."""
    return {"fingerprint": fingerprint(spec)}


def recorded(job: Job) -> Record:
    """The record of `job`.

    Raises:
        StorageError, RecordError: missing, not whole, altered, or another job's.
    """
    path = records.beside(job.output)
    record = records.load(path)
    if record.stage != job.stage or job.output.name not in record.wrote:
        raise RecordError(
            f"{path}: foreign: of {record.stage}, it does not hold {job.output.name}; run {job.stage} again"
        )
    if record.run != job.run:
        raise RecordError(
            f"{path}: foreign: of {_listed(record.run)}, expected {_listed(job.run)}; run {job.stage} again"
        )
    return record


def _listed(run: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in sorted(run.items()))


@contextlib.contextmanager
def running(
    stage: str,
    settings: Any,
    reads: Mapping[str, Path],
    writes: dict[str, Path],
    run: Run | None = None,
    made_by: Mapping[str, str] = NOTHING,
) -> Iterator[Progress]:
    """Run the body of a stage: locked, watched, timed, its inputs checked. Yields a function to report progress with.

    `run` and `made_by`: see `records.check`. The first of `writes` names lock, state and record; the body may add more.

    Raises:
        HeldError: another process is writing the same outputs.
        FinishedError: another process has just written them.
        StorageError, RecordError: a file to be read is missing, damaged, or not one that belongs here.
    """
    first = next(iter(writes.values()))
    with storage.explained(first):
        first.parent.mkdir(parents=True, exist_ok=True)
    state_path = first.with_suffix(".job.json")
    started, age, imports = time.time(), _age(), time.process_time()
    state: dict[str, Any] = {"stage": stage, "status": "running", "pid": os.getpid(), "started": started}
    if DRIVER in os.environ:  # a stage run by hand has none
        threading.Thread(target=_end_with, args=(int(os.environ[DRIVER]),), daemon=True).start()
    limit = stop_at()
    patience = LOCK_WAIT if math.isinf(limit) else max(limit - time.time(), 0.0)
    with locked(first.with_suffix(".lock"), patience, busy=f"{first}: this run is being written by") as waited:
        hashes = storage.hashes(reads)
        asked = fingerprint([stage, settings, __version__, hashes])
        if waited and _is_finished(state_path, asked, writes):
            raise FinishedError(f"{first}: written by another process meanwhile, from the same settings and inputs")
        log.info("%s: started, rae_bench %s, writes %s", stage, __version__, first)

        def progress(done: int, of: int) -> None:
            _write_state(state_path, {**state, "done": done, "of": of})

        try:
            run = records.check(reads, hashes, made_by, run)
            _write_state(state_path, state)
            yield progress
        except StoppedError:
            raise  # its state is read as that of a running job whose process has ended: interrupted
        except BaseException as error:
            if not isinstance(error, RecordError) or not first.exists():  # else what was made before stays as it was
                reason = " ".join(str(error).split()) or type(error).__name__
                _write_state(state_path, {**state, "status": "failed", "error": reason})
            raise
        read = {path: hashes[name] for name, path in reads.items()}
        records.write(stage, to_plain(settings), run, read, writes.values(), devices.computed_on())
        costs = {
            "seconds": round(time.time() - started + age, 3),
            "cpu_seconds": round(time.process_time(), 3),
            "import_seconds": round(imports, 3),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            **devices.used(),
        }
        _write_state(state_path, {**state, "status": "done", "asked": asked, **costs})
        log.info("%s: done in %.1f s", stage, costs["seconds"])


def _write_state(path: Path, state: dict[str, Any]) -> None:
    """Say what a job does; nobody's result depends on it, so a disk that is full stops nothing here."""
    try:
        storage.write_json(path, state)
    except storage.StorageError as error:
        log.warning("%s", error)


def _is_finished(state_path: Path, asked: str, writes: dict[str, Path]) -> bool:
    state = _said(state_path) or {}
    is_asked = state.get("status") == "done" and state.get("asked") == asked
    return is_asked and all(path.exists() for path in writes.values())


def read_state(job: Job) -> dict[str, Any]:
    """What is known of a job: its state file, with `status` done, running, failed, interrupted or waiting.

    A state file that is missing, or none, says no more than whether the output is there. It tells of the last process;
    what that one left untouched is done if it holds, and what was made with other settings than the study's now waits.
    """
    known = {"stage": job.stage, "status": "done"}
    state = _said(job.output.with_suffix(".job.json")) or known
    if state["status"] == "running" and holder(job.output.with_suffix(".lock")) is None:
        state["status"] = "interrupted"
    try:
        record = recorded(job)
    except (storage.StorageError, RecordError):
        record = None
    is_stale = record is not None and fingerprint(record.settings) != fingerprint(job.settings)
    if state["status"] in ("failed", "interrupted") and record is not None and not is_stale and _is_whole(job, record):
        state = known
    if state["status"] == "done" and (is_stale or not _is_there(job, record)):
        state["status"] = "waiting"
    return state


def _is_there(job: Job, record: Record | None) -> bool:
    """Whether its output is there, or was, as its record says, and has been read."""
    return job.output.exists() or (record is not None and job.read_by is not None and job.read_by.exists())


def _is_whole(job: Job, record: Record) -> bool:
    """Whether all that the record names is there as it was written."""
    try:
        return all(storage.sha256(job.file(name)) == digest for name, digest in record.wrote.items())
    except storage.StorageError:
        return False


def _said(path: Path) -> dict[str, Any] | None:
    """What a state file holds, or None if there is none, or something else."""
    if not path.exists():
        return None
    try:
        state = storage.read_json(path)
    except storage.StorageError as error:
        log.warning("%s", error)
        return None
    needed = {"status", "started", *(["error"] if isinstance(state, dict) and state.get("status") == "failed" else [])}
    if (
        not isinstance(state, dict)
        or needed - set(state)
        or not all(isinstance(value, _TYPES.get(key, object)) for key, value in state.items())
    ):
        log.warning("%s: not the state of a job", path)
        return None
    return state


_TYPES: dict[str, type | tuple[type, ...]] = {
    **{"stage": str, "status": str, "error": str, "done": int, "of": int},
    **dict.fromkeys(("started", "seconds", "cpu_seconds", "import_seconds", "peak_mib"), (int, float)),
}


def _age() -> float:
    """Seconds since this process was started (Linux; elsewhere its CPU time, a lower bound)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return uptime - ticks / os.sysconf("SC_CLK_TCK")
    except OSError:
        return time.process_time()


def _end_with(driver: int) -> None:
    """End this process when the process `driver` ends."""
    try:
        select.select([os.pidfd_open(driver)], [], [])
    except (AttributeError, OSError):  # not Linux, or the driver is gone already
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(driver, 0)
                time.sleep(0.5)
    log.error("the driver, process %d, has ended: so does this stage; the same command carries on", driver)
    os.kill(os.getpid(), signal.SIGTERM)  # training saves its state first
    time.sleep(GRACE)
    os._exit(STOPPED)


def claim(results: Path) -> contextlib.ExitStack:
    """Hold the results folder for this driver until the returned stack is closed, or the process ends.

    Raises:
        HeldError: another driver is at work.
        StorageError: the folder cannot be written.
    """
    path, stack = results / DRIVER_LOCK, contextlib.ExitStack()
    with storage.explained(path):
        results.mkdir(parents=True, exist_ok=True)
    stack.enter_context(locked(path, patience=0, busy=f"{results}/ is in use by another command,"))
    return stack
