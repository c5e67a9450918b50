"""The second VAE on codes: it learns a planted distribution and reconstructs codes."""

import numpy as np
import pytest
import small
from planted import assert_moments_are_close, fit, scaled

from rae_bench.densities.specs import SecondStage
from rae_bench.models.terms.specs import GaussianKL


@pytest.fixture(scope="module")
def fitted():
    objective = small.objective(small.GAUSSIAN, GaussianKL(kind="kl", weight=0.012))
    optimisation = small.optimisation(epochs=60, learning_rate=3e-3)
    spec = SecondStage(
        kind="second_stage", codes="mean", width=64, depth=1, objective=objective, optimisation=optimisation
    )
    return fit(spec, scaled(2000), scaled(300, seed=1))


def test_samples_have_moments_close_to_the_codes(fitted):
    assert_moments_are_close(fitted.sample(5000, np.random.default_rng(0)), scaled(2000), correlation=0.25)


def test_codes_are_standardised_by_their_own_moments(fitted):
    np.testing.assert_allclose(fitted.mean_, scaled(2000).mean(axis=0, dtype=np.float64), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(fitted.scale_, scaled(2000).std(axis=0, dtype=np.float64), rtol=1e-4)


def test_codes_come_through_the_inner_codes_better_than_chance(fitted):
    held_out = scaled(300, seed=2)
    error = ((fitted.through(held_out) - held_out) ** 2).mean(axis=0) / held_out.var(axis=0)
    assert np.all(error < 0.05)  # the mean's would be 1
    inner = fitted.to_inner(held_out)
    np.testing.assert_allclose(inner.std(axis=0), [1, 1, 1], atol=0.3)  # near N(0, I), by the KL term
    np.testing.assert_array_equal(fitted.from_inner(inner), fitted.through(held_out))


def test_samples_are_decoded_standard_normals(fitted):
    noise = np.random.default_rng(3).standard_normal((40, 3)).astype(np.float32)
    np.testing.assert_array_equal(fitted.sample(40, np.random.default_rng(3)), fitted.from_inner(noise))
