"""Differences of cells on planted ratios: textbook tests, and how often their intervals hold the truth."""

import numpy as np
import pandas as pd
import pytest
from planted_cells import normal, residual_mean_square, rows, simulated
from scipy import stats

from rae_bench.report.comparisons import OWN, Compared
from rae_bench.report.verdicts import pairs


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_two_cells_alone_are_compared_by_the_paired_t_test(seeds):
    table = normal(2, seeds)
    theirs = stats.ttest_rel(*table)
    found = Compared.of(rows(table)).difference("row0", "row1")
    assert found.p_difference == pytest.approx(theirs.pvalue)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.freedom == pytest.approx(seeds - 1)


def test_the_pool_is_the_residual_of_rows_and_seeds():
    table = normal(7, 4)
    found = Compared.of(rows(table))
    assert found.columns[""].pool == pytest.approx(residual_mean_square(table))


def test_a_spread_that_is_pooled_alone_has_the_freedom_of_the_analysis_of_variance(monkeypatch):
    """(9 − 1)(3 − 1) at equal spreads, where the estimates are: the formula is Satterthwaite's, exact there."""
    monkeypatch.setattr("rae_bench.report.comparisons.OWN", 0.0)
    found = Compared.of(rows(normal(9, 3))).typical("", 3)
    assert found.freedom == pytest.approx(16)


def test_seeds_common_to_all_rows_do_not_count():
    table = normal(5, 3)
    shifted = table + 100 * np.array([1.0, -2, 5])
    one, other = (pairs(Compared.of(rows(each)), 1.25) for each in (table, shifted))
    pd.testing.assert_frame_equal(one.drop(columns="ratio"), other.drop(columns="ratio"), rtol=1e-6)


def test_a_cells_own_spread_is_shrunk_towards_the_pool():
    table = np.zeros((9, 3))
    table[1:] = 0.1 * normal(8, 3)
    table[0] = 0.25 * np.array([-1.0, 0, 1])
    cells = Compared.of(rows(table))
    calm, wild = cells.difference("row1", "row2"), cells.difference("row0", "row1")
    assert wild.standard_error**2 == pytest.approx(
        (OWN * (cells.own["row0"] + cells.own["row1"]) + 2 * (1 - OWN) * cells.columns[""].pool) / 3
    )
    assert wild.standard_error > 1.5 * calm.standard_error


def test_rows_of_the_same_weights_enter_the_pool_once_and_baselines_never():
    table = normal(5, 3)
    cells = rows(np.vstack([table, table[0], 50 * normal(1, 3, seed=1)]))
    sources = dict(zip(cells, ["a", "b", "c", "d", "e", "a", None], strict=True))
    found = Compared.of(cells, sources=sources)
    assert found.columns[""].pool == pytest.approx(residual_mean_square(table))
    same = found.difference("row0", "row5")
    assert same.mean == 0
    assert found.difference("row1", "row6").standard_error > 10 * same.standard_error


def test_a_cell_that_surely_varies_more_than_all_others_keeps_its_own_spread():
    """The others are compared as if it were not there, to the last bit."""
    table = 0.07 * normal(9, 3)
    alone = Compared.of(rows(table))
    assert not alone.columns[""].wild
    failing = np.vstack([table, [[0.1, 1.6, 1.7]]])
    found = Compared.of(rows(failing))
    assert found.columns[""].wild == ("row9",)
    assert found.difference("row1", "row2") == alone.difference("row1", "row2")
    assert np.exp(found.difference("row0", "row9").interval[1]) > 2
    assert 2 <= found.difference("row0", "row9").freedom < 2.5  # almost all is its own variance, of three seeds


@pytest.mark.parametrize(("factor", "is_wild"), [(0.98, False), (1.02, True)])
def test_a_cell_is_wild_from_the_ratio_on_that_an_f_test_finds_once_in_a_thousand_tables(factor, is_wild):
    """Of ten cells, each tested; the ratio at which SciPy's F distribution says so, from the others' two-way fit."""
    others = 0.07 * normal(9, 3)
    effects = others.mean(axis=0) - others.mean()
    residuals = others - others.mean(axis=1, keepdims=True) - effects
    variance = (residuals**2).sum() / (8 * 2)
    critical = stats.f.isf(0.001 / 10, 2, 8 * 2)
    size = np.sqrt(factor * critical * variance * (1 + 1 / 9))
    table = np.vstack([others, effects + size * np.array([-1.0, 0, 1])])
    assert bool(Compared.of(rows(table)).columns[""].wild) == is_wild


def test_one_training_under_two_names_enters_the_pool_once():
    """Bits may differ, since a term that is never active still computes otherwise; two trainings never come so near."""
    table = normal(5, 3)
    found = Compared.of(rows(np.vstack([table, table[0] * (1 + 1e-7), table[1] + 0.01])))
    assert found.columns[""].pooled == ("row0", "row1", "row2", "row3", "row4", "row6")
    assert found.columns[""].pool == pytest.approx(residual_mean_square(np.vstack([table, table[1] + 0.01])))
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
    found = Compared.of(rows([[1.0], [5.0], [9.0]]))
    assert found.difference("row0", "row1").interval == (-np.inf, np.inf)


def test_cells_of_different_seeds_are_refused():
    with pytest.raises(ValueError, match="different training seeds"):
        Compared.of({"a": pd.Series([1.0, 2]), "b": pd.Series([1.0, 2, 3])})


@pytest.mark.parametrize(
    ("spreads", "least", "most"),
    [(np.ones(9), 0.93, 0.97), (np.array([2.0, 2, *[1] * 7]), 0.9, 1), (np.linspace(1, 2, 9), 0.9, 1)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(spreads, least, most):
    """In small; `scripts/simulate_verdicts.py` has more. Three SDs of a share of 250 tables are 0.041."""
    both = [(f"row{i}", f"row{j}") for i in range(9) for j in range(i)]
    held = []
    for cells in simulated(np.zeros(9), spreads):
        intervals = [cells.difference(*pair).interval for pair in both]
        held.append([low <= 0 <= high for low, high in intervals])
    by_pair = np.mean(held, axis=0)
    assert least <= by_pair.mean() <= most
    assert by_pair.min() > least - 0.041


def test_intervals_between_two_columns_of_a_row_are_right_if_its_residuals_are_independent_and_else_too_wide():
    """The variance of a difference is the sum of two less twice their covariance, which is left out."""

    def held(alike):
        rng, found = np.random.default_rng(19), []
        for _ in range(250):
            one, other = rng.normal(size=(2, 9, 3))
            tables = {"n": one, "gmm": alike * one + np.sqrt(1 - alike**2) * other}
            effects = {column: rng.normal(size=3) for column in tables}
            cells = {
                (row, column): pd.Series(run + effects[column])
                for column, table in tables.items()
                for row, run in enumerate(table)
            }
            compared = Compared.of(cells, {cell: cell[1] for cell in cells}, {cell: str(cell[0]) for cell in cells})
            intervals = [compared.difference((row, "n"), (row, "gmm")).interval for row in range(9)]
            found.append([low <= 0 <= high for low, high in intervals])
        return np.mean(found)

    shares = [held(alike) for alike in (0.0, 0.5, 0.9)]
    assert shares[0] == pytest.approx(0.95, abs=0.02)
    assert shares[0] < shares[1] < shares[2]
