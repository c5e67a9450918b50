"""Any folder of images: which files, which pixels, which split; and what is refused."""

import dataclasses
import hashlib
import json
import logging
import os
import re
import struct
import subprocess
import sys
import time
import zlib

import data_files
import numpy as np
import pytest
from checkout import ROOT, environment
from data_files import put
from PIL import Image

from rae_bench import cli, datasets, specs, storage
from rae_bench.datasets import DataError
from rae_bench.plain import ConfigError, parse, to_json, to_plain

SPEC = specs.DatasetSpec(
    label="Mine",
    source=specs.ImageFolder("folder", "mine", "seeded", 0, "bilinear"),
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
    datasets.save(datasets.prepare(chosen), chosen, folder)
    return folder, np.load(folder / "images.npy")


def one_of(mine, tmp_path, image, suffix="png", **changes):
    """Prepare ten images, the fifth of which is `image` (or such bytes); its pixels (H, W, C)."""
    fill(mine)
    path = mine / f"028.{suffix}"
    (mine / "028.png").unlink()
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
        shown = {split: datasets.load_split(folder, split) for split in ("train", "validation", "test")}
        assert [len(one) for one in shown.values()] == [6, 2, 2]
        splits[seed] = np.concatenate(list(shown.values()))
        assert len(np.unique(splits[seed].reshape(10, -1), axis=0)) == 10
    assert not np.array_equal(splits[0], splits[1])
    again, _ = prepared(tmp_path / "again", spec(seed=1))
    np.testing.assert_array_equal(datasets.load_split(again, "train"), splits[1][:6])


def test_subfolders_are_the_splits(mine, tmp_path):
    pixels = {
        split: fill(mine / split / "deeper", n, seed=n) for split, n in (("train", 6), ("validation", 3), ("test", 2))
    }
    chosen = spec({"split": "subfolders"}, n_validation=3)
    folder, _ = prepared(tmp_path / "out", chosen)
    for split, of in pixels.items():
        found = datasets.load_split(folder, split).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(found, np.stack(list(of.values())))
    with pytest.raises(DataError, match=rf"{mine}/validation: 3 images, n_validation is 2; make them agree"):
        datasets.prepare(spec({"split": "subfolders"}))
    (mine / "test").rename(mine / "tests")
    with pytest.raises(DataError, match=rf"{mine}/test: cannot be read: No such file or directory"):
        datasets.prepare(chosen)


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


def png16(channels):
    """A PNG of 8x8 pixels of 16 bits a channel, byte by byte: Pillow would read RGB as 8 bits without a word."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    kind = {1: 0, 3: 2}[channels]
    rows = b"".join(b"\0" + bytes(8 * 2 * channels) for _ in range(8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def transparent(mode):
    image = Image.new("RGBA", (8, 8), (200, 40, 90, 255))
    image.putpixel((3, 3), (0, 0, 0, 254))
    return image.convert(mode)


REFUSED = {
    "16 bits, grey": (png16(1), "png", "has 16 bits a channel, expected 8"),
    "16 bits, RGB": (png16(3), "png", "has 16 bits a channel, expected 8"),
    "transparent": (transparent("RGBA"), "png", "is transparent in places; lay it on a background first"),
    "transparent grey": (transparent("LA"), "png", "is transparent in places"),
    "CMYK": (Image.new("CMYK", (8, 8)), "jpg", "has mode CMYK, expected grey or RGB"),
    "real numbers": (Image.new("F", (8, 8)), "tif", "has mode F, expected grey or RGB"),
    "integers": (Image.new("I", (8, 8)), "tif", "has 16 bits a channel"),
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


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_several_frames_are_refused(suffix, mine, tmp_path):
    first, second = (Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 255))
    fill(mine)
    first.save(mine / f"028.{suffix}", save_all=True, append_images=[second])
    with pytest.raises(DataError, match=rf"028\.{suffix}: has several frames, expected one"):
        prepared(tmp_path / "out")


def test_a_decompression_bomb_is_refused(mine, tmp_path):
    """A palette PNG of 100 million pixels in a hundred kilobytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

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
        datasets.prepare(spec({"path": "gone"}))


def test_an_absolute_path_is_taken_as_it_is(tmp_path):
    fill(tmp_path / "elsewhere")
    assert datasets.prepare(spec({"path": str(tmp_path / "elsewhere")})).images.shape == (10, 3, 8, 8)


def test_more_images_than_there_are_is_an_error(mine):
    fill(mine, 9)
    with pytest.raises(DataError, match="mine: 9 images, 10 asked for; ask for fewer"):
        datasets.prepare(SPEC)


def test_a_name_that_cannot_be_written_down_is_an_error(mine):
    fill(mine)
    put(mine / "two\nlines.png", b"")
    with pytest.raises(DataError, match=r"the file name 'two\\nlines\.png' cannot be written down; rename it"):
        datasets.prepare(SPEC)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("path", "", "path: is empty"),
        ("crop", -1, "crop: -1 must not be negative"),
        ("filter", "nearest", "'nearest' is not one of"),
        ("split", "random", "'random' is not one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(key, value, message):
    with pytest.raises(ConfigError, match=message):
        parse(specs.Source, {**to_plain(SPEC.source), key: value}, "source")


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_an_error(channels):
    with pytest.raises(DataError, match=f"images have 1 or 3 channels, {channels} asked for"):
        datasets.prepare(spec(channels=channels))


# --- streaming --------------------------------------------------------------------------------------------


def test_progress_is_told(mine, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(datasets, "TELL_EVERY", 0)
    fill(mine, 600)
    told = []
    chosen = spec(n_train=596)
    with caplog.at_level(logging.INFO):
        datasets.save(datasets.prepare(chosen), chosen, tmp_path / "out", lambda *now: told.append(now))
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
        datasets.load_split(folder, "train")


def test_a_killed_preparation_leaves_no_manifest_and_the_next_one_clears_up(mine, tmp_path):
    """Killed outright while it waits for a file that never comes (a pipe), after a block has been written."""
    fill(mine, 600)
    last = mine / "zzz.png"
    os.mkfifo(last)
    folder, chosen = tmp_path / "out", spec(n_train=597)
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
    last.unlink()
    Image.new("RGB", (8, 8)).save(last)
    cli.main(order)
    assert list(folder.glob(".*")) == []
    assert json.loads((folder / "manifest.json").read_text())["counts"]["train"] == 597
    assert len(datasets.load_split(folder, "train")) == 597


def test_a_full_disk_leaves_nothing(mine, small_disk):
    fill(mine, 600)
    chosen = spec(n_train=596)
    with pytest.raises(storage.StorageError, match=r"images\.npy: cannot be written: No space left on device"):
        prepared(small_disk / "out", chosen)
    assert list((small_disk / "out").iterdir()) == []
