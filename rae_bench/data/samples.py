"""What an image file says of its own samples: Pillow brings many a file to 8 bits a channel without a word."""

import io
import math
import re
import zlib

from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PREFIXES, SAMPLEFORMAT, ImageFileDirectory_v2

from rae_bench.data.prepared import DataError

_PNG = b"\x89PNG\r\n\x1a\n"
_SPACE = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM = re.compile(rb"P(?:[14]%b(\d+)%b(\d+)|[2356]%b(\d+)%b(\d+)%b(\d+))\s" % ((_SPACE,) * 5))
"""The header of a PBM, or of a PGM or PPM with its largest value; comments may stand between the numbers."""
_IMAGE_DEPTH = 32997
"""TIFF tag: the number of slices of a volume."""
_NO_FRAME = {0xC4, 0xC8, 0xCC}
"""JPEG markers among those of frames (0xC0 to 0xCF) that begin none."""


def check(data: bytes) -> None:
    """Raise a DataError if the header of an image file promises more than 8 bits a channel or several images.

    Nothing is said of formats that cannot (BMP, GIF and WebP have 8 bits) nor of what is no image: Pillow knows.
    """
    bits = 8
    if data.startswith(_PNG):
        _check_png(data)
        bits = int.from_bytes(data[24:25])
    elif data.startswith(b"\xff\xd8"):
        bits = _jpeg_bits(data)
    elif data.startswith(tuple(PREFIXES)):
        bits = _tiff_bits(data)
    elif re.match(rb"P[1-6]", data):
        bits = _pnm_bits(data)
    if bits > 8:
        raise DataError(f"has {bits} bits a channel, expected 8")


def scale_key(image: Image.Image, data: bytes) -> None:
    """Give the grey that a PNG of 2 or 4 bits calls transparent the scale to which Pillow brings its pixels."""
    key = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and data[24] < 8 and isinstance(key, int):
        image.info["transparency"] = key * 255 // (2 ** data[24] - 1)


def _check_png(data: bytes) -> None:
    """Raise a DataError at a chunk of pixels, say, whose CRC-32 is not that of its bytes: Pillow skips that check.

    A chunk that is cut off is left to the decoder.
    """
    place = len(_PNG)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        chunk, end = data[place + 4 : place + 8 + length], place + 12 + length
        is_needed = chunk[:1].isupper()  # by the format: others are metadata
        if end <= len(data) and is_needed and zlib.crc32(chunk) != int.from_bytes(data[end - 4 : end]):
            raise DataError(f"{len(data):,} bytes, cannot be decoded: the checksum of a chunk is wrong")
        place = end


def _jpeg_bits(data: bytes) -> int:
    """The precision in the header of a JPEG's frame; 8 if there is none, which the decoder will say."""
    place = 2
    while data[place : place + 1] == b"\xff":
        marker = data[place + 1 : place + 2]
        if marker == b"\xff":  # filling
            place += 1
            continue
        if marker and 0xC0 <= marker[0] <= 0xCF and marker[0] not in _NO_FRAME:
            return int.from_bytes(data[place + 4 : place + 5]) or 8
        place += 2 + max(int.from_bytes(data[place + 2 : place + 4]), 2)
    return 8


def _tiff_bits(data: bytes) -> int:
    header = data[: 16 if data[2] == 43 else 8]  # 43: BigTIFF
    tags = ImageFileDirectory_v2(header)
    file = io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    if tags.get(_IMAGE_DEPTH, 1) > 1:
        raise DataError("has several frames, expected one")
    bits = max(tags.get(BITSPERSAMPLE, (1,)))
    kinds = set(tags.get(SAMPLEFORMAT, (1,)))
    if bits <= 8 and kinds != {1}:
        raise DataError(f"has samples of TIFF's format {max(kinds)}, expected 1: whole numbers from 0")
    return int(bits)


def _pnm_bits(data: bytes) -> int:
    if (header := _PNM.match(data)) is None:
        raise DataError("has no header of a PBM, PGM or PPM file")
    numbers = [int(number) for number in header.groups() if number is not None]
    width, height, largest = numbers if len(numbers) == 3 else [*numbers, 1]
    bits = largest.bit_length()
    values = {b"4": math.ceil(width / 8), b"5": width, b"6": 3 * width}.get(data[1:2])
    if values is not None and bits <= 8 and _PNM.match(data[header.end() + values * height :].lstrip()):
        raise DataError("has several frames, expected one")
    return bits
