"""PRD: closed forms of known histograms, planted clusters, equal counts, noise kept."""

import numpy as np
import pytest
from metric_settings import settings

from rae_bench.scoring.metrics.prd import curve, f_score, prd
from rae_bench.scoring.metrics.reference import Reference

HALF_F8 = 65 * 0.5 / 64.5
HALF_F1_8 = (65 / 64) * 0.5 / (1 / 64 + 0.5)


HISTOGRAMS = {
    "equal": ([0.5, 0.3, 0.2], [0.5, 0.3, 0.2], 1, 1),
    "disjoint": ([1, 0], [0, 1], 0, 0),
    "half of the modes are precise but recall half": ([0.25] * 4, [0.5, 0.5, 0, 0], HALF_F8, HALF_F1_8),
    "twice the modes recall all but are half precise": ([0.5, 0.5, 0, 0], [0.25] * 4, HALF_F1_8, HALF_F8),
}


@pytest.mark.parametrize("case", HISTOGRAMS)
def test_known_histograms_have_known_scores(case):
    real, fake, *expected = HISTOGRAMS[case]
    found = curve(np.array(real), np.array(fake), 1001)
    assert [f_score(*found, 8), f_score(*found, 1 / 8)] == pytest.approx(expected, abs=1e-3)


def clusters(labels, seed=0, d=6):
    rng = np.random.default_rng(seed)
    centres = 50 * np.random.default_rng(9).standard_normal((10, d))
    return (centres[labels] + 0.1 * rng.standard_normal((len(labels), d))).astype(np.float32)


def measured(real, fake, **changes):
    return prd(Reference.of(real, 0), fake, settings(**{"prd_clusters": 10, "prd_angles": 1001, **changes}))


def test_planted_clusters_give_the_closed_form():
    found = measured(clusters(np.arange(200) % 10), clusters(np.arange(200) % 5, seed=1))
    assert found["prd_f8"] == pytest.approx(HALF_F8, abs=2e-3)
    assert found["prd_f1_8"] == pytest.approx(HALF_F1_8, abs=2e-3)
    assert found["prd_f8_sd"] == pytest.approx(0, abs=1e-9)  # the clustering cannot go wrong here


def test_the_larger_set_is_cut_to_the_smaller_at_random():
    ordered = clusters(np.sort(np.arange(1000) % 10))  # the first hundred are all of one cluster
    found = measured(ordered, clusters(np.arange(100) % 10, seed=1))
    assert found["prd_f8"] > 0.9
    assert found["prd_f1_8"] > 0.9


def test_it_repeats_itself_and_keeps_the_noise_of_its_clusterings():
    rng = np.random.default_rng(0)
    real, fake = (rng.standard_normal((300, 8)).astype(np.float32) for _ in range(2))
    first = measured(real, fake, prd_runs=5)
    assert measured(real, fake, prd_runs=5) == first
    assert first["prd_f8_sd"] > 0
    assert measured(real, fake, prd_runs=5, seed=1) != first
