"""Image files to pixels: decoded, converted, the centred square cut out, resized with an antialiasing filter."""

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from rae_bench.data import samples
from rae_bench.data.prepared import DataError, ImageFiles, Images
from rae_bench.data.specs import ResizeFilter

Read = Callable[[str], bytes]
"""The bytes of a file, by name."""

_BLOCK = 256
_DAMAGE = ("Corrupt JPEG data", "Inconsistent progression sequence", "Premature end of JPEG file")
"""How libjpeg's warnings of damage begin."""


@dataclass(frozen=True)
class Recipe:
    """How an image becomes pixels: `convert` checks its kind and brings it to a mode; `crop` 0: the largest square.

    `has_checksums`: the bytes are known to be those that were written, so that a JPEG need not be decoded twice.
    """

    formats: tuple[str, ...]
    convert: Callable[[Image.Image], Image.Image]
    crop: int
    filter: ResizeFilter
    channels: int
    size: int
    remedy: str
    has_checksums: bool = False

    def pixels(self, where: str, data: bytes) -> Images:
        """The image in the bytes `data`, uint8 (C, size, size).

        Raises:
            DataError: not a whole image of these formats, too large to be one, or too small for the crop or the size.
        """
        try:
            samples.check(data)
            with Image.open(io.BytesIO(data), formats=self.formats) as image:
                samples.scale_key(image, data)
                resized = self._resized(self.convert(image))
            if not self.has_checksums:
                _check_jpeg(data)
        except DataError as error:
            raise DataError(f"{where}: {error}; {self.remedy}") from None
        except UnidentifiedImageError:
            found = f"{len(data):,} bytes, not an image of the kinds {', '.join(self.formats)}"
            raise DataError(f"{where}: {found}; {self.remedy}") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise DataError(f"{where}: not decoded: {error}; {self.remedy}") from None
        except Exception as error:  # the decoders of Pillow share no class of errors
            raise DataError(f"{where}: {len(data):,} bytes, cannot be decoded: {error}; {self.remedy}") from None
        return np.asarray(resized).reshape(self.size, self.size, self.channels).transpose(2, 0, 1)

    def _resized(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        side = self.crop or min(width, height)
        if min(width, height) < side or side < self.size:
            raise DataError(f"is {width}x{height}, smaller than {max(side, self.size)}x{max(side, self.size)}")
        left, top = (width - side) // 2, (height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        return square.resize((self.size, self.size), Image.Resampling[self.filter.upper()])


def _check_jpeg(data: bytes) -> None:
    """Raise a DataError if the bytes are a JPEG that its decoder calls damaged: Pillow does not pass that on.

    Decoded at an eighth of the size, which reads every code but costs half a decoding.
    """
    if not data.startswith(b"\xff\xd8"):
        return
    try:
        simplejpeg.decode_jpeg(data, min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        if str(error).startswith(_DAMAGE):  # else of a kind that Pillow knows and this decoder does not
            raise DataError(f"{len(data):,} bytes, cannot be decoded: {error}") from None


def image_files(
    names: tuple[str, ...], place: str, opened: Callable[[], AbstractContextManager[Read]], recipe: Recipe
) -> ImageFiles:
    """The images of the files `names`, decoded when they are written; `opened()` gives access to them.

    `place` stands before a name in messages.
    """

    def blocks() -> Iterator[tuple[Images, list[str]]]:
        with opened() as read:
            for first in range(0, len(names), _BLOCK):
                yield _block(names[first : first + _BLOCK], place, read, recipe)

    return ImageFiles(names, (len(names), recipe.channels, recipe.size, recipe.size), blocks)


def _block(names: tuple[str, ...], place: str, read: Read, recipe: Recipe) -> tuple[Images, list[str]]:
    images = np.empty((len(names), recipe.channels, recipe.size, recipe.size), np.uint8)
    hashes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of metadata; a file that is not whole fails as well
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for number, name in enumerate(names):
            data = read(name)
            hashes.append(hashlib.sha256(data).hexdigest())
            images[number] = recipe.pixels(place + name, data)
    return images, hashes
