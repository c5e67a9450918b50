"""What of a study still holds by its records, and what must be made again: told to Snakemake before it plans.

Snakemake goes by times: it makes a file again that is older than what it was made from, and deletes the old one before
a stage could look at it. So finished results that were copied without their times would all be made again. It goes by
settings only where it saw a file being made, which it remembers in `.snakemake` and not beside the file. Records stay
with the files. By them a job holds if it ran with the settings of the study as it is now, if what it read is what the
makers of these files wrote, and if all bytes are those on record. Bytes are looked at only where times would have a job
run again; if it holds, its files get the time of the newest they were made from.
"""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rae_bench.base import storage
from rae_bench.base.locks import HeldError, holder
from rae_bench.base.plain import fingerprint
from rae_bench.base.storage import StorageError
from rae_bench.run.jobs import DRIVER_LOCK, Job, claim, recorded, study_jobs
from rae_bench.run.records import RecordError
from rae_bench.study.study import Study

log = logging.getLogger(__name__)
EARLIER = 10 * 10**9
"""Nanoseconds; more than the two seconds to which some file systems keep times."""


@dataclass(eq=False)
class Made:
    """A job with a whole record: the SHA-256 of what it read and wrote, by path, and which of its files are there.

    `is_again`: it must be made again. `is_kept`: neither that nor made from what is. `parents`: the jobs that made what
    it read. `newest`: the latest time, in ns of Unix time, of its files and of all they were made from.
    """

    job: Job
    read: dict[Path, str]
    wrote: dict[Path, str]
    files: list[Path]
    is_again: bool
    is_kept: bool = True
    parents: list["Made"] = field(default_factory=list)
    newest: int = 0

    def sources(self) -> list[Path]:
        """The files its files were made from; where a parent has none, as in an imported study, those before it."""
        return [path for parent in self.parents for path in parent.files or parent.sources()]


@dataclass(frozen=True)
class Standing:
    """What `look` found: the times that some files should have, in ns of Unix time, and why.

    `held`: how many jobs hold though times said otherwise. `altered`: files that are not what a job wrote.
    """

    times: dict[Path, int]
    held: int
    altered: dict[Path, Made]


def settle(study: Study, results: Path) -> None:
    """Put the times of a study's files in the order that their records tell; nothing while another command works.

    Raises:
        StorageError: a file cannot be read, or its time cannot be set.
    """
    if holder(results / DRIVER_LOCK) is not None:
        return
    standing = look(study, results)
    for path, one in standing.altered.items():
        how = "it is made again" if one.parents else f"snakemake --forcerun {one.job.stage} makes it again"
        log.warning("rae_bench: %s: differs from what %s wrote; %s", path, one.job.stage, how)
    if not standing.times:
        return
    try:
        with claim(results):
            for path, time in standing.times.items():
                os.utime(path, ns=(time, time), follow_symlinks=False)
    except OSError as error:
        raise StorageError(f"{path}: its time cannot be set: {error.strerror}; run this as the file's owner") from None
    except (HeldError, StorageError):  # another command has just begun, or the folder is not for us to write
        return
    if standing.held:
        log.warning(
            "rae_bench: %d jobs hold already: nothing to do. Their files were older than what they were made from, as"
            " after a copy; all bytes are those on record, and now the times are in order",
            standing.held,
        )


def look(study: Study, results: Path) -> Standing:
    """Hold what is there of `study` against its records; changes no file.

    A job without a whole record, and what it led to, is left to Snakemake and to the stages that read its files.
    """
    made = list(_made(study, results))
    makers = {path: one for one in made for path in one.wrote}
    is_altered = cache(lambda path: storage.sha256(path) != makers[path].wrote[path])
    times: dict[Path, int] = {}
    altered: dict[Path, Made] = {}
    held = 0
    for one in made:
        known = {path: makers[path] for path in one.read if path in makers}
        one.parents = list(dict.fromkeys(known.values()))
        since = max((parent.newest for parent in one.parents), default=0)
        one.newest = max([since, *map(_input_time, one.files)])
        one.is_again |= any(maker.wrote[path] != one.read[path] for path, maker in known.items())
        one.is_kept = not one.is_again and len(known) == len(one.read) and all(each.is_kept for each in one.parents)
        early = [path for path in one.files if _output_time(path) < since]
        if not one.is_kept or not early:
            continue
        if found := {path: makers[path] for path in (*one.sources(), *one.files) if is_altered(path)}:
            altered |= found
            one.is_kept = False
            for maker in found.values():
                maker.is_again, maker.is_kept = True, False
        else:
            held += 1
            times |= dict.fromkeys(early, since)
    for one in made:
        before = min(map(_input_time, one.sources()), default=0) - EARLIER
        output = one.job.output
        is_newer = output in one.files and _output_time(output) > before > 0
        # on a cluster jobs go on when their driver was killed
        if one.is_again and is_newer and holder(output.with_suffix(".lock")) is None:
            times[output] = before
    return Standing(times, held, altered)


def _made(study: Study, results: Path) -> Iterator[Made]:
    for job in study_jobs(study, results):
        try:
            record = recorded(job)
        except (StorageError, RecordError):
            continue
        read, wrote = (
            {job.file(name): digest for name, digest in kind.items()} for kind in (record.read, record.wrote)
        )
        files = [path for path in wrote if path.exists()]
        yield Made(job, read, wrote, files, is_again=fingerprint(record.settings) != fingerprint(job.settings))


def _output_time(path: Path) -> int:
    """When Snakemake says that an output was written, in ns: a link's own time."""
    return path.lstat().st_mtime_ns


def _input_time(path: Path) -> int:
    """When Snakemake says that an input was written, in ns: of a link and its target the later."""
    return max(path.lstat().st_mtime_ns, path.stat().st_mtime_ns)
