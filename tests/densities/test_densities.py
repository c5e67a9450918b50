"""What every density of vectors promises: shape, order, randomness, scale, likelihood, saving, errors.

The densities are those of densities.yaml, made small: a new entry is tested on arrival. Those over the entries of a
codebook have no scale and no densities: test_indices.py.
"""

import dataclasses

import numpy as np
import pytest
import torch
from planted import codes, every_density, points
from scipy import stats

from rae_bench.densities import catalogue as densities
from rae_bench.densities.codes import DensityError, Posteriors
from rae_bench.densities.density import check_samples, mean_log_density
from rae_bench.densities.specs import (
    AggregatePosterior,
    AllImages,
    DaiWipfSecondStage,
    FlowMatching,
    LearntPriorDensity,
    SecondStage,
    SingleGaussian,
    StandardNormal,
)
from rae_bench.models.optimisation import TrainingError

TINY = {
    "n_components": 3,
    "transforms": 2,
    "width": 16,
    "depth": 1,
    "steps": 4,
    "epochs": 3,
    "batch_size": 50,
    "grid": 3,
}


def tiny(spec):
    """The same settings, the costly ones lowered."""
    changes = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = tiny(value)
        elif isinstance(value, tuple) and field.name in TINY:
            changes[field.name] = tuple(one for one in value if one <= TINY[field.name])
        elif field.name in TINY:
            changes[field.name] = min(value, TINY[field.name])
    return dataclasses.replace(spec, **changes)


ALL = {name: tiny(spec) for name, spec in every_density().items() if "a codebook" not in spec.needs}
WITHOUT_LIKELIHOOD = (SecondStage, DaiWipfSecondStage)


def posteriors(n=400, seed=0, scale=1.0):
    """Codes with posteriors about half as wide as the codes are spread."""
    spread = np.log([0.5, 1.0, 0.05]) + 0.1 * np.random.default_rng(seed + 9).standard_normal((n, 3))
    return Posteriors((scale * codes(n, seed)).astype(np.float32), (spread + np.log(scale)).astype(np.float32))


def fit(spec, scale=1.0):
    parts = (posteriors(scale=scale), posteriors(100, seed=1, scale=scale))
    return densities.fit(spec, *parts, seed=0, prior=posteriors(30, seed=2, scale=scale))


@pytest.fixture(scope="module", params=ALL)
def fitted(request):
    spec = ALL[request.param]
    return spec, fit(spec)


def test_samples_are_as_many_float32_codes_as_asked_for_and_their_generators(fitted):
    """Two generators share no sample, one repeats itself, and goes on from call to call."""
    _, density = fitted
    rng, again, other = (np.random.default_rng(seed) for seed in (0, 0, 1))
    drawn = [density.sample(200, one) for one in (rng, rng, other)]
    assert {(one.shape, one.dtype.name) for one in drawn} == {((200, 3), "float32")}
    assert np.isfinite(drawn).all()
    assert len(np.unique(np.concatenate(drawn), axis=0)) == 600
    np.testing.assert_array_equal(density.sample(200, again), drawn[0])


def test_samples_come_in_random_order(fitted):
    _, density = fitted
    n = 2000
    drawn = density.sample(n, np.random.default_rng(0))
    for column in drawn.T:
        assert abs(stats.spearmanr(np.arange(n), column).statistic) < 4.5 / np.sqrt(n)
        assert abs(stats.spearmanr(column[1:], column[:-1]).statistic) < 4.5 / np.sqrt(n)


def test_a_saved_density_is_restored(fitted):
    spec, density = fitted
    state = density.state()
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "fib" for array in state.values())
    restored = densities.restore(spec, {name: array.copy() for name, array in state.items()})
    rng = np.random.default_rng(5), np.random.default_rng(5)
    np.testing.assert_array_equal(density.sample(50, rng[0]), restored.sample(50, rng[1]))
    assert restored.log_likelihood(codes()) == density.log_likelihood(codes())
    assert restored.state().keys() == state.keys()


