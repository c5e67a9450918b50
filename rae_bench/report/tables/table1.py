"""The paper's Table 1, for one data set and metric."""

import pandas as pd

from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import COLUMNS, LEAD, cells, extractor_label
from rae_bench.report.tables.notes import measured_notes, protocol_notes, row_notes, warning_notes
from rae_bench.report.tables.wording import DISTANCES, METRICS, distance_name, mean_sd
from rae_bench.study.specs import SummarySpec


def table1(spec: SummarySpec, frame: pd.DataFrame, dataset: str, metric: str) -> Table:
    """The paper's Table 1 for one data set and metric."""
    data = cells(spec, frame, dataset, metric)
    rows, bold = [], set()
    for i, (name, row) in enumerate(spec.ordered_rows.items()):
        texts = [row.label]
        for j, column in enumerate(COLUMNS, start=1):
            cell = data[(data["row"] == name) & (data["column"] == column)]
            texts.append("–" if cell.empty else mean_sd(cell["mean"].iloc[0], cell["sd"].iloc[0], metric))
            if not cell.empty and cell["leads"].iloc[0]:
                bold.add((i, j))
        rows.append(texts)
    title, short, better = METRICS[metric]
    label = extractor_label(frame, dataset)
    name = "table1" if metric == "frechet_distance" else f"table1_{metric}"
    arrow = "↓" if better == "lower" else "↑"
    return Table(
        f"{name}_{dataset}",
        f"{spec.datasets[dataset].label}: {title}, {distance_name(short, label)} {arrow}"
        if short in DISTANCES
        else f"{spec.datasets[dataset].label}: {title} ({label}) {arrow}",
        ["", *COLUMNS.values()],
        rows,
        bold,
        [
            *measured_notes(spec, frame, dataset, metric),
            *protocol_notes(spec, dataset),
            f"Bold: within {LEAD:g} pooled SDs of the column's best.",
            *warning_notes(frame, dataset, metric),
            *(row_notes(spec, dataset) if name == "table1" else []),
        ],
        data,
    )
