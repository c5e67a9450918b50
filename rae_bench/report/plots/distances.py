"""Fréchet distances of every row and column, seed by seed."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from rae_bench.report.tables.cells import COLUMNS, cell_values
from rae_bench.report.tables.wording import METRICS, distance_name
from rae_bench.study.specs import SummarySpec


def distances(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Figure:
    """Fréchet distance by table row, a colour per column, every seed a point."""
    metric = "frechet_distance"
    own = {"standard_normal", "gaussian"}  # shown for every row; column N is one of them, or a second stage
    labels = {name: row.label.replace(" ", "\n") for name, row in spec.ordered_rows.items()}
    points = [
        {
            "row": labels[name],
            "set": "second stage" if column == "n" and row.through else COLUMNS[column],
            "distance": value,
        }
        for name, row in spec.ordered_rows.items()
        for column in COLUMNS
        if column != "n" or row.shown("n") not in own
        for value in cell_values(frame, dataset, row, column, metric)
    ]
    shown = {point["set"] for point in points}
    order = [name for name in ("Rec.", "N", "N(0,I)", "Gaussian", "GMM", "second stage", "Interp.") if name in shown]
    mine = frame[(frame["dataset"] == dataset) & (frame["metric"] == metric)]
    figure, axis = plt.subplots(figsize=(7.2, 3.2), layout="constrained")
    sns.stripplot(
        pd.DataFrame(points),
        x="row",
        y="distance",
        hue="set",
        hue_order=order,
        dodge=True,
        jitter=False,
        size=4,
        palette="colorblind",
        legend="full",
        ax=axis,
    )
    axis.axhline(float(mine["floor"].iloc[0]), color="0.4", linestyle=":", linewidth=1)
    axis.set_yscale("log")
    name = distance_name(METRICS[metric][1], mine["extractor_label"].iloc[0])
    axis.set(xlabel="", ylabel=f"{name} (log scale)")
    for boundary in np.arange(len(spec.rows) - 1) + 0.5:
        axis.axvline(boundary, color="0.9", linewidth=0.8, zorder=0)
    axis.legend(title="", ncols=len(order), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    sns.despine(figure)
    return figure