def test_a_fit_repeats_itself_whatever_the_global_generators_hold(fitted):
    spec, density = fitted
    torch.manual_seed(77)
    np.random.seed(77)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = fit(spec)
    again.sample(10, np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    for name, array in density.state().items():
        assert again.state()[name].tobytes() == array.tobytes()


def test_another_seed_is_another_fit_where_the_density_says_so(fitted):
    """What is_random says decides how often a study fits: K-means of three components may well find the same."""
    spec, density = fitted
    if spec.kind in ("mixture", "dirichlet_mixture", "selected_mixture") and spec.codes == "mean":
        pytest.skip("starts that differ may end alike: shown on more components below")
    other = densities.fit(spec, posteriors(), posteriors(100, seed=1), seed=1, prior=posteriors(30, seed=2))
    same = all(other.state()[name].tobytes() == array.tobytes() for name, array in density.state().items())
    assert same == (not spec.is_random)


@pytest.mark.parametrize("name", ["gmm10", "dp10", "gmm_selected"])
def test_mixtures_of_many_components_depend_on_their_start(name):
    spec = dataclasses.replace(every_density()[name], **({"grid": (10, 20)} if name == "gmm_selected" else {}))
    one, other = (densities.fit(spec, posteriors(), posteriors(100, seed=1), seed=seed).state() for seed in (0, 1))
    assert spec.is_random
    assert one["means"].tobytes() != other["means"].tobytes()


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_scale_of_codes_passes_through(fitted, scale):
    spec, density = fitted
    if isinstance(spec, StandardNormal):
        pytest.skip("fitted to nothing")
    scaled = fit(spec, scale)
    drawn = [one.sample(200, np.random.default_rng(0)) for one in (density, scaled)]
    spread = codes().std(axis=0)
    # training repeats itself but for the rounding of codes to float32
    np.testing.assert_allclose(drawn[1] / scale / spread, drawn[0] / spread, atol=2e-3)
    if not isinstance(spec, WITHOUT_LIKELIHOOD):
        shifted = scaled.log_likelihood((scale * codes(100)).astype(np.float32)) + 3 * np.log(scale)
        assert shifted == pytest.approx(density.log_likelihood(codes(100)), abs=2e-3)


def test_closed_forms_have_likelihoods(fitted):
    spec, density = fitted
    each, mean = density.log_density(codes(50)), density.log_likelihood(codes(50))
    if isinstance(spec, WITHOUT_LIKELIHOOD):
        assert each is None
        assert mean is None
    else:
        assert each.shape == (50,)
        assert each.dtype == np.float64
        assert isinstance(mean, float)
        assert mean == pytest.approx(each.mean(), rel=1e-12)
        # a code's density is its own, whatever else is asked for at once
        np.testing.assert_allclose(density.log_density(codes(50)[::-1])[::-1], each, rtol=1e-4, atol=1e-4)


def test_samples_have_the_density(fitted):
    """E[q(z) / p(z)] = 1 for z ~ p and any density q inside p's support."""
    spec, density = fitted
    if isinstance(spec, WITHOUT_LIKELIHOOD):
        pytest.skip("no likelihood")
    if isinstance(spec, FlowMatching):
        spec = dataclasses.replace(spec, steps=20)  # samples and likelihoods agree up to the solver's error
        density = densities.restore(spec, density.state())
    drawn = density.sample(4000, np.random.default_rng(0))
    inside = stats.multivariate_normal(drawn.mean(axis=0), 0.3 * np.cov(drawn.T))
    ratio = np.exp(inside.logpdf(drawn) - density.log_density(drawn))
    error = ratio.std() / np.sqrt(len(ratio))
    assert error < 0.1
    assert ratio.mean() == pytest.approx(1, abs=4.5 * error)


# --- which codes ------------------------------------------------------------------------------------------


def test_means_or_draws_of_the_posterior_are_fitted():
    spec = SingleGaussian(kind="gaussian", codes="mean", covariance="full")
    for kind in ("mean", "sample"):
        expected = posteriors().codes(kind, 0, "train").mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(fit(dataclasses.replace(spec, codes=kind)).mean_, expected, rtol=1e-6)


def test_draws_are_from_each_images_posterior_and_repeat_themselves():
    train = posteriors(5000)
    drawn = train.codes("sample", 0, "train")
    white = (drawn - train.mean) / np.exp(train.log_sigma)
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    np.testing.assert_array_equal(train.codes("sample", 0, "train"), drawn)
    for seed, split in ((1, "train"), (0, "validation")):
        assert not np.isclose(train.codes("sample", seed, split), drawn).any(axis=1).all()
    np.testing.assert_array_equal(train.codes("mean", 0, "train"), train.mean)


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_codes_that_are_not_finite_or_no_matrix_are_an_error(bad):
    broken = codes()
    broken[3, 1] = bad
    for arrays, message in (
        ((broken, None), r"codes of shape \(400, 3\) must be finite"),
        ((codes(), broken), r"log_sigma of shape \(400, 3\) must be finite"),
        ((codes().ravel(), None), "two-dimensional"),
        ((codes(), codes(5)), r"log_sigma of shape \(5, 3\) must be as the codes, \(400, 3\)"),
    ):
        with pytest.raises(DensityError, match=message):
            Posteriors(*arrays)


NETWORKS = {name: spec for name, spec in ALL.items() if spec.is_network}


@pytest.mark.parametrize("name", NETWORKS)
def test_another_seed_learns_other_weights(name):
    one, two = (densities.fit(NETWORKS[name], posteriors(), posteriors(), seed).state() for seed in (0, 1))
    learnt = [key for key in one if key.startswith("model.")]
    assert any(not np.array_equal(one[key], two[key]) for key in learnt)


@pytest.mark.parametrize("name", NETWORKS)
def test_fewer_codes_than_a_batch_and_a_loss_that_is_not_finite_are_errors(name):
    spec = NETWORKS[name]
    with pytest.raises(TrainingError, match="49 training samples are fewer than one batch of 50"):
        densities.fit(spec, posteriors(49), posteriors(), seed=0)
    optimisation = dataclasses.replace(spec.optimisation, learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"epoch \d+.*: the (validation )?loss is not finite: "):
        densities.fit(dataclasses.replace(spec, optimisation=optimisation), posteriors(), posteriors(), seed=0)


def test_validation_codes_of_other_dimensions_are_an_error():
    with pytest.raises(DensityError, match="validation codes of 2 dimensions, training codes of 3"):
        densities.fit(ALL["gaussian"], points(codes()), points(codes()[:, :2]), seed=0)


@pytest.mark.parametrize("name", ALL)
def test_codes_in_fewer_dimensions_than_they_have_are_an_error(name):
    if name == "standard_normal" or isinstance(ALL[name], AggregatePosterior | LearntPriorDensity):
        pytest.skip("fits no spread")
    flat = codes()
    flat[:, 1] = 0.1
    with pytest.raises(
        DensityError, match=r"singular: they vary in only 2 of 3 dimensions|dimension 1 of the codes does not vary"
    ):
        densities.fit(ALL[name], points(flat), points(codes(100)), seed=0)


def test_a_fit_that_ends_in_numbers_that_are_not_finite_is_an_error():
    wide = Posteriors(codes(), np.full((400, 3), 800, dtype=np.float32))  # exp(800) is infinite
    spec = AggregatePosterior(kind="aggregate_posterior", codes="mean", components=AllImages(kind="all"))
    with (
        np.errstate(over="ignore"),
        pytest.raises(DensityError, match="the fit of 'aggregate_posterior' is degenerate: its array 'sigmas'"),
    ):
        densities.fit(spec, wide, wide, seed=0)


def test_a_learnt_prior_is_the_mixture_of_its_components_and_needs_them():
    spec, prior = ALL["learnt_prior"], posteriors(30, seed=2)
    fitted, at = fit(spec), codes(50)
    means, sigmas = prior.mean.astype(np.float64), np.exp(prior.log_sigma.astype(np.float64))
    each = [stats.norm(*one).pdf(at.astype(np.float64)).prod(axis=1) for one in zip(means, sigmas, strict=True)]
    np.testing.assert_allclose(fitted.log_density(at), np.log(np.mean(each, axis=0)), rtol=1e-9)
    with pytest.raises(DensityError, match="the model learnt no prior; its codes hold no components of one"):
        densities.fit(spec, posteriors(), posteriors(100, seed=1), seed=0)


def test_likelihoods_and_samples_that_are_not_finite_are_an_error():
    with pytest.raises(DensityError, match=r"log density of code 1 is -inf, of 3 codes 2 are not finite"):
        mean_log_density(np.array([0.0, -np.inf, np.nan]))
    with pytest.raises(DensityError, match="1 of 2 samples are not finite"):
        check_samples(np.array([[0, 1], [np.nan, 0]], dtype=np.float32))
