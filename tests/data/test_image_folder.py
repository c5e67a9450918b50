"""Any folder of images: which files, which pixels, which split; and what is refused."""

import dataclasses
import hashlib
import io
import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import data_files
import numpy as np
import pytest
import tifffile
import yaml
from checkout import ROOT, Checkout, environment
from data_files import chunk, png, pnm, put
from PIL import Image

from rae_bench import cli
from rae_bench.base.plain import ConfigError, parse, to_json, to_plain
from rae_bench.data import catalogue as sources
from rae_bench.data import image_folder, store
from rae_bench.data.prepared import DataError
from rae_bench.data.specs import DatasetSpec, ImageFolder, Source
from rae_bench.run import origins

SPEC = DatasetSpec(
    label="Mine",
    source=ImageFolder(kind="folder", path="mine", split="seeded", crop=0, padding=0, filter="bilinear"),
    channels=3,
    size=8,
    n_train=6,
    n_validation=2,
    n_test=2,
    seed=0,
)
SPLITS = {"train": 6, "validation": 2, "test": 2}


def spec(source=None, **changes):
    return dataclasses.replace(SPEC, **changes, source=dataclasses.replace(SPEC.source, **(source or {})))


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """The folder of images, empty, below the folder of all data."""
    monkeypatch.setenv("RAE_BENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "mine").mkdir(parents=True)
    return tmp_path / "data" / "mine"


def fill(folder, n=10, size=(8, 8), seed=0):
    """Random images named so that their order by name is not that of their making; the pixels by name."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = {f"{(7 * number) % 1000:03d}.png": rng.integers(0, 256, (*size[::-1], 3), np.uint8) for number in range(n)}
    for name, one in pixels.items():
        Image.fromarray(one).save(folder / name)
    return dict(sorted(pixels.items()))


def prepared(folder, chosen=SPEC):
    store.save(sources.prepare(chosen), chosen, folder)
    return folder, np.load(folder / "images.npy").transpose(0, 2, 3, 1)


def listed(folder):
    """The names in the list of hashes of a prepared folder, which sha256sum would check."""
    return [line[66:] for line in (folder / "files.sha256").read_text(encoding="utf-8").split("\n")[:-1]]


def one_of(mine, tmp_path, content, suffix="png", chosen=SPEC, size=(8, 8)):
    """Prepare ten images, the fifth of which has the bytes `content`; its pixels (H, W, C)."""
    fill(mine, size=size)
    (mine / "028.png").unlink()
    put(mine / f"028.{suffix}", content)
    return prepared(tmp_path / "out", chosen)[1][4]


def saved(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# --- files, pixels, splits --------------------------------------------------------------------------------


def test_images_are_in_the_order_of_their_names_with_their_hashes(mine, tmp_path):
    pixels = fill(mine)
    folder, images = prepared(tmp_path / "out")
    np.testing.assert_array_equal(images, np.stack(list(pixels.values())))
    lines = [f"{hashlib.sha256((mine / name).read_bytes()).hexdigest()}  {name}" for name in pixels]
    assert (folder / "files.sha256").read_text().splitlines() == lines


def test_the_split_is_drawn_with_the_seed(mine, tmp_path):
    fill(mine, 40)
    drawn = []
    for number, seed in enumerate((0, 1, 1)):
        folder, images = prepared(tmp_path / str(number), spec(seed=seed))
        shown = {split: store.load_split(folder, split) for split in SPLITS}
        assert {split: len(one) for split, one in shown.items()} == SPLITS
        drawn.append(np.concatenate(list(shown.values())))
        assert len(np.unique(drawn[-1].reshape(10, -1), axis=0)) == len(images) == 10
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[2], drawn[1])


def test_subfolders_are_the_splits(mine, tmp_path):
    counts = {**SPLITS, "validation": 3}
    pixels = {split: fill(mine / split / "deeper", n, seed=n) for split, n in counts.items()}
    chosen = spec({"split": "subfolders"}, n_validation=3)
    folder, _ = prepared(tmp_path / "out", chosen)
    for split, of in pixels.items():
        found = store.load_split(folder, split).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(found, np.stack(list(of.values())))


def test_what_is_no_image_by_its_name_is_left_out_and_told(mine, tmp_path, caplog):
    fill(mine)
    for name in ("README.txt", ".hidden/999.png", "._000.png"):
        put(mine / name, b"garbage")
    with caplog.at_level(logging.INFO):
        _, images = prepared(tmp_path / "out")
    assert len(images) == 10
    assert "1 files are not images by their names, as README.txt" in caplog.text


def test_the_suffixes_are_those_that_pillow_knows_for_the_formats():
    known = Image.registered_extensions().items()
    assert set(image_folder.SUFFIXES) == {suffix for suffix, of in known if of in (*image_folder.FORMATS, "MPO")}


# --- links, and what is no regular file -------------------------------------------------------------------


def test_linked_folders_are_followed(mine, tmp_path):
    for number, name in enumerate(("cats", "dogs")):
        fill(tmp_path / "elsewhere" / name, 5, seed=number)
        (mine / name).symlink_to(tmp_path / "elsewhere" / name)
    folder, _ = prepared(tmp_path / "out")
    assert listed(folder) == [f"{one}/{number:03d}.png" for one in ("cats", "dogs") for number in (0, 7, 14, 21, 28)]


@pytest.mark.parametrize("target", [".", "..", "deeper", "deeper/down"])
def test_a_link_back_ends_and_reads_no_image_twice(target, mine, tmp_path, caplog):
    fill(mine / "deeper" / "down")
    (mine / "a loop").symlink_to(target)
    (mine / "deeper" / "down" / "up").symlink_to("../..")
    with caplog.at_level(logging.INFO):
        folder, _ = prepared(tmp_path / "out")
    assert listed(folder) == [f"deeper/down/{7 * number:03d}.png" for number in range(10)]
    assert f"{mine}/deeper/down/up: its files are there already, not read again" in caplog.text


def a_socket(path):
    folder = os.open(path.parent, os.O_RDONLY)  # the path itself may be too long for a socket
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


# --- sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filter", ["box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_each_filter_keeps_a_ramp_a_ramp(filter, mine, tmp_path):
    """Symmetric weights that sum to one: away from the border the new pixel is the ramp at its centre."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (64, 64, 3))
    chosen = spec({"filter": filter}, size=16)
    found = one_of(mine, tmp_path, saved(Image.fromarray(ramp.copy())), chosen=chosen, size=(64, 64))
    centres = ((np.arange(16) + 0.5) * 4 - 0.5) * 3
    assert np.abs(found[:, 4:-4, 0] - centres[4:-4]).max() <= 1


def digits_as_files(folder, images, side=28):
    """Write the middles of padded digits (n, 1, 32, 32) as PNG files of so many pixels each way."""
    edge = (32 - side) // 2
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image[0, edge : 32 - edge, edge : 32 - edge]).save(folder / f"{number:04d}.png")


