"""SVHN's cropped digits: two Matlab 5 files, X (32, 32, 3, n) and y (n, 1), classes 1 to 10, ten the digit 0."""

import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rae_bench.data import files
from rae_bench.data.files import Release
from rae_bench.data.prepared import Batch, DataError


def read(paths: list[Path], release: Release) -> Iterator[Batch]:
    """The training set, then the test set, with the digits 0 to 9 as labels.

    Raises:
        DataError: a file is truncated, or holds other arrays.
    """
    for part, path in zip(("train", "test"), paths, strict=True):
        yield _batch(part, path, release)


def _batch(part: str, path: Path, release: Release) -> Batch:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(io.BytesIO(files.read(path)), variable_names=["X", "y"])
        pixels, classes = found["X"], found["y"]
    except KeyError as error:
        raise DataError(f"{path}: holds no {error}, expected X and y; {release.remedy}") from None
    except (ValueError, TypeError, OSError, EOFError, NotImplementedError, zlib.error, MatReadError) as error:
        raise DataError(f"{path}: not a whole Matlab 5 file ({error}); {release.remedy}") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        fault = f"X is {pixels.dtype} {pixels.shape}, expected uint8 (32, 32, 3, n)"
    elif classes.shape != (pixels.shape[3], 1) or not np.issubdtype(classes.dtype, np.number):
        fault = f"y is {classes.dtype} {classes.shape}, expected a column of {pixels.shape[3]}"
    elif classes.min(initial=1) < 1:
        fault = f"y holds {classes.min()}, expected 1 to 10"
    else:
        labels = classes[:, 0].astype(np.int64)
        labels[labels == 10] = 0
        return Batch(part, path, np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), labels)
    raise DataError(f"{path}: {fault}; {release.remedy}")
