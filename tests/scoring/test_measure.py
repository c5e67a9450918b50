"""`measure`: every metric by name, real first, features that do not fit together refused."""

import numpy as np
import pytest
import torch
from metric_settings import settings

from rae_bench.scoring.metrics.measure import measure as measure_features
from rae_bench.scoring.metrics.reference import MetricError, Reference

SETTINGS = settings()
NAMES = {
    *("frechet_distance", "frechet_distance_half_sd", "frechet_infinity", "kernel_distance"),
    *("kernel_distance_subset_sd", "kernel_mmd2", "precision", "recall", "density", "coverage"),
    *("prd_f8", "prd_f8_sd", "prd_f1_8", "prd_f1_8_sd"),
}


def measure(real, fake, chosen):
    return measure_features(real, fake, chosen, is_fid=False, prd_real=real)


def features(n=40, d=4, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).standard_normal((n, d))).astype(np.float32)


def test_equal_sets_are_perfect():
    found = measure(Reference.of(features(), 5), features(), SETTINGS)
    assert set(found) == NAMES
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert found["precision"] == found["recall"] == 1
    assert all(type(value) is float for value in found.values())


def test_too_few_images_a_feature_have_no_extrapolation():
    found = measure(Reference.of(features(d=12), 5), features(d=12, seed=1), SETTINGS)
    assert set(found) == NAMES - {"frechet_infinity"}


def test_fid_is_torch_fidelitys_own_number():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    real, fake = features(), features(seed=1)
    statistics = [fid_features_to_statistics(torch.from_numpy(x.astype(np.float64))) for x in (fake, real)]
    expected = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    reference = Reference.of(real, 5)
    found = measure_features(reference, fake, SETTINGS, is_fid=True, prd_real=reference)["frechet_distance"]
    assert found == pytest.approx(expected, rel=1e-9)


def test_measuring_changes_nothing_and_prints_nothing(capsys):
    reference, fake = Reference.of(features(), 5), features(seed=1)
    copies, before = (reference.features.copy(), fake.copy()), np.random.get_state()[1].copy()
    assert measure(reference, fake, SETTINGS) == measure(reference, fake, SETTINGS)
    np.testing.assert_array_equal(reference.features, copies[0])
    np.testing.assert_array_equal(fake, copies[1])
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert capsys.readouterr() == ("", "")


def test_features_of_another_dimension_are_an_error():
    with pytest.raises(MetricError, match="fake: features have dimension 5, those of real 4"):
        measure(Reference.of(features(), 5), features(d=5), SETTINGS)


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"neighbours": 40}, 41),
        ({"coverage_neighbours": 40}, 41),
        ({"kernel_subset_size": 41}, 41),
        ({"prd_clusters": 81}, 41),
    ],
)
def test_every_metric_says_how_many_images_it_needs(changes, least):
    """One image fewer is refused by name, for either set; as many are measured."""
    chosen, (name,) = settings(**changes), changes
    enough = Reference.of(features(least), least - 1)
    assert set(measure(enough, features(least, seed=1), chosen)) == NAMES
    expected = rf"features have shape \({least - 1}, 4\); expected n at least {least} for {name}"
    with pytest.raises(MetricError, match=f"^fake: {expected}"):
        measure(enough, features(least - 1), chosen)
    with pytest.raises(MetricError, match=f"^real: {expected}"):
        measure(Reference.of(features(least - 1), 5), features(least), chosen)