def test_padded_files_are_the_suites_own_digits(mine, tmp_path, digits):
    digits_as_files(mine, digits.images[:10])
    _, images = prepared(tmp_path / "out", spec({"padding": 2}, size=32, channels=1))
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2), digits.images[:10])


def test_what_is_padded_is_made_smaller_before(mine, tmp_path):
    """A border of zeros around the image as it would be in a smaller data set."""
    fill(mine, size=(70, 64))
    _, inner = prepared(tmp_path / "inner", spec(size=24))
    _, images = prepared(tmp_path / "out", spec({"padding": 4}, size=32))
    np.testing.assert_array_equal(images, np.pad(inner, ((0, 0), (4, 4), (4, 4), (0, 0))))


def test_a_stated_crop_is_enlarged(mine, tmp_path):
    pixels = fill(mine, size=(30, 28))
    _, images = prepared(tmp_path / "out", spec({"crop": 28}, size=32))
    for found, written in zip(images, pixels.values(), strict=True):
        square = Image.fromarray(written[:, 1:29])
        np.testing.assert_array_equal(found, square.resize((32, 32), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    ("size", "source", "message"),
    [
        ((28, 28), {}, "is 28x28, smaller than 32x32; padding: 2 in its source puts zeros .*, crop: 28 enlarges them"),
        ((28, 40), {}, "is 28x40, smaller than 32x32; padding: 2 in its source puts zeros .*, crop: 28 enlarges them"),
        ((28, 28), {"padding": 1}, "is 28x28, smaller than 30x30; padding: 2 in its source .*, crop: 28 enlarges"),
        ((27, 27), {}, "is 27x27, smaller than 32x32; crop: 27 enlarges them"),
        ((28, 28), {"crop": 30}, "is 28x28, smaller than 30x30; mend it"),
    ],
)
def test_an_image_that_is_too_small_is_refused_with_the_settings_that_would_take_it(size, source, message, mine):
    fill(mine, size=size)
    with pytest.raises(DataError, match=rf"^{mine}/000\.png: {message}"):
        next(sources.prepare(spec(source, size=32)).images.blocks())


# --- conversions ------------------------------------------------------------------------------------------


def tiff(samples, **options):
    """A TIFF of samples (H, W) or (H, W, 3), written by tifffile; planes: each channel by itself."""
    buffer = io.BytesIO()
    if options.get("planarconfig") == "separate":
        samples = np.ascontiguousarray(samples.transpose(2, 0, 1))
    kind = {"photometric": "rgb" if 3 in samples.shape else "minisblack"}
    tifffile.imwrite(buffer, samples, **{**kind, **options})
    return buffer.getvalue()


def bmp565(samples):
    """A BMP of 16 bits a pixel: 5 red, 6 green, 5 blue; samples (H, W, 3)."""
    words = ((samples[..., 0] << 11) | (samples[..., 1] << 5) | samples[..., 2]).astype("<u2")[::-1].tobytes()
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    height, width = samples.shape[:2]
    about = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 3, len(words), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 66 + len(words), 0, 0, 66) + about + masks + words


def drawn(largest, channels=3):
    """Samples (8, 8, channels) from 0 to `largest`, both among them."""
    samples = np.random.default_rng(0).integers(0, largest + 1, (8, 8, channels))
    samples[0, 0], samples[0, 1] = 0, largest
    return samples


