"""The real side of metrics: exact moments, and features that cannot be used."""

import numpy as np
import pytest

from rae_bench.scoring.metrics import reference as module
from rae_bench.scoring.metrics.reference import MetricError, Reference


def features(n=50, d=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def test_moments_are_the_mean_and_the_unbiased_covariance_in_float64():
    real = features() + 1000  # where float32 sums would lose digits
    reference = Reference.of(real, 0)
    exact = real.astype(np.float64)
    centred = exact - exact.mean(axis=0)
    np.testing.assert_allclose(reference.mean + reference.origin, exact.sum(axis=0) / 50, rtol=1e-12)
    np.testing.assert_allclose(reference.covariance, centred.T @ centred / 49, rtol=1e-9, atol=1e-12)
    assert reference.mean.dtype == reference.covariance.dtype == np.float64


@pytest.mark.parametrize("block", [4, 7, 50, 199, 200])
def test_moments_are_the_same_in_blocks(block, monkeypatch):
    real = features() + 1000
    monkeypatch.setattr(module, "BLOCK", block)
    mean, covariance = module.moments(real)
    np.testing.assert_allclose(mean, np.mean(real, axis=0, dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(real.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_an_error_naming_the_rows(bad):
    broken = features()
    broken[7, 1] = broken[7, 2] = broken[20, 0] = bad
    with pytest.raises(
        MetricError, match="real: features hold values that are not finite in 2 rows, the first is row 7"
    ):
        Reference.of(broken, 0)


@pytest.mark.parametrize("shape", [(50,), (1, 4), (0, 4), (5, 2, 2), (50, 0)])
def test_what_is_no_matrix_of_two_rows_is_an_error(shape):
    with pytest.raises(MetricError, match=r"real: features have shape \(.*\); expected \(n, d\) with n at least 2"):
        Reference.of(np.zeros(shape), 0)


def test_whole_numbers_are_no_features():
    with pytest.raises(MetricError, match="real: features are uint8; expected floating point"):
        Reference.of(np.zeros((5, 3), dtype=np.uint8), 0)


@pytest.mark.parametrize(("n", "d"), [(50, 4), (10, 30)])
def test_a_reference_survives_its_arrays(n, d):
    reference = Reference.of(features(n, d), 3)
    again = Reference.restore(reference.arrays())
    for name in ("features", "mean", "covariance", "factor"):
        np.testing.assert_array_equal(getattr(again, name), getattr(reference, name))
    np.testing.assert_array_equal(again.pairs.squared_radii, reference.pairs.squared_radii)
    assert again.pairs.kernel_mean == reference.pairs.kernel_mean


@pytest.mark.parametrize(("n", "d"), [(50, 4), (10, 30)])
def test_the_factor_is_one_of_the_covariance(n, d):
    """F Fᵀ = Σ, with as many columns as there are images where these are fewer than features."""
    reference = Reference.of(features(n, d), 0)
    assert reference.factor.shape == (d, min(n, d))
    np.testing.assert_allclose(reference.factor @ reference.factor.T, np.cov(reference.features.T), atol=1e-6)
