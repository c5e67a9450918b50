"""SIGReg against closed forms of Epps and Pulley's distance, numerical quadrature, and what it does to codes."""

import numpy as np
import pytest
import small
import torch
from scipy import integrate, stats

from rae_bench.models import training
from rae_bench.models.terms.latent import sigreg
from rae_bench.models.terms.specs import SIGReg

POINTS, REACH = 17, 5.0


def closed_form(y, s):
    """∫ |φ(t) − exp(−t²/2)|² exp(−t²/2s²) dt of numbers y (n,), from Gaussian integrals (Baringhaus and Henze 1988)."""
    pairs = np.exp(-0.5 * s**2 * (y[:, None] - y) ** 2).mean()
    ours = np.exp(-0.5 * s**2 * y**2 / (1 + s**2)).mean() / np.sqrt(1 + s**2)
    return s * np.sqrt(2 * np.pi) * (pairs - 2 * ours + 1 / np.sqrt(1 + 2 * s**2))


@pytest.mark.parametrize("window", [1.0, 0.5**0.5])
def test_the_distance_along_one_direction_has_a_closed_form(window):
    """17 points do, of a smooth function that vanishes at both ends: the rest is below a part in a thousand."""
    z = torch.tensor(np.random.default_rng(0).gamma(2, 0.7, (40, 3)) - 1)
    slices = torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, -4.0]], dtype=torch.float64)
    expected = [closed_form(z.numpy()[:, 1], window), closed_form(z.numpy() @ [0.6, 0, -0.8], window)]
    assert sigreg(z, slices, POINTS, REACH, window).item() == pytest.approx(np.mean(expected), rel=1e-3)
    fine = sigreg(z, slices, 201, 9.0, window).item()
    assert fine == pytest.approx(np.mean(expected), rel=1e-9)


def test_points_that_lie_far_apart_take_a_code_for_one_a_period_away():
    """17 on ±5 have a period of 2π/0.625; 33 on ±3, as in the authors' code, tell wide codes from narrow ones."""
    near, direction = torch.zeros(4, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    far = near + 2 * np.pi / 0.625
    assert sigreg(far, direction, 17, 5.0, 1.0).item() == pytest.approx(sigreg(near, direction, 17, 5.0, 1.0).item())
    assert sigreg(far, direction, 33, 3.0, 1.0).item() == pytest.approx(closed_form(far.numpy()[:, 0], 1.0), rel=0.02)
    wide = np.random.default_rng(4).normal(0, 5, 1000)
    found = sigreg(torch.tensor(wide[:, None]), direction, 33, 3.0, 1.0).item()
    assert found == pytest.approx(closed_form(wide, 1.0), rel=0.01)


def test_the_distance_is_the_integral_of_the_difference_of_characteristic_functions():
    y = np.random.default_rng(1).uniform(-2, 3, 25)
    found = sigreg(torch.tensor(y[:, None]), torch.ones(1, 1, dtype=torch.float64), 401, 9.0, 1.0).item()

    def integrand(t):
        return abs(np.exp(1j * t * y).mean() - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)

    assert found == pytest.approx(integrate.quad(integrand, -9, 9)[0], rel=1e-6)


def test_normal_codes_come_to_one_nth_of_what_one_code_does():
    """E T = 1/n ∫ (1 − exp(−t²)) exp(−t²/2) dt: the codes' own pairs."""
    rng, n = np.random.default_rng(2), 50
    directions = torch.tensor(rng.standard_normal((64, 4)))
    drawn = [
        sigreg(torch.tensor(rng.standard_normal((n, 4))), directions, POINTS, REACH, 1.0).item() for _ in range(400)
    ]
    expected = np.sqrt(2 * np.pi) * (1 - 3**-0.5) / n
    assert np.mean(drawn) == pytest.approx(expected, abs=4.5 * np.std(drawn) / 20 + 1e-3 * expected)
    assert sigreg(torch.tensor(2 * rng.standard_normal((n, 4))), directions, POINTS, REACH, 1.0) > 5 * expected


def held_out_normality(latent):
    """P-values of 40 projections of held-out codes against N(0, 1), of a dense autoencoder of skewed vectors.

    Two exponential numbers span each vector; first of the codes as they are, then standardised.
    """
    rng = np.random.default_rng(3)
    span = np.linalg.qr(rng.standard_normal((6, 2)))[0].T
    data = [torch.tensor(rng.exponential(size=(n, 2)) @ span, dtype=torch.float32) for n in (2048, 400)]
    network = small.vectors(input_dim=6, width=64, depth=2, latent_dim=2)
    optimisation = small.optimisation(epochs=30, batch_size=128, learning_rate=5e-3)
    trained = training.train(small.training_spec(network, small.objective(latent), optimisation), *data, seed=0)
    codes = training.encode(trained.model, data[1])["mean"].astype(np.float64)
    angles = np.linspace(0, np.pi, 40, endpoint=False)
    projected = codes @ np.stack([np.cos(angles), np.sin(angles)])
    as_they_are = [stats.kstest(column, "norm").pvalue for column in projected.T]
    standardised = (projected - projected.mean(axis=0)) / projected.std(axis=0)
    return as_they_are, [stats.kstest(column, "norm").pvalue for column in standardised.T]


def test_trained_codes_pass_a_normality_check_that_those_of_a_plain_autoencoder_fail():
    """Kolmogorov and Smirnov's, Bonferroni over the directions; a plain autoencoder's fail it standardised, too."""
    term = SIGReg(kind="sigreg", weight=300.0, slices=64, points=POINTS, reach=REACH, window=1.0)
    passing, _ = held_out_normality(term)
    raw, standardised = held_out_normality(small.NO_LATENT)
    assert min(passing) > 0.01 / 40
    assert min(raw) < 1e-6
    assert min(standardised) < 0.01 / 40