def to_8_bits(largest, channels=3):
    return np.round(drawn(largest, channels) * 255 / largest)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


WHOLE = drawn(255).astype(np.uint8)
GREY = WHOLE[..., :1]
COLOURS = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint8)
TWO = Image.fromarray((WHOLE[..., 0] > 127).astype(np.uint8) * 255).convert("RGB")
SIXTEEN = np.minimum(drawn(63), (31, 63, 31))
ONE_MISSING = np.where(drawn(15, 1) == 1, 0, drawn(15, 1))

SOLID = Image.new("RGB", (8, 8), (200, 40, 90))
SUFFIXES = (
    *("png", "jpg", "JPEG", "bmp", "webp", "tif", "gif", "ppm", "jfif", "jpe", "JPG", "JFIF", "tiff", "TIF"),
    *("pnm", "pgm", "apng", "WebP"),
)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
TALL = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
WHOLE_JPEGS = {
    f"{mode}, {options}": saved(NOISE.convert(mode), "JPEG", **options)
    for mode in ("RGB", "L")
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"quality": 100})
}


def shrunk(content):
    """What Pillow makes of a whole JPEG."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB").resize((8, 8), Image.Resampling.BILINEAR))


CLOSE = {
    # content, suffix, pixels, how far from them others may be, and what is asked for
    **{
        f"suffix {suffix}": (
            saved(SOLID, Image.registered_extensions()[f".{suffix.lower()}"]),
            suffix,
            (200, 40, 90),
            2,
            {},
        )
        for suffix in SUFFIXES
    },
    **{
        f"JPEG, {how}{', and more' if more else ''}": (content + more, "jpg", shrunk(content), 0, {})
        for how, content in WHOLE_JPEGS.items()
        for more in (b"", b"behind the end")
    },
    "BMP of 16 bits a pixel, 5 or 6 a channel": (bmp565(SIXTEEN), "bmp", SIXTEEN * 255 / (31, 63, 31), 1, {}),
    "grey by luminance": (
        *(saved(SOLID), "png", round(0.299 * 200 + 0.587 * 40 + 0.114 * 90), 0),
        {"channels": 1},
    ),
    "a centred crop, averaged": (
        *(saved(Image.fromarray(TALL)), "png"),
        *(TALL[12:28, 7:23].astype(float).reshape(8, 2, 8, 2, 3).mean(axis=(1, 3)), 1),
        {"source": {"crop": 16, "filter": "box"}, "size": (30, 40)},
    ),
    "the largest square": (saved(Image.fromarray(TALL[:8, :20])), "png", TALL[:8, 6:14], 0, {}),
}
ACCEPTED = {
    **{f"PNG, {bits} bits": (png(drawn(2**bits - 1, 1), bits, 0), "png", to_8_bits(2**bits - 1, 1)) for bits in (2, 4)},
    **{f"PGM, {top}": (pnm(drawn(top, 1), b"P5", top), "pgm", to_8_bits(top, 1)) for top in (1, 100, 255)},
    **{f"PPM, {top}": (pnm(drawn(top), b"P6", top), "ppm", to_8_bits(top)) for top in (1, 100, 255)},
    **{f"plain PPM, {top}": (pnm(drawn(top), b"P3", top), "ppm", to_8_bits(top)) for top in (1, 100, 255)},
    "plain PGM": (pnm(drawn(100, 1), b"P2", 100), "pgm", to_8_bits(100, 1)),
    **{
        f"PNG, mode {mode}": (saved(TWO.convert(mode)), "png", np.asarray(TWO))
        for mode in ("1", "L", "LA", "P", "RGBA")
    },
    "turned by a camera": (saved(Image.fromarray(WHOLE), exif=turned(6)), "png", np.rot90(WHOLE, -1)),
    "a transparent grey that is not used": (
        *(png(ONE_MISSING, 4, 0, chunk(b"tRNS", struct.pack(">H", 1))), "png"),
        ONE_MISSING * 17,
    ),
    "TIFF, interleaved": (tiff(WHOLE), "tif", WHOLE),
    "TIFF, planes": (tiff(WHOLE, planarconfig="separate"), "tif", WHOLE),
    "TIFF, planes, zlib": (tiff(WHOLE, planarconfig="separate", compression="zlib"), "tif", WHOLE),
    "TIFF, zlib, predictor": (tiff(WHOLE, compression="zlib", predictor=True), "tif", WHOLE),
    "TIFF, tiles": (tiff(WHOLE, tile=(16, 16)), "tif", WHOLE),
    "TIFF, big-endian": (tiff(WHOLE, byteorder=">"), "tif", WHOLE),
    "BigTIFF": (tiff(WHOLE, bigtiff=True), "tif", WHOLE),
    "TIFF, white is zero": (tiff(255 - GREY[..., 0], photometric="miniswhite"), "tif", GREY),
    "TIFF, one bit": (tiff(GREY[..., 0] > 127), "tif", (GREY > 127) * 255),
    "TIFF, palette": (
        *(tiff(GREY[..., 0], photometric="palette", colormap=COLOURS.T.astype(np.uint16) * 257), "tif"),
        COLOURS[GREY[..., 0]],
    ),
    "TIFF, upside down": (tiff(WHOLE, extratags=[(274, 3, 1, 4, True)]), "tif", WHOLE[::-1]),
}


CLOSE |= {kind: (*case, 0, {}) for kind, case in ACCEPTED.items()}


@pytest.mark.parametrize("kind", CLOSE)
def test_images_of_up_to_8_bits_are_read_as_they_were_written(kind, mine, tmp_path):
    content, suffix, expected, tolerance, asked = CLOSE[kind]
    chosen = spec(asked.get("source"), channels=asked.get("channels", 3))
    found = one_of(mine, tmp_path, content, suffix, chosen, asked.get("size", (8, 8)))
    assert np.abs(found.astype(float) - np.broadcast_to(expected, found.shape)).max() <= tolerance


# --- what is refused --------------------------------------------------------------------------------------


def replaced(content, place, new):
    return content[:place] + new + content[place + len(new) :]


def transparent(mode):
    image = Image.new("RGBA", (8, 8), (200, 40, 90, 255))
    image.putpixel((3, 3), (0, 0, 0, 254))
    return saved(image.convert(mode))


def frames(format):
    first, second = (Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 255))
    return saved(first, format, save_all=True, append_images=[second])


WIDE = WHOLE.astype(np.uint16)
DEEP = {
    "PNG, grey": (png(drawn(65535, 1), 16, 0), "png", 16),
    "PNG, RGB": (png(drawn(65535), 16, 2), "png", 16),
    "PNG, RGB and alpha": (png(drawn(65535, 4), 16, 6), "png", 16),
    "PGM": (pnm(drawn(65535, 1), b"P5", 65535), "pgm", 16),
    "PPM": (pnm(drawn(65535), b"P6", 65535), "ppm", 16),
    "PPM, 12 bits": (pnm(drawn(4095), b"P6", 4095), "ppm", 12),
    "PPM, 256": (pnm(drawn(256), b"P6", 256), "ppm", 9),
    "plain PPM": (pnm(drawn(65535), b"P3", 65535), "ppm", 16),
    "plain PGM": (pnm(drawn(65535, 1), b"P2", 65535), "pgm", 16),
    "TIFF": (tiff(WIDE), "tif", 16),
    "TIFF, planes": (tiff(WIDE, planarconfig="separate"), "tif", 16),
    "TIFF, planes, zlib": (tiff(WIDE, planarconfig="separate", compression="zlib"), "tif", 16),
    "TIFF, grey": (tiff(WIDE[..., 0]), "tif", 16),
    "TIFF, signed": (tiff(WIDE[..., 0].astype(np.int16)), "tif", 16),
    "TIFF, integers": (tiff(WIDE[..., 0].astype(np.uint32)), "tif", 32),
    "BigTIFF, planes": (tiff(WIDE, planarconfig="separate", bigtiff=True), "tif", 16),
}
NO_IMAGE = "bytes, not an image of 8 bits a channel of the kinds PNG, JPEG"
JPEG = data_files.jpeg(Image.fromarray(WHOLE))
PLAIN = saved(Image.fromarray(np.full((100, 100, 3), 7, np.uint8)), compress_level=0)
WRITTEN = {
    "png": saved(NOISE),
    "jpg": saved(NOISE, "JPEG"),
    "progressive jpg": saved(NOISE, "JPEG", progressive=True),
    "bmp": saved(NOISE, "BMP"),
    "webp": saved(NOISE, "WEBP"),
    "lossless webp": saved(NOISE, "WEBP", lossless=True),
    "tif": saved(NOISE, "TIFF"),
    **{f"{how} tif": saved(NOISE, "TIFF", compression=how) for how in ("tiff_lzw", "tiff_deflate", "jpeg")},
    "ppm": saved(NOISE, "PPM"),
    "gif": saved(NOISE, "GIF"),
}
JPEGS = {
    how: saved(NOISE, "JPEG", quality=92, **{how: 10}) for how in ("smooth", "progressive", "restart_marker_blocks")
}
REFUSED = {
    **{f"deep {kind}": (content, suffix, f"has {bits} bits a cha") for kind, (content, suffix, bits) in DEEP.items()},
    **{f"TIFF, {kind}": (tiff(WHOLE.astype(kind)), "tif", rf"[\d,]+ {NO_IMAGE}") for kind in ("f2", "f4")},
    "JPEG of 12 bits": (replaced(JPEG, JPEG.index(b"\xff\xc0") + 4, b"\x0c"), "jpg", f"{len(JPEG)} {NO_IMAGE}"),
    "signed": (tiff(GREY[..., 0].astype("i1")), "tif", "has samples of TIFF's format 2, expected 1: whole numbers fr"),
    **{
        f"a transparent grey of {bits} bits": (
            *(png(drawn(2**bits - 1, 1), bits, 0, chunk(b"tRNS", struct.pack(">H", 1))), "png"),
            "is transparent in places",
        )
        for bits in (1, 2, 4, 8)
    },
    "volume": (tiff(np.stack([GREY[..., 0]] * 16), volumetric=True), "tif", "has several frames, expected one"),
    "two PPMs": (pnm(WHOLE, b"P6", 255) * 2, "ppm", "has several frames, expected one"),
    **{f"frames, {of}": (frames(of), of.lower(), "has several frames, expected one") for of in ("GIF", "WEBP", "PNG")},
    "frames, TIFF": (frames("TIFF"), "tif", "has several frames, expected one"),
    "odd PPM": (b"P6 8 8 2#\n55\n" + WHOLE.tobytes(), "ppm", "has no header of a PBM, PGM or PPM file"),
    "real PFM": (b"Pf\n8 8\n-1.0\n" + bytes(256), "ppm", "has mode F, expected grey or RGB"),
    "GIF on a larger screen": (
        *(replaced(saved(Image.fromarray(GREY[..., 0]), "GIF"), 6, struct.pack("<HH", 9, 9)), "gif"),
        "has a frame that leaves part of it empty",
    ),
    "transparent": (transparent("RGBA"), "png", "is transparent in places; lay it on a background first"),
    "transparent grey": (transparent("LA"), "png", "is transparent in places"),
    "CMYK": (saved(Image.new("CMYK", (8, 8)), "JPEG"), "jpg", "has mode CMYK, expected grey or RGB"),
    "CMYK TIFF": (saved(Image.new("CMYK", (8, 8)), "TIFF"), "tif", "has mode CMYK, expected grey or RGB"),
    "YCbCr": (saved(Image.new("YCbCr", (8, 8)), "TIFF"), "tif", "has mode YCbCr, expected grey or RGB"),
    "too small": (saved(Image.new("RGB", (8, 7))), "png", "is 8x7, smaller than 8x8"),
    "garbage": (b"garbage", "png", f"7 {NO_IMAGE}"),
    "empty": (b"", "png", f"0 {NO_IMAGE}"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "png", f"47 {NO_IMAGE}"),
    **{
        f"{kind}, cut at {share}": (
            *(content[: int(share * len(content))], kind.split()[-1]),
            r"[\d,]+ bytes, (cannot be decoded|not an image)",
        )
        for kind, content in WRITTEN.items()
        for share in (0, 0.02, 0.3, 0.7, 0.99)
    },
    # a plain picture of which a byte changed decodes to other pixels without an error of the decoder
    **{
        f"PNG, changed at {place}": (replaced(PLAIN, place, b"\x52"), "png", r"[\d,]+ bytes, cannot be decoded")
        for place in range(PLAIN.index(b"IDAT") + 4, PLAIN.index(b"IEND") - 8, 2999)
    },
    # Pillow decodes most of these to garbage
    **{
        f"JPEG, {how}, {what} in the middle": (
            *(replaced(content, len(content) // 2 - 250, middle), "jpg"),
            r"[\d,]+ bytes, cannot be decoded",
        )
        for how, content in JPEGS.items()
        for what, middle in {"zeros": bytes(500), "noise": np.random.default_rng(0).bytes(500)}.items()
    },
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_without_loss_is_refused(kind, mine, tmp_path):
    content, suffix, message = REFUSED[kind]
    with pytest.raises(DataError, match=rf"{mine}/028\.{suffix}: {message}.*; mend it or take it out of {mine}"):
        one_of(mine, tmp_path, content, suffix)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_decompression_bomb_is_refused(mine, tmp_path):
    """A palette PNG of 100 million pixels in a hundred kilobytes."""
    rows = zlib.compress(bytes(10_000 * 10_001), 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match=r"028\.png: not decoded: Image size \(100000000 pixels\) exceeds limit"):
        one_of(mine, tmp_path, content)


# --- what is asked for ------------------------------------------------------------------------------------


IRREGULAR = {
    "pipe": (os.mkfifo, "999.png", "is a named pipe, not a regular file"),
    "socket": (a_socket, "999.png", "is a socket, not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "999.png", "is a device, not a regular file"),
    "link to nothing": (lambda path: path.symlink_to("gone"), "999.png", "cannot be read: No such file or directory"),
    "link to itself": (lambda path: path.symlink_to(path), "999.png", "cannot be read: Too many levels of symbolic li"),
    "folder": (lambda path: path.mkdir(), "999.png", "is a folder, named as an image; rename it"),
    "class": (lambda path: path.symlink_to("/gone"), "cats", "is a link to nothing; mend it or take it out of"),
}
NAMES = {
    **{"two\nlines": r"two\\nlines", "a\tb": r"a\\tb", "a\x7f": r"a\\x7f", "a\x85": r"a\\x85"},
    **{"a\u2028b": r"a\\u2028b", os.fsdecode(b"latin\xe9"): r"latin\\udce9"},
}


def in_splits(mine):
    for split, n in {"train": 6, "validation": 3, "test": 2}.items():
        fill(mine / split, n)


def only_others(mine):
    for name in ("deeper/0.HEIC", "deeper/1.HEIC", "deeper/2.HEIC", "README"):
        put(mine / name, b"")


SUBFOLDERS = {"split": "subfolders"}
IMPOSSIBLE = {
    # what is done to ten images (or to none), what is asked for, the message
    "no folder": (
        fill,
        spec({"path": "gone"}),
        "{data}/gone: no such folder; a relative path lies below RAE_BENCH_DATA",
    ),
    "too few": (fill, spec(n_train=7), "{mine}: 10 images, 11 asked for; ask for fewer"),
    "none": (os.listdir, SPEC, "{mine}: 0 images, 10 asked for; put images there"),
    "others": (
        *(only_others, SPEC),
        r"{mine}: no images by their names, but 3 of \.heic, 1 of no suffix; read are \.png, \.apng",
    ),
    "a split of another number": (
        *(in_splits, spec(SUBFOLDERS)),
        "{mine}/validation: 3 images, n_validation is 2; make them agree",
    ),
    "a split is missing": (fill, spec(SUBFOLDERS), "{mine}/train: cannot be read: No such file or directory"),
    **{
        kind: (
            lambda mine, make=make, name=name: (fill(mine), make(mine / name)),
            spec(n_train=7),
            f"{{mine}}/{name}: {told}",
        )
        for kind, (make, name, told) in IRREGULAR.items()
    },
    **{
        shown: (
            *(lambda mine, name=name: (fill(mine), put(mine / f"{name}.png", b"")), SPEC),
            rf"{{mine}}: the file name '{shown}\.png' cannot be written down; rename it",
        )
        for name, shown in NAMES.items()
    },
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_what_cannot_be_had_is_refused_at_once(kind, mine):
    make, chosen, message = IMPOSSIBLE[kind]
    make(mine)
    with pytest.raises(DataError, match="^" + message.format(mine=mine, data=mine.parent)):
        sources.prepare(chosen)


def test_an_absolute_path_is_taken_as_it_is(tmp_path):
    fill(tmp_path / "elsewhere")
    assert sources.prepare(spec({"path": str(tmp_path / "elsewhere")})).images.shape == (10, 3, 8, 8)


@pytest.mark.parametrize(
    "name", ["at 4.42\u202fPM", "a\u00a0b", "写真\u30001", "👩\u200d🚀", "é", "e\u0301", "a b", "a\\b", "\u202eb", "*"]
)
def test_names_of_any_other_characters_are_read_and_checked_by_others(name, mine, tmp_path):
    pixels = fill(mine)["028.png"]
    (mine / "028.png").rename(mine / f"{name}.png")
    folder, images = prepared(tmp_path / "out")
    np.testing.assert_array_equal(images[listed(folder).index(f"{name}.png")], pixels)
    checked = subprocess.run(["sha256sum", "--check", "--quiet", folder / "files.sha256"], cwd=mine)
    assert checked.returncode == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("path", "", "path: is empty"),
        ("crop", -1, "crop: -1 must be at least 0"),
        ("padding", -1, "padding: -1 must be at least 0"),
        ("filter", "nearest", "'nearest' is not one of"),
        ("split", "random", "'random' is not one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        parse(Source, {**to_plain(SPEC.source), key: value}, "source")


# --- a folder that changes after it was prepared -----------------------------------------------------------


@pytest.fixture
def once(mine, tmp_path):
    """The folder of ten prepared images."""
    fill(mine)
    return prepared(tmp_path / "out")[0]


def again(mine):
    """Write all files again as they are, so that only their times differ."""
    for path in mine.iterdir():
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(1, 1))


def flip(mine):
    content = (mine / "014.png").read_bytes()
    put(mine / "014.png", replaced(content, len(content) - 20, bytes([content[-20] ^ 1])))
    os.utime(mine / "014.png", ns=(1, 1))


def replace_two(mine):
    for name in ("014.png", "028.png"):
        Image.new("RGB", (8, 8), (255, 255, 255)).save(mine / name)


def to_pipe(mine):
    (mine / "014.png").unlink()
    os.mkfifo(mine / "014.png")


def add_ten(mine):
    for number in range(10):
        Image.new("RGB", (8, 8)).save(mine / f"new{number}.png")


def add_one_that_is_passed_over(mine):
    """Of eleven names one is left out: the draw differs though perhaps not the set."""
    for number in range(200):
        path = mine / f"{number:03d}x.png"
        Image.new("RGB", (8, 8)).save(path)
        if path.name not in image_folder.chosen(SPEC, SPEC.source, mine)[0]:
            return
        path.unlink()


def unmount(mine):
    mine.rename(mine.parent / "elsewhere")
    mine.mkdir()


PREPARED = "not what was prepared: "
OTHER_TIMES = "{} of 10 files have other times than when they were read, first {}; verify compares what they hold"
ABSENT = "not there now, moved or not mounted; what was prepared from it stays valid"
CHANGES = {
    "a file that is no image": (lambda mine: put(mine / "README.txt", b"no image"), "", ""),
    "copied without their times": (again, "", r"10 of 10 files have other times .*; verify compares what they hold"),
    "of the same size": (
        flip,
        f"{PREPARED}1 of 10 files are of other content, first 014.png",
        OTHER_TIMES.format(1, "014.png"),
    ),
    "replaced": (replace_two, *(f"{PREPARED}2 of 10 files are of other content, first 014.png",) * 2),
    "missing": (
        lambda mine: (mine / "014.png").unlink(),
        *(f"{PREPARED}1 of 10 files are missing, first 014.png",) * 2,
    ),
    "a pipe": (to_pipe, *(f"{PREPARED}1 of 10 files are of other content, first 014.png",) * 2),
    "new": (add_ten, *(rf"{PREPARED}of the files there now prepare would choose \d others, .* new\d\.png",) * 2),
    "passed over": (
        add_one_that_is_passed_over,
        *(f"{PREPARED}of the files there now prepare would draw other splits",) * 2,
    ),
    "not there": (lambda mine: mine.rename(mine.parent / "elsewhere"), *(ABSENT,) * 2),
    "not mounted": (unmount, *(ABSENT,) * 2),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_has_become_of_a_folder_is_told(kind, mine, once):
    change, *expected = CHANGES[kind]
    change(mine)
    for text, is_thorough in zip(expected, (True, False), strict=True):
        finding = origins.look(SPEC, once, is_thorough)
        assert re.fullmatch(f"{mine}: {text}" if text else "", finding.text)
        assert finding.is_changed == text.startswith(PREPARED)


def test_a_new_image_in_a_splits_folder_is_counted(mine, tmp_path):
    for split, n in SPLITS.items():
        fill(mine / split, n, seed=n)
    chosen = spec({"split": "subfolders"})
    folder, _ = prepared(tmp_path / "out", chosen)
    assert origins.look(chosen, folder, True) == origins.Finding()
    Image.new("RGB", (8, 8)).save(mine / "test" / "new.png")
    text = f"{mine}: not what was prepared: {mine}/test: 3 images, n_test is 2; make them agree"
    assert origins.look(chosen, folder, True) == origins.Finding(text, is_changed=True)


def test_a_data_folder_that_is_named_no_longer_is_looked_for_where_it_was(mine, once, monkeypatch):
    monkeypatch.delenv("RAE_BENCH_DATA")
    (mine / "014.png").unlink()
    assert origins.look(SPEC, once, True).is_changed


def test_what_has_other_settings_or_no_record_of_its_source_is_passed_over(mine, once):
    (mine / "014.png").unlink()
    assert origins.look(spec(seed=1), once, True) == origins.Finding()  # stale: told elsewhere
    (once / "source.json").unlink()  # as after an import
    assert origins.look(SPEC, once, True) == origins.Finding()
    assert origins.look(SPEC, once / "nowhere", True) == origins.Finding()


def test_times_are_outside_the_promise_of_equal_bytes(mine, tmp_path, once):
    again(mine)
    folder, _ = prepared(tmp_path / "again")
    kept = [{path.name: path.read_bytes() for path in one.iterdir()} for one in (once, folder)]
    assert kept[0].pop("source.json") != kept[1].pop("source.json")
    assert kept[0] == kept[1]


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A copy of the repository with a study of the user's own images; nothing has run."""
    checkout = Checkout(tmp_path_factory.mktemp("own"))
    data = to_plain(spec(channels=1, size=32, n_train=600, n_validation=300, n_test=300))
    entry = {"data": data, "extractor": "pixels", "follows": "mnist", "is_the_papers": False, "weights": "digits"}
    study = yaml.safe_load((checkout.config / "studies" / "smoke.yaml").read_text())
    study["datasets"] = {"mine": "digits_smoke"}
    del study["protocols"]["pixels"]
    with (checkout.config / "datasets.yaml").open("a") as file:
        file.write("\n" + yaml.safe_dump({"mine": entry}))
    (checkout.config / "studies" / "own.yaml").write_text(yaml.safe_dump(study))
    return checkout


