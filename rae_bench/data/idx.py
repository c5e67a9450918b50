"""MNIST and Fashion-MNIST: four IDX files, compressed or not.

IDX: two zero bytes, the type of the entries (8: unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit integer, then the entries.
"""

import gzip
import hashlib
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rae_bench.data import files
from rae_bench.data.files import Download, Release
from rae_bench.data.prepared import DataError, DataFile, Prepared, check_shape, official_splits
from rae_bench.data.specs import DatasetSpec

NAMES = {"train": "train", "test": "t10k"}
SIDE = 28
_PLAIN = tuple(f"{name}-{file}-ubyte" for name in NAMES.values() for file in ("images-idx3", "labels-idx1"))
FORMS = (tuple(f"{name}.gz" for name in _PLAIN), _PLAIN)


# The MD5s are of the uncompressed files: they hold of any compression of them. torchvision's are of the .gz files.
def mnist() -> Release:
    """MNIST as published by LeCun, Cortes and Burges."""
    return Release(
        name="MNIST",
        folders=("mnist", "mnist/MNIST/raw", "MNIST/raw"),
        md5={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        counts={
            "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
            "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        },
        downloads=lambda: _downloads("MNIST"),
        page="http://yann.lecun.com/exdb/mnist/",
        licence="CC BY-SA 3.0 by convention",
    )


def fashion_mnist() -> Release:
    """Fashion-MNIST as published by Zalando Research."""
    return Release(
        name="Fashion-MNIST",
        folders=("fashion_mnist", "fashion_mnist/FashionMNIST/raw", "FashionMNIST/raw"),
        md5={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        counts={"train": (6000,) * 10, "test": (1000,) * 10},
        downloads=lambda: _downloads("FashionMNIST"),
        page="https://github.com/zalandoresearch/fashion-mnist",
        licence="MIT",
    )


def _downloads(name: str) -> tuple[Download, ...]:
    from torchvision import datasets

    source = {"MNIST": datasets.MNIST, "FashionMNIST": datasets.FashionMNIST}[name]
    return tuple(
        Download(file, md5, tuple(mirror + file for mirror in source.mirrors)) for file, md5 in source.resources
    )


def prepare(spec: DatasetSpec, padding: int, release: Release) -> Prepared:
    """The images of `release` with a black border, training set first, and their labels.

    Raises:
        DataError: a file is missing, truncated, or not the published one.
    """
    paths = {path.name.removesuffix(".gz"): path for path in files.find(release, *FORMS)}
    origin = files.origin_of(list(paths.values()), release)
    images, labels, sources = [], [], []
    for part, name in NAMES.items():
        n = release.n_images[part]
        pixels, source = _read(paths[f"{name}-images-idx3-ubyte"], (n, SIDE, SIDE), release)
        images.append(pixels)
        path = paths[f"{name}-labels-idx1-ubyte"]
        classes, label_source = _read(path, (n,), release)
        labels.append(classes.astype(np.int64))
        files.check_labels(str(path), labels[-1], part, release)
        sources += [source, label_source]
    edge = (padding, padding)
    every = np.pad(np.concatenate(images)[:, None], ((0, 0), (0, 0), edge, edge))
    check_shape(every, spec)
    return Prepared(
        images=every,
        splits=official_splits(spec, release.n_images),
        extras={"labels": np.concatenate(labels)},
        sources=tuple(sources),
        note="official training set, then official test set, in file order; validation: the last training images",
        origin=origin,
    )


def _read(path: Path, shape: tuple[int, ...], release: Release) -> tuple[npt.NDArray[np.uint8], DataFile]:
    """The array of an IDX file of `shape`, and what the manifest says of the file."""
    data = stored = files.read(path)
    limit = 4 + 4 * len(shape) + math.prod(shape)
    if path.suffix == ".gz":
        data = _decompressed(path, stored, limit, release)
    array = _parsed(path, data, shape, release)
    files.check_md5(path, path.name.removesuffix(".gz"), data, release)
    return array, DataFile(release.name, path.name, hashlib.sha256(stored).hexdigest(), release.licence)


def _decompressed(path: Path, data: bytes, limit: int, release: Release) -> bytes:
    """The content of a gzip file, or a little more than `limit` bytes of it."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: {len(data):,} bytes, not a whole gzip file ({error}); {release.remedy}") from None


def _parsed(path: Path, data: bytes, shape: tuple[int, ...], release: Release) -> npt.NDArray[np.uint8]:
    header = 4 + 4 * len(shape)
    magic = bytes([0, 0, 8, len(shape)])
    if data[:4] != magic:
        raise DataError(
            f"{path}: begins with bytes {data[:4].hex(' ') or '(none)'}, expected {magic.hex(' ')}, an IDX file of"
            f" {len(shape)} dimensions; {release.remedy}"
        )
    if len(data) < header:
        raise DataError(f"{path}: {len(data)} bytes, truncated in its header; {release.remedy}")
    found = struct.unpack(f">{len(shape)}I", data[4:header])
    if found != shape:
        raise DataError(f"{path}: an array of {_times(found)}, expected {_times(shape)}; {release.remedy}")
    if len(data) != header + math.prod(shape):
        more = "more" if len(data) > header + math.prod(shape) else f"{len(data):,}"
        raise DataError(
            f"{path}: {more} bytes, expected {header + math.prod(shape):,} of an array of {_times(shape)}:"
            f" truncated or altered; {release.remedy}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{side:,}" for side in shape)
