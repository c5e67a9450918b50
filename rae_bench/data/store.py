"""Sources to uint8 images (n, C, H, W) in disjoint train, validation and test splits.

A prepared data set is a folder: `images.npy`, one index file per split, `labels.npy` or `factors.npy`,
`manifest.json` with counts, shapes, SHA-256s, source and licence, and `croissant.json`, the same for other programs.
It is immutable and shared by all studies.
A changed source is an error, never other data: readers check its files against the hashes that are pinned beside them.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rae_bench.base import storage
from rae_bench.base.plain import parse, to_plain
from rae_bench.data.croissant import CROISSANT, described
from rae_bench.data.prepared import DataError, ImageFiles, Images, Indices, Prepared
from rae_bench.data.specs import (
    HELD,
    MANIFEST,
    DatasetSpec,
    Split,
)

SOURCE = "source.json"
"""Beside a prepared data set: size and time of every file of a user's that it was made from."""
TELL_EVERY = 30.0
"""Seconds between two lines of progress."""

Progress = Callable[[int, int], None]
log = logging.getLogger(__name__)


def save(prepared: Prepared, spec: DatasetSpec, folder: Path, progress: Progress = lambda *_: None) -> dict[str, Path]:
    """Write the folder of a prepared data set and return its files but the manifest, by name.

    The manifest comes last, so a folder with one is whole. Images that are decoded only now get `files.sha256`: hash
    and name of each one's file, as sha256sum checks them. `source.json`, which holds times and is therefore not listed,
    is for `origins`.

    Raises:
        DataError, StorageError: an image cannot be decoded, a file not written; no manifest is left then.
    """
    storage.remove(folder / MANIFEST, folder / SOURCE, folder / CROISSANT, *storage.leftovers(folder))
    files = {"images": folder / "images.npy"}
    images = prepared.images
    if isinstance(images, ImageFiles):
        hashes: list[str] = []
        storage.write_npy_blocks(files["images"], images.shape, decoded(images, hashes, progress))
        files["files"] = folder / "files.sha256"
        lines = (f"{digest}  {name}\n" for digest, name in zip(hashes, images.names, strict=True))
        storage.write_text(files["files"], "".join(lines))
    else:
        storage.write_npy(files["images"], images)
    for name, array in {**prepared.splits, **prepared.extras}.items():
        files[name] = folder / f"{name}.npy"
        storage.write_npy(files[name], array)
    manifest = {
        "settings": to_plain(spec),
        "synthetic": spec.source.is_synthetic,
        "shape": list(images.shape),
        "counts": {split: len(indices) for split, indices in prepared.splits.items()},
        "sha256": storage.hashes(files),
        "sources": [to_plain(source) for source in prepared.sources],
        "note": prepared.note,
    }
    croissant = described(spec.label, manifest, files)
    files["croissant"] = folder / CROISSANT
    storage.write_json(files["croissant"], croissant)
    if prepared.origin is not None:
        storage.write_json(folder / SOURCE, to_plain(prepared.origin))
    storage.write_json(folder / MANIFEST, manifest)
    log.info("%s: %d images, %s", spec.label, images.shape[0], manifest["counts"])
    return files


def decoded(files: ImageFiles, hashes: list[str], progress: Progress) -> Iterator[Images]:
    """The images block by block; `hashes` takes those of their files."""
    of = len(files.names)
    started = told = time.monotonic()
    for images, digests in files.blocks():
        hashes += digests
        yield images
        done, now = len(hashes), time.monotonic()
        if now - told >= TELL_EVERY:
            told = now
            progress(done, of)
            log.info("%d of %d images, %.0f s left", done, of, (now - started) / done * (of - done))


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says of a prepared data set; `sha256` by file, `counts` by split."""

    settings: dict[str, Any]
    synthetic: bool
    shape: tuple[int, ...]
    counts: dict[str, int]
    sha256: dict[str, str]
    sources: tuple[dict[str, Any], ...]
    note: str


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared data set.

    Raises:
        StorageError, ConfigError: it is missing, or no manifest.
    """
    path = folder / MANIFEST
    manifest: Manifest = parse(Manifest, storage.read_json(path), str(path))
    return manifest


def load_split(folder: Path, split: Split, first: int | None = None) -> Images:
    """The images of one split, or the `first` of them, in memory: uint8 (n, C, H, W).

    Raises:
        StorageError, DataError: a file is missing or differs from the manifest.
    """
    images: Images
    images, found = storage.read_rows(folder / "images.npy", _indices(folder, split)[:first])
    _check_hash(folder, "images", found)
    return images


def open_split(folder: Path, split: Split, first: int | None = None) -> Images | storage.MappedRows:
    """The same images; of more than HELD bytes, left on the disk until they are indexed.

    A training draws rows at random. From a file that the hash has just brought into memory that is as fast as from an
    array; where memory is short they come from the disk again, which costs less than a step of a network on them.

    Raises:
        StorageError, DataError: a file is missing or differs from the manifest.
    """
    rows = _indices(folder, split)[:first]
    one = load_manifest(folder).shape[1:]
    if len(rows) * math.prod(one) <= HELD:
        return load_split(folder, split, first)
    images, found = storage.map_rows(folder / "images.npy", rows)
    _check_hash(folder, "images", found)
    return images


def load_digits(folder: Path, split: Split) -> Indices | None:
    """The digits that one split's images show, int64 (n,), or None where they are none that the digit classifier reads.

    Raises:
        StorageError, DataError: a file is missing or differs from the manifest.
    """
    spec: DatasetSpec = parse(DatasetSpec, load_manifest(folder).settings, f"{folder / MANIFEST}: settings")
    if not spec.has_digits:
        return None
    _check_unaltered(folder, "labels")
    labels: Indices = storage.read_npy(folder / "labels.npy")[_indices(folder, split)]
    return labels


def _indices(folder: Path, split: Split) -> Indices:
    """Which images make up a split, in its order; `overlapping` is made of the files of two."""
    parts = ("train", "validation") if split == "overlapping" else (split,)
    _check_unaltered(folder, *parts)
    read: list[Indices] = [storage.read_npy(folder / f"{part}.npy") for part in parts]
    return np.concatenate(read)[len(read[1]) :] if split == "overlapping" else read[0]


def _check_unaltered(folder: Path, *names: str) -> None:
    for name in names:
        _check_hash(folder, name, storage.sha256(folder / f"{name}.npy"))


def _check_hash(folder: Path, name: str, found: str) -> None:
    if found != load_manifest(folder).sha256.get(name):
        raise DataError(f"{folder / name}.npy: differs from its manifest; delete {folder} and run again")
