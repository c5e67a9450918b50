"""The files of published data sets: where they lie, whether they are the published ones, how they may be fetched.

Which folder holds them and whether this machine may fetch them are facts of the machine, not of a study: the
environment says so. Without RAE_BENCH_DOWNLOAD=1 nothing in here touches the network.
"""

import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rae_bench.data.prepared import DataError, DataFile, Indices, Origin

DATA_VARIABLE = "RAE_BENCH_DATA"
DOWNLOAD_VARIABLE = "RAE_BENCH_DOWNLOAD"

_KINDS = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket", stat.S_IFDIR: "folder"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Download:
    """A file that can be fetched from any of its mirrors, and its MD5."""

    name: str
    md5: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Release:
    """A data set as its makers publish it.

    `folders`: where it may lie below RAE_BENCH_DATA; what is fetched goes to the first. `md5`: of files, by name, where
    the makers or torchvision state one; written down here, for torchvision takes 600 MiB to load. `counts`: how many
    images of each class the official parts have. `downloads` does load torchvision, which knows the addresses.
    """

    name: str
    folders: tuple[str, ...]
    md5: Mapping[str, str]
    counts: Mapping[str, tuple[int, ...]]
    downloads: Callable[[], tuple[Download, ...]]
    page: str
    licence: str

    @property
    def n_images(self) -> dict[str, int]:
        """How many images each official part has."""
        return {part: sum(classes) for part, classes in self.counts.items()}

    @property
    def home(self) -> Path:
        """The folder where its files are put."""
        return root() / self.folders[0]

    @property
    def remedy(self) -> str:
        """What to do about a file that is missing or wrong."""
        return f"get it from {self.page} and put it into {self.home}"


def root() -> Path:
    """The folder of all data that labs keep: RAE_BENCH_DATA, else `data`."""
    return Path(os.environ.get(DATA_VARIABLE) or "data")


def find(release: Release, *forms: tuple[str, ...]) -> list[Path]:
    """The files of the first of `forms`, each the names that make the data set whole, in the first folder with one.

    Raises:
        DataError: none is whole, and fetching is not allowed, fails, or would mix with what lies there.
    """
    if not (found := _whole(release, forms)):
        _refuse_parts(release, forms)
        if os.environ.get(DOWNLOAD_VARIABLE) == "1":
            _fetch(release)
            found = _whole(release, forms)
    if not found:
        wanted = " or ".join(f"{form[0]}{f' and {len(form) - 1} more' if len(form) > 1 else ''}" for form in forms)
        looked = ", ".join(str(root() / folder) for folder in release.folders)
        raise DataError(
            f"{release.name}: none of {wanted} in {looked}; {release.remedy}, name another folder with"
            f" {DATA_VARIABLE}=FOLDER, or allow the download with {DOWNLOAD_VARIABLE}=1"
        )
    return found


def _whole(release: Release, forms: tuple[tuple[str, ...], ...]) -> list[Path]:
    for folder in release.folders:
        for form in forms:
            paths = [root() / folder / name for name in form]
            if all(path.exists() for path in paths):
                return paths
    return []


def _refuse_parts(release: Release, forms: tuple[tuple[str, ...], ...]) -> None:
    for folder in release.folders:
        for form in forms:
            paths = [root() / folder / name for name in form]
            there = [path for path in paths if path.exists()]
            if there:
                missing = next(path for path in paths if path not in there)
                raise DataError(f"{missing}: missing beside {there[0].name}; {release.remedy}")


def _fetch(release: Release) -> None:
    """Fetch the files aside, and move them to their place only when all are whole and of the right MD5."""
    aside = release.home / ".fetching"
    try:
        aside.mkdir(parents=True, exist_ok=True)
        for file in release.downloads():
            log.info("fetching %s to %s", file.name, release.home)
            _fetch_one(file, aside, release)
        for path in sorted(aside.iterdir()):
            path.rename(release.home / path.name)
    except OSError as error:
        raise DataError(
            f"{release.home}: cannot be written: {error.strerror}; free space or allow writing there"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fetch_one(file: Download, folder: Path, release: Release) -> None:
    from torchvision.datasets.utils import download_url

    reasons = []
    for url in file.urls:
        try:
            download_url(url, folder, file.name, file.md5)
        except Exception as error:  # of urllib, http.client, torchvision or, for Google Drive, gdown
            reasons.append(f"{url}: {error}")
        else:
            return
    raise DataError(f"{release.name}: {file.name} cannot be fetched ({'; '.join(reasons)}); {release.remedy}")


def origin(folder: Path, names: Iterable[str], remedy: str) -> Origin:
    """Size and time of the files `names` of a folder, taken before they are read: what alters them later is noticed.

    Raises:
        DataError: one of them is missing or no regular file, which might never end.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name in names:
        try:
            status = (folder / name).stat()
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read: {error.strerror}; {remedy}") from None
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "device")
            raise DataError(f"{folder / name}: is a {kind}, not a regular file; {remedy}")
        found[name] = (status.st_size, status.st_mtime_ns)
    return Origin(str(folder.absolute()), found)


def origin_of(paths: Sequence[Path], release: Release) -> Origin:
    """The same of a release's files, below the folder they share."""
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    return origin(folder, [path.relative_to(folder).as_posix() for path in paths], release.remedy)


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def names_in(folder: Path) -> set[str]:
    """The names of what lies in a folder.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return {path.name for path in folder.iterdir()}
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None


def read_checked(path: Path, release: Release) -> tuple[bytes, DataFile]:
    """The bytes of a file of `release` and what the manifest says of it.

    Raises:
        DataError: it cannot be read, or has another MD5 than the published one, where there is one.
    """
    data = read(path)
    check_md5(path, path.name, data, release)
    return data, DataFile(release.name, path.name, hashlib.sha256(data).hexdigest(), release.licence)


def check_md5(path: Path, name: str, data: bytes, release: Release) -> None:
    """Raise a DataError unless `data`, read from `path`, has the MD5 published for `name`, if there is one."""
    _compare(path, name, hashlib.md5(data, usedforsecurity=False).hexdigest(), len(data), release)


def check_archive(path: Path, release: Release) -> DataFile:
    """As `read_checked`, of a file that is too large for memory."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    try:
        with path.open("rb") as handle:
            while data := handle.read(2**20):
                md5.update(data)
                sha256.update(data)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    _compare(path, path.name, md5.hexdigest(), path.stat().st_size, release)
    return DataFile(release.name, path.name, sha256.hexdigest(), release.licence)


def _compare(path: Path, name: str, found: str, size: int, release: Release) -> None:
    expected = release.md5.get(name, found)
    if found != expected:
        raise DataError(
            f"{path}: {size:,} bytes with MD5 {found}, expected MD5 {expected}: truncated, altered or of another data"
            f" set; {release.remedy}"
        )


def check_labels(where: str, labels: Indices, part: str, release: Release) -> None:
    """Raise a DataError unless there are as many labels of each class as the official part has."""
    expected = release.counts[part]
    if len(labels) != sum(expected):
        raise DataError(f"{where}: {len(labels):,} labels, expected {sum(expected):,}; {release.remedy}")
    if labels.min() < 0 or labels.max() >= len(expected):
        raise DataError(
            f"{where}: labels {labels.min()} to {labels.max()}, expected 0 to {len(expected) - 1}; {release.remedy}"
        )
    found = np.bincount(labels, minlength=len(expected))
    if tuple(found) != expected:
        raise DataError(
            f"{where}: {found.tolist()} labels of each class, expected {list(expected)}: altered or of another data"
            f" set; {release.remedy}"
        )