@pytest.mark.slow  # three runs of the workflow
def test_the_command_that_is_told_prepares_anew_and_makes_again_what_hangs_on_it(mine, own):
    fill(mine, 1000, size=(32, 32))
    fill(mine / "more", 200, size=(32, 32), seed=1)
    reference = next(path for job, path in own.plan("own").items() if job.startswith("reference"))
    assert own.snakemake("--", reference, study="own").returncode == 0
    before = (own.path / reference).read_bytes()
    assert str(mine) not in own.run("rae_bench", "status", "own").stdout
    for path in (mine / "more").iterdir():
        Image.new("L", (32, 32), 255).save(path)

    told = [own.run("rae_bench", command, "own").stdout for command in ("status", "verify")]
    (line,) = {line for text in told for line in text.splitlines() if str(mine) in line}
    begin = f"{mine}: not what was prepared: 200 of 1,200 files are of other content, first more/000.png; to prepare it"
    assert line.startswith(f"{begin} anew: snakemake --cores 1 --config study=own --forcerun results/datasets/mine/")
    ended = own.run(*line.split("anew: ")[1].split(), "--", reference)
    assert ended.returncode == 0, ended.stderr
    assert (own.path / reference).read_bytes() != before
    assert str(mine) not in own.run("rae_bench", "status", "own").stdout


