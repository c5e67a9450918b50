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
import zlib

import data_files
import numpy as np
import pytest
import tifffile
import yaml
from checkout import ROOT, Checkout, environment
from data_files import put
from PIL import Image

from rae_bench import cli
from rae_bench.base import storage
from rae_bench.base.plain import ConfigError, parse, to_json, to_plain
from rae_bench.data import catalogue as sources
from rae_bench.data import image_folder, store
from rae_bench.data.prepared import DataError
from rae_bench.data.specs import DatasetSpec, ImageFolder, Source
from rae_bench.run import origins

SPEC = DatasetSpec(
    label="Mine",
    source=ImageFolder("folder", "mine", "seeded", 0, "bilinear"),
    channels=3,
    size=8,
    n_train=6,
    n_validation=2,
    n_test=2,
    seed=0,
)


def spec(source=None, **changes):
    return dataclasses.replace(SPEC, **changes, source=dataclasses.replace(SPEC.source, **(source or {})))


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    """The folder of images, empty, below the folder of all data."""
    monkeypatch.setenv("RAE_BENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "mine").mkdir(parents=True)
    return tmp_path / "data" / "mine"


def fill(folder, n=10, size=(8, 8), suffix="png", seed=0):
    """Random images named so that their order by name is not that of their making; the pixels by name."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = {
        f"{(7 * number) % 1000:03d}.{suffix}": rng.integers(0, 256, (*size[::-1], 3), np.uint8) for number in range(n)
    }
    for name, one in pixels.items():
        Image.fromarray(one).save(folder / name)
    return dict(sorted(pixels.items()))


def prepared(folder, chosen=SPEC):
    store.save(sources.prepare(chosen), chosen, folder)
    return folder, np.load(folder / "images.npy")


def one_of(mine, tmp_path, image, suffix="png", **changes):
    """Prepare ten images, the fifth of which is `image` (or such bytes); its pixels (H, W, C)."""
    fill(mine)
    path = mine / f"028.{suffix}"
    (mine / "028.png").unlink(missing_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        image.save(path)
    _, images = prepared(tmp_path / "out", spec(**changes))
    return images[4].transpose(1, 2, 0)


# --- files, pixels, splits --------------------------------------------------------------------------------


def test_images_are_in_the_order_of_their_names_with_their_hashes(mine, tmp_path):
    pixels = fill(mine)
    folder, images = prepared(tmp_path / "out")
    np.testing.assert_array_equal(images.transpose(0, 2, 3, 1), np.stack(list(pixels.values())))
    lines = [f"{hashlib.sha256((mine / name).read_bytes()).hexdigest()}  {name}" for name in pixels]
    assert (folder / "files.sha256").read_text().splitlines() == lines
    checked = subprocess.run(["sha256sum", "--check", "--quiet", folder / "files.sha256"], cwd=mine)
    assert checked.returncode == 0


def test_the_split_is_drawn_with_the_seed(mine, tmp_path):
    fill(mine, 40)
    splits = {}
    for seed in (0, 1):
        folder, images = prepared(tmp_path / f"out{seed}", spec(seed=seed))
        assert len(images) == 10
        shown = {split: store.load_split(folder, split) for split in ("train", "validation", "test")}
        assert [len(one) for one in shown.values()] == [6, 2, 2]
        splits[seed] = np.concatenate(list(shown.values()))
        assert len(np.unique(splits[seed].reshape(10, -1), axis=0)) == 10
    assert not np.array_equal(splits[0], splits[1])
    again, _ = prepared(tmp_path / "again", spec(seed=1))
    np.testing.assert_array_equal(store.load_split(again, "train"), splits[1][:6])


def test_subfolders_are_the_splits(mine, tmp_path):
    pixels = {
        split: fill(mine / split / "deeper", n, seed=n) for split, n in (("train", 6), ("validation", 3), ("test", 2))
    }
    chosen = spec({"split": "subfolders"}, n_validation=3)
    folder, _ = prepared(tmp_path / "out", chosen)
    for split, of in pixels.items():
        found = store.load_split(folder, split).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(found, np.stack(list(of.values())))
    with pytest.raises(DataError, match=rf"{mine}/validation: 3 images, n_validation is 2; make them agree"):
        sources.prepare(spec({"split": "subfolders"}))
    (mine / "test").rename(mine / "tests")
    with pytest.raises(DataError, match=rf"{mine}/test: cannot be read: No such file or directory"):
        sources.prepare(chosen)


def test_what_is_no_image_by_its_name_is_left_out_and_told(mine, tmp_path, caplog):
    fill(mine)
    put(mine / "README.txt", b"mine")
    put(mine / ".hidden" / "999.png", b"garbage")
    put(mine / "._000.png", b"garbage")
    with caplog.at_level(logging.INFO):
        _, images = prepared(tmp_path / "out")
    assert len(images) == 10
    assert "1 files are not images by their names, as README.txt" in caplog.text


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "webp", "tif", "gif", "ppm"])
def test_formats(suffix, mine, tmp_path):
    image = Image.new("RGB", (8, 8), (200, 40, 90))
    np.testing.assert_allclose(one_of(mine, tmp_path, image, suffix), np.full((8, 8, 3), (200, 40, 90)), atol=2)


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JPG", "JFIF", "tiff", "TIF", "pnm", "pgm", "apng", "WebP"])
def test_other_usual_suffixes_are_read(suffix, mine, tmp_path):
    fill(mine)
    format = {"jfif": "jpeg", "jpe": "jpeg", "pnm": "ppm", "pgm": "ppm", "apng": "png"}.get(suffix.lower())
    Image.new("RGB", (8, 8), (200, 40, 90)).save(mine / "028.image", format or Image.EXTENSION[f".{suffix.lower()}"])
    (mine / "028.png").unlink()
    (mine / "028.image").rename(mine / f"028.{suffix}")
    _, images = prepared(tmp_path / "out")
    np.testing.assert_allclose(images[4, :, 0, 0], (200, 40, 90), atol=2)


def test_the_suffixes_are_those_that_pillow_knows_for_the_formats():
    known = Image.registered_extensions().items()
    assert set(image_folder.SUFFIXES) == {suffix for suffix, of in known if of in (*image_folder.FORMATS, "MPO")}


def test_a_folder_without_images_says_which_suffixes_it_has(mine):
    for number in range(3):
        put(mine / "deeper" / f"{number}.HEIC", b"")
    put(mine / "README", b"")
    with pytest.raises(
        DataError, match=r"mine: no images by their names, but 3 of \.heic, 1 of no suffix; read are \.png, \.apng"
    ):
        sources.prepare(SPEC)


# --- links, and what is no regular file -------------------------------------------------------------------


def test_linked_folders_are_followed(mine, tmp_path):
    for number, name in enumerate(("cats", "dogs")):
        fill(tmp_path / "elsewhere" / name, 5, seed=number)
        (mine / name).symlink_to(tmp_path / "elsewhere" / name)
    folder, _ = prepared(tmp_path / "out")
    names = [line[66:] for line in (folder / "files.sha256").read_text().splitlines()]
    assert names == [f"{one}/{number:03d}.png" for one in ("cats", "dogs") for number in (0, 7, 14, 21, 28)]


@pytest.mark.parametrize("target", [".", "..", "deeper", "deeper/down"])
def test_a_link_back_ends_and_reads_no_image_twice(target, mine, tmp_path, caplog):
    fill(mine / "deeper" / "down")
    (mine / "a loop").symlink_to(target)
    (mine / "deeper" / "down" / "up").symlink_to("../..")
    with caplog.at_level(logging.INFO):
        folder, _ = prepared(tmp_path / "out")
    names = [line[66:] for line in (folder / "files.sha256").read_text().splitlines()]
    assert names == [f"deeper/down/{7 * number:03d}.png" for number in range(10)]
    assert f"{mine}/deeper/down/up: its files are there already, not read again" in caplog.text


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    folder = os.open(path.parent, os.O_RDONLY)  # the path itself may be too long for a socket
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


IRREGULAR = {
    "pipe": (a_pipe, "is a named pipe, not a regular file"),
    "socket": (a_socket, "is a socket, not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a regular file"),
    "link to nothing": (lambda path: path.symlink_to("gone.png"), "cannot be read: No such file or directory"),
    "link to itself": (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"),
    "folder": (lambda path: path.mkdir(), "is a folder, named as an image; rename it"),
}


@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_no_regular_file_is_refused_at_once(kind, mine):
    make, message = IRREGULAR[kind]
    fill(mine, 9)
    make(mine / "999.png")
    with pytest.raises(DataError, match=rf"{mine}/999\.png: {message}"):
        sources.prepare(SPEC)


def test_a_class_that_is_a_link_to_nothing_is_refused(mine):
    fill(mine)
    (mine / "cats").symlink_to("/gone")
    with pytest.raises(DataError, match=rf"{mine}/cats: is a link to nothing; mend it or take it out of {mine}"):
        sources.prepare(SPEC)


# --- sizes ------------------------------------------------------------------------------------------------


def test_a_crop_is_centred_and_averaged_by_the_box_filter(mine, tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (40, 30, 3), np.uint8)
    chosen = {"source": {"crop": 16, "filter": "box"}}
    fill(mine, size=(30, 40))
    Image.fromarray(pixels).save(mine / "028.png")
    _, images = prepared(tmp_path / "out", spec(**chosen))
    square = pixels[12:28, 7:23].astype(float)
    expected = square.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3))
    assert np.abs(images[4].transpose(1, 2, 0) - expected).max() <= 1


def test_without_a_crop_the_largest_square_is_taken(mine, tmp_path):
    fill(mine, size=(20, 8))
    pixels = np.asarray(Image.open(mine / "028.png"))
    _, images = prepared(tmp_path / "out")
    np.testing.assert_array_equal(images[4].transpose(1, 2, 0), pixels[:, 6:14])


@pytest.mark.parametrize("filter", ["box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_each_filter_keeps_a_ramp_a_ramp(filter, mine, tmp_path):
    """Symmetric weights that sum to one: away from the border the new pixel is the ramp at its centre."""
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (64, 64, 3))
    fill(mine, size=(64, 64))
    Image.fromarray(ramp.copy()).save(mine / "028.png")
    _, images = prepared(tmp_path / "out", spec({"filter": filter}, size=16))
    centres = ((np.arange(16) + 0.5) * 4 - 0.5) * 3
    assert np.abs(images[4, 0, :, 4:-4] - centres[4:-4]).max() <= 1


# --- conversions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1"])
def test_grey_palette_and_opaque_images_lose_nothing(mode, mine, tmp_path):
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 2, (8, 8), np.uint8) * 255)
    found = one_of(mine, tmp_path, grey.convert("RGB").convert(mode))
    np.testing.assert_array_equal(found, np.asarray(grey.convert("RGB")))


def test_colours_become_grey_by_luminance(mine, tmp_path):
    found = one_of(mine, tmp_path, Image.new("RGB", (8, 8), (200, 40, 90)), channels=1)
    assert found.shape == (8, 8, 1)
    assert np.unique(found) == [round(0.299 * 200 + 0.587 * 40 + 0.114 * 90)]


def test_the_orientation_of_a_camera_is_applied(mine, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    fill(mine)
    image.save(mine / "028.png", exif=exif)
    _, images = prepared(tmp_path / "out")
    np.testing.assert_array_equal(images[4].transpose(1, 2, 0), np.rot90(pixels, -1))


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples, bits, kind, *chunks):
    """A PNG of samples (H, W, n), byte by byte: Pillow writes neither 2 bits nor 16 bits of RGB."""
    big = samples.reshape(len(samples), -1, 1).astype(">u2").view(np.uint8)
    rows = np.packbits(np.unpackbits(big, axis=2)[:, :, 16 - bits :].reshape(len(samples), -1), axis=1)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, kind, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", content), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(samples, **options):
    """A TIFF of samples (H, W) or (H, W, 3), written by tifffile; planes: each channel by itself."""
    buffer = io.BytesIO()
    if options.get("planarconfig") == "separate":
        samples = np.ascontiguousarray(samples.transpose(2, 0, 1))
    kind = {"photometric": "rgb" if 3 in samples.shape else "minisblack"}
    tifffile.imwrite(buffer, samples, **{**kind, **options})
    return buffer.getvalue()


def pnm(samples, magic, largest, plain=False):
    head = b"%b\n# size 9 9\n%d %d\n%d\n" % (magic, samples.shape[1], samples.shape[0], largest)
    if plain:
        return head + b"\n".join(b" ".join(b"%d" % one for one in row.ravel()) for row in samples)
    return head + samples.astype(">u2" if largest > 255 else np.uint8).tobytes()


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


def to_8_bits(samples, largest):
    return np.round(samples * 255 / largest)


WHOLE = drawn(255).astype(np.uint8)
GREY = WHOLE[..., 0]
COLOURS = np.random.default_rng(1).integers(0, 256, (256, 3)).astype(np.uint8)

ACCEPTED = {
    **{f"PNG, {bits} bits": (png(drawn(2**bits - 1, 1), bits, 0), "png", 2**bits - 1, 1) for bits in (1, 2, 4, 8)},
    **{f"PGM, {largest}": (pnm(drawn(largest, 1), b"P5", largest), "pgm", largest, 1) for largest in (1, 100, 255)},
    **{f"PPM, {largest}": (pnm(drawn(largest), b"P6", largest), "ppm", largest, 3) for largest in (1, 100, 255)},
    **{f"plain PPM, {top}": (pnm(drawn(top), b"P3", top, plain=True), "ppm", top, 3) for top in (1, 100, 255)},
    "plain PGM": (pnm(drawn(100, 1), b"P2", 100, plain=True), "pgm", 100, 1),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_up_to_8_bits_are_read_at_their_scale(kind, mine, tmp_path):
    content, suffix, largest, channels = ACCEPTED[kind]
    found = one_of(mine, tmp_path, content, suffix)
    expected = to_8_bits(drawn(largest, channels), largest)
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (8, 8, 3)))


TIFFS = {
    "interleaved": (tiff(WHOLE), WHOLE),
    "planes": (tiff(WHOLE, planarconfig="separate"), WHOLE),
    "planes, zlib": (tiff(WHOLE, planarconfig="separate", compression="zlib"), WHOLE),
    "zlib, predictor": (tiff(WHOLE, compression="zlib", predictor=True), WHOLE),
    "tiles": (tiff(WHOLE, tile=(16, 16)), WHOLE),
    "big-endian": (tiff(WHOLE, byteorder=">"), WHOLE),
    "BigTIFF": (tiff(WHOLE, bigtiff=True), WHOLE),
    "white is zero": (tiff(255 - GREY, photometric="miniswhite"), GREY),
    "one bit": (tiff(GREY > 127), (GREY > 127) * 255),
    "palette": (tiff(GREY, photometric="palette", colormap=COLOURS.T.astype(np.uint16) * 257), COLOURS[GREY]),
    "upside down": (tiff(WHOLE, extratags=[(274, 3, 1, 4, True)]), WHOLE[::-1]),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_tiffs_of_8_bits_are_read_as_they_were_written(kind, mine, tmp_path):
    content, expected = TIFFS[kind]
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(one_of(mine, tmp_path, content, "tif"), expected)


def test_a_bmp_of_16_bits_a_pixel_has_5_or_6_a_channel(mine, tmp_path):
    samples = np.minimum(drawn(63), (31, 63, 31))
    found = one_of(mine, tmp_path, bmp565(samples), "bmp").astype(int)
    assert np.abs(found - samples * 255 / (31, 63, 31)).max() <= 1


def jpeg_of_12_bits():
    content = bytearray(data_files.jpeg(Image.fromarray(WHOLE)))
    content[content.index(b"\xff\xc0") + 4] = 12
    return bytes(content)


DEEP = {
    "PNG, grey": (png(drawn(65535, 1), 16, 0), "png", 16),
    "PNG, RGB": (png(drawn(65535), 16, 2), "png", 16),
    "PNG, RGB and alpha": (png(drawn(65535, 4), 16, 6), "png", 16),
    "PGM": (pnm(drawn(65535, 1), b"P5", 65535), "pgm", 16),
    "PPM": (pnm(drawn(65535), b"P6", 65535), "ppm", 16),
    "PPM, 12 bits": (pnm(drawn(4095), b"P6", 4095), "ppm", 12),
    "PPM, 256": (pnm(drawn(256), b"P6", 256), "ppm", 9),
    "plain PPM": (pnm(drawn(65535), b"P3", 65535, plain=True), "ppm", 16),
    "plain PGM": (pnm(drawn(65535, 1), b"P2", 65535, plain=True), "pgm", 16),
    "TIFF": (tiff(WHOLE.astype(np.uint16)), "tif", 16),
    "TIFF, planes": (tiff(WHOLE.astype(np.uint16), planarconfig="separate"), "tif", 16),
    "TIFF, planes, zlib": (tiff(WHOLE.astype(np.uint16), planarconfig="separate", compression="zlib"), "tif", 16),
    "TIFF, grey": (tiff(GREY.astype(np.uint16)), "tif", 16),
    "TIFF, signed": (tiff(GREY.astype(np.int16)), "tif", 16),
    "TIFF, half": (tiff(WHOLE.astype(np.float16)), "tif", 16),
    "TIFF, single": (tiff(WHOLE.astype(np.float32)), "tif", 32),
    "TIFF, double": (tiff(GREY.astype(np.float64)), "tif", 64),
    "TIFF, integers": (tiff(GREY.astype(np.uint32)), "tif", 32),
    "BigTIFF, planes": (tiff(WHOLE.astype(np.uint16), planarconfig="separate", bigtiff=True), "tif", 16),
    "JPEG": (jpeg_of_12_bits(), "jpg", 12),
}


@pytest.mark.parametrize("kind", DEEP)
def test_more_than_8_bits_a_channel_are_refused_by_name(kind, mine, tmp_path):
    content, suffix, bits = DEEP[kind]
    with pytest.raises(DataError, match=rf"{mine}/028\.{suffix}: has {bits} bits a channel, expected 8; mend it"):
        one_of(mine, tmp_path, content, suffix)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_grey_that_a_png_calls_transparent_is_found_at_every_depth(bits, mine, tmp_path):
    samples, key = drawn(2**bits - 1, 1), chunk(b"tRNS", struct.pack(">H", 1))
    with pytest.raises(DataError, match="is transparent in places"):
        one_of(mine, tmp_path, png(samples, bits, 0, key))


def test_a_grey_that_a_png_calls_transparent_and_does_not_use_is_no_hindrance(mine, tmp_path):
    samples = np.where(drawn(15, 1) == 1, 0, drawn(15, 1))
    found = one_of(mine, tmp_path, png(samples, 4, 0, chunk(b"tRNS", struct.pack(">H", 1))))
    np.testing.assert_array_equal(found, np.repeat(samples * 17, 3, axis=2))


def gif_on_a_larger_screen():
    content = bytearray(saved(Image.fromarray(GREY), "GIF"))
    content[6:10] = struct.pack("<HH", 9, 9)
    return bytes(content)


def transparent(mode):
    image = Image.new("RGBA", (8, 8), (200, 40, 90, 255))
    image.putpixel((3, 3), (0, 0, 0, 254))
    return image.convert(mode)


REFUSED = {
    "signed": (tiff(GREY.astype(np.int8)), "tif", "has samples of TIFF's format 2, expected 1: whole numbers from 0"),
    "volume": (tiff(np.stack([GREY] * 16), volumetric=True), "tif", "has several frames, expected one"),
    "two PPMs": (pnm(WHOLE, b"P6", 255) * 2, "ppm", "has several frames, expected one"),
    "odd PPM": (b"P6 8 8 2#\n55\n" + WHOLE.tobytes(), "ppm", "has no header of a PBM, PGM or PPM file"),
    "real PFM": (b"Pf\n8 8\n-1.0\n" + bytes(256), "ppm", "has mode F, expected grey or RGB"),
    "partial GIF": (gif_on_a_larger_screen(), "gif", "has a frame that leaves part of it empty"),
    "transparent": (transparent("RGBA"), "png", "is transparent in places; lay it on a background first"),
    "transparent grey": (transparent("LA"), "png", "is transparent in places"),
    "CMYK": (Image.new("CMYK", (8, 8)), "jpg", "has mode CMYK, expected grey or RGB"),
    "CMYK TIFF": (Image.new("CMYK", (8, 8)), "tif", "has mode CMYK, expected grey or RGB"),
    "YCbCr": (Image.new("YCbCr", (8, 8)), "tif", "has mode YCbCr, expected grey or RGB"),
    "too small": (Image.new("RGB", (8, 7)), "png", "is 8x7, smaller than 8x8"),
    "truncated": (
        next(iter(data_files.photographs(1).values()))[:2000],
        "jpg",
        "2,000 bytes, cannot be decoded: .*truncated",
    ),
    "garbage": (b"garbage", "png", "7 bytes, not an image of the kinds PNG, JPEG"),
    "empty": (b"", "png", "0 bytes, not an image"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "png", "47 bytes, not an image of the kinds"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_without_loss_is_refused(kind, mine, tmp_path):
    image, suffix, message = REFUSED[kind]
    with pytest.raises(DataError, match=rf"{mine}/028\.{suffix}: {message}.*; mend it or take it out of {mine}"):
        one_of(mine, tmp_path, image, suffix)
    assert list((tmp_path / "out").iterdir()) == []


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
TRUNCATED = {
    "png": saved(NOISE, "PNG"),
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


@pytest.mark.parametrize("kind", TRUNCATED)
def test_a_truncated_file_of_any_format_is_refused(kind, mine, tmp_path):
    fill(mine)
    (mine / "028.png").unlink()
    path = mine / f"028.{kind.split()[-1]}"
    for share in (0, 0.02, 0.3, 0.7, 0.99):
        path.write_bytes(TRUNCATED[kind][: int(share * len(TRUNCATED[kind]))])
        with pytest.raises(
            DataError, match=rf"{path}: [\d,]+ bytes, (cannot be decoded|not an image).*; mend it or take"
        ):
            prepared(tmp_path / "out")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_png_with_a_bit_that_flipped_is_refused(share, mine, tmp_path):
    content = bytearray(saved(NOISE, "PNG", compress_level=0))  # the pixels as they are, so that any bit decodes
    content[int(share * len(content))] ^= 1
    with pytest.raises(DataError, match=r"028\.png: [\d,]+ bytes, cannot be decoded"):
        one_of(mine, tmp_path, bytes(content))


def test_a_png_of_which_a_byte_changed_anywhere_among_its_pixels_is_refused(mine, tmp_path):
    """A plain picture decodes to other pixels without an error of the decoder, which stops once it has all rows."""
    image = Image.fromarray(np.full((100, 100, 3), 7, np.uint8))
    content = saved(image, "PNG", compress_level=0)
    start, end = content.index(b"IDAT") + 4, content.index(b"IEND") - 8
    for place in range(start, end, 997):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        with pytest.raises(DataError, match=r"028\.png: [\d,]+ bytes, cannot be decoded"):
            one_of(mine, tmp_path, bytes(damaged))


def with_middle(content, middle):
    """A file of which 500 bytes in the middle are replaced."""
    half = len(content) // 2
    return content[: half - 250] + middle + content[half + 250 :]


@pytest.mark.parametrize("middle", [bytes(500), np.random.default_rng(0).bytes(500)], ids=["zeros", "random"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 10}], ids=str)
def test_a_jpeg_with_a_destroyed_middle_is_refused(options, middle, mine, tmp_path):
    """Pillow decodes most of these to garbage."""
    content = with_middle(saved(NOISE, "JPEG", quality=92, **options), middle)
    with pytest.raises(DataError, match=r"028\.jpg: [\d,]+ bytes, cannot be decoded: .*; mend it or take it out of"):
        one_of(mine, tmp_path, content, "jpg")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 100}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_whole_jpeg_is_read(mode, options, mine, tmp_path):
    content = saved(NOISE.convert(mode), "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB").resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(one_of(mine, tmp_path, content, "jpg"), expected)
    np.testing.assert_array_equal(one_of(mine, tmp_path, content + b"behind the end", "jpg"), expected)


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_several_frames_are_refused(suffix, mine, tmp_path):
    first, second = (Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 255))
    fill(mine)
    first.save(mine / f"028.{suffix}", save_all=True, append_images=[second])
    with pytest.raises(DataError, match=rf"028\.{suffix}: has several frames, expected one"):
        prepared(tmp_path / "out")


def test_a_decompression_bomb_is_refused(mine, tmp_path):
    """A palette PNG of 100 million pixels in a hundred kilobytes."""

    rows = zlib.compress(bytes(10_000 * 10_001), 1)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match=r"028\.png: not decoded: Image size \(100000000 pixels\) exceeds limit"):
        one_of(mine, tmp_path, content)


# --- what is asked for ------------------------------------------------------------------------------------


def test_a_missing_folder_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(
        DataError, match=rf"{tmp_path}/data/gone: no such folder; a relative path lies below RAE_BENCH_D"
    ):
        sources.prepare(spec({"path": "gone"}))


def test_an_absolute_path_is_taken_as_it_is(tmp_path):
    fill(tmp_path / "elsewhere")
    assert sources.prepare(spec({"path": str(tmp_path / "elsewhere")})).images.shape == (10, 3, 8, 8)


def test_more_images_than_there_are_is_an_error(mine):
    fill(mine, 9)
    with pytest.raises(DataError, match="mine: 9 images, 10 asked for; ask for fewer"):
        sources.prepare(SPEC)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines", r"two\\nlines"),
        ("a\tb", r"a\\tb"),
        ("a\x7f", r"a\\x7f"),
        ("a\x85", r"a\\x85"),
        ("a\u2028b", r"a\\u2028b"),
        (os.fsdecode(b"latin\xe9"), r"latin\\udce9"),
    ],
)
def test_a_name_that_cannot_be_written_down_is_an_error(name, shown, mine):
    fill(mine)
    put(mine / f"{name}.png", b"")
    with pytest.raises(DataError, match=rf"the file name '{shown}\.png' cannot be written down; rename it"):
        sources.prepare(SPEC)


@pytest.mark.parametrize(
    "name", ["at 4.42\u202fPM", "a\u00a0b", "写真\u30001", "👩\u200d🚀", "é", "e\u0301", "a b", "a\\b", "\u202eb", "*"]
)
def test_names_of_any_other_characters_are_read_and_checked_by_others(name, mine, tmp_path):
    pixels = fill(mine)["028.png"]
    (mine / "028.png").rename(mine / f"{name}.png")
    folder, images = prepared(tmp_path / "out")
    lines = (folder / "files.sha256").read_text(encoding="utf-8").split("\n")[:-1]
    place = [line[66:] for line in lines].index(f"{name}.png")
    np.testing.assert_array_equal(images[place].transpose(1, 2, 0), pixels)
    checked = subprocess.run(["sha256sum", "--check", "--quiet", folder / "files.sha256"], cwd=mine)
    assert checked.returncode == 0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("path", "", "path: is empty"),
        ("crop", -1, "crop: -1 must be at least 0"),
        ("filter", "nearest", "'nearest' is not one of"),
        ("split", "random", "'random' is not one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        parse(Source, {**to_plain(SPEC.source), key: value}, "source")


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_an_error(channels):
    with pytest.raises(DataError, match=f"images have 1 or 3 channels, {channels} asked for"):
        sources.prepare(spec(channels=channels))


# --- a folder that changes after it was prepared -----------------------------------------------------------


def said(folder, chosen=SPEC, is_thorough=True):
    finding = origins.look(chosen, folder, is_thorough)
    return finding.text, finding.is_changed


NOTHING = ("", False)


@pytest.fixture
def once(mine, tmp_path):
    """The folder of ten prepared images."""
    fill(mine)
    return prepared(tmp_path / "out")[0]


def again(folder):
    """Write all files again as they are, so that only their times differ."""
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("is_thorough", [True, False])
def test_a_folder_that_is_as_it_was_gives_nothing_to_say(is_thorough, mine, once):
    put(mine / "README.txt", b"no image")
    assert said(once, is_thorough=is_thorough) == NOTHING


def test_replaced_images_are_counted_and_the_first_is_named(mine, once):
    for name in ("014.png", "028.png"):
        Image.new("RGB", (8, 8), (255, 255, 255)).save(mine / name)
    expected = (f"{mine}: not what was prepared: 2 of 10 files are of other content, first 014.png", True)
    assert said(once) == said(once, is_thorough=False) == expected


def test_an_image_of_the_same_size_is_read(mine, once):
    path = mine / "014.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    text = f"{mine}: 1 of 10 files have other times than when they were read, first 014.png; verify compares what they"
    assert said(once, is_thorough=False) == (f"{text} hold", False)
    assert said(once) == (f"{mine}: not what was prepared: 1 of 10 files are of other content, first 014.png", True)


def test_files_copied_without_their_times_are_what_they_were(mine, once):
    again(mine)
    assert said(once) == NOTHING


def test_a_missing_image_is_named(mine, once):
    (mine / "014.png").unlink()
    expected = (f"{mine}: not what was prepared: 1 of 10 files are missing, first 014.png", True)
    assert said(once) == said(once, is_thorough=False) == expected


def test_an_image_that_became_a_pipe_is_not_read(mine, once):
    (mine / "014.png").unlink()
    os.mkfifo(mine / "014.png")
    assert said(once) == (f"{mine}: not what was prepared: 1 of 10 files are of other content, first 014.png", True)


def test_new_images_that_change_the_choice_are_found(mine, once):
    for number in range(10):
        Image.new("RGB", (8, 8)).save(mine / f"new{number}.png")
    text, is_changed = said(once, is_thorough=False)
    assert re.fullmatch(
        rf"{mine}: not what .*: of the files there now prepare would choose \d others, .* new\d\.png", text
    )
    assert is_changed


def test_a_new_image_that_is_passed_over_changes_the_splits(mine, once):
    """Of eleven names, one of which is left out: the draw differs though perhaps not the set."""
    for number in range(200):
        name = f"{number:03d}x.png"
        Image.new("RGB", (8, 8)).save(mine / name)
        chosen, _ = image_folder.chosen(SPEC, SPEC.source, mine)
        if name not in chosen:
            break
        (mine / name).unlink()
    assert said(once) == (
        f"{mine}: not what was prepared: of the files there now prepare would draw other splits",
        True,
    )


def test_a_new_image_in_a_splits_folder_is_counted(mine, tmp_path):
    for split, n in (("train", 6), ("validation", 2), ("test", 2)):
        fill(mine / split, n, seed=n)
    chosen = spec({"split": "subfolders"})
    folder, _ = prepared(tmp_path / "out", chosen)
    assert said(folder, chosen) == NOTHING
    Image.new("RGB", (8, 8)).save(mine / "test" / "new.png")
    text = f"{mine}: not what was prepared: {mine}/test: 3 images, n_test is 2; make them agree"
    assert said(folder, chosen) == (text, True)


@pytest.mark.parametrize("is_mounted", [True, False])
def test_a_folder_that_is_not_there_is_no_fault(is_mounted, mine, once):
    mine.rename(mine.parent / "elsewhere")
    if is_mounted:
        mine.mkdir()
    text = f"{mine}: not there now, moved or not mounted; what was prepared from it stays valid"
    assert said(once) == said(once, is_thorough=False) == (text, False)


def test_a_data_folder_that_is_named_no_longer_is_looked_for_where_it_was(mine, once, monkeypatch):
    monkeypatch.delenv("RAE_BENCH_DATA")
    (mine / "014.png").unlink()
    assert said(once)[1]


def test_a_data_set_prepared_before_times_were_kept_is_compared_by_content_and_names(mine, once):
    (once / "source.json").unlink()
    assert said(once) == said(once, is_thorough=False) == NOTHING
    Image.new("RGB", (8, 8), (255, 255, 255)).save(mine / "014.png")
    assert said(once, is_thorough=False) == NOTHING
    assert said(once)[1]
    (mine / "014.png").unlink()
    assert said(once, is_thorough=False)[1]


def test_what_has_no_list_of_files_or_other_settings_is_passed_over(mine, once):
    (mine / "014.png").unlink()
    assert said(once, spec(seed=1)) == NOTHING  # stale: told elsewhere
    (once / "files.sha256").unlink()  # as after an import
    assert said(once) == NOTHING
    assert said(once / "nowhere") == NOTHING


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
    assert not (folder / "manifest.json").exists()
    assert list(folder.glob(".*")) == []
    with pytest.raises(storage.StorageError, match=r"manifest\.json: no such file"):
        store.load_split(folder, "train")


def test_a_killed_preparation_leaves_no_manifest_and_the_next_one_clears_up(mine, tmp_path):
    """Killed outright while it decodes images of 81 million pixels, after a block has been written."""
    fill(mine, 600)
    first = mine / "yyy0.png"
    Image.new("1", (9000, 9000)).save(first)
    large = [first, *(mine / f"yyy{number}.png" for number in range(1, 20))]
    for path in large[1:]:
        path.hardlink_to(first)
    folder, chosen = tmp_path / "out", spec(n_train=616)
    order = ["prepare", "--spec", to_json(chosen), "--manifest", str(folder / "manifest.json")]
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


def test_a_full_disk_leaves_nothing(mine, small_disk):
    fill(mine, 600)
    chosen = spec(n_train=596)
    with pytest.raises(storage.StorageError, match=r"images\.npy: cannot be written: No space left on device"):
        prepared(small_disk / "out", chosen)
    assert list((small_disk / "out").iterdir()) == []
