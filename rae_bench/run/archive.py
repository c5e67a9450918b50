"""A finished study in one file, and back.

The file is a zip whose members are stored as they are: any desktop opens it and any member alone can be read, the same
results give the same bytes whatever the compression library, and nothing can grow when it is read. Its first member,
`index.json`, lists the SHA-256 of all others, and what was left out; its second describes them to other programs.
Members are named by their path below the results.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import stat
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rae_bench import __version__
from rae_bench.base import storage
from rae_bench.base.own import files_of
from rae_bench.base.plain import ConfigError, parse, to_plain
from rae_bench.data.croissant import CROISSANT
from rae_bench.data.specs import MANIFEST
from rae_bench.report.page import PACKAGES
from rae_bench.run import crate as crates
from rae_bench.run import records
from rae_bench.run.crate import CRATE
from rae_bench.run.jobs import study_jobs
from rae_bench.run.verification import LEFT_OUT, verify
from rae_bench.study.config import CONFIG
from rae_bench.study.stated import is_file
from rae_bench.study.study import Study

FORMAT = 2
INDEX = "index.json"
MOST_INDEX = 64 * 2**20
"""Bytes an index may have: that of a study of a thousand runs has fewer than ten million."""
SHARED = ("datasets", "references")
EPOCH = (1980, 1, 1, 0, 0, 0)
_NAME = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)+", re.ASCII)
_STUDY = re.compile(r"[a-z][a-z0-9_]*")


class ArchiveError(RuntimeError):
    """An archive that cannot be made, is not whole, or would overwrite something else."""


@dataclass(frozen=True)
class Index:
    """The SHA-256 of what an archive holds, and which files of the study it does not; all by path below the results.

    `crate`: that of the description for other programs, which is for the archive alone.
    """

    format: int
    study: str
    package: str
    packages: dict[str, str]
    members: dict[str, str]
    left_out: tuple[str, ...]
    crate: str = ""


# --- export -----------------------------------------------------------------------------------------------


def pack(study: Study, results: Path, path: Path, weights: bool, codes: bool) -> Index:
    """Write the archive of a finished study to `path`, whole or not at all; the same results give the same bytes.

    `weights`: models and densities, too; `codes`: codes, too. Images and their features are left out: `prepare` and
    `reference` make them again.

    Raises:
        ArchiveError: the study is not finished, or not what its jobs wrote.
        StorageError: the archive cannot be written.
    """
    verdict = verify(study, results)
    if verdict.problems:
        raise ArchiveError(f"{verdict.problems[0]} ({len(verdict.problems)} in all: verify {study.source} lists them)")
    left_out: list[str] = []
    packed: dict[str, Path | bytes] = {**_settings(study)}
    for job in study_jobs(study, results):
        record, state = records.beside(job.output), job.output.with_suffix(".job.json")
        for name in records.load(record).wrote:
            file = record.parent / name
            if file.exists() and _is_wanted(job.stage, file, weights, codes):
                packed[_below(file, results)] = file
            else:
                left_out.append(_below(file, results))
        packed |= {_below(file, results): file for file in (record, state) if file.exists()}
    costs = (results / study.name / name for name in ("costs.csv", "costs.txt"))
    packed |= {_below(file, results): file for file in costs if file.exists()}
    members = {name: _digest(packed[name]) for name in sorted(packed)}
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    crate = _json(crates.described(study.name, study.file.title, _sizes(packed), _last(packed)))
    index = Index(FORMAT, study.name, __version__, packages, members, tuple(sorted(left_out)), _digest(crate))
    with storage.writing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, source in {INDEX: _json(index), CRATE: crate, **{name: packed[name] for name in members}}.items():
            data = source if isinstance(source, bytes) else source.read_bytes()
            if name in members and _digest(data) != members[name]:
                raise ArchiveError(f"{name}: has changed while it was packed; wait until the study is finished")
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return index


def _sizes(packed: Mapping[str, Path | bytes]) -> dict[str, int]:
    return {
        name: len(source) if isinstance(source, bytes) else source.stat().st_size
        for name, source in sorted(packed.items())
    }


def _last(packed: Mapping[str, Path | bytes]) -> float:
    """When the last of the jobs whose states are packed began; 0 where there are none."""
    states = [path for path in packed.values() if isinstance(path, Path) and path.name.endswith(".job.json")]
    return max((float(storage.read_json(state)["started"]) for state in states), default=0.0)


def _json(data: object) -> bytes:
    return json.dumps(to_plain(data), sort_keys=True, indent=1).encode()


def _is_wanted(stage: str, file: Path, weights: bool, codes: bool) -> bool:
    """Whether a file goes along: never images and features; weights and codes where they are asked for."""
    if stage in ("prepare", "reference", "decode"):
        return file.name in (MANIFEST, CROISSANT)
    if stage == "fit" or file.name == "model.safetensors":
        return weights
    return codes or file.name != "codes.safetensors"


def _digest(source: Path | bytes) -> str:
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else storage.sha256(source)


def _below(file: Path, results: Path) -> str:
    return Path(os.path.relpath(file, results)).as_posix()


def _settings(study: Study) -> dict[str, bytes]:
    """The study's YAML and vocabulary, every job's settings as the jobs read them, and the lock of all packages."""
    jobs = {f"{job.stage} {job.name}": job.settings for job in study_jobs(study, Path())}
    files = {"resolved.json": _json({"study": study.file, "summary": study.summary(), "jobs": jobs})}
    lock = CONFIG.parent.parent / "requirements.lock"
    for file in (*sorted(CONFIG.glob("*.yaml")), lock):
        if file.exists():
            files[file.name] = file.read_bytes()
    own = is_file(study.source)
    stated = Path(study.source) if own else CONFIG / "studies" / f"{study.name}.yaml"
    if stated.exists():
        files[f"studies/{study.name}.yaml"] = stated.read_bytes()
    if own:  # with the code that it names, beside it as it was
        folder = stated.parent
        for code in study.own_code():
            for file in files_of(code):
                name = file.relative_to(folder) if file.is_relative_to(folder) else file.name
                files[f"studies/{name}"] = file.read_bytes()
    return {f"{study.name}/settings/{name}": text for name, text in files.items()}


# --- import -----------------------------------------------------------------------------------------------


def unpack(path: Path, results: Path) -> Index:
    """Check the archive `path` and restore its study below `results`; files that are there already stay as they are.

    Nothing appears in its place before all of it has been read and found right.

    Raises:
        ArchiveError: one line: not a whole archive of a study, a member that is not what the index says or has no place
            below the results, or a file in its place that differs.
    """
    with storage.explained(results):
        results.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(prefix=".import.", dir=results)
    try:
        with staging, zipfile.ZipFile(path) as archive:
            index = _index(path, archive)
            if index.crate and _digest(archive.read(CRATE)) != index.crate:
                raise ArchiveError(f"{path}: member {CRATE!r}: its bytes are not those the index says")
            missing = [name for name in index.members if not _is_there(results / name, index.members[name])]
            for name in missing:
                data = archive.read(name)
                if _digest(data) != index.members[name]:
                    raise ArchiveError(f"{path}: member {name!r}: its bytes are not those the index says")
                storage.write_bytes(Path(staging.name) / name, data)
            for name in missing:
                with storage.explained(results / name):
                    (results / name).parent.mkdir(parents=True, exist_ok=True)
                    (Path(staging.name) / name).replace(results / name)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise ArchiveError(f"{path}: cannot be read: {error.strerror}") from None
        raise ArchiveError(f"{path}: not a whole archive: {error}; expected a file that export has written") from None
    absent = tuple(name for name in index.left_out if not (results / name).exists())
    storage.write_json(results / index.study / LEFT_OUT, asdict(replace(index, left_out=absent)))
    # Snakemake goes by times: whatever belongs to the study is as old as everything else of it, and older than nothing.
    now = time.time_ns()
    for name in index.members:
        if name in missing or not name.startswith(SHARED):
            os.utime(results / name, ns=(now, now))
    return index


def _index(path: Path, archive: zipfile.ZipFile) -> Index:
    """The index, if the archive's members are those it lists, each a plain file with a place below the results."""
    infos = archive.infolist()
    by_name = {info.filename: info for info in infos}
    for info in infos:
        name, is_stored = info.filename, info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
        faults = {
            "not a path below the results": info.orig_filename != name
            or not (name in (INDEX, CRATE) or _NAME.fullmatch(name)),
            "not a plain file": stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG) or info.is_dir(),
            "compressed or encrypted; members are stored as they are": (
                not is_stored or info.file_size != info.compress_size
            ),
            "stands twice": by_name[name] is not info,
        }
        for fault in (fault for fault, is_so in faults.items() if is_so):
            raise ArchiveError(f"{path}: member {info.orig_filename!r}: {fault}")
    if sum(info.file_size for info in infos) > path.stat().st_size:
        raise ArchiveError(f"{path}: its members are larger than the file itself")
    if INDEX not in by_name:
        raise ArchiveError(f"{path}: holds no {INDEX}; not an archive of a study")
    if by_name[INDEX].file_size > MOST_INDEX:
        raise ArchiveError(f"{path}: {INDEX} has {by_name[INDEX].file_size} bytes, more than {MOST_INDEX}")
    try:
        found = json.loads(archive.read(INDEX))
        made = found.get("format", FORMAT) if isinstance(found, dict) else FORMAT
        if made != FORMAT:
            raise ArchiveError(f"{path}: of format {made}; this version reads {FORMAT}")
        index: Index = parse(Index, found, INDEX)
    except (ConfigError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{path}: {INDEX} cannot be read: {error}") from None
    if not _STUDY.fullmatch(index.study) or index.study in SHARED:
        raise ArchiveError(f"{path}: {INDEX} names the study {index.study!r}, which is no name of one")
    listed = set(index.members) | ({CRATE} if index.crate else set())
    for name in sorted((set(by_name) - {INDEX}) ^ listed):
        missing = "the index lists it, the archive lacks it" if name in listed else "the index does not list it"
        raise ArchiveError(f"{path}: member {name!r}: {missing}")
    for name in index.members:
        if name.split("/")[0] not in (index.study, *SHARED) or name == f"{index.study}/{LEFT_OUT}":
            raise ArchiveError(f"{path}: member {name!r}: does not belong to the study {index.study!r}")
    return index


def _is_there(target: Path, sha256: str) -> bool:
    """Whether the very file lies in its place already.

    Raises:
        ArchiveError: another file lies there.
    """
    if not os.path.lexists(target):
        return False
    is_cost = target.name.endswith(".job.json")  # what a job cost here; it says nothing about its files
    if is_cost or (target.is_file() and storage.sha256(target) == sha256):
        return True
    raise ArchiveError(
        f"{target}: is there already and differs from the archive's; move the study's results away first"
    )
