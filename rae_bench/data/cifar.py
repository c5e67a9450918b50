"""CIFAR-10: six batches, binary or pickled, in a folder or in the archive they are published in.

The binary version: for each image a byte with its class, then 3 x 32 x 32 bytes. The Python version: a dict, pickled by
Python 2. A pickle can run any program, so nothing is unpickled but numbers, text, lists and dicts; what a pickle calls
an array is only looked at, by `_Inert`.
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rae_bench.data import files
from rae_bench.data.files import Download, Release
from rae_bench.data.prepared import DataError, DataFile, Images, Indices, Prepared, check_shape, official_splits
from rae_bench.data.specs import DatasetSpec

BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
BINARY_ARCHIVE, PYTHON_ARCHIVE = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
FORMS = (
    tuple(f"{BINARY}/{name}.bin" for name in BATCHES),
    (BINARY_ARCHIVE,),
    tuple(f"{PYTHON}/{name}" for name in BATCHES),
    (PYTHON_ARCHIVE,),
)
_IMAGE = 3 * 32 * 32
_LARGEST = 2**26
"""Bytes; a batch has 31 million."""


def release() -> Release:
    """CIFAR-10 as published by Krizhevsky."""
    return Release(
        name="CIFAR-10",
        folders=("cifar10", "."),
        md5={
            BINARY_ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530",  # its page has those of the archives
            PYTHON_ARCHIVE: "c58f30108f718f92721af3b95e74349a",
            "data_batch_1": "c99cafc152244af753f735de768cd75f",  # torchvision has those of the batches
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        counts={"train": (5000,) * 10, "test": (1000,) * 10},
        downloads=_downloads,
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        licence="none stated; its page asks for a citation",
    )


def _downloads() -> tuple[Download, ...]:
    from torchvision.datasets import CIFAR10

    return (Download(CIFAR10.filename, CIFAR10.tgz_md5, (CIFAR10.url,)),)


def prepare(spec: DatasetSpec, release: Release) -> Prepared:
    """The images of `release`, training batches first, and their labels.

    Raises:
        DataError: a file is missing, truncated, or not the published one; a pickle holds more than arrays and lists.
    """
    paths = files.find(release, *FORMS)
    origin = files.origin_of(paths, release)
    sources: list[DataFile] = []
    images: list[Images] = []
    labels: list[Indices] = []
    for where, data in _batches(paths, release, sources):
        batch = len(images)
        count = release.n_images["train"] // 5 if batch < 5 else release.n_images["test"]
        parse = _binary if where.endswith(".bin") else _pickled
        pixels, classes = parse(where, data, count, release)
        images.append(pixels)
        labels.append(classes)
    files.check_labels(str(paths[0].parent), np.concatenate(labels[:5]), "train", release)
    files.check_labels(str(paths[-1]), labels[5], "test", release)
    every = np.concatenate(images)
    check_shape(every, spec)
    return Prepared(
        images=every,
        splits=official_splits(spec, release.n_images),
        extras={"labels": np.concatenate(labels)},
        sources=tuple(sources),
        note="data_batch_1 to 5, then test_batch, in file order; validation: the last training images",
        origin=origin,
    )


def _batches(paths: list[Path], release: Release, sources: list[DataFile]) -> Iterator[tuple[str, bytes]]:
    """Where each batch lies and its bytes, in order; `sources` takes what the manifest says of the files."""
    if len(paths) > 1:
        for path in paths:
            data, source = files.read_checked(path, release)
            sources.append(source)
            yield str(path), data
        return
    (path,) = paths
    data, source = files.read_checked(path, release)
    sources.append(source)
    names = FORMS[0] if path.name == BINARY_ARCHIVE else FORMS[2]
    members = _members(path, data, names, release)
    for name in names:
        yield f"{path}: {name}", members[name]


def _members(path: Path, data: bytes, names: tuple[str, ...], release: Release) -> dict[str, bytes]:
    """Some files of a tar.gz archive, which is read as a stream; nothing is extracted to the disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|gz") as archive:
            for member in archive:
                if member.name in names and member.isfile() and member.size <= _LARGEST:
                    content = archive.extractfile(member)
                    assert content is not None  # a file
                    found[member.name] = content.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: {len(data):,} bytes, not a whole tar.gz file ({error}); {release.remedy}") from None
    for name in names:
        if name not in found:
            raise DataError(f"{path}: holds no {name}; {release.remedy}")
    return found


def _binary(where: str, data: bytes, count: int, release: Release) -> tuple[Images, Indices]:
    if len(data) != count * (1 + _IMAGE):
        raise DataError(
            f"{where}: {len(data):,} bytes, expected {count * (1 + _IMAGE):,}, {count:,} images of {1 + _IMAGE:,} each;"
            f" {release.remedy}"
        )
    records = np.frombuffer(data, np.uint8).reshape(count, 1 + _IMAGE)
    return records[:, 1:].reshape(count, 3, 32, 32), records[:, 0].astype(np.int64)


def _pickled(where: str, data: bytes, count: int, release: Release) -> tuple[Images, Indices]:
    batch = _unpickled(where, data, release)
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= set(batch):
        keys = str(sorted(map(str, batch)))[:200] if isinstance(batch, dict) else type(batch).__name__
        raise DataError(f"{where}: holds {keys}, expected b'data' and b'labels'; {release.remedy}")
    pixels = batch[b"data"].array() if isinstance(batch[b"data"], _Inert) else None
    if pixels is None or pixels.shape != (count, _IMAGE):
        found = "no array of bytes" if pixels is None else f"an array of {pixels.shape}"
        raise DataError(f"{where}: b'data' is {found}, expected {(count, _IMAGE)}; {release.remedy}")
    labels = batch[b"labels"]
    if not isinstance(labels, list) or len(labels) != count or not all(type(label) is int for label in labels):
        raise DataError(f"{where}: b'labels' is no list of {count:,} whole numbers; {release.remedy}")
    return pixels.reshape(count, 3, 32, 32), np.array(labels, np.int64)


class _Inert:
    """Stands for whatever a pickle calls numpy's array and type: takes what it is given, and does nothing with it."""

    arguments: tuple[object, ...] = ()
    state: object = None

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        self.state = state

    def array(self) -> Images | None:
        """The array of bytes that the pickle describes, or None if it describes anything else."""
        match self.state:
            case (int(), tuple(shape), _Inert(arguments=(b"u1", *_)), False, bytes(content)):
                pass
            case _:
                return None
        if len(shape) != 2 or not all(type(side) is int and side > 0 for side in shape):
            return None
        if shape[0] * shape[1] != len(content):
            return None
        return np.frombuffer(content, np.uint8).reshape(shape)


class _Unpickler(pickle.Unpickler):
    """Builds numbers, text, lists, tuples and dicts, and `_Inert` for numpy's array; refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")):
            return _Inert
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickled(where: str, data: bytes, release: Release) -> Any:
    try:
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a broken pickle may raise anything, as pickle's documentation says
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"{where}: not a pickled batch of images and labels alone ({reason}); {release.remedy}"
        ) from None
