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
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rae_bench.data import files
from rae_bench.data.files import Release
from rae_bench.data.prepared import Batch, DataError, Images

SIDE = 28
FILES = {"train": "train", "test": "t10k"}


def read(paths: list[Path], release: Release) -> Iterator[Batch]:
    """The training set, then the test set.

    Raises:
        DataError: a file is truncated, or not the published one.
    """
    by_name = {path.name.removesuffix(".gz"): path for path in paths}
    for part, name in FILES.items():
        n = release.n_images[part]
        pixels = _array(by_name[f"{name}-images-idx3-ubyte"], (n, SIDE, SIDE), release)
        path = by_name[f"{name}-labels-idx1-ubyte"]
        yield Batch(part, path, pixels[:, None], _array(path, (n,), release).astype(np.int64))


def _array(path: Path, shape: tuple[int, ...], release: Release) -> Images:
    """The array of an IDX file that has to be of `shape`."""
    data = files.read(path)
    header = 4 + 4 * len(shape)
    size = header + math.prod(shape)
    if path.suffix == ".gz":
        data = _decompressed(path, data, size + 1, release)
    magic, wanted = bytes([0, 0, 8, len(shape)]), " x ".join(f"{side:,}" for side in shape)
    if data[:4] != magic:
        fault = f"begins with bytes {data[:4].hex(' ') or '(none)'}, expected {magic.hex(' ')}, an IDX file of"
        raise DataError(f"{path}: {fault} {len(shape)} dimensions; {release.remedy}")
    if len(data) >= header and (found := struct.unpack(f">{len(shape)}I", data[4:header])) != shape:
        held = " x ".join(f"{side:,}" for side in found)
        raise DataError(f"{path}: an array of {held}, expected {wanted}; {release.remedy}")
    if len(data) != size:
        held = "more" if len(data) > size else f"{len(data):,}"
        fault = f"{held} bytes, expected {size:,} of an array of {wanted}: truncated or altered"
        raise DataError(f"{path}: {fault}; {release.remedy}")
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    files.compare_md5(path, path.name.removesuffix(".gz"), md5, size, release)
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _decompressed(path: Path, data: bytes, limit: int, release: Release) -> bytes:
    """The content of a gzip file, at most `limit` bytes of it."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(limit)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: {len(data):,} bytes, not a whole gzip file ({error}); {release.remedy}") from None
