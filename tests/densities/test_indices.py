"""Densities over a codebook's entries: they sum to 1, recover planted laws, sample what they say, and save."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from planted import every_density, points
from scipy import stats

from rae_bench.densities import catalogue
from rae_bench.densities.codes import DensityError
from rae_bench.densities.indices import codes_of, drawn, indices_of
from rae_bench.models.optimisation import TrainingError

K, POSITIONS = 3, 4
CODEBOOK = np.array([[0.0, 0.0], [1.0, 0.5], [-1.0, 2.0]], dtype=np.float32)
START, STEP = np.array([0.6, 0.3, 0.1]), np.array([[0.8, 0.1, 0.1], [0.2, 0.2, 0.6], [0.05, 0.9, 0.05]])
"""A Markov chain: an entry depends on the one before."""
EVERY = np.array(list(itertools.product(range(K), repeat=POSITIONS)))
"""All 81 codes."""


def chain(n, seed=0):
    """Indices (n, P) of the chain."""
    rng = np.random.default_rng(seed)
    indices = np.zeros((n, POSITIONS), dtype=int)
    indices[:, 0] = rng.choice(K, size=n, p=START)
    for i in range(1, POSITIONS):
        indices[:, i] = [rng.choice(K, p=STEP[before]) for before in indices[:, i - 1]]
    return indices


def chain_probability(indices):
    return START[indices[:, 0]] * np.prod(
        [STEP[indices[:, i], indices[:, i + 1]] for i in range(POSITIONS - 1)], axis=0
    )


ALL = {name: spec for name, spec in every_density().items() if "a codebook" in spec.needs}
TRAIN, VALIDATION = chain(3000), chain(600, seed=1)


def fit(name, seed=0, **changes):
    spec = ALL[name]
    if spec.is_network:
        optimisation = dataclasses.replace(spec.optimisation, epochs=15, learning_rate=5e-3)
        spec = dataclasses.replace(spec, width=24, **{"optimisation": optimisation, **changes})
    parts = (points(codes_of(indices, CODEBOOK)) for indices in (TRAIN, VALIDATION))
    return catalogue.fit(spec, *parts, seed, codebook=CODEBOOK)


@pytest.fixture(scope="module", params=ALL)
def fitted(request):
    return request.param, fit(request.param)


def test_indices_and_codes_are_each_others_inverse_and_any_code_is_that_of_its_nearest_entries():
    codes = codes_of(TRAIN, CODEBOOK)
    assert codes.shape == (3000, 8)
    assert codes.dtype == np.float32
    np.testing.assert_array_equal(indices_of(codes, CODEBOOK), TRAIN)
    moved = codes + np.random.default_rng(0).uniform(-0.3, 0.3, codes.shape).astype(np.float32)
    np.testing.assert_array_equal(indices_of(moved, CODEBOOK), TRAIN)


def test_an_index_is_drawn_by_its_share():
    probabilities = np.broadcast_to([0.25, 0.0, 0.75], (4, 3))
    np.testing.assert_array_equal(drawn(probabilities, np.array([0.0, 0.2499, 0.25, np.nextafter(1, 0)])), [0, 0, 2, 2])


def test_probabilities_of_all_codes_sum_to_one(fitted):
    _, density = fitted
    log_probability = density.log_density(codes_of(EVERY, CODEBOOK))
    assert log_probability.dtype == np.float64
    assert np.exp(log_probability).sum() == pytest.approx(1, abs=1e-5)


def test_uniform_and_categorical_probabilities_are_counted():
    at = codes_of(EVERY, CODEBOOK)
    np.testing.assert_allclose(fit("uniform_indices").log_density(at), -POSITIONS * np.log(K))
    a = ALL["categorical_indices"].pseudo_count
    expected = [
        np.prod([(np.sum(TRAIN[:, i] == k) + a) / (len(TRAIN) + K * a) for i, k in enumerate(code)]) for code in EVERY
    ]
    np.testing.assert_allclose(np.exp(fit("categorical_indices").log_density(at)), expected, rtol=1e-12)


def test_the_autoregressive_one_recovers_a_chain_that_independent_positions_miss():
    """Kullback-Leibler divergence from the true law over all codes, in nats; its entropy is 2.94.

    A table of all 81 codes, filled from as many, would be 80 / (2 · 3000) = 0.013 off.
    """
    at, truth = codes_of(EVERY, CODEBOOK), chain_probability(EVERY)
    divergence = {
        name: np.sum(truth * (np.log(truth) - fit(name).log_density(at)))
        for name in ("categorical_indices", "autoregressive_indices")
    }
    assert divergence["autoregressive_indices"] < 0.05
    assert divergence["categorical_indices"] > 0.5


def test_no_position_of_the_network_sees_itself_or_a_later_one():
    density = fit("autoregressive_indices")
    before = torch.from_numpy(EVERY).float()
    for i in range(POSITIONS):
        changed = before.clone()
        changed[:, i:] = (changed[:, i:] + 1) % K
        with torch.no_grad():
            assert density.model_(before)[:, : i + 1].equal(density.model_(changed)[:, : i + 1])


def test_samples_have_the_probabilities(fitted):
    _, density = fitted
    sampled = density.sample(20_000, np.random.default_rng(0))
    assert sampled.shape == (20_000, 8)
    assert sampled.dtype == np.float32
    found = indices_of(sampled, CODEBOOK)
    np.testing.assert_array_equal(codes_of(found, CODEBOOK), sampled)
    counts = np.bincount(found @ K ** np.arange(POSITIONS)[::-1], minlength=len(EVERY))
    expected = np.exp(density.log_density(codes_of(EVERY, CODEBOOK)))
    often = expected * 20_000 >= 5
    observed = [*counts[often], counts[~often].sum()]
    asked = [*expected[often], expected[~often].sum()]
    observed, asked = (np.array(one)[np.array(asked) > 0] for one in (observed, asked))
    assert stats.chisquare(observed, asked / asked.sum() * 20_000).pvalue > 1e-3


def test_a_fit_repeats_itself_and_is_restored(fitted):
    name, density = fitted
    state = density.state()
    for key, array in fit(name).state().items():
        assert array.tobytes() == state[key].tobytes()
    restored = catalogue.restore(ALL[name] if name != "autoregressive_indices" else _small(), state)
    np.testing.assert_array_equal(
        restored.sample(50, np.random.default_rng(3)), density.sample(50, np.random.default_rng(3))
    )
    at = codes_of(VALIDATION, CODEBOOK)
    np.testing.assert_array_equal(restored.log_density(at), density.log_density(at))
    assert density.log_likelihood(at) == pytest.approx(density.log_density(at).mean())


def _small():
    return dataclasses.replace(ALL["autoregressive_indices"], width=24)


@pytest.mark.parametrize("name", ALL)
def test_another_seed_is_another_fit_where_the_density_says_so(name):
    one, other = (fit(name, seed).state() for seed in (0, 1))
    assert all(one[key].tobytes() == other[key].tobytes() for key in one) == (not ALL[name].is_random)


@pytest.mark.parametrize("name", ALL)
def test_a_model_without_a_codebook_is_an_error(name):
    codes = points(codes_of(TRAIN, CODEBOOK))
    with pytest.raises(DensityError, match="the model's codes are not quantised; they hold no codebook"):
        catalogue.fit(ALL[name], codes, codes, 0)


def test_what_an_autoregressive_density_cannot_be_fitted_to_is_an_error():
    spec = ALL["autoregressive_indices"]
    one = points(CODEBOOK[TRAIN[:, 0]])
    with pytest.raises(DensityError, match="codes of one entry have no earlier one to depend on"):
        catalogue.fit(spec, one, one, 0, codebook=CODEBOOK)
    few = points(codes_of(TRAIN[:63], CODEBOOK))
    with pytest.raises(TrainingError, match="63 training samples are fewer than one batch of 64"):
        catalogue.fit(spec, few, few, 0, codebook=CODEBOOK)
