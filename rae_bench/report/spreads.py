"""How far the cells of a column lie apart: its worst over its best, whichever these truly are."""

import functools
from dataclasses import dataclass
from typing import Generic

import numpy as np
from scipy import stats

from rae_bench.report.comparisons import Cell, Compared

MISSED = 0.01
"""How often the intervals of cells that vary alike may miss; they are this wide for the sake of those that do not."""


@dataclass(frozen=True)
class Spread(Generic[Cell]):
    """How far the cells of a column lie apart: the least and the largest mean, their difference, and where it lies.

    `low` and `high` hold the largest true difference of any two cells, whichever they are, in all columns at once: in
    99 % of cases where all cells vary alike, in about 90 % where some of 17 cells vary up to twice as much.
    """

    least: Cell
    largest: Cell
    difference: float
    low: float
    high: float


def spreads(compared: Compared[Cell]) -> dict[str, Spread[Cell]]:
    """The spread of each column, the intervals of all at once (Tukey's range; a column's pooled variance).

    The difference of the two cells that happen to lie furthest apart is too large, mostly. But it differs from the
    largest true one by no more than the range of the cells' errors, whose quantile is known. Of cells that vary alike:
    wild ones have to be left out before.
    """
    found = {}
    for name in compared.columns:
        cells = [cell for cell in compared.means if compared.column[cell] == name]
        least, largest = (choose(cells, key=lambda cell: compared.means[cell]) for choose in (min, max))
        difference, half = compared.means[largest] - compared.means[least], np.inf
        if compared.seeds > 1 and len(compared.columns[name].pooled) > 1:
            level = 1 - MISSED / len(compared.columns)
            freedom = (len(compared.columns[name].pooled) - 1) * (compared.seeds - 1)
            half = _tukey(level, len(cells), freedom) * float(np.sqrt(compared.columns[name].pool / compared.seeds))
        found[name] = Spread(least, largest, difference, max(0.0, difference - half), difference + half)
    return found


@functools.cache
def _tukey(level: float, cells: int, freedom: int) -> float:
    """The quantile of the range of so many standard normal values over their estimated SD; a second's work."""
    return float(stats.studentized_range.ppf(level, cells, freedom))
