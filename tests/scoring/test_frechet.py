"""The Fréchet distance: closed forms on sets of exactly set moments, and infinitely many images."""

import numpy as np
import pytest
from scipy import stats

from rae_bench.scoring.metrics.frechet import between, frechet_distance, frechet_infinity, half_sample_sd
from rae_bench.scoring.metrics.reference import Reference


def with_moments(mean, covariance, n=40, seed=0):
    """Features whose sample mean and unbiased covariance are exactly these."""
    d = len(mean)
    raw = np.random.default_rng(seed).standard_normal((n, d))
    raw -= raw.mean(axis=0)
    left, _, _ = np.linalg.svd(raw, full_matrices=False)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    return mean + np.sqrt(n - 1) * left @ root


def distance(real, fake):
    return frechet_distance(Reference.of(real, 0), fake)


# --- closed forms -----------------------------------------------------------------------------------------


def turned(values):
    turn = stats.ortho_group.rvs(3, random_state=5)
    return turn @ np.diag(values) @ turn.T


ZERO, ONE, EYE, RISING = np.zeros(7), np.ones(7), np.eye(7), np.diag(np.arange(1.0, 8))
CLOSED = {
    "equal moments": (ONE, RISING, ONE, RISING, 0),
    "a shift counts squared": (ZERO, EYE, 3 * ONE, EYE, 63),
    "a scale counts by its square root": (ZERO, EYE, ZERO, 4 * EYE, 7),  # 7·(1 + 4 − 2·2)
    "commuting": (ZERO[:3], np.diag([1, 4, 9]), ZERO[:3], np.diag([4, 1, 0]), 11),  # 14 + 5 − 2·(2 + 2 + 0)
    "commuting, rotated": (ZERO[:3], turned([1, 4, 9]), ZERO[:3], turned([4, 1, 0]), 11),
    # 5 + 5 + 6 − 2 tr √M; of M = Σ₁Σ₂, tr 11 and det 20, tr √M = √(tr M + 2 √det M)
    "not commuting": (
        [1, 0],
        [[2, 1], [1, 3]],
        [0, 2],
        [[5, -1], [-1, 1]],
        5 + 5 + 6 - 2 * np.sqrt(11 + 2 * np.sqrt(20)),
    ),
}


@pytest.mark.parametrize("case", CLOSED)
def test_planted_moments_are_at_the_distance_of_the_formula(case):
    mean, covariance, other_mean, other_covariance, expected = CLOSED[case]
    a, b = with_moments(mean, covariance), with_moments(other_mean, other_covariance, n=90, seed=1)
    assert distance(a, b) == pytest.approx(expected, abs=1e-5)  # √ε where singular


def test_in_one_dimension_it_is_the_distance_of_means_and_standard_deviations():
    a, b = np.array([[0.0], [2.0]]), np.array([[5.0], [5.0], [11.0]])
    expected = (1 - 7) ** 2 + (np.std([0, 2], ddof=1) - np.std([5, 5, 11], ddof=1)) ** 2
    assert distance(a, b) == pytest.approx(expected)


# --- identities -------------------------------------------------------------------------------------------


# --- infinitely many images, and the sampling SD -----------------------------------------------------------


def planted(n, seed, d=16, shift=0.4):
    """Real from N(0, I), fake from N(shift, I): the true distance is d·shift² = 2.56."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), shift + rng.standard_normal((n, d))


def test_extrapolation_removes_the_bias_of_few_images():
    finite, infinite = [], []
    for seed in range(60):
        real, fake = planted(400, seed)
        finite.append(between(real, fake))
        infinite.append(frechet_infinity(real, fake, sizes=8, seed=0).value)
    error = np.std(infinite) / np.sqrt(60)
    assert np.mean(finite) > 2.56 + 0.2  # the bias, some d²/n
    assert np.mean(infinite) == pytest.approx(2.56, abs=4 * error)
    assert 4 * error < 0.2


def test_extrapolation_is_refused_where_images_are_too_few_for_a_covariance():
    assert frechet_infinity(*planted(63, 0), sizes=4, seed=0) is None  # below 2 · 2 · 16
    assert frechet_infinity(*planted(64, 0), sizes=4, seed=0) is not None


def test_half_samples_estimate_the_spread_of_fresh_samples():
    real, _ = planted(600, 0)
    fresh = [planted(600, seed)[1] for seed in range(1, 31)]
    reference = Reference.of(real, 0)
    true_sd = np.std([frechet_distance(reference, fake) for fake in fresh], ddof=1)
    estimates = [half_sample_sd(reference, fake, repeats=30, seed=0) for fake in fresh[:10]]
    # the literature's caveat holds: usable, and rather too large than too small
    assert 0.7 * true_sd < np.mean(estimates) < 1.8 * true_sd
