"""SVHN's cropped digits: two Matlab 5 files, X (32, 32, 3, n) and y (n, 1), classes 1 to 10, ten the digit 0."""

import io
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rae_bench.data import files
from rae_bench.data.files import Download, Release
from rae_bench.data.prepared import DataError, Images, Indices, Prepared, check_shape, official_splits
from rae_bench.data.specs import DatasetSpec

PARTS = {"train": "train_32x32.mat", "test": "test_32x32.mat"}


def release() -> Release:
    """SVHN, format 2, as published by Netzer et al.; the `extra` images are left alone."""
    return Release(
        name="SVHN",
        folders=("svhn", "."),
        md5={
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
        counts={
            "train": (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
            "test": (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
        },
        downloads=_downloads,
        page="http://ufldl.stanford.edu/housenumbers/",
        licence="for non-commercial use, by its page",
    )


def _downloads() -> tuple[Download, ...]:
    from torchvision.datasets import SVHN

    return tuple(Download(name, md5, (url,)) for url, name, md5 in (SVHN.split_list[part] for part in PARTS))


def prepare(spec: DatasetSpec, release: Release) -> Prepared:
    """The images of `release`, training set first, and their labels, the digits 0 to 9.

    Raises:
        DataError: a file is missing, truncated, or not the published one.
    """
    paths = files.find(release, tuple(PARTS.values()))
    origin = files.origin_of(paths, release)
    images, labels, sources = [], [], []
    for part, path in zip(PARTS, paths, strict=True):
        data, source = files.read_checked(path, release)
        sources.append(source)
        pixels, classes = _parsed(path, data, release)
        files.check_labels(str(path), classes, part, release)
        images.append(pixels)
        labels.append(classes)
    every = np.concatenate(images)
    check_shape(every, spec)
    return Prepared(
        images=every,
        splits=official_splits(spec, release.n_images),
        extras={"labels": np.concatenate(labels)},
        sources=tuple(sources),
        note="train_32x32.mat, then test_32x32.mat, in file order; validation: the last training images",
        origin=origin,
    )


def _parsed(path: Path, data: bytes, release: Release) -> tuple[Images, Indices]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(io.BytesIO(data), variable_names=["X", "y"])
        pixels: npt.NDArray[np.uint8] = found["X"]
        classes: npt.NDArray[np.uint8] = found["y"]
    except KeyError as error:
        raise DataError(f"{path}: holds no {error}, expected X and y; {release.remedy}") from None
    except (ValueError, TypeError, OSError, EOFError, NotImplementedError, zlib.error, MatReadError) as error:
        raise DataError(f"{path}: not a whole Matlab 5 file ({error}); {release.remedy}") from None
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise DataError(f"{path}: X is {pixels.dtype} {pixels.shape}, expected uint8 (32, 32, 3, n); {release.remedy}")
    if classes.shape != (pixels.shape[3], 1) or not np.issubdtype(classes.dtype, np.number):
        raise DataError(
            f"{path}: y is {classes.dtype} {classes.shape}, expected a column of {pixels.shape[3]}; {release.remedy}"
        )
    labels = classes[:, 0].astype(np.int64)
    if labels.min(initial=1) < 1:
        raise DataError(f"{path}: y holds {labels.min()}, expected 1 to 10; {release.remedy}")
    labels[labels == 10] = 0
    return np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), labels
