"""Mixtures, against scikit-learn, planted components and the three traps of its sampling."""

import logging

import numpy as np
import pytest
from planted import codes, fit, points
from scipy import stats
from sklearn import mixture as sklearn_mixture

from rae_bench.base.rng import derive
from rae_bench.densities import catalogue
from rae_bench.densities.codes import DensityError
from rae_bench.densities.gaussian import FittedGaussian
from rae_bench.densities.mixture import FittedMixture
from rae_bench.densities.specs import DirichletMixture, GaussianMixture, SelectedMixture

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[0.0, 0.0], [12.0, 0.0], [0.0, 15.0]])
COVARIANCES = np.array([[[1.0, 0.3], [0.3, 2.0]], [[0.5, 0.0], [0.0, 0.2]], [[2.0, -1.0], [-1.0, 1.5]]])


COMMON = {"codes": "mean", "n_init": 1, "tolerance": 1e-3, "reg_covar": 1e-6}


def spec(n_components=3, max_iter=500):
    return GaussianMixture(kind="mixture", n_components=n_components, max_iter=max_iter, **COMMON)


def dirichlet(n_components=10, max_iter=2000):
    prior = {"concentration": 1 / n_components, "mean_precision": 1.0}
    return DirichletMixture(kind="dirichlet_mixture", n_components=n_components, max_iter=max_iter, **prior, **COMMON)


def planted(n, seed=0):
    rng = np.random.default_rng(seed)
    component = rng.choice(3, size=n, p=WEIGHTS)
    drawn = [rng.multivariate_normal(MEANS[k], COVARIANCES[k]) for k in component]
    return np.array(drawn, dtype=np.float32)


def true_log_density(codes):
    parts = [
        w * stats.multivariate_normal(m, c).pdf(codes) for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
    ]
    return np.log(np.sum(parts, axis=0))


def nearest_component(codes):
    return np.argmin(np.linalg.norm(codes[:, None] - MEANS, axis=2), axis=1)


@pytest.fixture(scope="module")
def fitted():
    return fit(spec(), planted(3000))


@pytest.fixture(scope="module")
def process():
    return fit(dirichlet(), planted(3000))


@pytest.mark.parametrize(("name", "strays"), [("fitted", 0), ("process", 0.1)])
def test_planted_components_are_recovered_and_a_process_leaves_others_empty(name, strays, request):
    fitted, held_out = request.getfixturevalue(name), planted(3000, seed=1)
    assert fitted.log_likelihood(held_out) == pytest.approx(true_log_density(held_out).mean(), rel=0.02)
    largest = np.argsort(fitted.weights_)[-3:]
    assert fitted.weights_[largest].sum() > 0.95
    assert fitted.weights_.sum() == pytest.approx(1)
    centres = fitted.white_.colour(fitted.means_[largest])
    order = np.argsort(nearest_component(centres))
    # 4.5 standard errors of the smallest component's mean; some share of a process' strays
    np.testing.assert_allclose(centres[order], MEANS, atol=4.5 * np.sqrt(2 / 600) + strays)
    counts = np.bincount(nearest_component(fitted.sample(20_000, np.random.default_rng(0))), minlength=3)
    error = 4.5 * np.sqrt(0.25 / 3000)
    np.testing.assert_allclose(counts / 20_000, WEIGHTS, atol=error)
    np.testing.assert_allclose(fitted.weights_[largest][order], WEIGHTS, atol=error + strays)


def test_the_log_likelihood_is_scikit_learns_on_whitened_codes_minus_the_log_determinant(fitted):
    codes, held_out = planted(3000).astype(np.float64), planted(200, seed=1).astype(np.float64)
    root = np.linalg.cholesky(np.cov(codes.T))
    theirs = sklearn_mixture.GaussianMixture(3, tol=1e-8, max_iter=2000, random_state=1).fit(
        np.linalg.solve(root, (codes - codes.mean(axis=0)).T).T
    )
    expected = theirs.score(np.linalg.solve(root, (held_out - codes.mean(axis=0)).T).T) - np.linalg.slogdet(root)[1]
    # theirs is run to its end, ours to a tolerance of 1e-3 nats
    assert fitted.log_likelihood(held_out.astype(np.float32)) == pytest.approx(expected, abs=2e-3)


def test_the_log_likelihood_is_the_log_of_the_weighted_densities(fitted):
    held_out = planted(200, seed=1)
    factor = fitted.white_.factor_
    total = np.zeros(200)
    for weight, mean, root in zip(fitted.weights_, fitted.means_, fitted.factors_, strict=True):
        root = factor @ root
        total += weight * stats.multivariate_normal(fitted.white_.mean_ + factor @ mean, root @ root.T).pdf(held_out)
    assert fitted.log_likelihood(held_out) == pytest.approx(np.log(total).mean(), rel=1e-9)
    np.testing.assert_allclose(fitted.log_density(held_out), np.log(total), rtol=1e-9, atol=1e-9)


def test_samples_have_the_planted_moments_and_the_fitted_frequencies(fitted):
    drawn = fitted.sample(20_000, np.random.default_rng(0))
    component = nearest_component(drawn)
    order = np.argsort(nearest_component(fitted.white_.colour(fitted.means_)))
    assert stats.chisquare(np.bincount(component, minlength=3), 20_000 * fitted.weights_[order]).pvalue > 1e-3
    for k, covariance in enumerate(COVARIANCES):
        # fitted to some 600 codes at least, hence their sampling error: 4.5·√(2/600)
        error = 4.5 * np.sqrt(2 / 600) * np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        assert np.all(np.abs(np.cov(drawn[component == k].astype(np.float64).T) - covariance) < error)


