"""Whether a finished study is what its jobs wrote.

`verify` re-hashes every file against the records, sees that the records close (what a job read is what another wrote),
and that every job ran with the settings of the study as configured now.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rae_bench import __version__
from rae_bench.base import storage
from rae_bench.base.plain import Plain, fingerprint, to_plain
from rae_bench.base.storage import StorageError
from rae_bench.run import origins, records
from rae_bench.run.jobs import Job, recorded, study_jobs
from rae_bench.run.origins import Finding
from rae_bench.run.records import Record, RecordError
from rae_bench.study.study import Study

LEFT_OUT = "archive.json"
"""Beside the results of an imported study: the index of its archive, which names what was left out."""
BESIDE = ("*.job.json", "*.lock", "*.log", ".*", "costs.csv", "costs.txt", LEFT_OUT)
"""Files of a study that no record holds: states, costs, logs and unfinished writes."""
BESIDE_FOLDERS = ("logs", "state", "settings")


class VerificationError(RuntimeError):
    """A study that is not as it was made, or a cell that does not come out again."""


@dataclass(frozen=True)
class Verdict:
    """What is wrong, a line each; how many files each stage wrote; which of them are left out on purpose.

    `sources`: what is to be said of the files that the data sets were prepared from; results are what they are.
    `gpus`: how many jobs each GPU, with its versions, computed.
    """

    problems: list[str]
    files: Counter[str]
    size: int
    left_out: list[Path]
    sources: list[Finding]
    gpus: Counter[str]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong, nor any source another than what was prepared."""
        return not self.problems and not any(finding.is_changed for finding in self.sources)


def verify(study: Study, results: Path) -> Verdict:
    """Hold every file of `study` against the records of its jobs, and these against each other and the settings."""
    root = results / study.name
    problems: list[str] = []
    found: list[tuple[Job, Record]] = []
    unknown_folders: set[Path] = set()
    for job in study_jobs(study, results):
        try:
            found.append((job, recorded(job)))
        except (StorageError, RecordError) as error:
            problems.append(str(error))
            unknown_folders.add(job.output.parent)
    written = {job.file(name): (job, digest) for job, record in found for name, digest in record.wrote.items()}
    for job, record in found:
        settings = to_plain(job.settings)
        if fingerprint(record.settings) != fingerprint(settings):
            where = next(_differences(record.settings, settings))
            problems.append(f"{job.output}: stale: {job.stage} ran with other settings: {where}; run it again")
        for name, digest in record.read.items():
            path = job.file(name)
            if path in written and written[path][1] != digest:
                problems.append(f"{job.output}: made from another {path} than the one there now; run {job.stage} again")
            elif path not in written and path.parent not in unknown_folders:
                problems.append(f"{job.output}: made from {path}, which no job of the study wrote")
    allowed: set[str] = set()
    if (index := root / LEFT_OUT).exists():
        with storage.reading(index, "index of an archive"):
            allowed = set(storage.read_json(index)["left_out"])
    done = {job.output for job, _ in found}
    removed = {job.output for job, _ in found if job.read_by in done and not job.output.exists()}
    written = {path: made for path, made in written.items() if path not in removed}
    absent = [path for path in written if not path.exists() and os.path.relpath(path, results) in allowed]
    size = 0
    for path, (job, digest) in {path: made for path, made in written.items() if path not in absent}.items():
        try:
            if storage.sha256(path) != digest:
                problems.append(f"{path}: altered since {job.stage} wrote it; delete it and run again")
            size += path.stat().st_size
        except StorageError as error:
            problems.append(str(error))
    owned = {*written, *(records.beside(job.output) for job, _ in found)}
    problems += [
        f"{path}: foreign: no job of the study wrote it"
        for path in _files(root)
        if path not in owned and path.parent not in unknown_folders
    ]
    sources = origins.findings(study, results, is_thorough=True)
    files, gpus = Counter(job.stage for job, _ in written.values()), Counter(record.device for _, record in found)
    del gpus[""]
    return Verdict(problems, files, size, absent, sources, gpus)


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        is_beside = any(map(path.match, BESIDE)) or {*path.relative_to(root).parts[:-1]} & {*BESIDE_FOLDERS}
        if not is_beside and (path.is_symlink() or not path.is_dir()):
            yield path


def _differences(old: Plain, new: Plain, where: str = "") -> Iterator[str]:
    """Where plain data differ: the key, what the study says now and what the job was run with."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}, key=lambda key: (key == "made_by", key)):  # what is named tells more
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        yield f"{where} was {old!r}, is {new!r} now"


def describe(study: Study, verdict: Verdict) -> str:
    """What is wrong, or one screen that says that all is well."""
    sources = [finding.text for finding in verdict.sources]
    mixed = ", MIXED with others: last digits may differ" if len(verdict.gpus) > 1 else ""
    computed = [f"computed on {gpu}: {count} jobs{mixed}" for gpu, count in sorted(verdict.gpus.items())]
    if verdict.problems:
        return "\n".join([*verdict.problems, *computed, *sources])
    whole = f"{verdict.files.total()} files, {verdict.size / 1e6:.1f} MB"
    lines = [f"{study.name}: {whole}, are what its jobs wrote, from the images on"]
    lines += [f"  {stage:10} {count:5} files" for stage, count in verdict.files.items()]
    if verdict.left_out:
        lines.append(f"left out of the archive it came from: {len(verdict.left_out)} files, their records are here")
    return "\n".join(
        [
            *lines,
            *computed,
            *sources,
            f"every job ran with the settings of the study as it is now; rae_bench {__version__}",
        ]
    )
