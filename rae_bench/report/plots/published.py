"""Published against reproduced: a point per cell of the paper's Table 1."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rae_bench.report.plots import style
from rae_bench.report.tables.cells import COLUMNS, as_records
from rae_bench.report.tables.published import COMPARED, papers_datasets, published_cells
from rae_bench.study.specs import SummarySpec

TICKS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 70, 100, 150, 200, 300, 500, 1000)
MARGIN = 1.12
"""How far the axes reach beyond the outermost point, as a factor."""


def compared_cells(spec: SummarySpec, frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The cells of all data sets that can be compared; and where there are none, why."""
    cells = pd.concat([published_cells(spec, frame, name) for name in papers_datasets(spec)])
    found = cells[cells["inside"] != ""]
    if len(found):
        return found, ""
    withheld = [reason for reason in dict.fromkeys(cells["withheld"]) if reason]
    return found, "; ".join(withheld) if cells["n_seeds"].any() and withheld else "not run"


def published_against_ours(spec: SummarySpec, cells: pd.DataFrame) -> Figure:
    """Our mean (vertical) against the published value (horizontal), a panel per data set, a colour per column.

    A bar is the noise of the table: one that misses the line of equality is a difference outside it, ringed in black. A
    hollow point is a single seed's, without a bar.
    """
    panels = cells.groupby("dataset", sort=False)
    width = 2.3 * len(panels) + 0.3
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 2.9), squeeze=False, layout="constrained")
    for axis, (_, mine) in zip(axes[0], panels, strict=True):
        for cell in as_records(mine):
            colour, _ = style.COLUMNS[cell["column"]]
            axis.errorbar(
                cell["published"],
                cell["mean"],
                yerr=cell["noise"],
                fmt=style.FAMILIES[spec.rows[cell["row"]].family][1],
                color=colour,
                elinewidth=0.6,
                markersize=3.5,
                markeredgewidth=0.7,
                markerfacecolor="white" if np.isnan(cell["noise"]) else colour,
                markeredgecolor="black" if cell["inside"] == "no" else colour,
            )
        _equal_axes(axis, [*mine["published"], *mine["mean"]])
        axis.set(title=mine["published_dataset"].iloc[0], xlabel="published FID")
    axes[0, 0].set_ylabel("our FID")
    handles = [Line2D([], [], color=style.COLUMNS[name][0], linewidth=3, label=COLUMNS[name]) for name in COMPARED]
    for family, (_, marker) in style.FAMILIES.items():
        if family in {row.family for row in spec.competing.values()}:
            handles.append(Line2D([], [], color="0.4", marker=marker, linestyle="", markersize=4, label=family))
    columns = len(handles) if len(panels) > 1 else len(COMPARED)
    figure.legend(handles=handles, ncols=columns, loc="outside lower center", frameon=False)
    return figure


def _equal_axes(axis: Axes, values: list[float]) -> None:
    """The same logarithmic scale both ways, and the line of equality."""
    low, high = min(values) / MARGIN, max(values) * MARGIN
    axis.plot([low, high], [low, high], color="0.6", linewidth=0.8, zorder=0)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    for side in (axis.xaxis, axis.yaxis):
        side.set_ticks(ticks, labels=[str(tick) for tick in ticks])
        side.set_ticks([], minor=True)
