"""One Gaussian, against scipy and planted moments."""

import numpy as np
import pytest
from scipy import stats

from rae_bench.densities.errors import DensityError
from rae_bench.densities.gaussian import FittedGaussian

MEAN = np.array([5.0, 0.0, -1.0])
MIXING = np.array([[1.0, 0.5, 0.0], [0.0, 2.0, 0.3], [0.0, 0.0, 0.1]])


def codes(n=2000, seed=0):
    return (np.random.default_rng(seed).standard_normal((n, 3)) @ MIXING + MEAN).astype(np.float32)


def test_it_is_the_normal_of_the_unbiased_moments():
    fitted = FittedGaussian.fit(codes(50))
    exact = codes(50).astype(np.float64)
    centred = exact - exact.mean(axis=0)
    np.testing.assert_allclose(fitted.mean_, exact.mean(axis=0))
    np.testing.assert_allclose(fitted.factor_ @ fitted.factor_.T, centred.T @ centred / 49, rtol=1e-10)


def test_the_log_likelihood_is_scipys():
    fitted = FittedGaussian.fit(codes())
    exact = codes().astype(np.float64)
    expected = stats.multivariate_normal(exact.mean(axis=0), np.cov(exact.T)).logpdf(codes(100, seed=1)).mean()
    assert fitted.log_likelihood(codes(100, seed=1)) == pytest.approx(expected, rel=1e-9)


def test_the_standard_normal_is_fitted_to_nothing():
    standard = FittedGaussian.standard(3)
    expected = stats.multivariate_normal(np.zeros(3), np.eye(3)).logpdf(codes(100)).mean()
    assert standard.log_likelihood(codes(100)) == pytest.approx(expected, rel=1e-9)
    assert stats.kstest(standard.sample(3000, np.random.default_rng(0)).ravel(), "norm").pvalue > 1e-3


def test_samples_have_the_fitted_moments():
    fitted, n = FittedGaussian.fit(codes()), 20_000
    drawn = fitted.sample(n, np.random.default_rng(0)).astype(np.float64)
    covariance = np.cov(codes().astype(np.float64).T)
    sd = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(drawn.mean(axis=0) - fitted.mean_) < 4.5 * sd / np.sqrt(n))
    # the entries of a sample covariance err by at most √2·sd·sd/√n
    assert np.all(np.abs(np.cov(drawn.T) - covariance) < 4.5 * np.sqrt(2) * np.outer(sd, sd) / np.sqrt(n))


def test_white_codes_have_zero_mean_and_unit_covariance_and_colour_undoes_it():
    fitted = FittedGaussian.fit(codes())
    white = fitted.whiten(codes())
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=1e-10)
    np.testing.assert_allclose(fitted.colour(white), codes(), rtol=1e-5, atol=1e-6)


def test_one_dimension_will_do():
    one = codes()[:, :1]
    expected = stats.norm(one.mean(dtype=np.float64), one.std(ddof=1, dtype=np.float64)).logpdf(one).mean()
    assert FittedGaussian.fit(one).log_likelihood(one) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_scale_of_codes_passes_through(scale):
    small, large = FittedGaussian.fit(codes()), FittedGaussian.fit((scale * codes()).astype(np.float32))
    drawn = [fitted.sample(100, np.random.default_rng(0)) for fitted in (small, large)]
    np.testing.assert_allclose(drawn[1] / scale, drawn[0], rtol=1e-4, atol=1e-4)
    shifted = large.log_likelihood((scale * codes()).astype(np.float32)) + 3 * np.log(scale)
    assert shifted == pytest.approx(small.log_likelihood(codes()), abs=1e-4)


@pytest.mark.parametrize("n", [2, 3])
def test_too_few_codes_are_an_error(n):
    with pytest.raises(DensityError, match=f"{n} codes are too few for a covariance in 3 dimensions; at least 4"):
        FittedGaussian.fit(codes(n))


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_dimension_that_does_not_vary_is_an_error(value):
    constant = codes()
    constant[:, 1] = value
    with pytest.raises(DensityError, match="singular: they vary in only 2 of 3 dimensions"):
        FittedGaussian.fit(constant)


@pytest.mark.parametrize("weights", [(1, 1), (0.5, -2)])
def test_a_dimension_that_follows_from_others_is_an_error(weights):
    dependent = codes()
    dependent[:, 2] = dependent[:, :2] @ np.array(weights, dtype=np.float32)
    with pytest.raises(DensityError, match="singular: they vary in only 2 of 3 dimensions"):
        FittedGaussian.fit(dependent)


def test_the_dimensions_in_which_codes_do_not_vary_are_counted_with_what_causes_it():
    dead = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    dead[:, [1, 5]], dead[:, 6] = 0.1, dead[:, 2] - dead[:, 3]
    with pytest.raises(DensityError, match=r"vary in only 5 of 8 dimensions; most often training diverged"):
        FittedGaussian.fit(dead)
    with pytest.raises(DensityError, match=r"vary in only 6 of 8 dimensions; most often training diverged"):
        FittedGaussian.fit_diagonal(dead)


# --- the diagonal -----------------------------------------------------------------------------------------


def test_the_diagonal_is_the_normal_of_each_dimensions_moments():
    fitted, exact = FittedGaussian.fit_diagonal(codes()), codes().astype(np.float64)
    expected = stats.norm(exact.mean(axis=0), exact.std(axis=0, ddof=1)).logpdf(codes(100, seed=1)).sum(axis=1)
    np.testing.assert_allclose(fitted.log_density(codes(100, seed=1)), expected, rtol=1e-9)


def test_the_diagonal_leaves_correlations_out():
    n = 20_000
    drawn = FittedGaussian.fit_diagonal(codes()).sample(n, np.random.default_rng(0)).astype(np.float64)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(3), atol=4.5 / np.sqrt(n))
    np.testing.assert_allclose(drawn.std(axis=0), codes().std(axis=0), rtol=4.5 / np.sqrt(2 * n))


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_dimension_that_does_not_vary_has_no_variance(value):
    constant = codes()
    constant[:, 1] = value
    with pytest.raises(DensityError, match="singular: they vary in only 2 of 3 dimensions"):
        FittedGaussian.fit_diagonal(constant)


def test_one_code_has_no_variance():
    with pytest.raises(DensityError, match="1 codes are too few for a variance; at least 2"):
        FittedGaussian.fit_diagonal(codes(1))


def test_the_density_of_each_code_is_scipys():
    exact = codes().astype(np.float64)
    expected = stats.multivariate_normal(exact.mean(axis=0), np.cov(exact.T)).logpdf(codes(100, seed=1))
    np.testing.assert_allclose(FittedGaussian.fit(codes()).log_density(codes(100, seed=1)), expected, rtol=1e-9)
