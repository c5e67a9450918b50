"""Codes against the densities fitted to them, in two dimensions."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from rae_bench.report.plots.style import MANY, looks
from rae_bench.report.sheets import Sheets
from rae_bench.report.tables.densities import density_order
from rae_bench.report.tables.wording import density_label, model_labels
from rae_bench.study.specs import SummarySpec


def shown_densities(spec: SummarySpec, dataset: str) -> list[str]:
    """One density of each kind, in the study's order: those that table rows show, else the last listed of the kind."""
    in_rows = {density for row in spec.rows.values() for density in (row.n, row.gmm)}
    order = density_order(spec, dataset)
    kinds = {name: type(spec.fits[dataset][name]) for name in order}
    last = {kind: name for name, kind in kinds.items()}
    of_rows = {kind for name, kind in kinds.items() if name in in_rows}
    return [name for name in order if name in in_rows or (kinds[name] not in of_rows and last[kinds[name]] == name)]


def code_views(spec: SummarySpec, sheets: dict[str, Sheets], dataset: str) -> Figure:
    """A panel per model and kind of density: codes in grey, samples in its colour, along the codes' two principal axes.

    There is none where the model has no such density.
    """
    models, drawn_as = model_labels(spec), looks(spec)
    had = {key for model in models for key in sheets[model]}
    densities = [name for name in shown_densities(spec, dataset) if f"codes.{name}" in had]
    shape = len(densities), len(models)
    size = max(7.2, 0.45 * shape[1]), 0.9 * shape[0] + (0.9 if shape[1] > MANY else 0.2)
    figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    grey = (0.7, 0.7, 0.7)
    for j, (model, label) in enumerate(models.items()):
        codes = sheets[model]["codes"]
        centre = codes.mean(axis=0)
        axes2 = np.linalg.svd(codes - centre, full_matrices=False)[2][:2].T
        flat = (codes - centre) @ axes2
        reach = 1.3 * np.abs(flat).max(axis=0)
        axes[0, j].set_title(label, rotation=90 if shape[1] > MANY else 0)
        colour = to_rgb(drawn_as[model].colour)
        for axis, density in zip(axes[:, j], densities, strict=True):
            if f"codes.{density}" not in sheets[model]:  # no frame, but the place for the label of the line
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                continue
            drawn = (sheets[model][f"codes.{density}"] - centre) @ axes2
            # one collection a panel: each is rasterised in a picture of the whole figure's size
            points, tints = np.concatenate([flat, drawn]), [grey] * len(flat) + [colour] * len(drawn)
            axis.scatter(*points.T, s=0.8, c=tints, linewidths=0, alpha=0.8, rasterized=True)
            axis.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]), xticks=[], yticks=[])
    for axis, density in zip(axes[:, 0], densities, strict=True):
        axis.set_ylabel(density_label(density), rotation=0, ha="right", va="center")
    return figure
