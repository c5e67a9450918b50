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
from rae_bench.data.files import Release
from rae_bench.data.prepared import Batch, DataError, Images, Indices

_IMAGE = 3 * 32 * 32
_LARGEST = 2**26
"""Bytes; a batch has 31 million."""


def read(paths: list[Path], release: Release) -> Iterator[Batch]:
    """The five training batches, then the test batch.

    Raises:
        DataError: a file is truncated; a pickle holds more than arrays and lists.
    """
    for number, (where, data) in enumerate(_contents(paths, release)):
        part, count = ("train", release.n_images["train"] // 5) if number < 5 else ("test", release.n_images["test"])
        parse = _binary if where.endswith(".bin") else _pickled
        images, labels = parse(where, data, count, release)
        yield Batch(part, paths[0].parent if part == "train" else paths[-1], images, labels)


def _contents(paths: list[Path], release: Release) -> Iterator[tuple[str, bytes]]:
    """Where each batch lies and its bytes, in order."""
    if len(paths) > 1:
        yield from ((str(path), files.read(path)) for path in paths)
        return
    (path,) = paths
    binary, _, python, _ = release.forms
    names = binary if "binary" in path.name else python
    members = _members(path, files.read(path), names, release)
    yield from ((f"{path}: {name}", members[name]) for name in names)


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
    match batch:
        case {b"data": _Inert() as held, b"labels": list(labels)} if (pixels := held.array()) is not None:
            if pixels.shape == (count, _IMAGE) and len(labels) == count and {type(one) for one in labels} == {int}:
                return pixels.reshape(count, 3, 32, 32), np.array(labels, np.int64)
            found = f"an array of {pixels.shape} and {len(labels):,} labels"
        case {b"data": _, b"labels": _}:
            found = "b'data' and b'labels' of other kinds"
        case dict():
            found = str(sorted(map(str, batch)))[:200]
        case _:
            found = type(batch).__name__
    wanted = f"b'data', an array of bytes {(count, _IMAGE)}, and b'labels', {count:,} whole numbers"
    raise DataError(f"{where}: holds {found}, expected {wanted}; {release.remedy}")


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
            case (int(), (int(n), int(width)), _Inert(arguments=(b"u1", *_)), False, bytes(content)):
                if n > 0 and n * width == len(content):
                    return np.frombuffer(content, np.uint8).reshape(n, width)
        return None


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
