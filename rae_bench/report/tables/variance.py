"""The sources of a Fréchet distance's randomness: training, fit, draw and reference; and what more of each buys.

Of the logarithms y of a row's distances, by training seed t, fit f and draw d, as a nested analysis of variance has it:

    E var_d(y)            = draw²                                  within a fit
    E var_f(mean_d y)     = fit² + draw² / D                       within a training
    E var_t(mean_f,d y)   = training² + fit² / F + draw² / (F D)   within a row

The variances are means over the rows of a column; the reference's comes from random halves of it. Part of what a
training seed does is common to all rows and cancels in ratios: what is left of it there is `paired`, by the pool of
`rae_bench.report.comparisons` in place of the last line's left side.

Standard errors are those of normal values: a variance v of k degrees of freedom has v √(2/k). What is subtracted adds
its own. The variances of n rows that share an effect of seeds, of variance c, are not independent: their mean T over s
seeds has √(2/(s − 1) · (T²/n + (1 − 1/n) c²)), since the covariance of two rows is c.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import COLUMNS, as_records, cell_frame, compared
from rae_bench.study.specs import SummarySpec

SOURCES = ("training", "paired", "fit", "draw", "reference")
HEADER = ("Training", "of it paired", "Fit", "Draw", "Reference")
REFERENCE_SD = "frechet_distance_reference_sd"


@dataclass(frozen=True)
class Estimate:
    """A variance and its standard error; NaN where nothing repeats."""

    variance: float = float("nan")
    variance_error: float = float("nan")

    @property
    def is_known(self) -> bool:
        """Whether anything repeats."""
        return not np.isnan(self.variance)

    @property
    def sd(self) -> float:
        """Its root; 0 where what lies below it explains more than there is."""
        return float(np.sqrt(np.maximum(self.variance, 0)))

    @property
    def error(self) -> float:
        """How much larger `sd` would be, were the variance larger by its standard error."""
        return float(np.sqrt(self.sd**2 + self.variance_error)) - self.sd

    def less(self, below: "Estimate") -> "Estimate":
        """What is left beside a part that is estimated apart; that part may be unknown, and is then left in."""
        if not below.is_known:
            return self
        return Estimate(self.variance - below.variance, float(np.hypot(self.variance_error, below.variance_error)))

    def over(self, count: float) -> "Estimate":
        """The estimate of a mean's variance, of so many independent values."""
        return Estimate(self.variance / count, self.variance_error / count)


def variance_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """The SD of a cell by source in every column, and the half-width of a ratio now and after doubling each count."""
    records = []
    for column in COLUMNS:
        counts = _counts(spec, frame, dataset, column)
        if not all(counts):
            continue
        found = sources(spec, frame, dataset, column)
        records.append(
            {
                **{"dataset": dataset, "column": column},
                **{source: found[source].sd for source in SOURCES},
                **{f"{source}_error": found[source].error for source in SOURCES},
                **dict(zip(("n_training", "n_fit", "n_draw"), counts, strict=True)),
                "half_width": half_width(found, counts),
                **{
                    f"half_width_twice_{source}": half_width(found, _doubled(counts, i))
                    if found[source].is_known
                    else np.nan  # of what was never repeated nobody knows what more would buy
                    for i, source in enumerate(("paired", "fit", "draw"))
                },
            }
        )
    return Table(
        f"variance_{dataset}",
        f"{spec.datasets[dataset].label}: SD of a Fréchet distance's logarithm by source",
        ["", *HEADER, "Ratio to within", "twice the seeds", "fits", "draws"],
        [
            [
                COLUMNS[one["column"]],
                *(_with_error(one[source], one[f"{source}_error"]) for source in SOURCES),
                _percent(one["half_width"]),
                *(_percent(one[f"half_width_twice_{source}"]) for source in ("paired", "fit", "draw")),
            ]
            for one in as_records(pd.DataFrame(records))
        ],
        set(),
        [
            "SD ± how much larger it would be, were its variance larger by its standard error: of one training seed, of"
            " what of it is not common to all rows, of one fit of a random density, one draw of"
            f" {spec.n_generated:,} images, pooled over the rows; and of another reference of {spec.n_images:,} images,"
            " by half-sampling, which all rows of a data set share. –: nothing repeats.",
            "Ratio to within: half the 95 % interval of the ratio of two cells with this study's counts"
            f" ({len(spec.train_seeds)} training seeds, at most {len(spec.fit_seeds)} fits, {len(spec.sample_seeds)}"
            " draws of each), were the SDs known; then with twice as many of one of them.",
        ],
        pd.DataFrame(records),
    )


