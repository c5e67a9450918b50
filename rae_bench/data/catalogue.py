"""Each source of images and the code that reads it."""

from typing import assert_never

from rae_bench.data import celeba, embedded, image_folder, labelled
from rae_bench.data.prepared import Prepared
from rae_bench.data.specs import (
    CelebA,
    Cifar10,
    DatasetSpec,
    FaceRenderer,
    FashionMnist,
    ImageFolder,
    Mnist,
    MnistSubset,
    PhotoPatches,
    Svhn,
)


def prepare(spec: DatasetSpec) -> Prepared:
    """Read or draw the images of `spec` and split them; the same spec gives the same arrays.

    Raises:
        DataError: a source is missing or altered, or has too few images.
    """
    match spec.source:
        case MnistSubset():
            return embedded.digits(spec, spec.source)
        case PhotoPatches():
            return embedded.photos(spec, spec.source)
        case FaceRenderer():
            return embedded.drawn_faces(spec)
        case Mnist() | FashionMnist() | Cifar10() | Svhn():
            return labelled.prepare(spec, spec.source)
        case CelebA():
            return celeba.prepare(spec, spec.source)
        case ImageFolder():
            return image_folder.prepare(spec, spec.source)
        case _:
            assert_never(spec.source)
