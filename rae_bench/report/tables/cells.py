"""What a cell holds: the values of a row in a column, their mean and spread over seeds, and who leads."""

from typing import Any

import numpy as np
import pandas as pd

from rae_bench.report.comparisons import Compared
from rae_bench.report.tables.wording import SCALE, words
from rae_bench.report.verdicts import leaders
from rae_bench.study.specs import Row, SummarySpec

COLUMNS = {
    "reconstruction": "Rec.",
    "n": "N",
    "standard_normal": "N(0,I)",
    "gaussian": "Gaussian",
    "gmm": "GMM",
    "interpolation": "Interp.",
}
Cell = tuple[str, str]
"""A row and a column."""
RATIOS = ("frechet_distance",)
"""Metrics that are positive, and compared as ratios."""


def place(row: Row, column: str) -> tuple[str, str] | None:
    """The image set and the density that a row shows in a column; None where it has none, as 2sVAE no GMM."""
    if column in ("reconstruction", "interpolation"):
        return column, row.through
    sampled = row.shown(column) if column in ("n", "gmm") else column
    return ("sample", sampled) if sampled else None


def narrowed(frame: pd.DataFrame, dataset: str, metric: str = "frechet_distance") -> pd.DataFrame:
    """The rows of one data set and metric: to be taken once before many cells, each of which looks at every row."""
    return frame[(frame["dataset"] == dataset) & (frame["metric"] == metric)]


def cell_values(
    frame: pd.DataFrame, dataset: str, row: Row, column: str, metric: str = "frechet_distance"
) -> pd.Series:
    """A cell's value for each training seed (index), the mean over fits and draws; empty if there is no such cell."""
    values: pd.Series = cell_frame(frame, dataset, row, column, metric).groupby("train_seed")["value"].mean()
    return values


def first_draws(frame: pd.DataFrame, dataset: str, row: Row, column: str) -> pd.Series:
    """A cell's Fréchet distance for each training seed (index), of the first fit and draw alone: single runs."""
    mine = cell_frame(frame, dataset, row, column, "frechet_distance").sort_values(["fit_seed", "sample_seed"])
    values: pd.Series = mine.groupby("train_seed")["value"].first().astype(float)
    return values


def compared(
    spec: SummarySpec,
    frame: pd.DataFrame,
    dataset: str,
    *columns: str,
    metric: str = "frechet_distance",
    baseline: str = "",
) -> Compared[Cell]:
    """The cells (row, column) of these columns, to be compared: by ratios of distances, by differences of all else.

    The rows are all that compete and, where it is named, a baseline, which no pool of variances takes in.
    """
    rows = {**spec.competing, **({baseline: spec.rows[baseline]} if baseline else {})}
    frame = narrowed(frame, dataset, metric)
    found = {
        (name, column): cell_values(frame, dataset, row, column, metric)
        for column in columns
        for name, row in rows.items()
    }
    found = {cell: np.log(values) if metric in RATIOS else values for cell, values in found.items() if len(values)}
    return Compared.of(
        found,
        {cell: cell[1] for cell in found},
        {(name, column): None if name == baseline else rows[name].model for name, column in found},
    )


def cell_frame(frame: pd.DataFrame, dataset: str, row: Row, column: str, metric: str) -> pd.DataFrame:
    """The rows of `frame` that a cell is made of; none if there is no such cell."""
    image_set, density = place(row, column) or ("", "")
    return frame[
        (frame["dataset"] == dataset)
        & (frame["model"] == row.model)
        & (frame["image_set"] == image_set)
        & (frame["density"] == density)
        & (frame["metric"] == metric)
    ]


def cells(spec: SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> pd.DataFrame:
    """One row per cell: row, label, column, density, mean and sd over training seeds, n_seeds, whether it leads."""
    found = []
    frame = narrowed(frame, dataset, metric)
    for name, row in spec.ordered_rows.items():
        for column in COLUMNS:
            values = cell_values(frame, dataset, row, column, metric) * SCALE.get(metric, 1.0)
            if len(values):
                found.append(
                    {
                        "dataset": dataset,
                        "row": name,
                        "label": row.label,
                        "column": column,
                        "density": row.shown(column) if column in ("n", "gmm") else row.through,
                        "metric": metric,
                        "mean": values.mean(),
                        "sd": values.std(ddof=1) if len(values) > 1 else np.nan,
                        "n_seeds": len(values),
                    }
                )
    data = pd.DataFrame(found)
    within = spec.equal_within if metric in RATIOS else 1.0
    bold = {
        cell
        for column in dict.fromkeys(data["column"])
        for cell in leaders(compared(spec, frame, dataset, column, metric=metric), words(spec)[metric][2], within)
    }
    data["leads"] = [(one["row"], one["column"]) in bold for one in as_records(data)]
    return data


def extractor_label(frame: pd.DataFrame, dataset: str) -> str:
    """The short name of the network whose features the data set's distances are measured in."""
    return str(frame.loc[frame["dataset"] == dataset, "extractor_label"].iloc[0])


def as_records(data: pd.DataFrame) -> list[dict[str, Any]]:
    """A dictionary for each row of `data`."""
    return [{str(key): value for key, value in record.items()} for record in data.to_dict("records")]
