"""EM in torch, against scikit-learn's own from the same start, after the same number of iterations."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from planted import points
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from rae_bench import densities, specs
from rae_bench.config import load_study, resolve_study
from rae_bench.densities import em
from rae_bench.densities.errors import DensityError
from rae_bench.densities.mixture import FittedMixture

SETTINGS = {"n_init": 1, "tolerance": 1e-3, "reg_covar": 1e-6}


def clusters(n, d, k, apart=1.5, seed=0):
    """Codes (n, d) around k centres, `apart` SDs wide: they overlap, so that codes are shared."""
    rng = np.random.default_rng(seed)
    stretch = np.exp(0.5 * rng.standard_normal(d))
    return (apart * rng.standard_normal((k, d))[rng.integers(k, size=n)] + rng.standard_normal((n, d))) * stretch


def theirs(codes, k, max_iter, **changes):
    """scikit-learn's fit, stopped after `max_iter` iterations at the latest."""
    fitted = GaussianMixture(k, max_iter=max_iter, random_state=5, **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fitted.fit(codes)


def scores(components, codes):
    """Log density of each code by SciPy's Gaussians."""
    parts = [
        np.log(weight) + stats.multivariate_normal(mean, factor @ factor.T).logpdf(codes)
        for weight, mean, factor in zip(*(array.numpy() for array in vars(components).values()), strict=True)
    ]
    return np.logaddexp.reduce(parts, axis=0)


SHAPES = {
    "planes": (clusters(500, 2, 3), 3),
    "one dimension": (clusters(300, 1, 4), 4),
    "one component": (clusters(200, 3, 1), 1),
    "many components, odd strips": (clusters(3000, 40, 21), 21),
    "one strip and a column": (clusters(800, 17, 5), 5),
    "many codes of each": (clusters(9000, 3, 2, apart=0.5), 2),
    "fewer codes than dimensions": (clusters(130, 20, 10), 10),
    "hardly more codes than components": (clusters(64, 3, 60), 60),
    "duplicates": (np.repeat(clusters(60, 4, 6), 10, axis=0), 6),
    "far from the origin": (clusters(500, 5, 3) + 1000, 3),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("iterations", [1, 6])
def test_every_code_is_as_likely_as_under_scikit_learns_mixture(name, iterations):
    codes, k = SHAPES[name]
    expected = theirs(codes, k, iterations, tol=1e-300)
    found = em.fit(codes, k, max_iter=iterations, seed=5, n_init=1, tolerance=1e-300, reg_covar=1e-6)
    assert found.log_density == pytest.approx(expected.lower_bound_, abs=1e-6)
    again, _ = em.expect(torch.from_numpy(codes), found.components)
    np.testing.assert_allclose(again.numpy(), expected.score_samples(codes), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.components.weights.numpy(), expected.weights_, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.components.means.numpy(), expected.means_, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_init", [1, 4])
def test_it_ends_where_scikit_learn_does_and_keeps_the_same_start(n_init):
    codes = clusters(1500, 4, 6, apart=3, seed=2)
    expected = theirs(codes, 6, 500, n_init=n_init)
    found = em.fit(codes, 6, max_iter=500, seed=5, **{**SETTINGS, "n_init": n_init})
    assert (found.converged, found.n_iter) == (expected.converged_, expected.n_iter_)
    np.testing.assert_allclose(scores(found.components, codes), expected.score_samples(codes), rtol=0, atol=1e-6)


def test_starts_differ_in_what_they_reach():
    """Else the test above would not see which is kept."""
    codes = clusters(1500, 4, 6, apart=3, seed=2)
    reached = [em.fit(codes, 6, max_iter=500, seed=5, **{**SETTINGS, "n_init": n}).log_density for n in (1, 4)]
    assert reached[1] > reached[0] + 1e-4


def test_no_convergence_is_said():
    found = em.fit(clusters(300, 2, 3, apart=0.1), 3, max_iter=2, seed=0, **SETTINGS)
    assert (found.converged, found.n_iter) == (False, 2)


def test_log_densities_and_responsibilities_are_scipys():
    codes, k = SHAPES["many components, odd strips"]
    components = em.fit(codes, k, max_iter=3, seed=0, **SETTINGS).components
    log_density, responsibilities = em.expect(torch.from_numpy(codes), components)
    np.testing.assert_allclose(log_density.numpy(), scores(components, codes), rtol=0, atol=1e-9)
    np.testing.assert_allclose(responsibilities.sum(dim=1).numpy(), 1, rtol=1e-12)
    weight, mean, factor = (array[7].numpy() for array in vars(components).values())
    one = weight * np.exp(stats.multivariate_normal(mean, factor @ factor.T).logpdf(codes) - scores(components, codes))
    np.testing.assert_allclose(responsibilities[:, 7].numpy(), one, rtol=1e-9, atol=1e-15)


def test_a_component_without_codes_is_scikit_learns_and_stays_finite():
    """Its weight is ten rounding errors' worth of a code, its mean zero, its covariance reg_covar."""
    codes = clusters(400, 3, 3)
    labels = np.arange(400) % 3
    first = em.start(torch.from_numpy(codes), np.where(labels == 2, 3, labels), 4, 1e-6)
    assert float(first.weights[2]) == pytest.approx(10 * np.finfo(float).eps / 400)
    np.testing.assert_array_equal(first.means[2], 0)
    np.testing.assert_allclose(first.factors[2], 1e-3 * np.eye(3), rtol=1e-12)
    found = em.iterate(torch.from_numpy(codes), first, 8, 1e-300, 1e-6)
    weights, means, factors = (array.numpy() for array in vars(first).values())
    precisions = np.linalg.inv(factors @ factors.transpose(0, 2, 1))
    same_start = {"weights_init": weights / weights.sum(), "means_init": means, "precisions_init": precisions}
    expected = theirs(codes, 4, 8, tol=1e-300, **same_start)
    np.testing.assert_allclose(em.expect(torch.from_numpy(codes), found.components)[0], expected.score_samples(codes))
    np.testing.assert_allclose(found.components.means[2], expected.means_[2], atol=1e-9)


def test_codes_that_are_left_out_would_have_moved_no_covariance():
    codes = torch.from_numpy(clusters(2000, 6, 8, apart=6))
    components = em.fit(codes.numpy(), 8, max_iter=3, seed=0, **SETTINGS).components
    _, responsibilities = em.expect(codes, components)
    least = em._least_share(codes, 1e-6) * (responsibilities.sum(dim=0) + 10 * em.ROUNDING)
    out = torch.where(responsibilities > least, 0, responsibilities)
    assert float((responsibilities > least).double().mean()) < 0.5  # most are left out, few of them exact zeros
    assert float((out > 0).double().mean()) > 0.25
    counts, means = responsibilities.sum(dim=0), (responsibilities.T @ codes) / responsibilities.sum(dim=0)[:, None]
    for k in range(8):
        apart = codes - means[k]
        moved = (apart.abs().T * out[:, k]) @ apart.abs() / counts[k]
        assert float(moved.max()) < 1e-6 * np.finfo(float).eps


def test_a_covariance_that_is_not_positive_definite_is_an_error():
    flat = 40 + np.array([[1.0, 1, 0], [-1, -1, 0]])
    codes = torch.from_numpy(np.concatenate([clusters(50, 3, 1), np.tile(flat, (25, 1))]))
    message = r"^the covariance of component 1, of 50 codes, is not positive definite; raise reg_covar, 1e-300, or"
    with pytest.raises(DensityError, match=message):
        em.start(codes, np.arange(100) // 50, 2, 1e-300)


# --- as a density -----------------------------------------------------------------------------------------


def spec(k=6, max_iter=500, kind=specs.TorchMixture):
    name = "mixture_torch" if kind is specs.TorchMixture else "mixture"
    return kind(name, "mean", k, 1, max_iter, 1e-3, reg_covar=1e-6)


def test_it_is_the_mixture_of_scikit_learn_in_likelihood_and_in_every_sample():
    codes = clusters(1500, 4, 6).astype(np.float32)
    ours = FittedMixture.fit_torch(spec(), codes, 3, "cpu")
    other = FittedMixture.fit(spec(kind=specs.GaussianMixture), codes, 3)
    np.testing.assert_allclose(ours.log_density(codes), other.log_density(codes), rtol=0, atol=1e-6)
    drawn = [density.sample(500, np.random.default_rng(0)) for density in (ours, other)]
    np.testing.assert_allclose(*drawn, rtol=0, atol=1e-4)
    assert {name: array.shape for name, array in ours.state().items()} == {
        name: array.shape for name, array in other.state().items()
    }


def test_a_fit_repeats_to_the_byte_and_another_seed_does_not():
    codes = clusters(1500, 20, 6).astype(np.float32)
    one, again, other = (densities.fit(spec(), points(codes), points(codes[:10]), seed).state() for seed in (0, 0, 1))
    assert {name: array.tobytes() for name, array in one.items()} == {
        name: array.tobytes() for name, array in again.items()
    }
    assert one["means"].tobytes() != other["means"].tobytes()


def test_errors_are_those_of_a_mixture():
    with pytest.raises(DensityError, match="59 codes are too few for 6 components; at least 60"):
        FittedMixture.fit_torch(spec(), clusters(59, 2, 1).astype(np.float32), 0, "cpu")
    one_cloud = clusters(300, 2, 1).astype(np.float32)
    with pytest.raises(DensityError, match=r"the fit of 6 components in at most 2 iterations \(max_iter\) failed: "):
        FittedMixture.fit_torch(spec(max_iter=2), one_cloud, 0, "cpu")


def test_a_study_with_a_gpu_fits_it_there_and_no_other_density():
    file = load_study("densities").file
    file = dataclasses.replace(file, densities=(*file.densities, "gmm200_torch"))
    for device, expected in (("cpu", {}), ("cuda", {"gmm200_torch": 1})):
        study = resolve_study(
            "densities", dataclasses.replace(file, compute=dataclasses.replace(file.compute, device=device))
        )
        asked = {name: study.fit_gpus("digits", "vae", name) for name in ("gmm200", "gmm200_torch")}
        assert asked == {"gmm200": 0, "gmm200_torch": 0, **expected}


@pytest.mark.gpu
def test_a_gpu_gives_the_same_to_rounding():
    codes, k = SHAPES["many components, odd strips"]
    runs = [em.fit(codes, k, max_iter=5, seed=0, device=device, **SETTINGS) for device in ("cpu", "cuda")]
    assert runs[0].log_density == pytest.approx(runs[1].log_density, abs=1e-9)
