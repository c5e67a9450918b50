"""Differences of cells: ratios of distances, paired by training seed, with one pooled spread.

A cell is a row of a table in one of its columns; its value for a training seed is the mean over fits and draws. The
logarithm of cell c with seed s is taken to be mean_c + effect_s + residual_cs, the effects those of the column. The
residual variance of a cell is shrunk towards that of its column:

    v_c = OWN · own_c + (1 − OWN) · pool,     Var(mean_a − mean_b) = (v_a + v_b) / seeds

with own_c that of the cell's own residuals and pool the mean of own over the column's cells. A cell that stands outside
the pool keeps its own; so does one that varies more than the others for sure (`_is_wild`), a training that sometimes
fails, say, which would else widen the interval of every pair. Between two columns the variance of the difference of
their effects is added; the residuals of one row in two columns are taken as independent, which makes the interval too
wide where they go together, too narrow where they go apart. Satterthwaite's approximation gives the degrees of freedom
of the sum, from the estimates themselves: of one pooled variance alone they would be (cells − 1)(seeds − 1), of
two cells alone seeds − 1. The words that come of them: `verdicts.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE
"""A test decides if its p, adjusted for the others of its table, lies below this."""
WILD = 0.001
"""The p, times the cells of the pool, below which a cell's spread is surely larger than that of the others."""
OWN = 2 / 3
"""The share of a cell's own spread in the one it is compared with: a row may vary twice as much as others."""
SAME = 1e-5
"""Cells whose values (logarithms, mostly) differ by a smaller share have one training under two names."""

Cell = TypeVar("Cell", bound=Hashable)


class Tested(ABC):
    """What can be said of a difference, whose hypotheses have one-sided p."""

    @abstractmethod
    def p_below(self, bound: float) -> float:
        """One-sided p of the hypothesis that the difference is at least `bound`."""

    @abstractmethod
    def p_above(self, bound: float) -> float:
        """One-sided p of the hypothesis that the difference is at most `bound`."""

    @property
    def p_difference(self) -> float:
        """Two-sided p of the hypothesis that there is none."""
        return min(1.0, 2 * min(self.p_below(0), self.p_above(0)))

    def p_equal(self, margin: float) -> float:
        """The p of two one-sided tests that the difference is `margin` or more to either side.

        Doubled, so that it lies below 5 % where the 95 % interval lies within the margin.
        """
        return min(1.0, 2 * max(self.p_below(margin), self.p_above(-margin)))


@dataclass(frozen=True)
class Difference(Tested):
    """The difference of two cells' means, its standard error and degrees of freedom; of logs, that of a ratio."""

    mean: float
    standard_error: float
    freedom: float

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the 95 % t-interval; infinitely wide where nothing is known of the spread."""
        if not self.freedom:
            return -np.inf, np.inf
        half = float(special.stdtrit(self.freedom, 0.5 + CONFIDENCE / 2)) * self.standard_error
        return self.mean - half, self.mean + half

    def less(self, bound: float) -> "Difference":
        """The same less `bound`."""
        return Difference(self.mean - bound, self.standard_error, self.freedom)

    def p_below(self, bound: float) -> float:
        """The p of Student's t-test; 1 where nothing is known of the spread."""
        if not self.freedom:
            return 1.0
        if self.standard_error == 0:
            return float(self.mean >= bound)
        return float(special.stdtr(self.freedom, (self.mean - bound) / self.standard_error))

    def p_above(self, bound: float) -> float:
        """The p of the same test with the sides exchanged."""
        return Difference(-self.mean, self.standard_error, self.freedom).p_below(-bound)


@dataclass(frozen=True)
class FromLeast(Tested):
    """The difference of a cell from whichever of several others is truly the least, of its `differences` from each.

    To lie below the least is to lie below each: the largest p counts. To lie above it is to lie above one, and the
    smallest of m values of p is small by chance: it counts m times (Bonferroni).
    """

    differences: tuple[Difference, ...]

    def p_below(self, bound: float) -> float:
        """The p of the hypothesis that it lies at least `bound` above one of the others, to be rejected for each."""
        return max(one.p_below(bound) for one in self.differences)

    def p_above(self, bound: float) -> float:
        """The p of the hypothesis that it lies at most `bound` above each of the others, to be rejected for one."""
        return min(1.0, len(self.differences) * min(one.p_above(bound) for one in self.differences))

    def less(self, bound: float) -> "FromLeast":
        """The same less `bound`."""
        return FromLeast(tuple(one.less(bound) for one in self.differences))


