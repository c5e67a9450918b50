"""The paper's Table 1, for one data set and metric."""

import pandas as pd

from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import COLUMNS, as_records, cells, extractor_label
from rae_bench.report.tables.notes import (
    BOLD,
    copy_note,
    fresh_ratios,
    measured_notes,
    protocol_notes,
    row_notes,
    warning_notes,
)
from rae_bench.report.tables.wording import DISTANCES, distance_name, mean_sd, words
from rae_bench.study.specs import SummarySpec


def table1(spec: SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> Table:
    """The paper's Table 1 for one data set and metric."""
    data = cells(spec, frame, dataset, metric)
    found = {(cell["row"], cell["column"]): cell for cell in as_records(data)}
    texts = {place: mean_sd(cell["mean"], cell["sd"], metric) for place, cell in found.items()}
    rows, columns = spec.ordered_rows, list(COLUMNS)
    title, short, better = words(spec)[metric]
    label, arrow = extractor_label(frame, dataset), "↓" if better == "lower" else "↑"
    measured = f", {distance_name(short, label)}" if short in DISTANCES else f" ({label})"
    is_main = metric == "frechet_distance"
    return Table(
        f"table1_{dataset}" if is_main else f"table1_{metric}_{dataset}",
        f"{spec.datasets[dataset].label}: {title}{measured} {arrow}",
        ["", *COLUMNS.values()],
        [[row.label, *(texts.get((name, column), "–") for column in columns)] for name, row in rows.items()],
        {
            (i, j)
            for i, name in enumerate(rows)
            for j, column in enumerate(columns, start=1)
            if (name, column) in found and found[name, column]["leads"]
        },
        [
            *measured_notes(spec, frame, dataset, metric),
            *(_copies(frame, dataset, data) if metric == "nearest_training_ratio" else []),
            *protocol_notes(spec, dataset),
            BOLD,
            *warning_notes(frame, dataset, metric),
            *(row_notes(spec, dataset, rows) if is_main else []),
        ],
        data,
    )


def _copies(frame: pd.DataFrame, dataset: str, data: pd.DataFrame) -> list[str]:
    """A note of the cells whose samples lie nearer to training images than fresh ones, by their means over seeds."""
    samples = data[~data["column"].isin(["reconstruction", "interpolation"])]
    if samples.empty:
        return []
    low, high = fresh_ratios(frame, dataset)
    nearer = as_records(samples[samples["mean"] < low])
    return [copy_note((low, high), [f"{one['label']} ({COLUMNS[one['column']]})" for one in nearer])]
