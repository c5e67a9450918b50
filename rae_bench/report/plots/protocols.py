"""Ranks of the rows under other ways of scoring."""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from rae_bench.report.tables.cells import COLUMNS
from rae_bench.report.tables.protocols import protocol_means, protocol_order
from rae_bench.study.specs import SummarySpec


def protocols(spec: SummarySpec, panel: pd.DataFrame, dataset: str) -> Figure:
    """Ranks of the rows (vertical) under each protocol (horizontal), a panel for each of columns N and GMM there is."""
    names = protocol_order(spec, dataset)
    means = {
        column: pd.DataFrame({name: protocol_means(spec, panel, dataset, name, column) for name in names})
        for column in ("n", "gmm")
    }
    means = {column: found for column, found in means.items() if not found.empty}
    figure, axes = plt.subplots(
        1,
        len(means),
        figsize=(3.6 * len(means), 0.25 * len(spec.competing) + 1.4),
        squeeze=False,
        layout="constrained",
    )
    for axis, (column, found) in zip(axes[0], means.items(), strict=True):
        axis.set(title=f"column {COLUMNS[column]}")
        ranked = found.rank()
        ranked.index = [spec.rows[str(name)].label for name in ranked.index]
        ranked.columns = [name.replace("_", " ") for name in names]
        sns.heatmap(ranked, annot=True, fmt="g", cmap="viridis_r", cbar=False, ax=axis, annot_kws={"size": 7})
        axis.set(xlabel="", ylabel="")
        axis.tick_params(axis="y", rotation=0)
        plt.setp(axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    return figure