@dataclass(frozen=True)
class Column(Generic[Cell]):
    """What a column's cells share: the seeds' `effects` (seeds,), which cells are pooled, and their mean variance.

    `wild`: those that would be pooled, but vary more than the others for sure. `twins`: cells of the `SAME` values as
    another, with that one.
    """

    effects: npt.NDArray[np.float64]
    pooled: tuple[Cell, ...]
    pool: float
    wild: tuple[Cell, ...]
    twins: Mapping[Cell, Cell]


@dataclass(frozen=True)
class Compared(Generic[Cell]):
    """Cells whose means can be compared: by cell the means, the residual variances `own` of a seed, and the column.

    Those `outside` are in no pool.
    """

    means: Mapping[Cell, float]
    own: Mapping[Cell, float]
    outside: frozenset[Cell]
    column: Mapping[Cell, str]
    columns: Mapping[str, Column[Cell]]
    seeds: int

    @classmethod
    def of(
        cls,
        values: Mapping[Cell, pd.Series],
        column: Mapping[Cell, str] | None = None,
        sources: Mapping[Cell, str | None] | None = None,
    ) -> "Compared[Cell]":
        """The comparison of cells, of each its value (a logarithm where ratios are asked for) by training seed.

        `column`: that of each cell; without it all are of one. `sources`: where the values of each cell come from, if
        not each from its own: cells of one column and source (trained weights) enter the pool once, of None never; nor
        do cells of the `SAME` values twice.

        Raises:
            ValueError: cells of different seeds.
        """
        table = pd.DataFrame(dict(enumerate(values.values())))
        if table.isna().any(axis=None):
            raise ValueError(f"cells of different training seeds cannot be compared: {list(values)}")
        column, sources = column or dict.fromkeys(values, ""), sources or {cell: str(cell) for cell in values}
        runs = dict(zip(values, table.to_numpy(dtype=np.float64).T, strict=True))
        columns: dict[str, Column[Cell]] = {}
        own: dict[Cell, float] = {}
        for name in dict.fromkeys(column.values()):
            mine = {cell: run for cell, run in runs.items() if column[cell] == name}
            columns[name], variances = _column(mine, sources)
            own |= variances
        means = {cell: float(run.mean()) for cell, run in runs.items()}
        wild = {cell for shared in columns.values() for cell in shared.wild}
        outside = frozenset(cell for cell in values if sources[cell] is None or cell in wild)
        return cls(means, own, outside, column, columns, len(table))

    def difference(self, a: Cell, b: Cell) -> Difference:
        """The mean of `a` less that of `b`."""
        a, b = (self.columns[self.column[cell]].twins.get(cell, cell) for cell in (a, b))
        if a == b:
            return Difference(0.0, 0.0, np.inf)
        mean = self.means[a] - self.means[b]
        if self.seeds < 2:
            return Difference(mean, np.inf, 0)
        sides: dict[str, list[Cell]] = {self.column[a]: []}
        for cell in (a, b):
            sides.setdefault(self.column[cell], []).append(cell)
        parts = [self._variance(name, cells) for name, cells in sides.items()]
        if len(sides) == 2:
            one, other = (self.columns[name].effects for name in sides)
            between = float((one - other).var(ddof=1))
            parts.append((between, between**2 / (self.seeds - 1)))
        variance, uncertainty = (sum(part) for part in zip(*parts, strict=True))
        return Difference(
            mean, float(np.sqrt(variance / self.seeds)), variance**2 / uncertainty if uncertainty else np.inf
        )

    def _variance(self, column: str, cells: Sequence[Cell]) -> tuple[float, float]:
        """The summed variances of these cells of a column; and half the variance of that sum, as it is estimated."""
        pooled = self.columns[column].pooled
        weights: dict[Cell, float] = dict.fromkeys((*pooled, *cells), 0.0)
        for cell in cells:
            own = 1.0 if cell in self.outside or len(pooled) < 2 else OWN
            weights[cell] += own
            for other in pooled:
                weights[other] += (1 - own) / len(pooled)
        parts = {cell: weight * self.own[cell] for cell, weight in weights.items()}
        # residuals of two cells of a pool of n are correlated by −1/(n − 1), their squares by its square
        shared = [parts[cell] for cell in pooled]
        alike = (sum(shared) ** 2 - sum(part**2 for part in shared)) / max(len(pooled) - 1, 1) ** 2
        return sum(parts.values()), (sum(part**2 for part in parts.values()) + alike) / (self.seeds - 1)

    def typical(self, column: str, seeds: int) -> Difference:
        """No difference at all of two cells that vary as the column's do on average, had there been so many seeds."""
        shared = self.columns[column]
        if len(shared.pooled) < 2:
            return Difference(0, np.inf, 0)
        alike = replace(self, own=dict.fromkeys(self.own, shared.pool), seeds=seeds)
        return replace(alike.difference(*shared.pooled[:2]), mean=0)


