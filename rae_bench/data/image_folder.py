"""Any folder of images: PNG, JPEG, BMP, WebP, TIFF, PPM or GIF files at any depth, sorted by name.

A data set takes the centred square of each, resized (`prepare`); two sets to be compared are read as they are.
"""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from rae_bench.base.rng import numpy_generator
from rae_bench.data import files
from rae_bench.data.pictures import Read, Recipe, image_files
from rae_bench.data.prepared import SPLITS, DataError, ImageFiles, Indices, Prepared, consecutive
from rae_bench.data.specs import DatasetSpec, ImageFolder

log = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".gif"),
)
"""All that Pillow knows for these formats; a kind that is refused is refused by name, not left out."""
_UNWRITABLE = ("Cc", "Cs", "Zl", "Zp")
"""Kinds of characters that cannot stand in a line of text: control characters, bytes that are no UTF-8, line ends."""
_GREY = ("1", "L", "LA")
_MODES = (*_GREY, "P", "PA", "RGB", "RGBA")
_LARGEST = 2**28
"""Bytes of an image in a zip file: as many as Pillow's limit of 89 million pixels has in colour."""


def prepare(spec: DatasetSpec, source: ImageFolder) -> Prepared:
    """The images of a folder, sorted by name, and their splits.

    Raises:
        DataError: the folder is missing, or has other numbers of images than `spec` says.
    """
    top = files.root() / source.path
    if not top.is_dir():
        raise DataError(
            f"{top}: no such folder; a relative path lies below {files.DATA_VARIABLE}, now {files.root().absolute()}"
        )
    names, splits = chosen(spec, source, top)
    remedy = f"mend it or take it out of {top}"
    origin = files.origin(top, names, remedy)

    def convert(image: Image.Image) -> Image.Image:
        return _converted(image, spec.channels)

    def read(name: str) -> bytes:
        return files.read(top / name)

    made = (source.crop, source.filter, spec.channels, spec.size)
    recipe = Recipe(FORMATS, convert, *made, remedy, padding=source.padding)
    side = f"{source.crop}x{source.crop}" if source.crop else "square"
    made_to_fit = f"resized with Pillow's {source.filter} filter"
    if source.padding:
        made_to_fit += f", {source.padding} pixels of zero on each side"
    return Prepared(
        images=image_files(names, f"{top}/", read, recipe),
        splits=splits,
        extras={},
        sources=(),
        note=f"own images, see files.sha256; centred {side} of each, {made_to_fit}",
        origin=origin,
    )


def as_they_are(path: Path) -> ImageFiles:
    """All images of a folder or of a zip file, whole: none is cropped or resized, all are as large as the first.

    Grey if the first is grey; among colour images grey ones become RGB, as in a data set of three channels.

    Raises:
        DataError: there are none, or what `prepare` says of files; blocks raise it of an image unlike the first.
    """
    remedy = f"mend it or take it out of {path}"
    names, place, read = _in_folder(path, remedy) if path.is_dir() else _in_zip(path, remedy)
    if not names:
        raise DataError(f"{path}: no images; expected files of the kinds {', '.join(FORMATS)}")

    def alone(image: Image.Image) -> Image.Image:
        return _converted(image, 1 if image.mode in _GREY else 3)

    recipe = Recipe(FORMATS, alone, 0, "box", 3, 0, remedy, has_checksums=not path.is_dir())
    first, _ = next(image_files(names[:1], place, read, recipe).blocks())
    _, channels, height, width = first.shape

    def alike(image: Image.Image) -> Image.Image:
        if channels == 1 and image.mode not in _GREY:
            raise DataError(f"is in colour, {names[0]} grey; expected all grey or all in colour")
        made = _converted(image, channels)
        if made.size != (width, height):
            raise DataError(f"is {made.width}x{made.height}, expected {width}x{height} as {names[0]}")
        return made

    every = image_files(names, place, read, replace(recipe, convert=alike))
    return replace(every, shape=(len(names), channels, height, width))


def _in_folder(top: Path, remedy: str) -> tuple[tuple[str, ...], str, Read]:
    """The names of the images in a folder, what precedes a name in messages, and how one is read."""
    names = tuple(_images(top, "."))
    files.origin(top, names, remedy)  # refuses what might never end
    return names, f"{top}/", lambda name: files.read(top / name)


