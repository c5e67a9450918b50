"""Verdicts on planted ratios: textbook tests, known corrections, and how often they are wrong in simulation."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rae_bench.report.comparisons import (
    OWN,
    Compared,
    Difference,
    decided,
    holm,
    kendall,
    leaders,
    pairs,
    prediction_half_width,
    rank_agreement,
    ranks,
    seeds_to_decide,
    spreads,
    verdicts,
)

MARGIN = np.log(1.25)


def _cells(table):
    return {f"row{i}": pd.Series(values) for i, values in enumerate(np.asarray(table, dtype=float))}


def _random(n, seeds, seed=0):
    return np.random.default_rng(seed).normal(size=(n, seeds))


# --- the spread -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_two_cells_alone_are_compared_by_the_paired_t_test(seeds):
    table = _random(2, seeds)
    theirs = stats.ttest_rel(*table)
    found = Compared.of(_cells(table)).difference("row0", "row1")
    assert found.p_difference == pytest.approx(theirs.pvalue)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.freedom == pytest.approx(seeds - 1)


def _residual_mean_square(table):
    """That of rows and seeds in a two-way analysis of variance, by least squares on dummy variables."""
    n, seeds = table.shape
    row, seed = np.divmod(np.arange(table.size), seeds)
    design = np.hstack([np.eye(n)[row], np.eye(seeds)[seed]])
    residual = table.ravel() - design @ np.linalg.lstsq(design, table.ravel())[0]
    return (residual**2).sum() / ((n - 1) * (seeds - 1))


def test_the_pool_is_the_residual_of_rows_and_seeds():
    table = _random(7, 4)
    found = Compared.of(_cells(table))
    assert found.columns[""].pool == pytest.approx(_residual_mean_square(table))


def test_a_spread_that_is_pooled_alone_has_the_freedom_of_the_analysis_of_variance(monkeypatch):
    """(9 − 1)(3 − 1) at equal spreads, where the estimates are: the formula is Satterthwaite's, exact there."""
    monkeypatch.setattr("rae_bench.report.comparisons.OWN", 0.0)
    found = Compared.of(_cells(_random(9, 3))).typical("", 3)
    assert found.freedom == pytest.approx(16)


def test_seeds_common_to_all_rows_do_not_count():
    table = _random(5, 3)
    shifted = table + 100 * np.array([1.0, -2, 5])
    one, other = (pairs(Compared.of(_cells(each)), 1.25) for each in (table, shifted))
    pd.testing.assert_frame_equal(one.drop(columns="ratio"), other.drop(columns="ratio"), rtol=1e-6)


def test_a_cells_own_spread_is_shrunk_towards_the_pool():
    table = np.zeros((9, 3))
    table[1:] = 0.1 * _random(8, 3)
    table[0] = 0.25 * np.array([-1.0, 0, 1])
    cells = Compared.of(_cells(table))
    calm, wild = cells.difference("row1", "row2"), cells.difference("row0", "row1")
    assert wild.standard_error**2 == pytest.approx(
        (OWN * (cells.own["row0"] + cells.own["row1"]) + 2 * (1 - OWN) * cells.columns[""].pool) / 3
    )
    assert wild.standard_error > 1.5 * calm.standard_error


def test_rows_of_the_same_weights_enter_the_pool_once_and_baselines_never():
    table = _random(5, 3)
    cells = _cells(np.vstack([table, table[0], 50 * _random(1, 3, seed=1)]))
    sources = dict(zip(cells, ["a", "b", "c", "d", "e", "a", None], strict=True))
    found = Compared.of(cells, sources=sources)
    assert found.columns[""].pool == pytest.approx(_residual_mean_square(table))
    same = found.difference("row0", "row5")
    assert same.mean == 0
    assert found.difference("row1", "row6").standard_error > 10 * same.standard_error


def test_a_cell_that_surely_varies_more_than_all_others_keeps_its_own_spread():
    """The others are compared as if it were not there, to the last bit."""
    table = 0.07 * _random(9, 3)
    alone = Compared.of(_cells(table))
    assert not alone.columns[""].wild
    failing = np.vstack([table, [[0.1, 1.6, 1.7]]])
    found = Compared.of(_cells(failing))
    assert found.columns[""].wild == ("row9",)
    assert found.difference("row1", "row2") == alone.difference("row1", "row2")
    assert np.exp(found.difference("row0", "row9").interval[1]) > 2
    assert 2 <= found.difference("row0", "row9").freedom < 2.5  # almost all is its own variance, of three seeds


