"""The second VAE in Dai and Wipf's form: its bound, its learnt decoder SD, its samples."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from rae_bench.densities import dai_wipf
from rae_bench.densities.dai_wipf import FittedDaiWipf
from rae_bench.densities.errors import DensityError
from rae_bench.densities.specs import DaiWipfSecondStage
from rae_bench.models.specs import Cosine, Optimisation

MIXING = np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 1]])
SCALES = np.array([10, 0.1, 1])


def spec(epochs=40, decoder_noise=False):
    optimisation = Optimisation(epochs, 50, "shuffled", 3e-3, 1e-8, Cosine("cosine"))
    return DaiWipfSecondStage("second_stage_dai_wipf", "mean", 64, 2, decoder_noise, optimisation)


def planted(n, seed=0):
    """Correlated, far from the origin, each dimension on a scale of its own."""
    return ((np.random.default_rng(seed).standard_normal((n, 3)) @ MIXING) * SCALES + [100, 0, -3]).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return FittedDaiWipf.fit(spec(), planted(2000), planted(500, seed=1), seed=0)


def standard(fitted, codes):
    return torch.from_numpy(fitted.scale_.whiten(codes)).float()


def test_the_loss_is_the_negative_bound_of_torchs_distributions():
    fitted = FittedDaiWipf.fit(spec(1), planted(200), planted(50), seed=0)
    model, batch = fitted.model_, standard(fitted, planted(40, seed=2))
    inner = model.encode(batch)
    posterior = Independent(Normal(inner.mean, inner.log_sigma.exp()), 1)
    noise = torch.randn(batch.shape, generator=torch.Generator().manual_seed(3))
    decoded = model.decode(inner.mean + inner.log_sigma.exp() * noise)
    likelihood = Independent(Normal(decoded, model.log_gamma.exp().expand_as(decoded)), 1).log_prob(batch)
    prior = Independent(Normal(torch.zeros_like(batch), torch.ones_like(batch)), 1)
    expected = (kl_divergence(posterior, prior) - likelihood).mean()
    loss = dai_wipf._negative_bound(model, batch, torch.Generator().manual_seed(3))
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_input_stands_beside_the_last_hidden_layer(fitted):
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fitted.model_.encoder(z)[:, :3], z)
    assert fitted.model_.mean.in_features == 3 + 64


def test_the_bound_comes_near_the_log_likelihood_and_stays_below(fitted):
    """A Gaussian's bound is tight at its optimum; the truth is that of the standardised codes."""
    held_out = standard(fitted, planted(2000, seed=2))
    covariance = np.corrcoef(planted(200_000, seed=3).T.astype(np.float64))
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    with torch.no_grad():
        loss = float(dai_wipf._negative_bound(fitted.model_, held_out, torch.Generator().manual_seed(0)))
    assert entropy - 0.15 < loss < entropy + 0.3  # 2,000 codes with one draw each err by some 0.04


def test_the_decoders_spread_is_learnt(fitted):
    assert float(fitted.model_.log_gamma.detach()) < np.log(0.7)  # it begins at 1


def test_samples_have_moments_close_to_the_codes():
    noisy = FittedDaiWipf.fit(spec(decoder_noise=True), planted(2000), planted(500, seed=1), seed=0)
    drawn = noisy.sample(5000, np.random.default_rng(0))
    sd = planted(2000).std(axis=0)
    np.testing.assert_allclose((drawn.mean(axis=0) - planted(2000).mean(axis=0)) / sd, 0, atol=0.15)
    np.testing.assert_allclose(drawn.std(axis=0) / sd, 1, atol=0.15)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.corrcoef(planted(2000).T), atol=0.2)


def test_noise_of_the_decoders_spread_is_what_the_mean_leaves_out(fitted):
    noisy = dataclasses.replace(fitted, decoder_noise=True)
    added = noisy.sample(4000, np.random.default_rng(0)) - fitted.sample(4000, np.random.default_rng(0))
    gamma = float(fitted.model_.log_gamma.exp().detach())
    np.testing.assert_allclose(added.std(axis=0) / fitted.scale_.factor_.diagonal(), gamma, rtol=4.5 / np.sqrt(8000))
    np.testing.assert_allclose(np.corrcoef(added.T), np.eye(3), atol=4.5 / np.sqrt(4000))


def test_a_round_trip_through_its_state_changes_nothing(fitted):
    restored = FittedDaiWipf.restore(spec(), fitted.state())
    drawn = [one.sample(50, np.random.default_rng(0)) for one in (fitted, restored)]
    np.testing.assert_array_equal(*drawn)
    assert torch.equal(restored.model_.log_gamma, fitted.model_.log_gamma)


def test_another_seed_learns_other_weights():
    one, two = (FittedDaiWipf.fit(spec(1), planted(200), planted(50), seed=seed).state() for seed in (0, 1))
    assert not np.array_equal(one["model.mean.weight"], two["model.mean.weight"])


def test_too_few_codes_are_an_error():
    with pytest.raises(DensityError, match="49 codes are fewer than one batch of 50"):
        FittedDaiWipf.fit(spec(1), planted(49), planted(50), seed=0)