# --- streaming --------------------------------------------------------------------------------------------


def test_progress_is_told(mine, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(store, "TELL_EVERY", 0)
    fill(mine, 600)
    told = []
    chosen = spec(n_train=596)
    with caplog.at_level(logging.INFO):
        store.save(sources.prepare(chosen), chosen, tmp_path / "out", lambda *now: told.append(now))
    assert told == [(256, 600), (512, 600), (600, 600)]
    assert re.search(r"512 of 600 images, \d+ s left", caplog.text)


def test_a_fault_after_many_images_leaves_nothing_and_takes_the_old_manifest_away(mine, tmp_path):
    fill(mine, 600)
    chosen = spec(n_train=596)
    folder, _ = prepared(tmp_path / "out", chosen)
    (mine / sorted(path.name for path in mine.iterdir())[-1]).write_bytes(b"garbage")
    with pytest.raises(DataError, match="not an image"):
        prepared(folder, chosen)
    assert not [*folder.glob("manifest.json"), *folder.glob(".*")]


def test_a_killed_preparation_leaves_no_manifest_and_the_next_one_clears_up(mine, tmp_path):
    """Killed outright while it decodes images of 81 million pixels, after a block has been written."""
    fill(mine, 600)
    first = mine / "yyy0.png"
    Image.new("1", (9000, 9000)).save(first)
    large = [first, *(mine / f"yyy{number}.png" for number in range(1, 20))]
    for path in large[1:]:
        path.hardlink_to(first)
    folder, chosen = tmp_path / "out", spec(n_train=616)
    order = ["prepare", "--spec", to_json(chosen), "--data", str(folder)]
    with subprocess.Popen(
        [sys.executable, "-m", "rae_bench", *order], env=environment(ROOT), stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size > 2 * 256 * 192 for path in folder.glob(".images.npy.*.tmp")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    assert not (folder / "manifest.json").exists()
    assert not (folder / "images.npy").exists()
    assert len(list(folder.glob(".images.npy.*.tmp"))) == 1
    for path in large:
        path.unlink()
    fill(mine / "more", 20)
    cli.main(order)
    assert list(folder.glob(".*")) == []
    assert json.loads((folder / "manifest.json").read_text())["counts"]["train"] == 616
    assert len(store.load_split(folder, "train")) == 616


# --- a folder, or a zip file, as it is --------------------------------------------------------------------


def as_they_are(path):
    """The names and the pixels (n, H, W, C)."""
    found = image_folder.as_they_are(path)
    pixels = np.concatenate([block for block, _ in found.blocks()])
    assert pixels.shape == found.shape
    return found.names, pixels.transpose(0, 2, 3, 1)


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("sub")
        for file in sorted(folder.iterdir()):
            archive.write(file, f"sub/{file.name}")
        archive.writestr("__MACOSX/sub/._000.png", b"resource fork")
        archive.writestr("readme.txt", b"")
    return path


def test_whole_images_come_sorted_by_name_from_a_folder_or_a_zip_file(mine, tmp_path):
    pixels = fill(mine, size=(12, 8))
    names, found = as_they_are(mine)
    assert list(names) == list(pixels)
    np.testing.assert_array_equal(found, np.stack(list(pixels.values())))
    names, zip_found = as_they_are(zipped(mine, tmp_path / "mine.zip"))
    assert list(names) == [f"sub/{name}" for name in pixels]
    np.testing.assert_array_equal(zip_found, found)


def test_square_images_are_those_of_the_data_set(mine, tmp_path):
    """One reader: JPEG, palette, orientation, and grey among colour, each as `prepare` takes it at its own size."""
    fill(mine, n=6)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(mine / "grey.png")
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(mine / "photo.jpg")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("P").save(mine / "palette.gif")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(mine / "turned.png", exif=turned)
    folder, expected = prepared(tmp_path / "out")
    names, found = as_they_are(mine)
    assert list(names) == listed(folder)
    np.testing.assert_array_equal(found, expected)


def test_images_are_grey_if_the_first_is(mine):
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8), 7).save(mine / name)
    assert as_they_are(mine)[1].shape == (2, 8, 8, 1)
    Image.new("RGB", (8, 8)).save(mine / "c.png")
    with pytest.raises(
        DataError, match=r"mine/c\.png: is in colour, a\.png grey; expected all grey or all in colour; me"
    ):
        as_they_are(mine)


def test_an_image_of_another_size_is_named(mine):
    fill(mine)
    Image.new("RGB", (8, 9)).save(mine / "x.png")
    with pytest.raises(DataError, match=r"mine/x\.png: is 8x9, expected 8x8 as 000\.png; mend it or take it out of"):
        as_they_are(mine)


def test_no_images_at_all_are_one_line(mine, tmp_path):
    with pytest.raises(DataError, match=r"mine: no images; expected files of the kinds PNG, JPEG"):
        as_they_are(mine)
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("a.txt", b"")
    with pytest.raises(DataError, match=r"text\.zip: no images by their names, but 1 of \.txt"):
        as_they_are(tmp_path / "text.zip")


def test_a_damaged_member_of_a_zip_file_is_named(mine, tmp_path):
    fill(mine)
    path = zipped(mine, tmp_path / "mine.zip")
    data = path.read_bytes()
    at = data.index((mine / "007.png").read_bytes()) + 60
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(DataError, match=r"mine\.zip: sub/007\.png cannot be read: Bad CRC-32"):
        as_they_are(path)