@pytest.mark.parametrize(("factor", "is_wild"), [(0.98, False), (1.02, True)])
def test_a_cell_is_wild_from_the_ratio_on_that_an_f_test_finds_once_in_a_thousand_tables(factor, is_wild):
    """Of ten cells, each tested; the ratio at which SciPy's F distribution says so, from the others' two-way fit."""
    others = 0.07 * _random(9, 3)
    effects = others.mean(axis=0) - others.mean()
    residuals = others - others.mean(axis=1, keepdims=True) - effects
    variance = (residuals**2).sum() / (8 * 2)
    critical = stats.f.isf(0.001 / 10, 2, 8 * 2)
    size = np.sqrt(factor * critical * variance * (1 + 1 / 9))
    table = np.vstack([others, effects + size * np.array([-1.0, 0, 1])])
    assert bool(Compared.of(_cells(table)).columns[""].wild) == is_wild


def test_one_training_under_two_names_enters_the_pool_once():
    """Bits may differ, since a term that is never active still computes otherwise; two trainings never come so near."""
    table = _random(5, 3)
    found = Compared.of(_cells(np.vstack([table, table[0] * (1 + 1e-7), table[1] + 0.01])))
    assert found.columns[""].pooled == ("row0", "row1", "row2", "row3", "row4", "row6")
    assert found.columns[""].pool == pytest.approx(_residual_mean_square(np.vstack([table, table[1] + 0.01])))
    same = found.difference("row0", "row5")
    assert same.mean == pytest.approx(0, abs=1e-7)


def test_columns_are_pooled_apart_and_their_seeds_effects_count_between_them():
    """Without residuals all that is left between two columns is the difference of their effects: a paired t-test's."""
    one, other = np.array([0.1, -0.2, 0.3]), np.array([-0.3, 0.1, 0.0])
    cells = {("a", "n"): one, ("b", "n"): 2 + one, ("a", "gmm"): other, ("b", "gmm"): other - 1}
    found = Compared.of({key: pd.Series(value) for key, value in cells.items()}, {key: key[1] for key in cells})
    theirs = stats.ttest_rel(cells["a", "n"], cells["b", "gmm"])
    difference = found.difference(("a", "n"), ("b", "gmm"))
    assert difference.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.difference(("a", "n"), ("b", "n")).standard_error == pytest.approx(0, abs=1e-12)


def test_one_seed_tells_nothing():
    found = Compared.of(_cells([[1.0], [5.0], [9.0]]))
    assert found.difference("row0", "row1").interval == (-np.inf, np.inf)
    assert set(pairs(found, 1.25)["verdict"]) == {"undecided"}
    assert leaders(found, "lower") == []
    assert decided(found.typical("", 1), 3, 1.25) == (0, np.inf)
    assert seeds_to_decide(found, "", 1.1, 3, 1.25) is None


def test_cells_of_different_seeds_are_refused():
    with pytest.raises(ValueError, match="different training seeds"):
        Compared.of({"a": pd.Series([1.0, 2]), "b": pd.Series([1.0, 2, 3])})


# --- tests and words --------------------------------------------------------------------------------------


def test_the_tests_of_equality_are_two_one_sided_t_tests():
    values = np.array([0.02, -0.05, 0.1, 0.04])
    found = Difference(values.mean(), values.std(ddof=1) / 2, 3)
    below = stats.ttest_1samp(values, MARGIN, alternative="less").pvalue
    above = stats.ttest_1samp(values, -MARGIN, alternative="greater").pvalue
    assert found.p_equal(MARGIN) == pytest.approx(2 * max(below, above))
    assert found.p_difference == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


@pytest.mark.parametrize(
    ("mean", "error", "expected"),
    [
        (0.0, 0.04, "equal"),  # all intervals are ± 1.96 errors; the margin is 0.223
        (-0.1, 0.04, "equal"),  # leaves out 0, and lies within the margin all the same
        (0.22, 0.04, "worse"),  # leaves out 0, and the margin's end lies in it
        (0.4, 0.04, "worse"),
        (-0.4, 0.04, "better"),
        (0.1, 0.1, "undecided"),  # holds 0 and the margin's end
    ],
)
def test_a_word_says_where_the_interval_lies(mean, error, expected):
    assert verdicts([Difference(mean, error, 1e6)], [MARGIN]) == [expected]


