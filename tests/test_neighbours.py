"""Precision and recall: which is which, extremes, and agreement with the prdc package."""

import numpy as np
import pytest
from prdc import compute_prdc

from rae_bench import specs
from rae_bench.metrics.neighbours import precision_recall
from rae_bench.metrics.reference import MetricError, Reference


def scores(real, fake, neighbours=3):
    settings = specs.MetricSettings(kernel_subsets=1, kernel_subset_size=2, neighbours=neighbours)
    return precision_recall(Reference.of(real), fake, settings)


def normals(n=200, d=5, seed=0, scale=1.0, shift=0.0):
    return (shift + scale * np.random.default_rng(seed).standard_normal((n, d))).astype(np.float32)


def grid():
    """400 points at half-integers: the third neighbour of every inner one is 1 away."""
    axis = np.arange(-9.5, 10)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def test_identical_sets_are_precise_and_recalled():
    assert scores(normals(), normals()) == {"precision": 1, "recall": 1}


def test_disjoint_sets_are_neither():
    assert scores(normals(), normals(seed=1, shift=100)) == {"precision": 0, "recall": 0}


def test_a_collapsed_model_inside_the_data_is_precise_but_recalls_nothing():
    collapsed = 1e-3 * normals(50, 2)  # about the origin, √½ from the nearest real points
    assert scores(grid(), collapsed) == {"precision": 1, "recall": 0}


def test_a_model_spread_around_the_data_recalls_all_but_is_imprecise():
    assert scores(1e-3 * normals(50, 2), grid()) == {"precision": 0, "recall": 1}


def test_half_a_model_off_the_data_is_half_precise():
    real = normals(300)
    fake = np.concatenate([real[:100], normals(100, seed=1, shift=100)])
    found = scores(real, fake)
    assert found["precision"] == 0.5
    assert found["recall"] >= 1 / 3


def test_the_balls_reach_to_the_kth_neighbour_and_include_their_edge():
    real = np.array([[0.0], [1], [3], [6]])  # radii to the 2nd neighbour: 3, 2, 3, 5
    at = [scores(real, np.full((3, 1), place), neighbours=2)["precision"] for place in (-3.0, -3.001, 11.0, 11.001)]
    assert at == [1, 0, 1, 0]


def test_precision_one_way_is_recall_the_other():
    real, fake = normals(150), normals(180, seed=1, scale=0.7, shift=0.5)
    there, back = scores(real, fake), scores(fake, real)
    assert there["precision"] == back["recall"]
    assert there["recall"] == back["precision"]
    assert there["precision"] != there["recall"]


@pytest.mark.parametrize(("n", "m", "d"), [(200, 200, 5), (300, 150, 2), (100, 250, 30)])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.6, 0.3), (1.5, 0.0)])
def test_it_agrees_with_prdc(n, m, d, scale, shift, capsys):
    real, fake = normals(n, d), normals(m, d, seed=1, scale=scale, shift=shift)
    theirs, ours = compute_prdc(real, fake, nearest_k=3), scores(real, fake)
    capsys.readouterr()  # prdc prints
    for name, count in (("precision", m), ("recall", n)):
        assert ours[name] == pytest.approx(theirs[name], abs=2 / count)  # < there, ≤ here; rounding of distances


def test_it_is_invariant_to_order_and_scale():
    real, fake = normals(150), normals(180, seed=1, scale=0.7, shift=0.5)
    expected = scores(real, fake)
    assert scores(real[::-1].copy(), fake[::-1].copy()) == expected
    assert scores(8 * real, 8 * fake) == expected


@pytest.mark.parametrize(("n", "m"), [(3, 50), (50, 3)])
def test_no_more_images_than_neighbours_are_an_error(n, m):
    with pytest.raises(MetricError, match="neighbours is 3, but a set has only 3 images"):
        scores(normals(n), normals(m))
