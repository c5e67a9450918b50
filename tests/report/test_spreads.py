"""The spread of a column: how often its interval holds the true one, and Tukey's own."""

import numpy as np
import pandas as pd
import pytest
from planted_cells import normal, residual_mean_square, rows, simulated
from scipy import stats

from rae_bench.report.comparisons import Compared
from rae_bench.report.spreads import spreads


@pytest.mark.parametrize(
    ("noise", "least"), [(np.ones(9), 0.99), (np.array([2.0, 2, *[1] * 7]), 0.95), (np.linspace(1, 2, 9), 0.95)]
)
@pytest.mark.parametrize("logs", [np.zeros(9), np.linspace(0, 0.4, 9), np.array([0.0] * 8 + [0.4])])
def test_the_interval_of_a_spread_holds_the_true_one(logs, noise, least):
    """As often as it says at equal spreads, and hardly less where they are not; three SDs of a share of 250: 0.041."""
    found = [spreads(cells)[""] for cells in simulated(logs, noise)]
    held = [one.low <= logs.max() - logs.min() <= one.high for one in found]
    assert np.mean(held) >= least - 0.041
    assert all(one.low <= one.difference <= one.high for one in found)


@pytest.mark.parametrize(("doubled", "least"), [(0, 0.99), (1, 0.94), (6, 0.9)])
def test_intervals_of_many_rows_and_columns_hold_together(doubled, least):
    """Of the size of the study `variants`, rows that surely vary more left out as there; three SDs of 250: 0.057."""
    rng, held = np.random.default_rng(17), []
    spread = np.array([2.0] * doubled + [1.0] * (17 - doubled))
    for _ in range(250):
        values = rng.normal(size=(4, 17, 3)) * spread[:, None]
        cells = {
            (row, str(column)): pd.Series(run) for column, table in enumerate(values) for row, run in enumerate(table)
        }
        while True:
            found = Compared.of(cells, {cell: cell[1] for cell in cells})
            wild = {row for column in found.columns.values() for row, _ in column.wild}
            if not wild:
                break
            cells = {cell: run for cell, run in cells.items() if cell[0] not in wild}
        held.append(all(one.low == 0 for one in spreads(found).values()))
    assert np.mean(held) >= least - 0.057


def test_the_interval_of_a_spread_is_as_wide_as_tukeys_of_a_difference():
    """Up to the freedom that effects of seeds take, which Tukey's test does not know: a fifth of it."""
    table = 0.1 * normal(5, 60)
    ours, theirs = spreads(Compared.of(rows(table)))[""], stats.tukey_hsd(*table)
    half = theirs.confidence_interval(0.99).high - theirs.statistic
    assert ours.high - ours.difference == pytest.approx(half[0, 1], rel=0.1)


def test_spreads_of_several_columns_hold_together():
    table = np.array([[0, 0.1, 0.2], [1, 1.2, 1.1], [3, 3.1, 3.0], [0, 0.1, 0.1], [0.0, 0.2, 0.1]])
    cells = {(f"row{i}", "n" if i < 3 else "gmm"): pd.Series(row) for i, row in enumerate(table)}
    found = spreads(Compared.of(cells, {cell: cell[1] for cell in cells}))
    assert (found["n"].least, found["n"].largest) == (("row0", "n"), ("row2", "n"))
    assert found["n"].difference == pytest.approx(table[2].mean() - table[0].mean())
    residual = residual_mean_square(table[:3])
    half = stats.studentized_range.ppf(1 - 0.01 / 2, 3, 4) * np.sqrt(residual / 3)
    assert found["n"].high - found["n"].difference == pytest.approx(half, rel=1e-6)
    assert found["n"].low == pytest.approx(found["n"].difference - half, rel=1e-6)