def test_equality_is_never_said_at_margin_0():
    assert verdicts([Difference(0.0, 1e-9, 100)], [0]) == ["undecided"]


def test_differences_that_never_vary_are_sure():
    assert verdicts([Difference(0.5, 0.0, 2), Difference(0.0, 0.0, 2)], [MARGIN] * 2) == ["worse", "equal"]


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made monotone: 0.02, 0.03, 0.06, 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []


def test_words_are_adjusted_for_the_tables_other_pairs():
    """p 0.01 decides alone, and not beside five others of 0.5."""
    sure = Difference(float(stats.norm.isf(0.005)) * 0.2, 0.2, 1e9)
    other = Difference(0.6745 * 0.2, 0.2, 1e9)
    assert verdicts([sure], [MARGIN]) == ["worse"]
    assert set(verdicts([sure, *[other] * 5], [MARGIN] * 6)) == {"undecided"}


def test_leaders_are_those_than_which_no_other_is_called_better():
    """Two logarithms 0.1 apart are surely different, and surely within the margin: equal where there is one."""
    noise = 0.01 * _random(5, 6)
    cells = Compared.of(_cells(np.array([0.0, 0.1, 0.5, 1.0, -0.001])[:, None] + noise))
    assert leaders(cells, "lower") == ["row0", "row4"]
    assert leaders(cells, "lower", 1.25) == ["row0", "row1", "row4"]
    assert leaders(cells, "higher") == ["row3"]


def test_what_is_decided_and_with_how_many_seeds():
    """By the verdicts themselves, beside 35 pairs that are as hard to call."""
    found = Compared.of(_cells(0.07 * _random(9, 3)))

    def word(seeds, ratio, within=1.25):
        difference = replace(found.typical("", seeds), mean=np.log(ratio))
        (said,) = set(verdicts([difference] * 36, [np.log(within)] * 36))
        return said

    for seeds, kinds in ((3, ["undecided", "worse"]), (5, ["equal", "undecided", "worse"]), (60, ["equal", "worse"])):
        least, most = decided(found.typical("", seeds), 36, 1.25)
        assert (least >= most) == ("undecided" not in kinds)
        limits = [1.0, *sorted({limit for limit in (least, max(least, most)) if limit > 1}), 1.5]
        said = [[word(seeds, 1.001 * low), word(seeds, 0.999 * high)] for low, high in pairwise(limits)]
        assert said == [[kind, kind] for kind in kinds]
    for within, said in ((1.25, "equal"), (1.02, "worse")):
        needed = seeds_to_decide(found, "", 1.1, 36, within)
        assert (word(needed - 1, 1.1, within), word(needed, 1.1, within)) == ("undecided", said)


def test_one_training_under_two_names_is_one_cell():
    """Either is compared with a third alike, and with the other one exactly."""
    values = _cells(0.1 * _random(3, 3))
    twice = {"row0": values["row0"], "twin": values["row0"] * (1 + 1e-9), **values}
    cells = Compared.of(twice, None, {cell: "row0" if cell == "twin" else cell for cell in twice})
    alone = Compared.of(values)
    assert cells.difference("twin", "row2") == cells.difference("row0", "row2") == alone.difference("row0", "row2")
    between = cells.difference("row0", "twin")
    assert between.interval == (0, 0)
    found = pairs(cells, 1.25).set_index(["a", "b"])
    assert found.loc[("row0", "twin"), "verdict"] == "equal"
    assert pairs(cells, 1.0).set_index(["a", "b"]).loc[("row0", "twin"), "verdict"] == "undecided"


# --- how often they are wrong -----------------------------------------------------------------------------

TABLES = 250


def _simulated(logs, spreads, seeds=3):
    rng = np.random.default_rng(5)
    for _ in range(TABLES):
        noise = rng.normal(size=(len(logs), seeds)) * np.array(spreads)[:, None]
        yield Compared.of(_cells(np.array(logs)[:, None] + rng.normal(size=seeds) + 0.07 * noise))


