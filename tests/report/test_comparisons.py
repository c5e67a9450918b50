"""Paired comparisons: textbook values, planted orders, corrections that are known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rae_bench.report.comparisons import (
    holm,
    interval,
    kendall,
    p_value,
    pairs,
    prediction_half_width,
    rank_agreement,
    ranks,
)


def series(values, sample_seeds=1):
    index = pd.MultiIndex.from_product(
        [range(len(values) // sample_seeds), range(sample_seeds)], names=["train_seed", "sample_seed"]
    )
    return pd.Series([float(value) for value in values], index=index)


def test_the_interval_and_p_are_those_of_the_paired_t_test():
    difference = pd.Series([1.0, 2.0, 4.0, 1.5])
    theirs = stats.ttest_1samp(difference, 0)
    bounds = theirs.confidence_interval(0.95)
    assert interval(difference) == pytest.approx((2.125, bounds.low, bounds.high))
    assert p_value(difference) == pytest.approx(theirs.pvalue)


def test_one_seed_tells_nothing():
    assert interval(pd.Series([3.0])) == (3, -np.inf, np.inf)
    assert p_value(pd.Series([3.0])) == 1


def test_differences_that_never_vary_are_sure():
    assert p_value(pd.Series([2.0, 2.0])) == 0
    assert p_value(pd.Series([0.0, 0.0])) == 1


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made monotone: 0.02, 0.03, 0.06, 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]


def test_pairs_are_paired_by_seed():
    noise = np.array([5.0, -3, 8])  # of the seeds, common to both rows, larger than their difference
    found = pairs({"a": series(10 + noise), "b": series(11 + noise + [0.01, -0.01, 0])}).iloc[0]
    assert found["mean_difference"] == pytest.approx(-1)
    assert found["p_a_beats_b"] == 1
    assert found["p_value"] < 0.001
    assert found["p_holm"] == found["p_value"]


def test_sample_seeds_are_no_new_trainings():
    once = pairs({"a": series([1, 2, 3]), "b": series([2, 2.5, 4])}).iloc[0]
    many = pairs({"a": series(np.repeat([1, 2, 3], 50), 50), "b": series(np.repeat([2, 2.5, 4], 50), 50)}).iloc[0]
    assert many["p_value"] == pytest.approx(once["p_value"])
    assert many["n_seeds"] == 3


def test_ties_count_half():
    assert pairs({"a": series([1, 2]), "b": series([1, 3])})["p_a_beats_b"].iloc[0] == 0.75


def test_ranks_and_their_agreement():
    same = ranks({"a": series([1, 1]), "b": series([2, 2]), "c": series([3, 3])})
    assert same.loc["c"].tolist() == [3, 3]
    assert rank_agreement(same) == 1
    turned = ranks({"a": series([1, 3]), "b": series([2, 2]), "c": series([3, 1])})
    assert rank_agreement(turned) == -1
    assert np.isnan(rank_agreement(ranks({"a": series([1]), "b": series([2])})))


def test_kendall_compares_by_name():
    one = pd.Series({"a": 1.0, "b": 2.0, "c": 3.0})
    assert kendall(one, one[::-1]) == 1
    # two of three pairs agree: (2 − 1) / 3
    assert kendall(one, pd.Series({"a": 1.0, "b": 3.0, "c": 2.0})) == pytest.approx(1 / 3)


# --- one new run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_a_new_run_is_as_far_as_a_pooled_t_test_allows(n):
    """A value at exactly that distance, as a sample of one beside the n, has p 0.05."""
    values = pd.Series(np.random.default_rng(n).normal(size=n))
    there = values.mean() + prediction_half_width(values)
    test = stats.ttest_ind_from_stats(values.mean(), values.std(ddof=1), n, there, 0, 1, equal_var=True)
    assert test.pvalue == pytest.approx(0.05)


def test_the_half_width_of_two_runs_is_the_tables():
    """The 97.5 % point of t with one degree of freedom, 12.7062; SD √½ of 0 and 1; √(3/2)."""
    assert prediction_half_width(pd.Series([0.0, 1.0])) == pytest.approx(12.7062 * np.sqrt(0.75), rel=1e-5)
    assert prediction_half_width(pd.Series([3.0, 3.0, 3.0])) == 0
    assert np.isnan(prediction_half_width(pd.Series([1.0])))
    assert np.isnan(prediction_half_width(pd.Series([], dtype=float)))
