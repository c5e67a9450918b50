"""The kernel distance: two points by hand, a double loop."""

import numpy as np
import pytest
import torch
from metric_settings import settings
from torch_fidelity.metric_kid import kid_features_to_metric

from rae_bench.scoring.metrics.kernel import kernel_distance
from rae_bench.scoring.metrics.reference import Reference


def distance(real, fake, subset_size, subsets=3):
    chosen = settings(kernel_subsets=subsets, kernel_subset_size=subset_size)
    return kernel_distance(Reference.of(real, 0), fake, chosen)


def features(n=30, d=6, seed=0, shift=0.0):
    return (shift + np.random.default_rng(seed).standard_normal((n, d))).astype(np.float32)


def squared_mmd(x, y):
    """Unbiased, by its definition: a double loop over pairs."""
    n, d = x.shape

    def kernel(a, b):
        return (float(np.dot(a.astype(float), b)) / d + 1) ** 3

    total = 0.0
    for i in range(n):
        for j in range(n):
            total -= 2 * kernel(x[i], y[j]) / n**2
            if i != j:
                total += (kernel(x[i], x[j]) + kernel(y[i], y[j])) / (n * (n - 1))
    return total


def test_two_points_by_hand():
    real, fake = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    found = distance(real, fake, subset_size=2)
    # k(x, y) = (xy + 1)³: within 1 and 27, across 1, 1, 8, 27
    assert found["kernel_distance"] == pytest.approx(1 + 27 - 2 * 37 / 4)
    assert found["kernel_distance_subset_sd"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("n", "d"), [(10, 1), (12, 40), (300, 6)])
def test_a_subset_of_all_images_gives_the_exact_statistic(n, d):
    real, fake = features(n, d), features(n, d, seed=1, shift=0.5)
    found = distance(real, fake, subset_size=n)
    assert found["kernel_distance"] == pytest.approx(squared_mmd(real, fake), rel=1e-9)
    assert found["kernel_distance_subset_sd"] == pytest.approx(0, abs=1e-9)


def test_the_sd_is_that_over_subsets():
    real, fake = features(200), features(200, seed=1, shift=0.5)
    one = distance(real, fake, subset_size=20, subsets=1)
    many = distance(real, fake, subset_size=20, subsets=400)
    assert one["kernel_distance_subset_sd"] == 0
    # the mean over subsets estimates the statistic of all images; its error shrinks with √subsets
    error = 4.5 * many["kernel_distance_subset_sd"] / np.sqrt(400)
    assert many["kernel_distance"] == pytest.approx(squared_mmd(real, fake), abs=error)
    assert many["kernel_distance_subset_sd"] > 0


def test_subsets_that_overlap_are_torch_fidelitys():
    """Their kernel is computed once for all pairs: the same draws, the same numbers, from unequal counts too."""
    real, fake = features(60, 12), features(50, 12, seed=1, shift=0.5)
    found = distance(real, fake, subset_size=40, subsets=20)
    drawn = kid_features_to_metric(
        *(torch.from_numpy(part.astype(np.float64)) for part in (fake, real)),
        kid_subsets=20,
        kid_subset_size=40,
        rng_seed=0,
        verbose=False,
    )
    assert settings(kernel_subsets=20, kernel_subset_size=40).has_overlapping_subsets(60, 50)
    assert found["kernel_distance"] == pytest.approx(drawn["kernel_inception_distance_mean"], rel=1e-11)
    assert found["kernel_distance_subset_sd"] == pytest.approx(drawn["kernel_inception_distance_std"], rel=1e-9)
