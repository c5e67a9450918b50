"""What reconstructions still show, of `scripts/recognise.py`: on images that are known, and of the smoke study."""

from dataclasses import replace

import numpy as np
import pytest
from checkout import script
from scipy.spatial.distance import cdist

from rae_bench.data import catalogue as sources
from rae_bench.data import store
from rae_bench.study.config import load_study


@pytest.fixture(scope="module")
def recognise():
    return script("recognise")


def prepared(name, folder, n):
    data = replace(load_study("embedded").datasets[name].data, n_train=n, n_validation=10, n_test=n)
    store.save(sources.prepare(data), data, folder)
    return store.load_split(folder, "test")


def test_the_nearest_image_is_brute_forces(recognise):
    rng = np.random.default_rng(0)
    images, among = (rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8) for n in (30, 50))
    expected = cdist(images.reshape(30, -1), among.reshape(50, -1)).argmin(axis=1)
    np.testing.assert_array_equal(recognise.nearest(images, among), expected)


def test_faces_are_asked_for_what_was_drawn(recognise, tmp_path):
    """Real ones show it; faces of others show it as often as two random faces agree."""
    images = prepared("faces", tmp_path, 300)
    asked = recognise.question(tmp_path, "test", 300)
    assert min(asked(images).values()) > 0.97
    factors = np.load(tmp_path / "factors.npy")[np.load(tmp_path / "test.npy")]
    names = store.load_manifest(tmp_path).note.split("columns of factors: ")[1].split(", ")
    others = asked(np.roll(images, 1, axis=0))
    for name, share in others.items():
        column = factors[:, names.index(name)]
        assert share == pytest.approx(np.mean(column == np.roll(column, 1)), abs=0.03)


def test_patches_are_asked_for_their_photograph(recognise, tmp_path):
    """Training patches in the place of reconstructions are each their own nearest."""
    images = prepared("photos", tmp_path, 300)
    asked, origins = recognise.question(tmp_path, "test", 300), np.load(tmp_path / "origins.npy")[:, 0]
    train, test = (np.load(tmp_path / f"{split}.npy") for split in ("train", "test"))
    assert 0.4 < asked(images)["photograph"] < 1
    expected = np.mean(origins[train] == origins[test])
    assert asked(store.load_split(tmp_path, "train"))["photograph"] == pytest.approx(expected)


def test_every_trained_row_of_a_study_is_asked_with_every_seed(recognise, smoke):
    found = recognise.recognised("smoke", smoke.results)
    shares = found.set_index(["row", "train_seed"])["share"]
    assert found["share"].between(0, 1).all()
    assert set(found["row"]) == {"real", "vae", "rae_l2"}
    assert len(shares) == 1 + 2 * 2
    assert shares["real"].iloc[0] > 0.95
    told = recognise.table(found, {"vae": "VAE", "rae_l2": "RAE-L2"}, "x")
    assert [row[1] for row in told.rows] == [
        "The images themselves",
        *found.dropna()
        .groupby("row")["fd_reconstruction"]
        .mean()
        .sort_values()
        .index.map({"vae": "VAE", "rae_l2": "RAE-L2"}),
    ]
