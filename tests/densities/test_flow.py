"""The spline flow: it integrates to one, recovers planted densities, and inverts what it computes."""

import numpy as np
import pytest
import small
import torch
from planted import bananas, bananas_log_density, fit, grid

from rae_bench.densities.specs import SplineFlow


def spec(epochs=20, layers="autoregressive", batch_size=100):
    optimisation = small.optimisation(epochs, batch_size, adam_epsilon=1e-8)
    size = {"transforms": 3, "bins": 8, "width": 32, "depth": 2}
    return SplineFlow(kind="flow", codes="mean", layers=layers, optimisation=optimisation, **size)


@pytest.fixture(scope="module", params=[1, 2], ids=["2d", "4d"])
def pairs(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(pairs):
    return fit(spec(14, batch_size=200), bananas(8000, pairs), bananas(1000, pairs, seed=1))


def test_a_planted_density_is_recovered_that_one_gaussian_would_miss(fitted, pairs):
    held_out = bananas(4000, pairs, seed=2)
    truth = bananas_log_density(held_out).mean()
    assert fitted.log_likelihood(held_out) == pytest.approx(truth, rel=0.02)
    # the Gaussian with the true moments: Var b = Var(a²)/4 + 1/4
    assert -0.5 * pairs * (np.log(2 * np.pi) * 2 + np.log(0.75) + 2) < 1.1 * truth


@pytest.mark.parametrize("layers", ["autoregressive", "coupling"])
def test_the_density_integrates_to_one_in_two_dimensions(layers):
    fitted = fit(spec(2, layers), bananas(500, 1))
    points, volume = grid((-8, -9), (8, 12), 500)
    assert np.exp(fitted.log_density(points)).sum() * volume == pytest.approx(1, abs=2e-3)


def test_the_density_integrates_to_one_in_one_dimension():
    codes = np.exp(0.5 * np.random.default_rng(0).standard_normal((1000, 1))).astype(np.float32)
    fitted = fit(spec(5), codes)
    points, volume = grid((-4,), (9,), 4000)
    assert np.exp(fitted.log_density(points)).sum() * volume == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("layers", ["autoregressive", "coupling"])
def test_the_log_determinant_is_that_of_the_jacobian(layers):
    fitted = fit(spec(2, layers), bananas(500, 2))
    code = bananas(1, 2, seed=3)
    white = torch.from_numpy(fitted.white_.whiten(code)[0]).float()
    fitted.model_.requires_grad_(False)
    transform = fitted.model_()
    jacobian = torch.autograd.functional.jacobian(lambda w: transform(w), white)
    expected = float(torch.distributions.Normal(0, 1).log_prob(transform(white)).sum() + torch.logdet(jacobian))
    assert fitted.log_density(code)[0] == pytest.approx(expected - fitted.white_.log_volume, abs=1e-4)


def test_samples_are_noise_through_the_inverse(fitted, pairs):
    noise = np.random.default_rng(3).standard_normal((200, 2 * pairs))
    drawn = fitted.sample(200, np.random.default_rng(3))
    with torch.no_grad():
        back = fitted.model_()(torch.from_numpy(fitted.white_.whiten(drawn)).float()).numpy()
    np.testing.assert_allclose(back, noise, atol=2e-2)  # float32 splines, steep where codes are rare
    assert np.median(np.abs(back - noise)) < 1e-5
