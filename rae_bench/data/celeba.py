"""CelebA: aligned photographs of faces, 178 x 218, in a folder or in the zip file they are published in."""

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from rae_bench.data import files
from rae_bench.data.files import Download, Release
from rae_bench.data.pictures import Read, Recipe, image_files
from rae_bench.data.prepared import SPLITS, DataError, DataFile, Indices, Prepared
from rae_bench.data.specs import CelebA, DatasetSpec

PARTITION, IMAGES, ARCHIVE = "list_eval_partition.txt", "img_align_celeba", "img_align_celeba.zip"
FORMS = (
    (PARTITION, ARCHIVE),
    (f"Eval/{PARTITION}", f"Img/{ARCHIVE}"),  # as the makers arrange their files
    (PARTITION, IMAGES),
    (f"Eval/{PARTITION}", f"Img/{IMAGES}"),
)
ALIGNED = (178, 218)
_LARGEST = 2**22
"""Bytes; an aligned photograph has some ten thousand."""


def release() -> Release:
    """CelebA, aligned and cropped, as published by Liu et al."""
    return Release(
        name="CelebA",
        folders=("celeba", "celeba/celeba"),
        md5={PARTITION: "d32c9cbf5e040fd4025c592c306e6668", ARCHIVE: "00d2c5bc6d35e252742224ab0c1e8fcb"},
        counts={"train": (162_770,), "validation": (19_867,), "test": (19_962,)},
        downloads=_downloads,
        page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        licence="for non-commercial research, by its agreement",
    )


def _downloads() -> tuple[Download, ...]:
    from torchvision import datasets as published

    return tuple(
        Download(name, md5, (f"https://drive.google.com/file/d/{number}",))
        for number, md5, name in published.CelebA.file_list
        if name in (PARTITION, ARCHIVE)
    )


def prepare(spec: DatasetSpec, source: CelebA, release: Release) -> Prepared:
    """The photographs in file order; splits are the first of each part of the official partition.

    Raises:
        DataError: a file is missing or not the published one; the partition and the photographs do not match.
    """
    if spec.channels != 3:
        raise DataError(f"{spec.label}: photographs have 3 channels, {spec.channels} asked for")
    partition_path, path = files.find(release, *FORMS)
    origin = files.origin_of([partition_path] if path.is_dir() else [partition_path, path], release)
    names, parts, partition = _partition(partition_path, release)
    splits = {}
    for number, split in enumerate(SPLITS):
        members = np.flatnonzero(parts == number)
        if spec.count(split) > len(members):
            raise DataError(f"{spec.label}: {spec.count(split)} {split} images of {len(members)}; ask for fewer")
        splits[split] = members[: spec.count(split)]
    in_zip = not path.is_dir()  # with a checksum of every member
    recipe = Recipe(("JPEG",), _aligned, source.crop, source.filter, 3, spec.size, release.remedy, in_zip)
    sources = [partition]
    if path.is_dir():
        held = {name for name in files.names_in(path) if name.endswith(".jpg")}
        place, opened = f"{path.parent}/", lambda: _in_folder(path)
    else:
        sources.append(files.check_archive(path, release))
        with _archive(path, release) as archive:
            held = {Path(name).name for name in archive.namelist() if name.startswith(f"{IMAGES}/") and name[-1] != "/"}
        place, opened = f"{path}: ", lambda: _in_archive(path, release)
    _check_names(path, held, names, release)
    stored = tuple(f"{IMAGES}/{name}" for name in names)
    if path.is_dir():
        beside = Path(os.path.relpath(partition_path, path.parent)).as_posix()
        origin = files.origin(path.parent, (beside, *stored), release.remedy)
    return Prepared(
        images=image_files(stored, place, opened, recipe),
        splits=splits,
        extras={},
        sources=tuple(sources),
        note=f"official partition; centred {source.crop}x{source.crop} of each photograph, resized with Pillow's"
        f" {source.filter} filter; files.sha256 names each image's file",
        origin=origin,
    )


def _aligned(image: Image.Image) -> Image.Image:
    if image.size != ALIGNED or image.mode != "RGB":
        raise DataError(f"is {image.mode} {image.width}x{image.height}, expected RGB {ALIGNED[0]}x{ALIGNED[1]}")
    return image


def _partition(path: Path, release: Release) -> tuple[list[str], Indices, DataFile]:
    """The names of the photographs, and of each the part it is in: 0, 1 or 2."""
    data = files.read(path)
    rows = [line.split() for line in data.decode("ascii", "replace").splitlines()]
    for number, row in enumerate(rows, 1):
        is_name = len(row) == 2 and row[0].endswith(".jpg") and row[0].removesuffix(".jpg").isalnum()
        if not is_name or row[1] not in ("0", "1", "2"):
            line = " ".join(row)[:60]
            raise DataError(f"{path}: line {number} is {line!r}, expected a file name and 0, 1 or 2; {release.remedy}")
    names = [row[0] for row in rows]
    if len(set(names)) != len(names):
        raise DataError(f"{path}: {len(names) - len(set(names))} names stand twice; {release.remedy}")
    parts = np.array([int(row[1]) for row in rows], np.int64)
    found = dict(zip(SPLITS, np.bincount(parts, minlength=3).tolist(), strict=True))
    if found != release.n_images:
        raise DataError(f"{path}: {found} images, expected {release.n_images}; {release.remedy}")
    _, source = files.read_checked(path, release)
    return names, parts, source


def _check_names(path: Path, found: set[str], names: list[str], release: Release) -> None:
    missing, unknown = sorted(set(names) - found), sorted(found - set(names))
    if missing or unknown:
        first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not in {PARTITION}"
        raise DataError(f"{path}: {len(found):,} photographs, expected {len(names):,}: {first}; {release.remedy}")


@contextlib.contextmanager
def _in_folder(path: Path) -> Iterator[Read]:
    yield lambda name: files.read(path.parent / name)


@contextlib.contextmanager
def _in_archive(path: Path, release: Release) -> Iterator[Read]:
    with _archive(path, release) as archive:
        yield lambda name: _member(path, archive, name, release)


def _archive(path: Path, release: Release) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a whole zip file ({error}); {release.remedy}") from None


def _member(path: Path, archive: zipfile.ZipFile, name: str, release: Release) -> bytes:
    """The bytes of one file of the archive, whose checksum zipfile compares; nothing is extracted to the disk."""
    size = archive.getinfo(name).file_size
    if size > _LARGEST:
        raise DataError(f"{path}: {name} has {size:,} bytes, expected some ten thousand; {release.remedy}")
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise DataError(f"{path}: {name} cannot be read: {error}; {release.remedy}") from None