def sources(spec: SummarySpec, frame: pd.DataFrame, dataset: str, column: str) -> dict[str, Estimate]:
    """The variance of a logarithm by source, the mean over the rows of a column that are of different models."""
    parts: dict[str, list[Estimate]] = {source: [] for source in SOURCES}
    totals: list[float] = []
    below: list[Estimate] = []
    known: set[str] = set()
    for row in spec.competing.values():
        values = cell_frame(frame, dataset, row, column, "frechet_distance")
        if values.empty or row.model in known:
            continue
        known.add(row.model)
        logs = np.log(values.set_index(["train_seed", "fit_seed", "sample_seed"])["value"])
        fits = logs.groupby(level=["train_seed", "fit_seed"])
        runs = fits.mean().groupby(level="train_seed")
        n_draws, n_fits = len(logs) / fits.ngroups, fits.ngroups / runs.ngroups
        draw, of_fits = _within(fits), _within(runs)
        parts["draw"].append(draw)
        parts["fit"].append(of_fits.less(draw.over(n_draws)))
        totals.append(float(runs.mean().var(ddof=1)))
        of_one = next((one for one in (of_fits, draw.over(n_draws)) if one.is_known), Estimate(0.0, 0.0))
        below.append(of_one.over(n_fits))
        halves = cell_frame(frame, dataset, row, column, REFERENCE_SD).set_index("train_seed")["value"]
        first = values.sort_values(["fit_seed", "sample_seed"]).groupby("train_seed")["value"].first()
        # of no error: all rows are held against the same halves, so that their estimates go together
        parts["reference"] += [Estimate(float(((halves / first) ** 2).mean()))] if len(halves) else []
    found = {source: _mean(estimates) for source, estimates in parts.items()}
    column_pool = compared(spec, frame, dataset, column).columns[column]
    n, seeds, explained = len(column_pool.pooled), len(column_pool.effects), _mean(below)
    if totals and seeds > 1:
        total = float(np.mean(totals))
        common = max(0.0, total - column_pool.pool) if n > 1 else 0.0
        error = np.sqrt(2 / (seeds - 1) * (total**2 / len(totals) + (1 - 1 / len(totals)) * common**2))
        found["training"] = Estimate(total, float(error)).less(explained)
    if n > 1 and seeds > 1:
        found["paired"] = _estimate(column_pool.pool, (n - 1) * (seeds - 1)).less(explained)
    return found


def _estimate(variance: float, freedom: int) -> Estimate:
    """A variance of normal values with so many degrees of freedom."""
    return Estimate(variance, variance * float(np.sqrt(2 / freedom)))


def _within(groups: Any) -> Estimate:
    """The mean variance within groups, of those with more than one value."""
    sizes, variances = groups.size(), groups.var(ddof=1)
    several = sizes > 1
    return _estimate(float(variances[several].mean()), int((sizes[several] - 1).sum())) if several.any() else Estimate()


def _mean(found: list[Estimate]) -> Estimate:
    """The mean of independent estimates, of those that are known."""
    known = [one for one in found if one.is_known]
    if not known:
        return Estimate()
    error = np.sqrt(np.sum([one.variance_error**2 for one in known])) / len(known)
    return Estimate(float(np.mean([one.variance for one in known])), float(error))


def _counts(spec: SummarySpec, frame: pd.DataFrame, dataset: str, column: str) -> tuple[int, int, int]:
    """How many training seeds, fits and draws a cell of the column has, the most of any row."""
    found = [cell_frame(frame, dataset, row, column, "frechet_distance") for row in spec.competing.values()]
    names = ("train_seed", "fit_seed", "sample_seed")
    most = [max(int(values[name].nunique()) for values in found) for name in names]
    return most[0], most[1], most[2]


def _doubled(counts: tuple[int, int, int], which: int) -> tuple[int, int, int]:
    t, f, d = (2 * count if i == which else count for i, count in enumerate(counts))
    return t, f, d


def half_width(found: dict[str, Estimate], counts: tuple[int, int, int]) -> float:
    """The share by which a ratio of two cells may be off in 95 % of cases, of so many training seeds, fits and draws.

    NaN where training was not repeated.
    """
    if not found["paired"].is_known:
        return float("nan")
    variances = [found[name].sd ** 2 if found[name].is_known else 0.0 for name in ("paired", "fit", "draw")]
    of_cell = sum(variance / np.prod(counts[: i + 1]) for i, variance in enumerate(variances))
    return float(np.expm1(1.96 * np.sqrt(2 * of_cell)))


def _with_error(sd: float, error: float) -> str:
    if np.isnan(sd):
        return "–"
    return f"{sd:.3f}" if np.isnan(error) else f"{sd:.3f} ± {error:.3f}"


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f} %"
