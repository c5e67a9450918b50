"""Flow matching: the equation is solved, its likelihood is exact, and planted densities are recovered."""

import numpy as np
import pytest
import small
import torch
from planted import bananas, bananas_log_density, fit, grid
from scipy import linalg, stats
from torch import nn

from rae_bench.densities.flow_matching import FittedFlowMatching
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.specs import FlowMatching


def spec(epochs=60):
    optimisation = small.optimisation(epochs, batch_size=100, learning_rate=3e-3, adam_epsilon=1e-8)
    size = {"width": 64, "depth": 3, "frequencies": 3, "steps": 10}
    return FlowMatching(kind="flow_matching", codes="mean", optimisation=optimisation, **size)


@pytest.fixture(scope="module", params=[1, 2], ids=["2d", "4d"])
def pairs(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(pairs):
    return fit(spec(), bananas(4000, pairs), bananas(1000, pairs, seed=1))


# --- equations whose solution is known --------------------------------------------------------------------

MATRIX = np.array([[0.5, -1.0, 0.2], [0.8, 0.3, 0.0], [0.0, 0.4, -0.6]])


class Linear(nn.Module):
    """dw/dt = A w: w_1 = exp(A) w_0."""

    def forward(self, w, _time):
        return w @ torch.from_numpy(MATRIX).float().T


class Shrinking(nn.Module):
    """The field of straight paths from N(0, I) to N(0, s² I): w_1 = s · w_0."""

    def forward(self, w, t):
        s = 0.2
        return (s**2 * t - (1 - t)) / ((1 - t) ** 2 + s**2 * t**2) * w


def solved(model, d, steps=20):
    white = FittedGaussian(np.arange(d, dtype=np.float64), np.diag(np.arange(1.0, d + 1)))
    return FittedFlowMatching(white, model, steps)


def test_a_linear_fields_samples_are_its_solution_and_its_likelihood_a_gaussians():
    fitted = solved(Linear(), 3)
    root = fitted.white_.factor_ @ linalg.expm(MATRIX)
    expected = np.random.default_rng(7).standard_normal((1200, 3)) @ root.T + fitted.white_.mean_
    drawn = fitted.sample(1200, np.random.default_rng(7))
    np.testing.assert_allclose(drawn, expected, atol=1e-4)
    truth = stats.multivariate_normal(fitted.white_.mean_, root @ root.T).logpdf(drawn)
    np.testing.assert_allclose(fitted.log_density(drawn), truth, atol=2e-4)


def test_a_field_that_changes_with_time_is_followed_forwards_and_backwards():
    fitted = solved(Shrinking(), 2, steps=40)
    drawn = fitted.sample(500, np.random.default_rng(0))
    noise = np.random.default_rng(0).standard_normal((500, 2))
    np.testing.assert_allclose(drawn, 0.2 * noise * [1, 2] + [0, 1], atol=1e-3)
    expected = stats.multivariate_normal([0, 1], np.diag([0.04, 0.16])).logpdf(drawn)
    np.testing.assert_allclose(fitted.log_density(drawn), expected, atol=2e-2)


def test_the_solver_is_of_fourth_order():
    noise = np.random.default_rng(0).standard_normal((50, 2))
    errors = [
        np.abs(solved(Shrinking(), 2, steps).sample(50, np.random.default_rng(0)) - 0.2 * noise * [1, 2] - [0, 1]).max()
        for steps in (5, 10)
    ]
    assert errors[0] / errors[1] > 2**3


# --- what is learnt ---------------------------------------------------------------------------------------


def test_a_planted_density_is_recovered(fitted, pairs):
    held_out = bananas(4000, pairs, seed=2)
    # matching is no maximum likelihood: it comes near more slowly than the flow
    assert fitted.log_likelihood(held_out) == pytest.approx(bananas_log_density(held_out).mean(), rel=0.03)


def test_the_density_integrates_to_one():
    fitted = fit(spec(5), bananas(500, 1))
    points, volume = grid((-7, -6), (7, 9), 120)
    assert np.exp(fitted.log_density(points)).sum() * volume == pytest.approx(1, abs=1e-2)
