"""Image files to pixels: decoded, converted, the centred square cut out, resized with an antialiasing filter, padded.

Pillow silently reduces many files to 8 bits a channel and drops all images but the first; here both are refused.
"""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, SAMPLEFORMAT, TiffImageFile

from rae_bench.data.prepared import DataError, ImageFiles, Images
from rae_bench.data.specs import ResizeFilter

Read = Callable[[str], bytes]
"""The bytes of a file, by name."""

_BLOCK = 256
_DAMAGE = ("Corrupt JPEG data", "Inconsistent progression sequence", "Premature end of JPEG file")
"""How libjpeg's warnings of damage begin."""
_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM = re.compile(rb"P(?:[14]%b(\d+)%b(\d+)|[2356]%b(\d+)%b(\d+)%b(\d+))\s" % ((_SPACE,) * 5))
"""The header of a PBM, or of a PGM or PPM with its largest value; comments may stand between the numbers."""
_IMAGE_DEPTH = 32997
"""TIFF tag: the number of slices of a volume."""


@dataclass(frozen=True)
class Recipe:
    """How an image becomes pixels: `convert` checks its kind and brings it to a mode; `crop` 0: the largest square.

    `padding`: pixels of zero on each side, among those of `size`. Only a square that `crop` names is enlarged.
    `size` 0: the whole image as large as it is.
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
    padding: int = 0

    def pixels(self, where: str, data: bytes) -> Images:
        """The image in the bytes `data`, uint8 (C, size, size), or (C, H, W) as large as it is.

        Raises:
            DataError: not a whole image of these formats, too large to be one, or too small for the crop or the size.
        """
        try:
            with Image.open(io.BytesIO(data), formats=self.formats) as image:
                _check_samples(image, data)
                resized = self._resized(self.convert(image))
            if not self.has_checksums:
                _check_jpeg(data)
        except DataError as error:
            fault = str(error)
        except UnidentifiedImageError:
            fault = f"{len(data):,} bytes, not an image of 8 bits a channel of the kinds {', '.join(self.formats)}"
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            fault = f"not decoded: {error}"
        except Exception as error:  # the decoders of Pillow share no class of errors
            fault = f"{len(data):,} bytes, cannot be decoded: {error}"
        else:
            pixels = np.atleast_3d(np.asarray(resized)).transpose(2, 0, 1)
            edge = (self.padding, self.padding)
            return np.pad(pixels, ((0, 0), edge, edge))
        raise DataError(f"{where}: {fault}; {self.remedy}")

    def _resized(self, image: Image.Image) -> Image.Image:
        if not self.size:
            return image
        (width, height), inner = image.size, self.size - 2 * self.padding
        whole, needed = min(width, height), self.crop or inner
        if whole < needed:
            remedies = "" if self.crop else self._for_small(whole)
            raise DataError(f"is {width}x{height}, smaller than {needed}x{needed}{remedies}")
        side = self.crop or whole
        left, top = (width - side) // 2, (height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        return square.resize((inner, inner), Image.Resampling[self.filter.upper()])

    def _for_small(self, side: int) -> str:
        """What settings would take images whose largest square has this side."""
        padded = f"padding: {(self.size - side) // 2} in its source puts zeros around images of this size, "
        return f"; {padded if (self.size - side) % 2 == 0 else ''}crop: {side} enlarges them"


def _check_samples(image: Image.Image, data: bytes) -> None:
    """Raise a DataError if an image file promises more than 8 bits a channel, several images, or a wrong checksum.

    Nothing is said of formats that cannot: BMP, GIF and WebP have 8 bits, of a JPEG Pillow knows.
    """
    bits = 8
    if isinstance(image, PngImageFile):
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()  # of its pixels, too: decoding skips that
        bits = data[24]
        key = image.info.get("transparency")
        if image.mode == "L" and bits < 8 and isinstance(key, int):
            image.info["transparency"] = key * 255 // (2**bits - 1)  # the scale to which Pillow brings the pixels
    elif isinstance(image, TiffImageFile):
        bits, kind = (max(image.tag_v2.get(tag, (1,))) for tag in (BITSPERSAMPLE, SAMPLEFORMAT))
        if image.tag_v2.get(_IMAGE_DEPTH, 1) > 1:
            raise DataError("has several frames, expected one")
        if bits <= 8 and kind != 1:
            raise DataError(f"has samples of TIFF's format {kind}, expected 1: whole numbers from 0")
    elif re.match(rb"P[1-6]", data):
        bits = _pnm_bits(data)
    if bits > 8:
        raise DataError(f"has {bits} bits a channel, expected 8")


def _pnm_bits(data: bytes) -> int:
    if (header := _PNM.match(data)) is None:
        raise DataError("has no header of a PBM, PGM or PPM file")
    width, height, largest = [int(number) for number in (*header.groups(), b"1") if number is not None][:3]
    values = {b"4": math.ceil(width / 8), b"5": width, b"6": 3 * width}.get(data[1:2])
    if values is not None and largest < 256 and _PNM.match(data[header.end() + values * height :].lstrip()):
        raise DataError("has several frames, expected one")
    return largest.bit_length()


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


def image_files(names: tuple[str, ...], place: str, read: Read, recipe: Recipe) -> ImageFiles:
    """The images of the files `names`, read and decoded when they are written; `place` precedes a name in messages."""

    def blocks() -> Iterator[tuple[Images, list[str]]]:
        for first in range(0, len(names), _BLOCK):
            yield _block(names[first : first + _BLOCK], place, read, recipe)

    return ImageFiles(names, (len(names), recipe.channels, recipe.size, recipe.size), blocks)


def _block(names: tuple[str, ...], place: str, read: Read, recipe: Recipe) -> tuple[Images, list[str]]:
    images, hashes = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of metadata; a file that is not whole fails as well
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for name in names:
            data = read(name)
            hashes.append(hashlib.sha256(data).hexdigest())
            images.append(recipe.pixels(place + name, data))
    return np.stack(images), hashes
