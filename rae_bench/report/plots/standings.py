"""The ratio of every row to the best of its column: the figure that carries the answer."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rae_bench.report.answer import ranked_column, standings
from rae_bench.report.plots.style import FAMILIES
from rae_bench.report.tables.cells import COLUMNS
from rae_bench.study.specs import Family, SummarySpec

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
MARGIN = 1.15


def standings_figure(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Figure:
    """A point a row with its 95 % interval, on the band of ratios that count as equal; baselines below a line."""
    found = standings(spec, frame, dataset)
    found = sorted(found, key=lambda one: one.family == "baseline")  # the study's order, baselines last
    figure, axis = plt.subplots(figsize=(4.6, 0.19 * len(found) + 0.95), layout="constrained")
    axis.axvspan(1 / spec.equal_within, spec.equal_within, color="0.9", linewidth=0, zorder=0)
    axis.axvline(1, color="0.5", linewidth=0.8, zorder=1)
    for y, one in enumerate(found):
        if np.isfinite(one.high):
            axis.plot([one.low, one.high], [y, y], color=FAMILIES[one.family][0], linewidth=1.4, zorder=2)
        axis.plot(one.ratio, y, markersize=5, zorder=3, **_marker(one.family))
    n_models = sum(one.family != "baseline" for one in found)
    if n_models < len(found):
        axis.axhline(n_models - 0.5, color="0.6", linewidth=0.8, linestyle=":")
    ends = [end for one in found for end in (one.ratio, one.low, one.high) if 0 < end < np.inf]
    low, high = min([*ends, 1 / spec.equal_within]) / MARGIN, max([*ends, spec.equal_within]) * MARGIN
    ticks = [tick for tick in (*TICKS, spec.equal_within) if low <= tick <= high]
    axis.set(xscale="log", xlim=(low, high), ylim=(len(found) - 0.4, -0.6))
    axis.set_yticks(range(len(found)), labels=[one.label for one in found])
    axis.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_xticks([], minor=True)
    column = COLUMNS[ranked_column(spec, frame, dataset)]
    axis.set(xlabel=f"distance in column {column} over the best model's (log scale; left is better)")
    axis.tick_params(axis="y", length=0)
    families = dict.fromkeys(one.family for one in found)
    handles = [Line2D([], [], linestyle="", markersize=5, label=family, **_marker(family)) for family in families]
    figure.legend(handles=handles, ncols=len(handles), loc="outside upper center", frameon=False, handletextpad=0)
    sns.despine(figure, left=True)
    return figure


def _marker(family: Family) -> dict[str, Any]:
    """How a point of a family is drawn: hollow if of baselines."""
    colour, marker = FAMILIES[family]
    return {"marker": marker, "color": colour, "markerfacecolor": "white" if family == "baseline" else colour}
