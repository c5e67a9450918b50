"""The spline flow: it integrates to one, recovers planted densities, and inverts what it computes."""

import numpy as np
import pytest
import torch
from planted import bananas, bananas_log_density, grid

from rae_bench.densities.errors import DensityError
from rae_bench.densities.flow import FittedFlow
from rae_bench.densities.specs import SplineFlow
from rae_bench.models.specs import Cosine, Optimisation


def spec(epochs=20, layers="autoregressive", learning_rate=5e-3, batch_size=100):
    optimisation = Optimisation(epochs, batch_size, "shuffled", learning_rate, 1e-8, Cosine("cosine"))
    return SplineFlow("flow", "mean", layers, 3, 8, 32, 2, optimisation)


@pytest.fixture(scope="module", params=[1, 2], ids=["2d", "4d"])
def pairs(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(pairs):
    return FittedFlow.fit(spec(14, batch_size=200), bananas(8000, pairs), bananas(1000, pairs, seed=1), seed=0)


def test_a_planted_density_is_recovered(fitted, pairs):
    held_out = bananas(4000, pairs, seed=2)
    assert fitted.log_likelihood(held_out) == pytest.approx(bananas_log_density(held_out).mean(), rel=0.02)


def test_one_gaussian_would_not_do(pairs):
    """What the recovery is worth: the Gaussian with the true moments stays well below."""
    held_out = bananas(4000, pairs, seed=2)
    gaussian = -0.5 * pairs * (np.log(2 * np.pi) * 2 + np.log(0.75) + 2)  # Var b = Var(a²)/4 + 1/4
    assert gaussian < 1.1 * bananas_log_density(held_out).mean()


def test_samples_have_the_planted_moments(fitted, pairs):
    drawn = fitted.sample(10_000, np.random.default_rng(0)).astype(np.float64)
    np.testing.assert_allclose(drawn.mean(axis=0), [0, 0.5] * pairs, atol=0.1)
    np.testing.assert_allclose(drawn.var(axis=0), [1, 0.75] * pairs, rtol=0.15)  # trained on 8,000 codes
    np.testing.assert_allclose((drawn[:, 0] ** 2 * drawn[:, 1]).mean(), 1.5, rtol=0.15)  # E a² b = E a⁴ / 2


@pytest.mark.parametrize("layers", ["autoregressive", "coupling"])
def test_the_density_integrates_to_one_in_two_dimensions(layers):
    fitted = FittedFlow.fit(spec(2, layers), bananas(500, 1), bananas(100, 1, seed=1), seed=0)
    points, volume = grid((-8, -9), (8, 12), 500)
    assert np.exp(fitted.log_density(points)).sum() * volume == pytest.approx(1, abs=2e-3)


def test_the_density_integrates_to_one_in_one_dimension():
    codes = np.exp(0.5 * np.random.default_rng(0).standard_normal((1000, 1))).astype(np.float32)
    fitted = FittedFlow.fit(spec(5), codes, codes[:100], seed=0)
    points, volume = grid((-4,), (9,), 4000)
    assert np.exp(fitted.log_density(points)).sum() * volume == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("layers", ["autoregressive", "coupling"])
def test_the_log_determinant_is_that_of_the_jacobian(layers):
    fitted = FittedFlow.fit(spec(2, layers), bananas(500, 2), bananas(100, 2, seed=1), seed=0)
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


def test_the_best_epoch_is_kept():
    """Trained on 60 codes for long, the last epoch is not the best for others."""
    train, validation = bananas(60, 1), bananas(500, 1, seed=1)
    short, long = (FittedFlow.fit(spec(n, batch_size=20), train, validation, seed=0) for n in (3, 60))
    assert long.log_likelihood(validation) > short.log_likelihood(validation) - 0.05
    last = FittedFlow.fit(spec(60, batch_size=20), train, train, seed=0)  # chosen by the training codes themselves
    assert long.log_likelihood(validation) > last.log_likelihood(validation) + 0.05


def test_another_seed_learns_other_weights():
    one, two = (FittedFlow.fit(spec(1), bananas(200, 1), bananas(50, 1), seed=seed).state() for seed in (0, 1))
    assert any(not np.array_equal(one[name], two[name]) for name in one if name.startswith("model."))


def test_too_few_codes_are_an_error():
    with pytest.raises(DensityError, match="99 codes are fewer than one batch of 100"):
        FittedFlow.fit(spec(1), bananas(99, 1), bananas(50, 1), seed=0)


def test_a_loss_that_is_not_finite_is_an_error():
    with pytest.raises(DensityError, match=r"epoch \d+: the loss is not finite: .*lower the learning rate"):
        FittedFlow.fit(spec(3, learning_rate=1e30), bananas(500, 1), bananas(50, 1), seed=0)
