"""Models under their own priors and under densities fitted ex post: every row, and how far the rows lie apart."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rae_bench.report.comparisons import Compared
from rae_bench.report.rendering import Table
from rae_bench.report.spreads import MISSED, Spread, spreads
from rae_bench.report.tables.cells import Cell, as_records, cell_values, extractor_label
from rae_bench.report.tables.notes import BOLD, measured_notes, warning_notes
from rae_bench.report.tables.wording import distance_name, mean_sd
from rae_bench.report.verdicts import leaders
from rae_bench.study.specs import SummarySpec

METRIC, OWN = "frechet_distance", "own"
COLUMNS = {
    "reconstruction": "Rec.",
    OWN: "Own prior",
    "gaussian": "Gaussian",
    "gmm": "GMM",
    "gmm_selected": "GMM, selected K",
    "interpolation": "Interp.",
}
FITTED = ("gaussian", "gmm", "gmm_selected")
"""The columns of densities that are fitted to every row's codes; a study need not have all."""


def shown(spec: SummarySpec, columns: Iterable[str]) -> list[str]:
    """Those of the columns that the study has."""
    has_mixture = any(row.gmm for row in spec.competing.values())
    had = {*spec.densities, *(["gmm"] if has_mixture else [])}
    return [name for name in columns if name not in FITTED or name in had]


def spread_rows(spec: SummarySpec, dataset: str) -> list[str]:
    """The rows that have a prior of their own and every fitted column of the study; none if it has no such column."""
    if not (fitted := shown(spec, FITTED)):
        return []
    return [name for name in own_priors(spec, dataset) if "gmm" not in fitted or spec.rows[name].gmm]


def own_priors(spec: SummarySpec, dataset: str) -> dict[str, str]:
    """The density that is the prior of each row that has one, by row: what the study fits of that kind.

    Told by the objective, whatever stands in column N: a latent term that draws codes to N(0, I), a prior that is
    learnt, directions (which those of N(0, I) are), entries of a codebook. A second stage is another model's.
    """
    found: dict[str, str] = {}
    for name, row in spec.competing.items():
        objective = None if row.through else spec.trainings[dataset][row.model].objective
        kind = objective.prior if objective else ""
        for density in spec.densities:
            if spec.density(dataset, row.model, density).kind == kind:
                found.setdefault(name, density)
    return found


def _cells(
    spec: SummarySpec, frame: pd.DataFrame, dataset: str, columns: Sequence[str], rows: Collection[str]
) -> dict[Cell, pd.Series]:
    """The values by training seed of rows in `COLUMNS`, those that there are."""
    priors, found = own_priors(spec, dataset), {}
    for column in columns:
        for name in rows:
            place = priors.get(name) if column == OWN else column
            if place and len(values := cell_values(frame, dataset, spec.rows[name], place)):
                found[name, column] = values
    return found


def _compared(spec: SummarySpec, found: dict[Cell, pd.Series]) -> Compared[Cell]:
    """The cells of rows that compete, as ratios."""
    logs = {cell: np.log(values) for cell, values in found.items() if cell[0] in spec.competing}
    column, source = {cell: cell[1] for cell in logs}, {cell: spec.rows[cell[0]].model for cell in logs}
    return Compared.of(logs, column, source)


def prior_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """The Fréchet distance of every row by `COLUMNS`; under an own prior of the rows alone that have one."""
    columns, rows = shown(spec, COLUMNS), spec.ordered_rows
    found = _cells(spec, frame, dataset, columns, rows)
    records: list[dict[str, Any]] = [
        {
            **{"dataset": dataset, "row": name, "label": rows[name].label, "column": column},
            **{"mean": values.mean(), "sd": values.std(ddof=1), "n_seeds": len(values)},
        }
        for (name, column), values in found.items()
    ]
    data = pd.DataFrame(records)
    texts = {(one["row"], one["column"]): mean_sd(one["mean"], one["sd"], METRIC) for one in as_records(data)}
    by_column = [{cell: values for cell, values in found.items() if cell[1] == column} for column in columns]
    bold = {cell for one in by_column for cell in leaders(_compared(spec, one), "lower", spec.equal_within)}
    return Table(
        f"priors_{dataset}",
        f"{spec.datasets[dataset].label}: models under their own priors and under densities fitted ex post,"
        f" {distance_name('FD', extractor_label(frame, dataset))} ↓",
        ["", *(COLUMNS[column] for column in columns)],
        [[row.label, *(texts.get((name, column), "–") for column in columns)] for name, row in rows.items()],
        {(i, j) for i, name in enumerate(rows) for j, column in enumerate(columns, 1) if (name, column) in bold},
        [
            *measured_notes(spec, frame, dataset, METRIC),
            "Own prior: what a model is trained under, or learns, fitted to nothing, whatever column N of other tables"
            " has; –: it has none.",
            BOLD,
            *warning_notes(frame, dataset, METRIC),
        ],
        data,
    )


def spread_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """The ratio of the worst row to the best, of those with a prior of their own: under it, and under each density.

    A row that varies surely more than the others in any of these columns is left out of all.
    """
    columns, rows = shown(spec, (OWN, *FITTED)), spread_rows(spec, dataset)
    wild: list[str] = []
    while True:
        cells = _compared(spec, _cells(spec, frame, dataset, columns, rows))
        more = dict.fromkeys(row for shared in cells.columns.values() for row, _ in shared.wild)
        if not more:  # Tukey's range is of cells that vary alike
            break
        wild += more
        rows = [row for row in rows if row not in more]
    names = ", ".join(spec.rows[row].label for row in wild)
    found, n = spreads(cells), len({row for row, _ in cells.means})
    records, texts = [], []
    for column in columns:
        one = found[column]
        ratio, low, high = np.exp([one.difference, one.low, one.high])
        word = "" if column == OWN else against_prior(found[OWN], one, spec.equal_within)
        best, worst = (spec.rows[row].label for row, _ in (one.least, one.largest))
        records.append(
            {
                **{"dataset": dataset, "column": column, "best": one.least[0], "worst": one.largest[0]},
                **{"ratio": ratio, "low": low, "high": high, "word": word, "n_rows": n, "left_out": names},
            }
        )
        within = f"{low:.2f} to {high:.2f}" if np.isfinite(high) else "–"
        texts.append([COLUMNS[column], best, worst, f"{ratio:.2f}", within, word or "–"])
    left_out = [f"Left out: {names}, from seed to seed surely more spread than the others."] if wild else []
    return Table(
        f"spread_{dataset}",
        f"{spec.datasets[dataset].label}: the worst of {n} models over the best, by density,"
        f" {distance_name('FD', extractor_label(frame, dataset))}",
        ["Density", "Best", "Worst", "Ratio", "It lies within", "Beside the own priors' it is"],
        texts,
        set(),
        [
            f"Of the {n} rows with a prior of their own, in every line the same. Within: an interval for the ratio of"
            " whichever is truly worst to whichever is truly best, for all lines at once:"
            f" {100 * (1 - MISSED):.0f} % where the rows vary alike from seed to seed (Tukey's range), and still about"
            " 90 % where some of 17 rows vary up to twice as much. The ratio itself is that of chosen rows, and so too"
            " high, mostly. Narrower, wider: the intervals do not meet. Erased: narrower, and surely below"
            f" {spec.equal_within:g}, up to which distances are called equal.",
            *left_out,
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
