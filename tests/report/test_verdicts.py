"""The words of a table on planted ratios: known corrections, and how often a word is wrong in simulation."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from planted_cells import TABLES, normal, rows, simulated
from scipy import stats

from rae_bench.report.comparisons import Compared, Difference
from rae_bench.report.verdicts import decided, holm, leaders, pairs, seeds_to_decide, verdicts

MARGIN = np.log(1.25)


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
    noise = 0.01 * normal(5, 6)
    cells = Compared.of(rows(np.array([0.0, 0.1, 0.5, 1.0, -0.001])[:, None] + noise))
    assert leaders(cells, "lower") == ["row0", "row4"]
    assert leaders(cells, "lower", 1.25) == ["row0", "row1", "row4"]
    assert leaders(cells, "higher") == ["row3"]


def test_what_is_decided_and_with_how_many_seeds():
    """By the verdicts themselves, beside 35 pairs that are as hard to call."""
    found = Compared.of(rows(0.07 * normal(9, 3)))

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
    values = rows(0.1 * normal(3, 3))
    twice = {"row0": values["row0"], "twin": values["row0"] * (1 + 1e-9), **values}
    cells = Compared.of(twice, None, {cell: "row0" if cell == "twin" else cell for cell in twice})
    alone = Compared.of(values)
    assert cells.difference("twin", "row2") == cells.difference("row0", "row2") == alone.difference("row0", "row2")
    between = cells.difference("row0", "twin")
    assert between.interval == (0, 0)
    found = pairs(cells, 1.25).set_index(["a", "b"])
    assert found.loc[("row0", "twin"), "verdict"] == "equal"
    assert pairs(cells, 1.0).set_index(["a", "b"]).loc[("row0", "twin"), "verdict"] == "undecided"


def test_one_seed_decides_nothing():
    found = Compared.of(rows([[1.0], [5.0], [9.0]]))
    assert set(pairs(found, 1.25)["verdict"]) == {"undecided"}
    assert leaders(found, "lower") == []
    assert decided(found.typical("", 1), 3, 1.25) == (0, np.inf)
    assert seeds_to_decide(found, "", 1.1, 3, 1.25) is None


@pytest.mark.parametrize("ratio", [1.0, 1.25])
def test_at_most_one_table_of_twenty_calls_a_pair_wrongly(ratio):
    """Of equal cells none may be better; of cells at the margin none may be equal. Three SDs of 5 % of 250: 0.041."""
    logs = np.array([0.0] * 4 + [np.log(ratio)] * 5)
    wrong = 0
    for cells in simulated(logs, np.ones(9)):
        found = pairs(cells, 1.25)
        apart = (found["a"].str[-1].astype(int) < 4) & (found["b"].str[-1].astype(int) >= 4) & (ratio > 1)
        wrong += (found["verdict"].isin(["better", "worse"]) & ~apart).any() or (
            found["verdict"].eq("equal") & apart
        ).any()
    assert wrong / TABLES <= 0.05 + 0.041