def _in_zip(path: Path, remedy: str) -> tuple[tuple[str, ...], str, Read]:
    """The same of a zip file."""
    archive = files.opened_zip(path, "make it anew")
    shown = {name for name in archive.namelist() if not any(part[:1] == "." for part in name.split("/"))}
    names = _by_suffix(path, [name for name in shown if name[-1] != "/"])
    return tuple(names), f"{path}: ", lambda name: files.member(path, archive, name, _LARGEST, remedy)


def chosen(spec: DatasetSpec, source: ImageFolder, top: Path) -> tuple[tuple[str, ...], dict[str, Indices]]:
    """The files of the folder `top` that make up the data set, sorted by name, and which of them each split has.

    Files that no split has are not read.

    Raises:
        DataError: there are too few, or in a split's folder another number; what `_images` says.
    """
    if source.split == "subfolders":
        by_split = {split: _images(top, split) for split in SPLITS}
        for split, found in by_split.items():
            if len(found) != spec.count(split):
                told = f"{len(found)} images, n_{split} is {spec.count(split)}; make them agree"
                raise DataError(f"{top / split}: {told}")
        return tuple(name for found in by_split.values() for name in found), consecutive(spec)
    found, count = _images(top, "."), sum(spec.count(split) for split in SPLITS)
    if len(found) < count:
        remedy = "ask for fewer" if found else "put images there"
        raise DataError(f"{top}: {len(found)} images, {count} asked for; {remedy}")
    drawn = numpy_generator(spec.seed, "split").permutation(len(found))[:count]
    used = np.sort(drawn)
    splits = {split: np.searchsorted(used, drawn[places]) for split, places in consecutive(spec).items()}
    return tuple(found[i] for i in used), splits


def _images(top: Path, folder: str) -> list[str]:
    """Names of the image files below `folder` of `top`, relative to `top`, sorted: the same on every file system.

    Hidden files and folders are left alone.

    Raises:
        DataError: files, but no images by their names; a name that cannot be written down; a folder named as an image.
    """
    names = [path.relative_to(top).as_posix() for path in _files(top / folder)]
    images = _by_suffix(top / folder, names)
    for name in sorted(set(names) - set(images)):
        if not (top / name).exists():  # perhaps a class of images
            raise DataError(f"{top / name}: is a link to nothing; mend it or take it out of {top}")
    return images


def _by_suffix(place: Path, names: Sequence[str]) -> list[str]:
    """Those of the file names in a folder or a zip file that end as images' do, sorted."""
    images = sorted(name for name in names if name.lower().endswith(SUFFIXES))
    others = sorted(set(names) - set(images))
    if others:
        log.info("%s: %d files are not images by their names, as %s", place, len(others), others[0])
        if not images:
            ends = Counter(Path(name).suffix.lower() or "no suffix" for name in others).most_common(5)
            found = ", ".join(f"{count:,} of {suffix}" for suffix, count in ends)
            raise DataError(f"{place}: no images by their names, but {found}; read are {', '.join(SUFFIXES)}")
    for name in images:
        if any(unicodedata.category(character) in _UNWRITABLE for character in name):
            raise DataError(f"{place}: the file name {name!a} cannot be written down; rename it")
    return images


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, hidden ones left out; links to folders are followed, but none is read twice."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}")

    read: set[tuple[int, int]] = set()
    starts = [folder]
    for start in starts:  # grows: a link comes after the folder it lies in, so it adds only what was not met before
        for name, below, found in os.walk(start, onerror=refuse):
            place = Path(name)
            status = place.stat()
            if (status.st_dev, status.st_ino) in read:
                log.info("%s: its files are there already, not read again", place)
                below.clear()
                continue
            read.add((status.st_dev, status.st_ino))
            below[:] = sorted(name for name in below if name[0] != ".")
            for name in below:
                if name.lower().endswith(SUFFIXES):
                    raise DataError(f"{place / name}: is a folder, named as an image; rename it")
            starts += [place / name for name in below if (place / name).is_symlink()]
            yield from (place / name for name in found if name[0] != ".")


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """The image as its makers meant it to be seen, grey or RGB; what cannot be had without loss is refused."""
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise DataError("has several frames, expected one")
    if getattr(image, "dispose_extent", whole := (0, 0, *image.size)) != whole:  # of a GIF: where its frame lies
        raise DataError("has a frame that leaves part of it empty")
    if image.mode not in _MODES:
        raise DataError(f"has mode {image.mode}, expected grey or RGB")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        if upright.getchannel("A").getextrema() != (255, 255):
            raise DataError("is transparent in places; lay it on a background first")
    return upright.convert("RGB").convert("L" if channels == 1 else "RGB")
