"""Fréchet distances of every row and column, seed by seed."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from rae_bench.report.plots import style
from rae_bench.report.tables.cells import COLUMNS, cell_values
from rae_bench.report.tables.wording import METRICS, distance_name
from rae_bench.study.specs import SummarySpec

LABELS = {**COLUMNS, "second_stage": "second stage"}


def distances(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Figure:
    """Fréchet distance by table row, a colour and a marker per column, every seed a point."""
    metric = "frechet_distance"
    own = {"standard_normal", "gaussian"}  # shown for every row; column N is one of them, or a second stage
    points = {
        (i, "second_stage" if column == "n" and row.through else column): values
        for i, row in enumerate(spec.ordered_rows.values())
        for column in COLUMNS
        if column != "n" or row.shown("n") not in own
        if len(values := cell_values(frame, dataset, row, column, metric))
    }
    shown = [column for column in style.COLUMNS if any(column == found for _, found in points)]
    mine = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric)]
    figure, axis = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    for place, column in enumerate(shown):
        offset = 0.8 * ((place + 0.5) / len(shown) - 0.5)
        x, y = np.transpose(
            [(i + offset, value) for (i, found), values in points.items() if found == column for value in values]
        )
        colour, marker = style.COLUMNS[column]
        axis.scatter(x, y, s=14, marker=marker, color=colour, linewidths=1, label=LABELS[column])
    axis.axhline(float(mine["floor"].iloc[0]), color="0.4", linestyle=":", linewidth=1)
    axis.set_yscale("log")
    name = distance_name(METRICS[metric][1], mine["extractor_label"].iloc[0])
    axis.set(xlabel="", ylabel=f"{name} (log scale)", xlim=(-0.5, len(spec.rows) - 0.5))
    labels = [row.label for row in spec.ordered_rows.values()]
    if len(labels) > style.MANY:
        axis.set_xticks(range(len(labels)), labels=labels, rotation=90)
    else:
        axis.set_xticks(range(len(labels)), labels=[label.replace(" ", "\n") for label in labels])
    for boundary in np.arange(len(spec.rows) - 1) + 0.5:
        axis.axvline(boundary, color="0.9", linewidth=0.8, zorder=0)
    axis.legend(title="", ncols=len(shown), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    sns.despine(figure)
    return figure
