"""One side of a comparison as a user gives it: images, their features, or moments of these, read and told apart.

Images come in a folder or a zip file, in an array file, or as a split of a prepared data set, "digits:test"; features
and moments in files of NumPy's (`feature_files`).
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from rae_bench.base.plain import ConfigError, unknown
from rae_bench.base.storage import MappedRows, tree_sha256
from rae_bench.data import files, image_folder, store
from rae_bench.data.prepared import ImageFiles, Images
from rae_bench.data.specs import MANIFEST, Split
from rae_bench.scoring import feature_files
from rae_bench.scoring.feature_files import Array, FeatureFileError, Moments
from rae_bench.scoring.metrics.reference import Features, usable
from rae_bench.scoring.specs import GeneratedImages

ImageSet = Images | MappedRows | ImageFiles
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Side:
    """A set of `images` (n, C, H, W), or of their `features` (n, d) or moments.

    `name` is how messages call it, `dataset` the prepared data set that it is a split of, or empty.
    """

    name: str
    images: ImageSet | None = None
    features: Features | Moments | None = None
    dataset: str = ""

    @property
    def kind(self) -> Literal["images", "features", "moments"]:
        """What it consists of."""
        return "images" if self.images is not None else "moments" if isinstance(self.features, Moments) else "features"

    @property
    def n(self) -> int:
        """How many images; 0 of moments, which do not say."""
        known = self.features if self.images is None else self.images
        return 0 if known is None or isinstance(known, Moments) else known.shape[0]


def read(given: str, array: str | None, option: str, datasets: Path) -> Side:
    """The side at the path `given`, or the split of a data set prepared in the folder `datasets`, as DATASET:SPLIT.

    `array`: which array of an archive of several; `option`: how the user would say that. Image files are decoded later.

    Raises:
        FeatureFileError, DataError, StorageError, MetricError: there is no such thing, or it is damaged, or unusable.
    """
    path, (dataset, _, split) = Path(given), given.rpartition(":")
    with files.reading(path):
        is_there, is_folder = path.exists(), path.is_dir()
    if dataset and not is_there:
        return Side(given, split_of(given, datasets / dataset, split), dataset=dataset)
    if is_folder or _is_zip_of_images(path):
        if array is not None:
            raise FeatureFileError(f"{path}: holds image files, so it has no array {array!r}; leave out {option}")
        return Side(given, image_folder.as_they_are(path))
    found = feature_files.read(path, array, option)
    if isinstance(found, Moments):
        return Side(given, features=found)
    if found.ndim == 4 or found.dtype == np.uint8:
        return Side(given, _images(given, found))
    return Side(given, features=usable(given, found, {}))


def generated(source: GeneratedImages, shape: tuple[int, ...], least: int) -> Images:
    """All images that a user's generator made, uint8 (n, C, H, W), in the order of their names.

    `shape` (C, H, W) is that of the data set's images; at least as many as its reference are needed, `least`.

    Raises:
        FeatureFileError, DataError: no images, another shape, too few, or files that have changed.
    """
    path = Path(source.file)
    with files.reading(path):
        now = tree_sha256(path)
    if now != source.sha256:
        raise FeatureFileError(f"{path}: has changed since the study was read; start again")
    side = read(source.file, None, "", Path())
    if side.images is None:
        raise FeatureFileError(f"{path}: holds {side.kind}; expected images")
    if isinstance(side.images, ImageFiles):
        found: Images = np.concatenate([block for block, _ in side.images.blocks()])
    else:
        found = side.images[:]
    if found.shape[1:] != shape:
        raise FeatureFileError(f"{path}: images (C, H, W) of {found.shape[1:]}; those of the data set are {shape}")
    if len(found) < least:
        raise FeatureFileError(
            f"{path}: holds {len(found):,} images; at least {least:,} are needed, as the reference has"
        )
    return found


def split_of(given: str, folder: Path, split: str) -> Images | MappedRows:
    """The images of a split of the data set prepared in `folder`; `given` is what messages call it.

    Raises:
        FeatureFileError, ConfigError, DataError, StorageError: there is no such data set or split, or it is damaged.
    """
    if not (folder / MANIFEST).is_file():
        there = sorted(path.parent.name for path in folder.parent.glob(f"*/{MANIFEST}"))
        known = f"those are {', '.join(there)}" if there else "there are none"
        raise FeatureFileError(f"{given}: no such file, nor a split of a data set prepared in {folder.parent}: {known}")
    for one in get_args(Split):
        if one == split:
            return store.open_split(folder, one)
    raise ConfigError(unknown(given, "split", split, get_args(Split)))


def _is_zip_of_images(path: Path) -> bool:
    """Whether this is an archive with images, by their names, and no arrays of NumPy's."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.lower() for name in archive.namelist()]
    except feature_files.DAMAGED:  # whoever reads it says so
        return False
    return any(name.endswith(image_folder.SUFFIXES) for name in names) and not any(
        name.endswith(".npy") for name in names
    )


def _images(name: str, array: Array) -> Images:
    """Images with channels first or last as uint8 (n, C, H, W); where both might be, they are first."""
    expected = "expected uint8 (n, C, H, W) or (n, H, W, C), n > 0, C 1 or 3, levels 0 to 255"
    first, last = (array.ndim == 4 and array.shape[axis] in CHANNELS for axis in (1, 3))
    if array.dtype != np.uint8 or not array.size or not (first or last):
        raise FeatureFileError(f"{name}: images are {array.dtype} {array.shape}; {expected}")
    return array if first else array.transpose(0, 3, 1, 2)
