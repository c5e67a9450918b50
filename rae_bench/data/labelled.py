"""Published data sets of labelled images, small enough for memory: official parts in file order, nothing is drawn."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rae_bench.data import cifar, files, idx, svhn
from rae_bench.data.files import Release
from rae_bench.data.prepared import Batch, DataError, Indices, Prepared
from rae_bench.data.releases import RELEASES
from rae_bench.data.specs import Cifar10, DatasetSpec, FashionMnist, Mnist, Svhn

Read = Callable[[list[Path], Release], Iterator[Batch]]

READERS: dict[str, tuple[Read, str]] = {
    "mnist": (idx.read, "official training set, then official test set"),
    "fashion_mnist": (idx.read, "official training set, then official test set"),
    "cifar10": (cifar.read, "data_batch_1 to 5, then test_batch"),
    "svhn": (svhn.read, "train_32x32.mat, then test_32x32.mat"),
}
"""How each data set's files are read, and in which order, by the kind of its source."""


def prepare(spec: DatasetSpec, source: Mnist | FashionMnist | Cifar10 | Svhn) -> Prepared:
    """The images of a published data set, training set first, and their labels; MNIST's get a black border.

    Raises:
        DataError: a file is missing, truncated, or not the published one; or `spec` asks for more than there are.
    """
    release = RELEASES[source.kind]
    read, order = READERS[source.kind]
    paths = files.find(release)
    names = [path.name for path in paths]
    origin = files.origin(paths[0].parent, names, release.remedy)
    sources = tuple(files.checked(path, release) for path in paths)
    batches = list(read(paths, release))
    if files.origin(paths[0].parent, names, release.remedy) != origin:
        raise DataError(f"{paths[0].parent}: files changed while they were read; run again once they are whole")
    for part in release.counts:
        _check_labels([batch for batch in batches if batch.part == part], release)
    images = np.concatenate([batch.images for batch in batches])
    if isinstance(source, Mnist | FashionMnist):
        edge = (source.padding, source.padding)
        images = np.pad(images, ((0, 0), (0, 0), edge, edge))
    return Prepared(
        images=images,
        splits=official_splits(spec, release.n_images["train"], release.n_images["test"]),
        extras={"labels": np.concatenate([batch.labels for batch in batches])},
        sources=sources,
        note=f"{order}, in file order; validation: the last training images",
        origin=origin,
    )


def official_splits(spec: DatasetSpec, train: int, test: int) -> dict[str, Indices]:
    """The first of `train` official training images, the last of them, and the first of `test` ones after them."""
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


def _check_labels(batches: list[Batch], release: Release) -> None:
    """Raise a DataError unless there are as many labels of each class as the official part has."""
    part, where = batches[0].part, batches[0].where
    labels = np.concatenate([batch.labels for batch in batches])
    expected = release.counts[part]
    last = len(expected) - 1
    if len(labels) != sum(expected):
        fault = f"{len(labels):,} labels, expected {sum(expected):,}"
    elif labels.min() < 0 or labels.max() > last:
        fault = f"labels {labels.min()} to {labels.max()}, expected 0 to {last}"
    elif (found := np.bincount(labels, minlength=len(expected)).tolist()) != list(expected):
        fault = f"{found} labels of each class, expected {list(expected)}: altered or of another data set"
    else:
        return
    raise DataError(f"{where}: {fault}; {release.remedy}")
