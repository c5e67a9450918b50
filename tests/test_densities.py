"""What every density promises, whatever its family: shape, order, randomness, saving, errors."""

import numpy as np
import pytest

from rae_bench import densities, specs
from rae_bench.densities.errors import DensityError

STANDARD = specs.StandardNormal("standard_normal")
GAUSSIAN = specs.FullGaussian("gaussian")
MIXTURE = specs.GaussianMixture("mixture", n_components=3, n_init=1, max_iter=500, tolerance=1e-3, reg_covar=1e-6)
SECOND = specs.SecondStage(
    "second_stage",
    width=16,
    depth=1,
    objective=specs.Objective(
        specs.Gaussian("gaussian", 5.0), specs.GaussianKL("kl", 0.05), specs.NoRegulariser("none")
    ),
    optimisation=specs.Optimisation(2, 50, 3e-3, 1e-7, specs.Cosine("cosine")),
)
ALL = {"standard_normal": STANDARD, "gaussian": GAUSSIAN, "mixture": MIXTURE, "second_stage": SECOND}


def codes(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, 3)) @ [[1, 0.5, 0], [0, 2, 0], [0, 0, 0.1]] + [5, 0, -1]).astype(np.float32)


@pytest.fixture(scope="module", params=ALL)
def fitted(request):
    spec = ALL[request.param]
    return spec, densities.fit(spec, codes(), codes(100, seed=1), seed=0)


def test_samples_are_as_many_float32_codes_as_asked_for(fitted):
    _, density = fitted
    drawn = density.sample(17, np.random.default_rng(0))
    assert drawn.shape == (17, 3)
    assert drawn.dtype == np.float32
    assert np.isfinite(drawn).all()


def test_two_generators_share_no_sample_and_one_repeats_itself(fitted):
    _, density = fitted
    first, second, again = (density.sample(200, np.random.default_rng(seed)) for seed in (0, 1, 0))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.concatenate([first, second]), axis=0)) == 400


def test_a_generator_goes_on_from_call_to_call(fitted):
    _, density = fitted
    rng = np.random.default_rng(0)
    both = np.concatenate([density.sample(100, rng), density.sample(100, rng)])
    assert len(np.unique(both, axis=0)) == 200


def test_a_saved_density_is_restored(fitted):
    spec, density = fitted
    state = density.state()
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in state.values())
    restored = densities.restore(spec, {name: array.copy() for name, array in state.items()})
    rng = np.random.default_rng(5), np.random.default_rng(5)
    np.testing.assert_array_equal(density.sample(50, rng[0]), restored.sample(50, rng[1]))
    assert restored.log_likelihood(codes()) == density.log_likelihood(codes())
    assert restored.state().keys() == state.keys()


def test_a_fit_repeats_itself(fitted):
    spec, density = fitted
    again = densities.fit(spec, codes(), codes(100, seed=1), seed=0)
    for name, array in density.state().items():
        np.testing.assert_array_equal(again.state()[name], array)


@pytest.mark.parametrize("name", ["standard_normal", "gaussian", "mixture"])
def test_closed_forms_have_likelihoods(name):
    density = densities.fit(ALL[name], codes(), codes(100, seed=1), seed=0)
    assert isinstance(density.log_likelihood(codes()), float)


def test_the_second_stage_has_no_likelihood():
    assert densities.fit(SECOND, codes(), codes(100, seed=1), seed=0).log_likelihood(codes()) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("spec", ALL.values(), ids=ALL)
def test_codes_that_are_not_finite_are_an_error(spec, bad):
    broken = codes()
    broken[3, 1] = bad
    with pytest.raises(DensityError, match=r"codes of shape \(400, 3\) must be finite"):
        densities.fit(spec, broken, codes(), seed=0)


def test_codes_that_are_no_matrix_are_an_error():
    with pytest.raises(DensityError, match="two-dimensional"):
        densities.fit(GAUSSIAN, codes().ravel(), codes(), seed=0)