def _column(
    runs: Mapping[Cell, npt.NDArray[np.float64]], sources: Mapping[Cell, str | None]
) -> tuple[Column[Cell], dict[Cell, float]]:
    """What the cells of a column share, and the residual variance of each; `runs`: by cell its values (seeds,)."""
    pooled: list[Cell] = []
    twins: dict[Cell, Cell] = {}
    for cell, run in runs.items():
        if sources[cell] is None:
            continue
        twin = next((one for one in pooled if _is_same(run, runs[one])), None)
        if twin is not None:
            twins[cell] = twin
        elif not any(sources[cell] == sources[one] for one in pooled):
            pooled.append(cell)
    wild: list[Cell] = []
    while True:
        effects, own = _residuals(runs, pooled)
        widest = max(pooled, key=lambda cell: own[cell], default=None)
        if widest is None or not _is_wild(runs, pooled, widest):
            break
        pooled.remove(widest)
        wild.append(widest)
    pool = float(np.mean([own[cell] for cell in pooled])) if pooled else 0.0
    own |= {cell: own[twin] for cell, twin in twins.items()}
    return Column(effects, tuple(pooled), pool, tuple(wild), twins), own


def _is_same(run: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> bool:
    """Whether the values of two cells (seeds,) are those of one training."""
    return bool((abs(run - other) <= SAME * abs(run)).all())


def _is_wild(runs: Mapping[Cell, npt.NDArray[np.float64]], pooled: Sequence[Cell], cell: Cell) -> bool:
    """Whether a cell varies more than the others of the pool for sure: an F-test, once for each cell of the pool."""
    n, seeds = len(pooled), len(runs[cell])
    if n < 3 or seeds < 2:
        return False
    others = [one for one in pooled if one != cell]
    _, own = _residuals(runs, others)
    # beside the others' effects, whose variance is the share 1/(n − 1) of theirs
    theirs = float(np.mean([own[one] for one in others]))
    ratio = own[cell] / (theirs * n / (n - 1)) if theirs else np.inf * own[cell]
    return n * float(special.fdtrc(seeds - 1, (n - 2) * (seeds - 1), ratio)) < WILD


def _residuals(
    runs: Mapping[Cell, npt.NDArray[np.float64]], pooled: Sequence[Cell]
) -> tuple[npt.NDArray[np.float64], dict[Cell, float]]:
    """The effects of seeds (seeds,), those of the pooled cells, and the residual variance of each cell beside them."""
    n, seeds = len(pooled), len(next(iter(runs.values())))
    effects = np.mean([runs[cell] - runs[cell].mean() for cell in pooled], axis=0) if n > 1 else np.zeros(seeds)
    # an average over n cells takes the share 1/n of its variance from each of them
    kept = {cell: 1 - 1 / n if n > 1 and cell in pooled else 1.0 for cell in runs}
    own = {
        cell: float(((run - run.mean() - effects) ** 2).sum() / max(seeds - 1, 1) / kept[cell])
        for cell, run in runs.items()
    }
    return effects, own
