"""Models under their own priors and under densities fitted ex post: every row, and how far the rows lie apart."""

import numpy as np
import pandas as pd

from rae_bench.report.comparisons import LEVEL, Compared, Spread, leaders, spreads
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import Cell, as_records, cell_values, compared, extractor_label
from rae_bench.report.tables.notes import BOLD, measured_notes, warning_notes
from rae_bench.report.tables.wording import distance_name, mean_sd
from rae_bench.study.specs import Row, SummarySpec

METRIC = "frechet_distance"
COLUMNS = {
    "reconstruction": "Rec.",
    "n": "Own prior",
    "gaussian": "Gaussian",
    "gmm": "GMM",
    "gmm_selected": "GMM, selected K",
    "interpolation": "Interp.",
}
FITTED = ("gaussian", "gmm", "gmm_selected")
"""The columns of densities that are fitted to every row's codes."""


def with_prior(spec: SummarySpec, dataset: str) -> dict[str, Row]:
    """The rows that compete whose column N is a prior of their own, fitted to nothing."""
    return {
        name: row
        for name, row in spec.competing.items()
        if row.n and not row.through and spec.density(dataset, row.model, row.n).is_prior
    }


def prior_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """The Fréchet distance of every row by `COLUMNS`; an own prior of the rows alone that have one."""
    having, records = with_prior(spec, dataset), []
    columns = [name for name in COLUMNS if name not in FITTED[2:] or name in spec.densities]
    for name, row in spec.ordered_rows.items():
        for column in columns:
            values = cell_values(frame, dataset, row, column)
            if len(values) and (column != "n" or name in having):
                cell = {"dataset": dataset, "row": name, "label": row.label, "column": column}
                records.append({**cell, "mean": values.mean(), "sd": values.std(ddof=1), "n_seeds": len(values)})
    data = pd.DataFrame(records)
    texts = {(one["row"], one["column"]): mean_sd(one["mean"], one["sd"], METRIC) for one in as_records(data)}
    bold = {
        cell
        for column in columns
        for cell in leaders(_column(spec, frame, dataset, column), "lower", spec.equal_within)
    }
    rows = spec.ordered_rows
    return Table(
        f"priors_{dataset}",
        f"{spec.datasets[dataset].label}: models under their own priors and under densities fitted ex post,"
        f" {distance_name('FD', extractor_label(frame, dataset))} ↓",
        ["", *(COLUMNS[column] for column in columns)],
        [[row.label, *(texts.get((name, column), "–") for column in columns)] for name, row in rows.items()],
        {(i, j) for i, name in enumerate(rows) for j, column in enumerate(columns, 1) if (name, column) in bold},
        [
            *measured_notes(spec, frame, dataset, METRIC),
            "Own prior: what a model is trained under, or learns, fitted to nothing; –: it has none.",
            BOLD,
            *warning_notes(frame, dataset, METRIC),
        ],
        data,
    )


def spread_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Of the rows with a prior of their own, the ratio of the worst to the best: under it, and under each density."""
    having = with_prior(spec, dataset)
    columns = ["n", *(name for name in FITTED if name == "gmm" or name in spec.densities)]
    cells = compared(spec, frame, dataset, *columns, rows=[name for name, row in having.items() if row.gmm])
    found = spreads(cells)
    records, texts = [], []
    for column in columns:
        one = found[column]
        ratio, low, high = np.exp([one.difference, one.low, one.high])
        word = "" if column == "n" else against_prior(found["n"], one, spec.equal_within)
        best, worst = (spec.rows[row].label for row, _ in (one.least, one.largest))
        records.append(
            {
                **{"dataset": dataset, "column": column, "best": one.least[0], "worst": one.largest[0]},
                **{"ratio": ratio, "low": low, "high": high, "word": word},
            }
        )
        texts.append(
            [
                COLUMNS[column],
                best,
                worst,
                f"{ratio:.2f}",
                f"{low:.2f} to {high:.2f}" if np.isfinite(high) else "–",
                word or "–",
            ]
        )
    n = len({row for row, _ in cells.means})
    return Table(
        f"spread_{dataset}",
        f"{spec.datasets[dataset].label}: the worst of {n} models over the best, by density,"
        f" {distance_name('FD', extractor_label(frame, dataset))}",
        ["Density", "Best", "Worst", "Ratio", "It lies within", "Beside the own priors' it is"],
        texts,
        set(),
        [
            f"Of the {n} rows with a prior of their own, in every line the same. Within: an interval for the ratio of"
            f" whichever is truly worst to whichever is truly best, {100 * (1 - LEVEL):.0f} % for all lines at once"
            " (Tukey's range); the ratio itself is that of chosen rows, and so mostly too high. Narrower, wider: the"
            f" intervals do not meet. Erased: narrower, and surely below {spec.equal_within:g}, up to which distances"
            " are called equal.",
            f"Over {cells.seeds} training seeds. All of it speaks of this training set, these reference images and"
            " these features.",
        ],
        pd.DataFrame(records),
    )


def against_prior(prior: Spread[Cell], fitted: Spread[Cell], within: float) -> str:
    """What is said of the spread under a fitted density beside that under own priors; their intervals hold together."""
    if fitted.high < prior.low:
        return "erased" if fitted.high <= np.log(within) else "narrower"
    return "wider" if fitted.low > prior.high else "undecided"


def _column(spec: SummarySpec, frame: pd.DataFrame, dataset: str, column: str) -> Compared[Cell]:
    rows = with_prior(spec, dataset) if column == "n" else spec.competing
    return compared(spec, frame, dataset, column, rows=list(rows))