@pytest.mark.parametrize(
    ("spreads", "least", "most"),
    [(np.ones(9), 0.93, 0.97), (np.array([2.0, 2, *[1] * 7]), 0.9, 1), (np.linspace(1, 2, 9), 0.9, 1)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(spreads, least, most):
    """In small; `scripts/simulate_verdicts.py` has more. Three SDs of a share of 250 tables are 0.041."""
    both = [(f"row{i}", f"row{j}") for i in range(9) for j in range(i)]
    held = []
    for cells in _simulated(np.zeros(9), spreads):
        intervals = [cells.difference(*pair).interval for pair in both]
        held.append([low <= 0 <= high for low, high in intervals])
    by_pair = np.mean(held, axis=0)
    assert least <= by_pair.mean() <= most
    assert by_pair.min() > least - 0.041


@pytest.mark.parametrize("ratio", [1.0, 1.25])
def test_at_most_one_table_of_twenty_calls_a_pair_wrongly(ratio):
    """Of equal cells none may be better; of cells at the margin none may be equal. Three SDs of 5 % of 250: 0.041."""
    logs = np.array([0.0] * 4 + [np.log(ratio)] * 5)
    wrong = 0
    for cells in _simulated(logs, np.ones(9)):
        found = pairs(cells, 1.25)
        apart = (found["a"].str[-1].astype(int) < 4) & (found["b"].str[-1].astype(int) >= 4) & (ratio > 1)
        wrong += (found["verdict"].isin(["better", "worse"]) & ~apart).any() or (
            found["verdict"].eq("equal") & apart
        ).any()
    assert wrong / TABLES <= 0.05 + 0.041


# --- the spread of a column -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "least"), [(np.ones(9), 0.95), (np.array([2.0, 2, *[1] * 7]), 0.9), (np.linspace(1, 2, 9), 0.9)]
)
@pytest.mark.parametrize("logs", [np.zeros(9), np.linspace(0, 0.4, 9), np.array([0.0] * 8 + [0.4])])
def test_the_interval_of_a_spread_holds_the_true_one(logs, noise, least):
    """As often as it says at equal spreads, and hardly less where they are not; three SDs of a share of 250: 0.041."""
    found = [spreads(cells)[""] for cells in _simulated(logs, noise)]
    held = [one.low <= logs.max() - logs.min() <= one.high for one in found]
    assert np.mean(held) >= least - 0.041
    assert all(one.low <= one.difference <= one.high for one in found)


def test_the_interval_of_a_spread_is_as_wide_as_tukeys_of_a_difference():
    """Up to the freedom that effects of seeds take, which Tukey's test does not know: a fifth of it."""
    table = 0.1 * _random(5, 60)
    ours, theirs = spreads(Compared.of(_cells(table)))[""], stats.tukey_hsd(*table)
    half = theirs.confidence_interval(0.95).high - theirs.statistic
    assert ours.high - ours.difference == pytest.approx(half[0, 1], rel=0.1)


def test_spreads_of_several_columns_hold_together():
    table = np.array([[0, 0.1, 0.2], [1, 1.2, 1.1], [3, 3.1, 3.0], [0, 0.1, 0.1], [0.0, 0.2, 0.1]])
    cells = {(f"row{i}", "n" if i < 3 else "gmm"): pd.Series(row) for i, row in enumerate(table)}
    found = spreads(Compared.of(cells, {cell: cell[1] for cell in cells}))
    assert (found["n"].least, found["n"].largest) == (("row0", "n"), ("row2", "n"))
    assert found["n"].difference == pytest.approx(table[2].mean() - table[0].mean())
    residual = _residual_mean_square(table[:3])
    half = stats.studentized_range.ppf(1 - 0.05 / 2, 3, 4) * np.sqrt(residual / 3)
    assert found["n"].high - found["n"].difference == pytest.approx(half, rel=1e-6)
    assert found["n"].low == pytest.approx(found["n"].difference - half, rel=1e-6)


# --- ranks ------------------------------------------------------------------------------------------------


def test_ranks_and_their_agreement():
    same = ranks(_cells([[1, 1], [2, 2], [3, 3]]))
    assert same.loc["row2"].tolist() == [3, 3]
    assert rank_agreement(same) == 1
    turned = ranks(_cells([[1, 3], [2, 2], [3, 1]]))
    assert rank_agreement(turned) == -1
    assert np.isnan(rank_agreement(ranks(_cells([[1], [2]]))))


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
