"""One Gaussian, against scipy and planted moments."""

import numpy as np
import pytest
from planted import codes
from scipy import stats

from rae_bench.densities.codes import DensityError
from rae_bench.densities.gaussian import FittedGaussian


def moments(codes):
    return codes.mean(axis=0, dtype=np.float64), np.atleast_2d(np.cov(codes.astype(np.float64).T))


def of_independent(mean, covariance):
    return stats.multivariate_normal(mean, np.diag(np.diag(covariance)))


# the covariance is unbiased; one dimension will do
@pytest.mark.parametrize("d", [3, 1])
@pytest.mark.parametrize(
    ("fit", "law"), [(FittedGaussian.of, stats.multivariate_normal), (FittedGaussian.diagonal_of, of_independent)]
)
def test_the_density_of_each_code_is_scipys(fit, law, d):
    some, others = codes(50)[:, :d], codes(100, seed=1)[:, :d]
    expected = law(*moments(some)).logpdf(others)
    np.testing.assert_allclose(fit(some).log_density(others), expected, rtol=1e-9)
    assert fit(some).log_likelihood(others) == pytest.approx(expected.mean(), rel=1e-9)


def test_the_standard_normal_is_fitted_to_nothing():
    standard = FittedGaussian.standard(3)
    expected = stats.multivariate_normal(np.zeros(3), np.eye(3)).logpdf(codes(100)).mean()
    assert standard.log_likelihood(codes(100)) == pytest.approx(expected, rel=1e-9)
    assert stats.kstest(standard.sample(3000, np.random.default_rng(0)).ravel(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("kept", [1, np.eye(3)], ids=["full", "diagonal"])
def test_samples_have_the_fitted_moments(kept):
    fitted, n = FittedGaussian.of(codes()) if np.isscalar(kept) else FittedGaussian.diagonal_of(codes()), 20_000
    mean, covariance = moments(codes())
    found = moments(fitted.sample(n, np.random.default_rng(0)))
    sd = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(found[0] - mean) < 4.5 * sd / np.sqrt(n))
    # the entries of a sample covariance err by at most √2·sd·sd/√n
    assert np.all(np.abs(found[1] - kept * covariance) < 4.5 * np.sqrt(2) * np.outer(sd, sd) / np.sqrt(n))


def test_white_codes_have_zero_mean_and_unit_covariance_and_colour_undoes_it():
    fitted = FittedGaussian.of(codes())
    white = fitted.whiten(codes())
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(np.cov(white.T), np.eye(3), atol=1e-10)
    np.testing.assert_allclose(fitted.colour(white), codes(), rtol=1e-5, atol=1e-6)


def with_constant(value):
    constant = codes()
    constant[:, 1] = value
    return constant


def with_dependent(*weights):
    dependent = codes()
    dependent[:, 2] = dependent[:, :2] @ np.array(weights, dtype=np.float32)
    return dependent


def dead():
    """Two dimensions of eight do not vary, one follows from two others."""
    made = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)
    made[:, [1, 5]], made[:, 6] = 0.1, made[:, 2] - made[:, 3]
    return made


TWO_OF_THREE = "singular: they vary in only 2 of 3 dimensions"


@pytest.mark.parametrize(
    ("fit", "codes", "message"),
    [
        (FittedGaussian.of, codes(2), "2 codes are too few for a covariance in 3 dimensions; at least 4"),
        (FittedGaussian.of, codes(3), "3 codes are too few for a covariance in 3 dimensions; at least 4"),
        (FittedGaussian.diagonal_of, codes(1), "1 codes are too few for a variance; at least 2"),
        (FittedGaussian.of, with_constant(0.0), TWO_OF_THREE),
        (FittedGaussian.of, with_constant(0.1), TWO_OF_THREE),
        (FittedGaussian.diagonal_of, with_constant(0.0), TWO_OF_THREE),
        (FittedGaussian.diagonal_of, with_constant(0.1), TWO_OF_THREE),
        (FittedGaussian.of, with_dependent(1, 1), TWO_OF_THREE),
        (FittedGaussian.of, with_dependent(0.5, -2), TWO_OF_THREE),
        (FittedGaussian.of, dead(), "vary in only 5 of 8 dimensions; most often training diverged"),
        (FittedGaussian.diagonal_of, dead(), "vary in only 6 of 8 dimensions; most often training diverged"),
    ],
)
def test_codes_without_a_covariance_are_an_error(fit, codes, message):
    with pytest.raises(DensityError, match=message):
        fit(codes)
