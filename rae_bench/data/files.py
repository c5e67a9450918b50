"""The files of published data sets: where they lie, whether they are the published ones, how they may be fetched.

Which folder holds them and whether this machine may fetch them are facts of the machine, not of a study: the
environment says so. Without RAE_BENCH_DOWNLOAD=1 nothing in here touches the network.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rae_bench.data.prepared import DataError, DataFile, Origin

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

    `folders`: where it may lie below RAE_BENCH_DATA; what is fetched goes to the first. `forms`: the names of the files
    that make it whole, the preferred form first. `md5`: of files, by name, where the makers or torchvision state one.
    `counts`: how many images of each class the official parts have.
    """

    name: str
    folders: tuple[str, ...]
    forms: tuple[tuple[str, ...], ...]
    md5: Mapping[str, str]
    counts: Mapping[str, tuple[int, ...]]
    downloads: tuple[Download, ...]
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


def find(release: Release) -> list[Path]:
    """The files of the first form of `release` that is whole, in the first of its folders with one.

    Raises:
        DataError: none is whole, and fetching is not allowed, fails, or would mix with what lies there.
    """
    places = _places(release)
    if (found := _whole(places)) is not None:
        return found
    for paths in places:
        missing = [path for path in paths if not path.exists()]
        beside = [path.name for path in paths if path not in missing]
        if beside:
            raise DataError(f"{missing[0]}: missing beside {beside[0]}; {release.remedy}")
    if os.environ.get(DOWNLOAD_VARIABLE) == "1":
        _fetch(release)
        if (found := _whole(places)) is not None:
            return found
    wanted = " or ".join(f"{form[0]}{f' and {len(form) - 1} more' if len(form) > 1 else ''}" for form in release.forms)
    looked = ", ".join(str(root() / folder) for folder in release.folders)
    raise DataError(
        f"{release.name}: none of {wanted} in {looked}; {release.remedy}, name another folder with"
        f" {DATA_VARIABLE}=FOLDER, or allow the download with {DOWNLOAD_VARIABLE}=1"
    )


def is_there(release: Release) -> bool:
    """Whether `release` lies somewhere in one of its forms; nothing is read or fetched."""
    return _whole(_places(release)) is not None


def _places(release: Release) -> list[list[Path]]:
    return [[root() / folder / name for name in form] for folder in release.folders for form in release.forms]


def _whole(places: list[list[Path]]) -> list[Path] | None:
    return next((paths for paths in places if all(path.exists() for path in paths)), None)


def _fetch(release: Release) -> None:
    """Fetch the files aside, and move them to their place only when all are whole and of the right MD5."""
    aside = release.home / ".fetching"
    try:
        aside.mkdir(parents=True, exist_ok=True)
        for file in release.downloads:
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
    from torchvision.datasets.utils import download_url  # 600 MiB, loaded only to fetch

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
        with reading(folder / name, f"; {remedy}"):
            status = (folder / name).stat()
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "device")
            raise DataError(f"{folder / name}: is a {kind}, not a regular file; {remedy}")
        found[name] = (status.st_size, status.st_mtime_ns)
    return Origin(str(folder.absolute()), found)


@contextlib.contextmanager
def reading(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn what the operating system says while `path` is read into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}{remedy}") from None


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: it cannot be read.
    """
    with reading(path):
        return path.read_bytes()


def opened_zip(path: Path, remedy: str) -> zipfile.ZipFile:
    """The zip file `path`, whose members `member` reads.

    Raises:
        DataError: it cannot be read, or is no whole zip file.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a whole zip file ({error}); {remedy}") from None


def member(path: Path, archive: zipfile.ZipFile, name: str, largest: int, remedy: str) -> bytes:
    """The bytes of a file in the zip file `path`; zipfile compares its checksum, nothing is extracted to the disk.

    Raises:
        DataError: it has more than `largest` bytes, is damaged, encrypted or packed in an unknown way.
    """
    size = archive.getinfo(name).file_size
    if size > largest:
        raise DataError(f"{path}: {name} has {size:,} bytes, expected at most {largest:,}; {remedy}")
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise DataError(f"{path}: {name} cannot be read: {error}; {remedy}") from None


def checked(path: Path, release: Release) -> DataFile:
    """What the manifest says of a file of `release`, which may be larger than memory.

    Raises:
        DataError: it cannot be read, or has another MD5 than the published one, where there is one.
    """
    with reading(path), path.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        if path.name in release.md5:
            handle.seek(0)
            md5 = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            compare_md5(path, path.name, md5, handle.tell(), release)
    return DataFile(release.name, path.name, sha256, release.licence)


def compare_md5(path: Path, name: str, found: str, size: int, release: Release) -> None:
    """Raise a DataError if another MD5 than `found` is published for `name`, whose `size` bytes come from `path`."""
    expected = release.md5.get(name, found)
    if found != expected:
        raise DataError(
            f"{path}: {size:,} bytes with MD5 {found}, expected MD5 {expected}: truncated, altered or of another data"
            f" set; {release.remedy}"
        )
