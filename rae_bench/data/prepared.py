"""What a source gives: uint8 images, their splits, and where they come from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rae_bench.data.specs import DatasetSpec

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
SPLITS = ("train", "validation", "test")


class DataError(RuntimeError):
    """A data source that is missing or not what it was; the message says what would be right."""


@dataclass(frozen=True)
class DataFile:
    """A file that a data set was made of: its path in the distribution, its hash, and the terms of its use."""

    distribution: str
    path: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class Batch:
    """Images (n, C, H, W) of an official part, `train` or `test`, and their labels, which come from `where`."""

    part: str
    where: Path
    images: Images
    labels: Indices


@dataclass(frozen=True)
class Origin:
    """The files of a data set as they lay in `folder` before they were read: size in bytes and time in ns, by name."""

    folder: str
    files: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class ImageFiles:
    """Images that are decoded while they are written: all at once might not fit into memory.

    `names` are their files', in the images' order, `shape` is (n, C, H, W). `blocks()` reads them: uint8 (b, C, H, W)
    at a time, each with the SHA-256s of its b files.
    """

    names: tuple[str, ...]
    shape: tuple[int, int, int, int]
    blocks: Callable[[], Iterator[tuple[Images, list[str]]]]


@dataclass(frozen=True)
class Prepared:
    """All images of a data set, their splits, what is known of each image, and where a user keeps them."""

    images: Images | ImageFiles
    splits: dict[str, Indices]
    extras: dict[str, npt.NDArray[Any]]
    sources: tuple[DataFile, ...]
    note: str
    origin: Origin | None = None


def consecutive(spec: DatasetSpec) -> dict[str, Indices]:
    """Splits of images that lie one split after the other."""
    ends = np.cumsum([0, *(spec.count(split) for split in SPLITS)])
    return {split: np.arange(ends[i], ends[i + 1]) for i, split in enumerate(SPLITS)}
