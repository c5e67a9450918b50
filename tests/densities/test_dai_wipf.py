"""The second VAE in Dai and Wipf's form: its bound, its learnt decoder SD, its samples."""

import dataclasses

import numpy as np
import pytest
import small
import torch
from planted import assert_moments_are_close, fit, scaled
from torch.distributions import Independent, Normal, kl_divergence

from rae_bench.densities import dai_wipf
from rae_bench.densities.specs import DaiWipfSecondStage


def trained(epochs=40, n=2000):
    spec = DaiWipfSecondStage(
        kind="second_stage_dai_wipf",
        codes="mean",
        width=64,
        depth=2,
        decoder_noise=False,
        optimisation=small.optimisation(epochs, learning_rate=3e-3, adam_epsilon=1e-8),
    )
    return fit(spec, scaled(n), scaled(500, seed=1))


@pytest.fixture(scope="module")
def fitted():
    return trained()


def standard(fitted, codes):
    return torch.from_numpy(fitted.scale_.whiten(codes)).float()


def test_the_loss_is_the_negative_bound_of_torchs_distributions():
    fitted = trained(epochs=1, n=200)
    model, batch = fitted.model_, standard(fitted, scaled(40, seed=2))
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
    held_out = standard(fitted, scaled(2000, seed=2))
    covariance = np.corrcoef(scaled(200_000, seed=3).T.astype(np.float64))
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    with torch.no_grad():
        loss = float(dai_wipf._negative_bound(fitted.model_, held_out, torch.Generator().manual_seed(0)))
    assert entropy - 0.15 < loss < entropy + 0.3  # 2,000 codes with one draw each err by some 0.04


def test_samples_have_moments_close_to_the_codes(fitted):
    noisy = dataclasses.replace(fitted, decoder_noise=True)
    assert_moments_are_close(noisy.sample(5000, np.random.default_rng(0)), scaled(2000), correlation=0.2)


def test_noise_of_the_decoders_spread_is_what_the_mean_leaves_out(fitted):
    noisy = dataclasses.replace(fitted, decoder_noise=True)
    added = noisy.sample(4000, np.random.default_rng(0)) - fitted.sample(4000, np.random.default_rng(0))
    gamma = float(fitted.model_.log_gamma.exp().detach())
    np.testing.assert_allclose(added.std(axis=0) / fitted.scale_.factor_.diagonal(), gamma, rtol=4.5 / np.sqrt(8000))
    np.testing.assert_allclose(np.corrcoef(added.T), np.eye(3), atol=4.5 / np.sqrt(4000))
