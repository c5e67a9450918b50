"""Floats to uint8 in one place; pairs, mid-points and strips of codes."""

import numpy as np
import pytest
import torch

from rae_bench.models import autoencoder
from rae_bench.models.layouts.specs import ConvolutionalNetwork
from rae_bench.models.terms.specs import Deterministic, NoLatentTerm, NoRegulariser, Objective
from rae_bench.scoring import generation
from rae_bench.scoring.generation import GenerationError, to_uint8

NETWORK = ConvolutionalNetwork("convolutional", 3, 32, 4, width=2, start_width=16, latent_dim=5, norm_momentum=0.1)
PLAIN = Objective(Deterministic("deterministic"), NoLatentTerm("none"), NoRegulariser("none"))


@pytest.fixture(scope="module")
def model():
    built = autoencoder.build(NETWORK, PLAIN, seed=0)
    for _ in range(20):
        built.decode(torch.randn(32, 5))  # sets the norms' moments
    built.decoder[8].weight.data *= 20  # and this the contrast: all levels from 0 to 255
    return built.eval()


def codes(n=23):
    return np.random.default_rng(0).standard_normal((n, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (0.0, 0),
        (1.0, 255),
        (0.999, 255),  # 254.745
        (0.997, 254),  # 254.235
        (0.499 / 255, 0),
        (0.501 / 255, 1),
        (127.4 / 255, 127),
        (127.6 / 255, 128),
        (1.01, 255),
        (-0.01, 0),
        (1e30, 255),
    ],
)
def test_a_float_becomes_the_nearest_level(value, level):
    converted = to_uint8(np.array([value], dtype=np.float32))
    assert converted.dtype == np.uint8
    assert converted[0] == level


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_error(bad):
    with pytest.raises(GenerationError, match="2 values that are not finite"):
        to_uint8(np.array([0.5, bad, bad], dtype=np.float32))


def test_decoded_images_are_the_decoders_output_in_levels(model):
    images = generation.decode(model, codes())
    x_hat = model.decode(torch.from_numpy(codes())).detach().numpy()
    assert images.shape == (23, 3, 32, 32)
    assert images.dtype == np.uint8
    assert np.abs(images / 255 - x_hat).max() <= 0.5 / 255 + 1e-6
    assert len(np.unique(images)) == 256


def test_decoding_does_not_depend_on_the_batch_size(model, monkeypatch):
    whole = generation.decode(model, codes())
    monkeypatch.setattr(generation, "BATCH", 7)
    parts = generation.decode(model, codes())
    # convolutions of other batches may round a float32 the other way: one level, rarely
    difference = np.abs(whole.astype(int) - parts)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("n", [2, 7, 1000])
def test_interpolation_pairs_are_of_different_images_each_twice(n):
    pairs = generation.interpolation_pairs(n, seed=0)
    assert pairs.shape == (n, 2)
    assert np.all(pairs[:, 0] != pairs[:, 1])
    for side in (0, 1):
        np.testing.assert_array_equal(np.sort(pairs[:, side]), np.arange(n))


def test_interpolation_pairs_are_random_and_fixed_by_their_seed():
    pairs = generation.interpolation_pairs(1000, seed=0)
    np.testing.assert_array_equal(pairs, generation.interpolation_pairs(1000, seed=0))
    assert not np.array_equal(pairs, generation.interpolation_pairs(1000, seed=1))
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 4.5 / np.sqrt(1000)


def test_midpoints_lie_half_way():
    points = np.array([[0.0, 0], [2, 4], [10, -2]], dtype=np.float32)
    middle = generation.midpoints(points, np.array([[0, 1], [1, 2]]))
    np.testing.assert_array_equal(middle, [[1, 2], [6, 1]])
    assert middle.dtype == np.float32


def test_a_rescaled_midpoint_has_the_mean_length_and_the_linear_ones_direction():
    points = np.array([[3.0, 0], [0, 1]], dtype=np.float32)
    (middle,) = generation.midpoints(points, np.array([[0, 1]]), "rescaled")
    np.testing.assert_allclose(middle, 2 * np.array([1.5, 0.5]) / np.sqrt(2.5), rtol=1e-6)


def test_a_spherical_midpoint_follows_the_textbook_formula():
    """(sin(1 − t)ω a + sin tω b) / sin ω at t = ½."""
    a, b = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    omega = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    (middle,) = generation.midpoints(np.stack([a, b]), np.array([[0, 1]]), "spherical")
    np.testing.assert_allclose(middle, (np.sin(omega / 2) * a + np.sin(omega / 2) * b) / np.sin(omega), rtol=1e-5)


def test_a_strip_runs_from_end_to_end_pair_by_pair():
    points = np.array([[0.0, 0], [3, 6], [6, 0]], dtype=np.float32)
    path = generation.strip(points, np.array([[0, 1], [2, 0]]), steps=4)
    np.testing.assert_allclose(path, [[0, 0], [1, 2], [2, 4], [3, 6], [6, 0], [4, 0], [2, 0], [0, 0]], atol=1e-6)
    assert path.dtype == np.float32
