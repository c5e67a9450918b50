"""What made a file: the record a stage leaves beside its outputs, and the check of everything a stage reads.

A record names the stage, its settings, the run it belongs to, and the SHA-256 of every file read and written, by the
path from the record's own folder. A file is traced from record to record, back to the images. Before a stage reads
files, `check` sees that their bytes are those on record, that they were made by the settings and for the run the stage
expects, and that whatever they were made from is still what it was.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rae_bench import __version__
from rae_bench.base import storage
from rae_bench.base.plain import ADDED, ConfigError, fingerprint, parse, to_plain

SUFFIX = ".record.json"
AGAIN = "delete it and run again"
NOTHING: Mapping[str, str] = {}
Run = dict[str, Any]
"""What tells a run from others, as far as a stage knows it: study, dataset, model, seed."""


class RecordError(RuntimeError):
    """A file that is not what its record, or the stage that reads it, says; the message names the file."""


@dataclass(frozen=True)
class Record:
    """`read` and `wrote`: SHA-256 by path from the record's folder. `seal`: the fingerprint of all else here.

    `computed_on`: the GPU and its versions (`devices.computed_on`). It is no setting: another driver reruns nothing.
    """

    stage: str
    settings: Any
    run: Run
    package: str
    read: dict[str, str]
    wrote: dict[str, str]
    seal: str
    computed_on: dict[str, str] = field(default_factory=dict, metadata=ADDED)

    def sealed(self) -> str:
        """What `seal` should be."""
        return fingerprint({name: value for name, value in to_plain(self).items() if name != "seal"})

    @property
    def device(self) -> str:
        """The GPU with its versions in words; empty without one."""
        words = {"gpu": "", "driver": "driver ", "cuda": "CUDA ", "cudnn": "cuDNN "}
        return ", ".join(word + self.computed_on[name] for name, word in words.items() if name in self.computed_on)


def beside(output: Path) -> Path:
    """Where the record of the stage whose first output (in a folder) is `output` lies."""
    return output.with_suffix(SUFFIX)


def write(
    stage: str,
    settings: Any,
    run: Run,
    read: Mapping[Path, str],
    wrote: Iterable[Path],
    computed_on: Mapping[str, str] = NOTHING,
) -> None:
    """Leave a record beside the first of the files that a stage wrote; `read`: the hashes found when it began."""
    files = {path: storage.sha256(path) for path in wrote}
    path = beside(next(iter(files)))
    named_read, named_wrote = (
        {Path(os.path.relpath(file, path.parent)).as_posix(): found for file, found in hashes.items()}
        for hashes in (read, files)
    )
    record = Record(stage, settings, run, __version__, named_read, named_wrote, "", dict(computed_on))
    storage.write_json(path, {**to_plain(record), "seal": record.sealed()})


def load(path: Path) -> Record:
    """The record in the file `path`.

    Raises:
        StorageError, RecordError: missing, not whole, or altered.
    """
    try:
        record: Record = parse(Record, storage.read_json(path), str(path))
    except ConfigError as error:
        raise RecordError(f"{error}; not a record of this version; {AGAIN}") from None
    if record.seal != record.sealed():
        raise RecordError(f"{path}: altered since it was written; {AGAIN}")
    return record


def find(path: Path) -> tuple[Path, Record] | None:
    """The folder of the record that says what wrote `path`, and the record; None if there is none.

    Raises:
        StorageError, RecordError: a record that is not whole, or altered.
    """
    for candidate in dict.fromkeys([beside(path), *sorted(path.parent.glob(f"*{SUFFIX}"))]):
        if candidate.exists():
            record = load(candidate)
            if path.name in record.wrote:
                return candidate.parent, record
    return None


Look = Callable[[Path], tuple[Path, Record] | None]
"""`find`, or what remembers what it found."""


def check(reads: Mapping[str, Path], hashes: Mapping[str, str], made_by: Mapping[str, str], run: Run | None) -> Run:
    """Check the files that a stage is about to read; its run, completed by what their records say.

    `hashes`: of each of `reads`, the SHA-256 found now. `made_by`: the fingerprint of the settings a file must have
    been made with. `run` is what the stage knows of its run, which its files must agree with; None for a stage that
    reads many runs.

    Raises:
        StorageError, RecordError: one line that names the first file that is truncated, altered or foreign, or older
            than what it was made from.
    """
    merged: Run = {} if run is None else dict(run)
    look = functools.cache(find)
    for name, path in reads.items():
        found = look(path)
        if found is None:
            raise RecordError(f"{path}: no record beside it says what wrote it; {AGAIN}")
        _, record = found
        if hashes[name] != record.wrote[path.name]:
            raise RecordError(f"{path}: differs from what {record.stage} wrote; {AGAIN}")
        if name in made_by and fingerprint(record.settings) != made_by[name]:
            raise RecordError(f"{path}: {record.stage} made it with other settings than are expected here; {AGAIN}")
        for key, value in record.run.items() if run is not None else ():
            if merged.setdefault(key, value) != value:
                raise RecordError(f"{path}: of {key} {value!r}, expected {merged[key]!r}; {AGAIN}")
    for path, folder, record in lineage(reads.values(), look):
        for relative, read in record.read.items():
            ancestor = Path(os.path.normpath(folder / relative))
            if (origin := look(ancestor)) is not None and origin[1].wrote[ancestor.name] != read:
                raise RecordError(f"{path}: made from another {ancestor} than the one there now; {AGAIN}")
    return merged


def lineage(paths: Iterable[Path], look: Look = find) -> Iterator[tuple[Path, Path, Record]]:
    """Each of `paths`, and of all they were made from, that has a record, with the record's folder and the record."""
    made = list(dict.fromkeys(paths))
    seen = set(made)
    for path in made:  # which grows
        if (found := look(path)) is None:
            continue
        folder, record = found
        yield path, folder, record
        new = [one for name in record.read if (one := Path(os.path.normpath(folder / name))) not in seen]
        seen.update(new)
        made += new


def computed_on(paths: Iterable[Path]) -> dict[Path, list[str]]:
    """The GPUs, with their versions, that computed each of `paths` and what it was made from."""
    look = functools.cache(find)
    return {path: sorted({record.device for *_, record in lineage([path], look)} - {""}) for path in paths}
