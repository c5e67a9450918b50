"""CelebA: aligned photographs of faces, 178 x 218, in a folder or in the zip file they are published in."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from rae_bench.data import files
from rae_bench.data.files import Release
from rae_bench.data.pictures import Recipe, image_files
from rae_bench.data.prepared import SPLITS, DataError, Indices, Prepared
from rae_bench.data.releases import RELEASES
from rae_bench.data.specs import CelebA, DatasetSpec

IMAGES = "img_align_celeba"
ALIGNED = (178, 218)
_LARGEST = 2**22
"""Bytes; an aligned photograph has some ten thousand."""


def prepare(spec: DatasetSpec, source: CelebA) -> Prepared:
    """The photographs in file order; splits are the first of each part of the official partition.

    Raises:
        DataError: a file is missing or not the published one; the partition and the photographs do not match.
    """
    release = RELEASES["celeba"]
    listing, path = files.find(release)
    is_zip = not path.is_dir()  # a zip file has a checksum of every photograph
    held = [path.name] if is_zip else [f"{IMAGES}/{name}" for name in _photographs(path)]
    beside = Path(os.path.relpath(listing, path.parent)).as_posix()
    origin = files.origin(path.parent, [beside, *held], release.remedy)
    names, parts = _partition(listing, release)
    sources = [files.checked(one, release) for one in ([listing, path] if is_zip else [listing])]
    if is_zip:
        archive = files.opened_zip(path, release.remedy)
        held = [name for name in archive.namelist() if name.startswith(f"{IMAGES}/") and name[-1] != "/"]
    _check_names(path, {Path(name).name for name in held}, names, release)

    def read(name: str) -> bytes:
        if is_zip:
            return files.member(path, archive, name, _LARGEST, release.remedy)
        return files.read(path.parent / name)

    splits = {split: np.flatnonzero(parts == number) for number, split in enumerate(SPLITS)}
    for split, members in splits.items():
        if spec.count(split) > len(members):
            raise DataError(f"{spec.label}: {spec.count(split)} {split} images of {len(members)}; ask for fewer")
    stored = tuple(f"{IMAGES}/{name}" for name in names)
    recipe = Recipe(("JPEG",), _aligned, source.crop, source.filter, 3, spec.size, release.remedy, is_zip)
    return Prepared(
        images=image_files(stored, f"{path}: " if is_zip else f"{path.parent}/", read, recipe),
        splits={split: members[: spec.count(split)] for split, members in splits.items()},
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


def _photographs(folder: Path) -> list[str]:
    with files.reading(folder):
        return [path.name for path in folder.iterdir() if path.suffix == ".jpg"]


def _partition(path: Path, release: Release) -> tuple[list[str], Indices]:
    """The names of the photographs, and of each the part it is in: 0, 1 or 2."""
    rows = [line.split() for line in files.read(path).decode("ascii", "replace").splitlines()]
    for number, row in enumerate(rows, 1):
        is_name = len(row) == 2 and row[0].endswith(".jpg") and row[0].removesuffix(".jpg").isalnum()
        if not is_name or row[1] not in ("0", "1", "2"):
            line = " ".join(row)[:60]
            raise DataError(f"{path}: line {number} is {line!r}, expected a file name and 0, 1 or 2; {release.remedy}")
    names = [row[0] for row in rows]
    if twice := len(names) - len(set(names)):
        raise DataError(f"{path}: {twice} names stand twice; {release.remedy}")
    parts = np.array([int(row[1]) for row in rows], np.int64)
    found = dict(zip(SPLITS, np.bincount(parts, minlength=3).tolist(), strict=True))
    if found != release.n_images:
        raise DataError(f"{path}: {found} images, expected {release.n_images}; {release.remedy}")
    return names, parts


def _check_names(path: Path, found: set[str], names: list[str], release: Release) -> None:
    missing, unknown = sorted(set(names) - found), sorted(found - set(names))
    if missing or unknown:
        first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is not in list_eval_partition.txt"
        raise DataError(f"{path}: {len(found):,} photographs, expected {len(names):,}: {first}; {release.remedy}")
