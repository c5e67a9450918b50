"""Principal components in blocks: scikit-learn's to the byte in one block, and to rounding in many."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from rae_bench.base import storage
from rae_bench.scoring import evaluation, pca

K = 12


@pytest.fixture(scope="module", params=[400, 3000], ids=["fewer images than pixels", "more"])
def train(request, digits):
    return digits.images[digits.splits["train"][: request.param]]


@pytest.fixture(scope="module")
def held_out(digits):
    return digits.images[digits.splits["test"][:200]]


def theirs(train, images):
    """Components, mean and the squared error of `images` of scikit-learn's own."""
    model = PCA(K, svd_solver="randomized", iterated_power=7, random_state=3)
    model.fit(train.reshape(len(train), -1).astype(np.float32))
    flat = images.reshape(len(images), -1).astype(np.float32)
    errors = (flat.astype(np.float64) - model.inverse_transform(model.transform(flat)).astype(np.float64)) / 255
    return model, float((errors**2).sum(axis=1).mean())


def test_one_block_gives_the_bytes_of_scikit_learn(train, held_out):
    model, error = theirs(train, held_out)
    found = pca.fit(train, K, seed=3)
    np.testing.assert_array_equal(found.mean, model.mean_)
    np.testing.assert_array_equal(np.abs(found.directions), np.abs(model.components_))  # signs are free
    assert evaluation.pca_squared_error(train, held_out, K, seed=3) == error


@pytest.mark.parametrize("rows", [1, 150, 399])
def test_many_blocks_of_a_file_give_the_same_to_rounding(rows, train, held_out, tmp_path, monkeypatch):
    _, error = theirs(train[::-1][:400], held_out)
    storage.write_npy(tmp_path / "x.npy", train)
    backwards, _ = storage.map_rows(tmp_path / "x.npy", np.arange(len(train))[::-1][:400])
    monkeypatch.setattr(pca, "BLOCK", rows * train[0].size)
    assert evaluation.pca_squared_error(backwards, held_out, K, seed=3) == pytest.approx(error, rel=1e-5)


def test_more_components_than_images_are_an_error(held_out):
    with pytest.raises(ValueError, match="12 components of 5 images of 1024 values; at most the smaller number"):
        pca.fit(held_out[:5], K, seed=0)
