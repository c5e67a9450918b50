"""Kernel density and aggregate posterior, against scikit-learn, scipy and planted densities."""

import logging

import numpy as np
import pytest
from planted import codes, fit, points
from scipy import special, stats
from sklearn import neighbors

from rae_bench.densities import catalogue, kernels
from rae_bench.densities.codes import DensityError, Posteriors
from rae_bench.densities.specs import AggregatePosterior, AllImages, ImageSubset, KernelDensity


def kde(*bandwidths):
    return KernelDensity(kind="kernel_density", codes="mean", bandwidths=bandwidths)


# --- kernel density ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bandwidth", [0.05, 0.3, 1.0])
def test_the_density_is_scipys_with_that_factor(bandwidth):
    """scipy scales the codes' covariance by the factor, which is a spherical kernel on whitened codes."""
    fitted = fit(kde(bandwidth), codes(), codes(100, seed=1))
    theirs = stats.gaussian_kde(codes().T.astype(np.float64), bw_method=bandwidth)
    np.testing.assert_allclose(fitted.log_density(codes(500, seed=2)), theirs.logpdf(codes(500, seed=2).T), rtol=1e-6)


def test_the_bandwidth_is_the_one_validation_codes_like_best():
    grid = [0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0]
    fitted = fit(kde(*grid), codes(), codes(200, seed=1))
    white, held_out = (fitted.white_.whiten(part) for part in (codes(), codes(200, seed=1)))
    scores = [neighbors.KernelDensity(bandwidth=h).fit(white).score(held_out) for h in grid]
    assert fitted.bandwidth_[0] == grid[int(np.argmax(scores))]
    expected = max(scores) / 200 - fitted.white_.log_volume
    assert fitted.log_likelihood(codes(200, seed=1)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("grid", "warned"), [([0.01, 0.02], True), ([0.1, 0.4, 5.0], False), ([0.3], False)])
def test_a_choice_at_the_edge_of_its_grid_is_told(grid, warned, caplog):
    with caplog.at_level(logging.WARNING):
        fit(kde(*grid), codes(), codes(200, seed=1))
    assert ("is the edge of its grid" in caplog.text) == warned


def test_samples_have_the_kernels_moments():
    n, h = 20_000, 0.5
    drawn = fit(kde(h), codes(), codes(10)).sample(n, np.random.default_rng(0)).astype(np.float64)
    exact = codes().astype(np.float64)
    sd = np.sqrt(1 + h**2) * exact.std(axis=0)
    assert np.all(np.abs(drawn.mean(axis=0) - exact.mean(axis=0)) < 4.5 * sd / np.sqrt(n))
    expected = np.cov(exact.T, bias=True) + h**2 * np.cov(exact.T)
    assert np.all(np.abs(np.cov(drawn.T) - expected) < 4.5 * np.sqrt(2) * np.outer(sd, sd) / np.sqrt(n))


def test_far_codes_have_a_finite_density_and_blocks_change_nothing(monkeypatch):
    fitted, at = fit(kde(0.1), codes(), codes(100, seed=1)), codes(100, seed=2)
    at[:5] += 1000
    before = fitted.log_density(at)
    assert -1e12 < before[:5].max() < -1e6
    monkeypatch.setattr(kernels, "BLOCK", 7)
    np.testing.assert_allclose(fitted.log_density(at), before, rtol=1e-12)


# --- aggregate posterior ----------------------------------------------------------------------------------


def posteriors(n=300, seed=0, shift=0.0):
    rng = np.random.default_rng(seed + 50)
    log_sigma = rng.uniform(-5, 0.5, size=(n, 3)).astype(np.float32)  # wide ones and collapsed ones
    return Posteriors((codes(n, seed) + shift).astype(np.float32), log_sigma)


def aggregated(train, n_components=None, seed=0):
    components = AllImages(kind="all")
    if n_components:
        components = ImageSubset(kind="subset", n_components=n_components)
    spec = AggregatePosterior(kind="aggregate_posterior", codes="sample", components=components)
    return catalogue.fit(spec, train, train, seed)


@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_the_density_is_the_mean_of_the_posteriors(shift):
    train, at = posteriors(40, shift=shift), (codes(30, seed=3) + shift).astype(np.float32)
    at[:10] = train.mean[:10]
    fitted = aggregated(train)
    expected = [
        special.logsumexp(
            [
                stats.norm.logpdf(z.astype(np.float64), mean.astype(np.float64), sigma.astype(np.float64)).sum()
                for mean, sigma in zip(train.mean, np.exp(train.log_sigma.astype(np.float64)), strict=True)
            ]
        )
        - np.log(40)
        for z in at
    ]
    np.testing.assert_allclose(fitted.log_density(at), expected, rtol=1e-9, atol=1e-7)


def test_samples_have_the_moments_of_the_posteriors():
    n, train = 20_000, posteriors()
    drawn = aggregated(train).sample(n, np.random.default_rng(0))
    means, sigmas = train.mean.astype(np.float64), np.exp(train.log_sigma.astype(np.float64))
    covariance = np.cov(means.T, bias=True) + np.diag((sigmas**2).mean(axis=0))
    sd = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(drawn.mean(axis=0, dtype=np.float64) - means.mean(axis=0)) < 4.5 * sd / np.sqrt(n))
    # a scale mixture of sigmas up to e^0.5 has a kurtosis some times 3
    assert np.all(np.abs(np.cov(drawn.T) - covariance) < 4.5 * 3 * np.outer(sd, sd) / np.sqrt(n))


def test_a_subset_is_of_different_images_and_the_seed_draws_it():
    one, same, other = (aggregated(posteriors(), 50, seed) for seed in (0, 0, 1))
    assert len(np.unique(one.means_, axis=0)) == 50
    np.testing.assert_array_equal(one.means_, same.means_)
    assert not np.array_equal(one.means_, other.means_)
    everything = {tuple(row) for row in posteriors().mean.astype(np.float64)}
    assert {tuple(row) for row in one.means_} <= everything


def test_a_point_is_no_posterior_and_a_subset_no_larger_than_the_whole():
    with pytest.raises(DensityError, match="a deterministic encoder has no posterior to aggregate"):
        aggregated(points(codes()))
    with pytest.raises(DensityError, match="300 codes are too few for 301 components"):
        aggregated(posteriors(), 301)
