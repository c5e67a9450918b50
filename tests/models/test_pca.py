"""Principal components in blocks, and the linear autoencoder made of them: scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from small import COSINE, objective, optimisation, training_spec

from rae_bench.base import storage
from rae_bench.base.plain import ConfigError
from rae_bench.models import pca, training
from rae_bench.models.layouts.specs import LinearNetwork
from rae_bench.models.terms.specs import SquaredNorm
from rae_bench.models.training import OnDisk

K = 12


@pytest.fixture(scope="module", params=[400, 3000], ids=["fewer images than pixels", "more"])
def train(request, digits):
    return digits.images[digits.splits["train"][: request.param]]


@pytest.fixture(scope="module")
def held_out(digits):
    return digits.images[digits.splits["test"][:200]]


def flat(images):
    return images.reshape(len(images), -1).astype(np.float32)


def theirs(train):
    """Scikit-learn's own, fitted."""
    return PCA(K, svd_solver="randomized", iterated_power=7, random_state=3).fit(flat(train))


def test_one_block_gives_the_bytes_of_scikit_learn(train):
    model, found = theirs(train), pca.fit(train, K, seed=3)
    np.testing.assert_array_equal(found.mean, model.mean_)
    np.testing.assert_array_equal(np.abs(found.directions), np.abs(model.components_))  # signs are free
    np.testing.assert_allclose(found.sds, model.singular_values_ / np.sqrt(len(train)), rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 150, 399])
def test_many_blocks_of_a_file_give_the_same_to_rounding(rows, train, tmp_path, monkeypatch):
    model = theirs(train[::-1][:400])
    storage.write_npy(tmp_path / "x.npy", train)
    backwards, _ = storage.map_rows(tmp_path / "x.npy", np.arange(len(train))[::-1][:400])
    monkeypatch.setattr(pca, "BLOCK", rows * train[0].size)
    found = pca.fit(backwards, K, seed=3)
    np.testing.assert_allclose(found.sds, model.singular_values_ / np.sqrt(400), rtol=1e-5)
    np.testing.assert_allclose(np.abs((found.directions * model.components_).sum(axis=1)), 1, atol=1e-4)


def test_more_components_than_images_are_an_error(held_out):
    with pytest.raises(ValueError, match="12 components of 5 images of 1024 values; at most the smaller number"):
        pca.fit(held_out[:5], K, seed=0)


# --- the linear autoencoder --------------------------------------------------------------------------------

NETWORK = LinearNetwork(kind="linear", channels=1, size=32, latent_dim=K)


def solved(train, held_out, precision="float32"):
    spec = training_spec(NETWORK, objective(), optimisation(), precision)
    return training.train(spec, torch.from_numpy(train), torch.from_numpy(held_out), seed=3)


def test_its_codes_are_whitened_and_its_reconstructions_scikit_learns(train, held_out):
    model, whitened = theirs(train), PCA(K, whiten=True, svd_solver="full").fit(flat(train))
    found = solved(train, held_out).model
    codes = training.encode(found, torch.from_numpy(train))["mean"]
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(codes.T @ codes / len(codes), np.eye(K), atol=1e-3)
    # theirs divide by n − 1
    expected = whitened.transform(flat(train)) * np.sqrt(len(train) / (len(train) - 1))
    np.testing.assert_allclose(np.abs((codes * expected).mean(axis=0)), 1, atol=5e-3)
    unseen = training.encode(found, torch.from_numpy(held_out))["mean"]
    with torch.no_grad():
        rebuilt = found.decode(torch.from_numpy(unseen)).numpy()
    expected = model.inverse_transform(model.transform(flat(held_out))) / 255
    np.testing.assert_allclose(rebuilt.reshape(len(held_out), -1), expected, atol=1e-4)


def test_no_linear_autoencoder_does_better(train, held_out):
    """Its loss is what the components leave out, and no small step from its weights lowers it: gradients vanish."""
    trained = solved(train, held_out)
    residual = flat(train) - theirs(train).inverse_transform(theirs(train).transform(flat(train)))
    half_errors = 0.5 * ((residual.astype(np.float64) / 255) ** 2).sum(axis=1)
    (row,) = trained.history
    assert row["train_reconstruction"] == row["train_total"] == pytest.approx(half_errors.mean(), rel=1e-4)
    task = training.task_of(trained.model, objective())
    task.loss(torch.from_numpy(train), torch.Generator())[-1].backward()
    for name, weight in trained.model.named_parameters():
        # of a step as long as the weights themselves, less than a hundredth of the loss
        assert (weight.grad.norm() * weight.detach().norm()).item() < 1e-2 * row["train_total"], name


def test_images_in_their_file_give_the_same_weights(train, held_out, tmp_path):
    storage.write_npy(tmp_path / "x.npy", train)
    mapped, _ = storage.map_rows(tmp_path / "x.npy", np.arange(len(train)))
    spec = training_spec(NETWORK, objective(), optimisation())
    found = training.train(spec, OnDisk(mapped), torch.from_numpy(held_out), seed=3)
    for name, value in solved(train, held_out).model.state_dict().items():
        assert torch.equal(value, found.model.state_dict()[name]), name


def test_images_that_do_not_vary_have_finite_codes(held_out):
    """Fewer directions than components: what has no variance is not divided by it."""
    same = np.repeat(held_out[:2], 20, axis=0)
    found = solved(same, held_out)
    codes = training.encode(found.model, torch.from_numpy(held_out))["mean"]
    assert np.isfinite(codes).all()
    assert found.history[0]["train_total"] == pytest.approx(0, abs=1e-3)


def test_an_objective_with_other_terms_has_no_closed_form():
    with pytest.raises(ConfigError, match=r"'linear' is fitted in closed form: .*\('deterministic', 'squared_n"):
        training_spec(NETWORK, objective(SquaredNorm(kind="squared_norm", weight=0.1)), optimisation(schedule=COSINE))
