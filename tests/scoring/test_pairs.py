"""Precision, recall, density, coverage and the exact kernel distance: by hand, extremes, which is which."""

import numpy as np
import pytest
from metric_settings import settings

from rae_bench.scoring.metrics import manifold, pairs
from rae_bench.scoring.metrics.reference import MetricError, Reference

PRDC = ("precision", "recall", "density", "coverage")


def scores(real, fake, neighbours=3, coverage_neighbours=None):
    wide = coverage_neighbours or neighbours
    reference = Reference.of(real, max(neighbours, wide))
    return manifold.pair_metrics(reference, fake, settings(neighbours=neighbours, coverage_neighbours=wide))


def normals(n=200, d=5, seed=0, scale=1.0, shift=0.0):
    return (shift + scale * np.random.default_rng(seed).standard_normal((n, d))).astype(np.float32)


def grid():
    """400 points at half-integers: the third neighbour of every inner one is 1 away."""
    axis = np.arange(-9.5, 10)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def test_identical_sets_are_perfect():
    found = scores(normals(), normals())
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    assert found["density"] == pytest.approx((3 + 1) / 3)  # every ball holds its centre and its three neighbours


def test_disjoint_sets_share_nothing():
    found = scores(normals(), normals(seed=1, shift=100))
    assert [found[name] for name in PRDC] == [0, 0, 0, 0]


def test_a_collapsed_model_inside_the_data_is_precise_but_recalls_nothing():
    found = scores(grid(), 1e-3 * normals(50, 2))  # about the origin, √½ from the nearest real points
    assert (found["precision"], found["recall"]) == (1, 0)


def test_a_model_spread_around_the_data_recalls_all_but_is_imprecise():
    found = scores(1e-3 * normals(50, 2), grid())
    assert (found["precision"], found["recall"]) == (0, 1)


def test_ten_fakes_at_one_place_are_dense_and_cover_two_of_ten():
    # Balls of radius 1 about 0 ... 9; those of 4 and 5 hold all ten fakes at 4.5: 20 of 10 · 1
    found = scores(np.arange(10.0)[:, None], np.full((10, 1), 4.5), neighbours=1)
    assert found["density"] == 2
    assert found["coverage"] == 0.2


def test_the_balls_reach_to_the_kth_neighbour_and_include_their_edge():
    real = np.array([[0.0], [1], [3], [6]])  # radii to the 2nd neighbour: 3, 2, 3, 5
    at = [scores(real, np.full((3, 1), place), neighbours=2)["precision"] for place in (-3.0, -3.001, 11.0, 11.001)]
    assert at == [1, 0, 1, 0]


def test_points_that_coincide_lie_in_balls_of_no_radius():
    """Five equal reals far from the origin: rounding of ‖x‖² + ‖y‖² − 2xy must not push a copy out of their balls."""
    place = normals(1, 50, shift=1e3)
    real = np.concatenate([np.repeat(place, 5, axis=0), normals(20, 50, seed=2)])
    found = scores(real, np.repeat(place, 8, axis=0))
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 5 / 25, 5 / 25)
    beside = place + np.float32(0.1)
    assert scores(real, np.repeat(beside, 8, axis=0))["precision"] == 0


def test_it_is_the_same_in_blocks(monkeypatch):
    real, fake = normals(150), normals(180, seed=1, scale=0.7, shift=0.5)
    expected = scores(real, fake)
    monkeypatch.setattr(pairs, "BLOCK", 7)
    assert scores(real, fake) == pytest.approx(expected, rel=1e-12)


def test_two_points_by_hand():
    # k(x, y) = (xy + 1)³: within 1 and 27, across 1, 1, 8, 27
    reals, fakes = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    assert scores(reals, fakes, neighbours=1)["kernel_mmd2"] == pytest.approx(1 + 27 - 2 * 37 / 4)


def test_the_nearest_distance_is_that_to_the_nearest():
    found = pairs.nearest_distances(np.array([[0.0, 0.0], [5, 5]]), np.array([[3.0, 4.0], [5, 5], [9, 9]]))
    np.testing.assert_allclose(found, [5, 0], atol=1e-12)


def test_the_nearest_distance_is_the_same_however_many_are_looked_at_at_once(monkeypatch):
    fakes, training = normals(40), normals(150, seed=1)
    expected = np.sqrt(((fakes[:, None] - training) ** 2).sum(axis=2)).min(axis=1)
    for among in (2**14, 150, 149, 7):
        monkeypatch.setattr(pairs, "AMONG", among)
        np.testing.assert_allclose(pairs.nearest_distances(fakes, training), expected, rtol=1e-6)


def test_a_reference_that_keeps_too_few_neighbours_is_an_error():
    with pytest.raises(MetricError, match="the reference keeps 0 neighbours, 5 needed"):
        manifold.pair_metrics(Reference.of(normals(), 0), normals(), settings())
