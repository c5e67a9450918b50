"""Any folder of images: PNG, JPEG, BMP, WebP, TIFF, PPM or GIF files at any depth, sorted by name."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from rae_bench import specs
from rae_bench.datasets import files
from rae_bench.datasets.pictures import Read, Recipe, image_files
from rae_bench.datasets.prepared import SPLITS, DataError, Indices, Prepared
from rae_bench.rng import numpy_generator

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


def prepare(spec: specs.DatasetSpec, source: specs.ImageFolder) -> Prepared:
    """The images of a folder, sorted by name, and their splits.

    Raises:
        DataError: the folder is missing, or has other numbers of images than `spec` says.
    """
    if spec.channels not in (1, 3):
        raise DataError(f"{spec.label}: images have 1 or 3 channels, {spec.channels} asked for")
    top = files.root() / source.path
    if not top.is_dir():
        raise DataError(
            f"{top}: no such folder; a relative path lies below {files.DATA_VARIABLE}, now {files.root().absolute()}"
        )
    names, splits = (_by_subfolder if source.split == "subfolders" else _seeded)(spec, top)

    def convert(image: Image.Image) -> Image.Image:
        return _converted(image, spec.channels)

    @contextlib.contextmanager
    def opened() -> Iterator[Read]:
        yield lambda name: files.read(top / name)

    recipe = Recipe(
        FORMATS, convert, source.crop, source.filter, spec.channels, spec.size, f"mend it or take it out of {top}"
    )
    side = f"{source.crop}x{source.crop}" if source.crop else "square"
    return Prepared(
        images=image_files(names, f"{top}/", opened, recipe),
        splits=splits,
        extras={},
        sources=(),
        note=f"own images, see files.sha256; centred {side} of each, resized with Pillow's {source.filter} filter",
    )


def _by_subfolder(spec: specs.DatasetSpec, top: Path) -> tuple[tuple[str, ...], dict[str, Indices]]:
    names: list[str] = []
    splits = {}
    for split in SPLITS:
        found = _images(top, split)
        if len(found) != spec.count(split):
            raise DataError(f"{top / split}: {len(found)} images, n_{split} is {spec.count(split)}; make them agree")
        splits[split] = np.arange(len(names), len(names) + len(found))
        names += found
    return tuple(names), splits


def _seeded(spec: specs.DatasetSpec, top: Path) -> tuple[tuple[str, ...], dict[str, Indices]]:
    """A random choice of the files for each split; files that no split has are not read."""
    found = _images(top, ".")
    ends = np.cumsum([0, *(spec.count(split) for split in SPLITS)])
    if len(found) < ends[-1]:
        raise DataError(f"{top}: {len(found)} images, {ends[-1]} asked for; ask for fewer")
    chosen = numpy_generator(spec.seed, "split").permutation(len(found))[: ends[-1]]
    used = np.sort(chosen)
    places = np.searchsorted(used, chosen)
    splits = {split: places[ends[i] : ends[i + 1]] for i, split in enumerate(SPLITS)}
    return tuple(found[i] for i in used), splits


def _images(top: Path, folder: str) -> list[str]:
    """Names of the image files below `folder` of `top`, relative to `top`, sorted: the same on every file system.

    Hidden files and folders are left alone, links to folders not followed.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}")

    names: list[str] = []
    for place, below, found in os.walk(top / folder, onerror=refuse):
        below[:] = [name for name in below if name[0] != "."]
        names += [(Path(place) / name).relative_to(top).as_posix() for name in found if name[0] != "."]
    images = sorted(name for name in names if name.lower().endswith(SUFFIXES))
    if others := sorted(set(names) - set(images)):
        log.info("%s: %d files are not images by their names, as %s", top / folder, len(others), others[0])
    for name in images:
        if not name.isprintable():
            raise DataError(f"{top}: the file name {name!a} cannot be written down; rename it")
    return images


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