@pytest.mark.parametrize(
    ("spec", "n", "message"),
    [
        (spec(), 29, "29 codes are too few for 3 components; at least 30"),
        (dirichlet(), 99, "99 codes are too few for 10 components; at least 100"),
        (spec(max_iter=2), 300, r"the fit of 3 components in at most 2 iterations \(max_iter\) failed: "),
        (dirichlet(max_iter=2), 300, r"the fit of 10 components in at most 2 iterations \(max_iter\) failed: "),
    ],
)
def test_too_few_codes_and_a_fit_that_does_not_converge_are_errors(spec, n, message):
    one_cloud = np.random.default_rng(0).standard_normal((n, 2)).astype(np.float32)
    with pytest.raises(DensityError, match=message):
        fit(spec, one_cloud)


# --- with a selected number of components -----------------------------------------------------------------


def selected(*grid):
    return SelectedMixture(kind="selected_mixture", grid=grid, max_iter=500, **COMMON)


def test_the_planted_number_of_components_is_selected_by_codes_that_were_not_fitted_to():
    grid = (1, 2, 3, 8, 60)
    train, held_out = planted(1200), planted(1200, seed=1)
    fitted = fit(selected(*grid), train, held_out)
    assert len(fitted.mixture_.weights_) == 3
    np.testing.assert_array_equal(fitted.grid_, grid)
    assert np.argmax(fitted.held_out_) == 2
    # the true law's own mean over these codes is what the selected mixture comes to, but for its 17 parameters: of
    # n codes each costs half a nat in n (Akaike), with room for as much again
    assert fitted.held_out_[2] == pytest.approx(true_log_density(held_out).mean(), abs=17 / 1200)
    # by the codes that were fitted to, the most components are the best
    on_training = [fit(spec(k), train, held_out).log_likelihood(train) for k in grid]
    assert np.argmax(on_training) == 4


def test_each_number_of_components_is_judged_by_scikit_learns_score_of_validation_codes():
    """One component has no start: its fit is the codes' own Gaussian, and its score a closed form."""
    train, held_out = planted(600), planted(300, seed=1)
    fitted = fit(selected(1, 3), train, held_out)
    normal = stats.multivariate_normal(
        train.mean(axis=0, dtype=np.float64), np.cov(train.T.astype(np.float64), bias=True)
    )
    assert fitted.held_out_[0] == pytest.approx(normal.logpdf(held_out).mean(), abs=1e-5)  # reg_covar is 1e-6
    assert fitted.held_out_[1] == pytest.approx(fitted.log_density(held_out).mean(), rel=1e-12)


def test_the_grid_and_its_likelihoods_stand_beside_the_likelihoods_of_a_fit():
    train, held_out = points(planted(600)), points(planted(300, seed=1))
    fitted = catalogue.fit(selected(1, 3), train, held_out, seed=0)
    found = catalogue.log_likelihoods(fitted, selected(1, 3), {"train": train, "validation": held_out}, seed=0)
    assert found.keys() == {"train", "validation", "validation_1", "validation_3"}
    assert found["validation_3"] == pytest.approx(found["validation"], rel=1e-12)
    assert found["validation_1"] < found["validation_3"] - 1


def test_an_edge_of_a_grid_is_told_and_one_of_too_many_components_refused(caplog):
    with caplog.at_level(logging.WARNING):
        fit(selected(1, 2), planted(300), planted(300, seed=1))
        fit(selected(20, 30), planted(600), planted(300, seed=1))
        assert "20 components are the fewest of their grid; fewer may be better" in caplog.text
        fit(selected(1, 20), codes(400), codes(100, seed=1))
    assert "1 components are" not in caplog.text  # there is nothing below
    assert "2 components are the most of their grid; more may be better" in caplog.text
    with pytest.raises(DensityError, match="29 codes are too few for 3 components; at least 30"):
        fit(selected(1, 3), planted(29))


# --- under a Dirichlet process ----------------------------------------------------------------------------


def test_a_process_is_scikit_learns_with_its_default_priors():
    """Whitened codes have the identity as their covariance, zero as their mean: the defaults are ours."""
    codes = planted(500).astype(np.float64)
    root = np.linalg.cholesky(np.cov(codes.T))
    white = np.linalg.solve(root, (codes - codes.mean(axis=0)).T).T
    theirs = sklearn_mixture.BayesianGaussianMixture(
        n_components=4, max_iter=2000, random_state=derive(0, "dirichlet_mixture") % 2**32
    )
    theirs.fit(white)
    ours = fit(dirichlet(4), planted(500), seed=0)
    np.testing.assert_allclose(ours.weights_, theirs.weights_, rtol=1e-6)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.factors_ @ ours.factors_.transpose(0, 2, 1), theirs.covariances_, atol=1e-9)


def test_components_without_weight_are_left_out():
    white = FittedGaussian.standard(2)
    empty = FittedMixture(white, np.array([1.0, 0.0]), np.array([[0.0, 0], [9, 9]]), np.array([np.eye(2)] * 2))
    codes = planted(20)
    np.testing.assert_allclose(empty.log_density(codes), stats.multivariate_normal(np.zeros(2)).logpdf(codes))
