"""Tidy frame, image sheets and training histories to figures, pdf and png, for print.

Sample sheets (model x column, as in the paper's figures), interpolation strips, distance per model and density
with every seed visible, training curves of each loss part, and codes against fitted densities in two
dimensions.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns

from rae_bench import specs, storage
from rae_bench.tables.cells import COLUMNS, cell_values
from rae_bench.tables.densities import density_order
from rae_bench.tables.protocols import protocol_means, protocol_order
from rae_bench.tables.wording import METRICS, density_label, distance_name, model_labels

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
}
PER_CELL = 6
"""Images shown of each set in a sample sheet."""
STEPS = 8
"""Images of an interpolation strip, both ends included."""

Sheets = dict[str, npt.NDArray[Any]]


def write(spec: specs.SummarySpec, frame: pd.DataFrame, root: Path, index: Path) -> None:
    """Draw every figure of every data set beside `index`, and write `index`, a list of what there is."""
    listed: list[dict[str, str]] = []
    if "search" in spec.tables:
        storage.write_json(index, listed)
        return
    with plt.rc_context(STYLE):
        for dataset, data in spec.datasets.items():
            seed = spec.train_seeds[0]
            sheets = {
                row.model: storage.read_arrays(root / dataset / row.model / f"seed{seed}" / "sheets.safetensors")[0]
                for row in spec.rows.values()
            }
            synthetic = "SYNTHETIC images. " if data.is_synthetic else ""
            figures: list[tuple[str, str, Callable[[], Figure]]] = [
                (
                    "samples",
                    f"{synthetic}{data.label}: originals, and what each model makes of them and of samples"
                    f" (training seed {seed}; columns as in Table 1, not selected).",
                    lambda sheets=sheets: sample_sheet(spec, sheets),  # type: ignore[misc]
                ),
                (
                    "interpolations",
                    f"{synthetic}{data.label}: straight lines between the codes of random pairs of"
                    f" {spec.reference_split} images (training seed {seed}).",
                    lambda sheets=sheets: interpolation_strips(spec, sheets),  # type: ignore[misc]
                ),
                (
                    "distances",
                    f"{synthetic}{data.label}: Fréchet distance of every model and image set; a point is a training"
                    " seed, the dotted line real against real at the same counts. Lower is better.",
                    lambda dataset=dataset: distances(spec, frame, dataset),  # type: ignore[misc]
                ),
                (
                    "training",
                    f"{synthetic}{data.label}: each part of the loss, unweighted, on validation images (thick) and"
                    " training images (thin), a line per seed.",
                    lambda dataset=dataset: training_curves(spec, root, dataset),  # type: ignore[misc]
                ),
                (
                    "codes",
                    f"{synthetic}{data.label}: codes of {spec.reference_split} images (grey) and samples of one density"
                    f" of each kind (colour) along the codes' first two principal axes (training seed {seed}).",
                    lambda sheets=sheets, dataset=dataset: code_views(spec, sheets, dataset),  # type: ignore[misc]
                ),
            ]
            if "densities" in spec.tables:
                figures.append(
                    (
                        "components",
                        f"{synthetic}{data.label}: mixtures of K components, fitted to mean codes by EM (solid) and by"
                        " a Dirichlet-process mixture (dashed). Above, Fréchet distance of their samples; below,"
                        " log-likelihood in nats a code, of training codes (thin) and held-out validation codes"
                        " (thick). Bands: SD over seeds.",
                        lambda dataset=dataset: components(spec, frame, dataset),  # type: ignore[misc]
                    )
                )
            if "protocols" in spec.tables:
                panel = storage.read_frame(root / "protocols.parquet")
                figures.append(
                    (
                        "protocols",
                        f"{synthetic}{data.label}: rank of every row (1 the lowest mean Fréchet distance) under the"
                        " study's own protocol and others, the same samples in all.",
                        lambda dataset=dataset, panel=panel: protocols(spec, panel, dataset),  # type: ignore[misc]
                    )
                )
            for kind, caption, draw in figures:
                name = f"{kind}_{dataset}"
                figure = draw()
                for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
                    path = index.parent / f"{name}.{suffix}"
                    storage.render(
                        path,
                        lambda target, figure=figure, suffix=suffix, metadata=metadata: figure.savefig(  # type: ignore[misc]
                            target, format=suffix, metadata=metadata, dpi=200, bbox_inches="tight"
                        ),
                    )
                plt.close(figure)
                listed.append({"name": name, "dataset": dataset, "caption": caption})
    storage.write_json(index, listed)


def _tile(images: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
    """Images (n, C, H, W) as one picture, `columns` wide, a white pixel between them; (H', W', 3)."""
    n, _, height, width = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas


def _sheet_key(row: specs.Row, column: str) -> str | None:
    if column in ("reconstruction", "interpolation"):
        return f"{column}.{row.through}" if row.through else column
    density = {"n": row.n, "gmm": row.gmm}.get(column, column)
    return f"sample.{density}" if density else None


def sample_sheet(spec: specs.SummarySpec, sheets: dict[str, Sheets]) -> Figure:
    """A row of pictures per table row: originals, reconstructions, and samples of columns N, N(0,I) and GMM."""
    columns = {"original": "Original", **{c: COLUMNS[c] for c in ("reconstruction", "n", "standard_normal", "gmm")}}
    rows = spec.ordered_rows
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(7.2, 0.62 * len(rows)), squeeze=False, layout="constrained"
    )
    for i, row in enumerate(rows.values()):
        for j, (column, title) in enumerate(columns.items()):
            axis = axes[i, j]
            key = "original" if column == "original" else _sheet_key(row, column)
            axis.set_axis_off()
            if i == 0:
                axis.set_title(title)
            if key is not None:
                axis.imshow(_tile(sheets[row.model][key][: 2 * PER_CELL], PER_CELL), interpolation="nearest")
        axes[i, 0].text(-0.04, 0.5, row.label, ha="right", va="center", transform=axes[i, 0].transAxes)
    return figure


def interpolation_strips(spec: specs.SummarySpec, sheets: dict[str, Sheets]) -> Figure:
    """Two strips per table row, from one test image's code to another's."""
    rows = spec.ordered_rows
    figure, axes = plt.subplots(len(rows), 2, figsize=(7.2, 0.48 * len(rows)), squeeze=False, layout="constrained")
    for i, row in enumerate(rows.values()):
        key = _sheet_key(row, "interpolation")
        assert key is not None
        for j in range(2):
            strip = sheets[row.model][key][j * STEPS : (j + 1) * STEPS]
            axes[i, j].imshow(_tile(strip, STEPS), interpolation="nearest")
            axes[i, j].set_axis_off()
        axes[i, 0].text(-0.02, 0.5, row.label, ha="right", va="center", transform=axes[i, 0].transAxes)
    return figure


def distances(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str) -> Figure:
    """Fréchet distance by table row, a colour per column, every seed a point."""
    metric = "frechet_distance"
    own = {"standard_normal", "gaussian"}  # shown for every row; column N is one of them, or a second stage
    points = [
        {"row": row.label, "set": "second stage" if column == "n" else COLUMNS[column], "distance": value}
        for row in spec.ordered_rows.values()
        for column in COLUMNS
        if column != "n" or row.n not in own
        for value in cell_values(frame, dataset, row, column, metric)
    ]
    shown = {point["set"] for point in points}
    order = [name for name in ("Rec.", "N(0,I)", "Gaussian", "GMM", "second stage", "Interp.") if name in shown]
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


def training_curves(spec: specs.SummarySpec, root: Path, dataset: str) -> Figure:
    """Reconstruction, latent and regulariser term by epoch, a panel per term, a colour per model."""
    models = list(dict.fromkeys(row.model for row in spec.ordered_rows.values()))
    labels = {row.model: row.label for row in reversed(spec.ordered_rows.values()) if not row.through}
    palette = dict(zip(models, sns.color_palette("tab10", len(models)), strict=True))
    terms = ("reconstruction", "latent", "regulariser")
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), layout="constrained")
    for model in models:
        for seed in spec.train_seeds:
            history = storage.read_frame(root / dataset / model / f"seed{seed}" / "history.parquet")
            for axis, term in zip(axes, terms, strict=True):
                if (history[f"train_{term}"] == 0).all():
                    continue
                for side, width in (("validation", 1.1), ("train", 0.4)):
                    axis.plot(
                        history["epoch"] + 1,
                        history[f"{side}_{term}"],
                        color=palette[model],
                        linewidth=width,
                        label=labels.get(model, model) if (seed, side) == (spec.train_seeds[0], "validation") else None,
                    )
    for axis, term in zip(axes, terms, strict=True):
        values = [value for line in axis.lines for value in line.get_ydata()]
        axis.set_yscale(
            "log" if values and min(values) > 0 else "symlog",
            **({} if values and min(values) > 0 else {"linthresh": 1e-3}),
        )
        axis.set(xlabel="epoch", title=f"{term} (unweighted)")
    axes[0].set_ylabel("nats per image")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, ncols=len(models), loc="outside lower center", frameon=False)
    sns.despine(figure)
    return figure


def shown_densities(spec: specs.SummarySpec, dataset: str) -> list[str]:
    """One density of each kind, in the study's order: those that table rows show, else the last listed of the kind."""
    in_rows = {density for row in spec.rows.values() for density in (row.n, row.gmm)}
    chosen: dict[type, list[str]] = {}
    for name in density_order(spec, dataset):
        of_kind = chosen.setdefault(type(spec.fits[dataset][name]), [])
        if not in_rows.intersection(of_kind):
            of_kind.clear()
        if name in in_rows or not of_kind:
            of_kind.append(name)
    return [name for name in density_order(spec, dataset) if any(name in names for names in chosen.values())]


def code_views(spec: specs.SummarySpec, sheets: dict[str, Sheets], dataset: str) -> Figure:
    """A panel per model and kind of density: codes in grey, samples in colour, along the codes' two principal axes."""
    models = model_labels(spec)
    densities = shown_densities(spec, dataset)
    figure, axes = plt.subplots(
        len(densities),
        len(models),
        figsize=(7.2, 0.9 * len(densities) + 0.2),
        squeeze=False,
        layout="constrained",
    )
    colours = sns.color_palette("husl", len(densities))
    grey = (0.6, 0.6, 0.6)
    for j, (model, label) in enumerate(models.items()):
        codes = sheets[model]["codes"]
        centre = codes.mean(axis=0)
        axes2 = np.linalg.svd(codes - centre, full_matrices=False)[2][:2].T
        flat = (codes - centre) @ axes2
        reach = 1.3 * np.abs(flat).max(axis=0)
        for i, density in enumerate(densities):
            axis = axes[i, j]
            drawn = (sheets[model].get(f"codes.{density}", codes[:0]) - centre) @ axes2
            # one collection a panel: each is rasterised in a picture of the whole figure's size
            points, tints = np.concatenate([flat, drawn]), [grey] * len(flat) + [colours[i]] * len(drawn)
            axis.scatter(*points.T, s=0.8, c=tints, linewidths=0, alpha=0.8, rasterized=True)
            axis.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]), xticks=[], yticks=[])
            if i == 0:
                axis.set_title(label)
            if j == 0:
                axis.set_ylabel(density_label(density), rotation=0, ha="right", va="center")
    return figure


def components(spec: specs.SummarySpec, frame: pd.DataFrame, dataset: str) -> Figure:
    """Distance and likelihood against the number of mixture components, a column of panels per model.

    Mixtures fitted to mean codes only: the likelihoods of draws are on another scale.
    """
    kinds = {specs.GaussianMixture: "-", specs.DirichletMixture: "--"}
    counts = {
        name: (type(density), density.n_components)
        for name, density in spec.fits[dataset].items()
        if isinstance(density, (specs.GaussianMixture, specs.DirichletMixture)) and density.codes == "mean"
    }
    models = model_labels(spec)
    mine = frame[(frame["dataset"] == dataset) & frame["density"].isin(list(counts))]
    mine = mine.assign(components=mine["density"].map({name: count for name, (_, count) in counts.items()}))
    figure, axes = plt.subplots(
        2, len(models), figsize=(1.0 * len(models) + 0.6, 3.0), sharex=True, squeeze=False, layout="constrained"
    )
    lines = (
        (0, "frechet_distance", "tab:blue", 1.2),
        (1, "log_likelihood_train", "0.5", 0.7),
        (1, "log_likelihood_validation", "tab:red", 1.4),
    )
    for j, (model, label) in enumerate(models.items()):
        for kind, style in kinds.items():
            names = [name for name, (found, _) in counts.items() if found is kind]
            for i, metric, colour, width in lines:
                values = mine[(mine["model"] == model) & (mine["metric"] == metric) & mine["density"].isin(names)]
                seeds = values.groupby(["components", "train_seed"])["value"].mean()
                drawn = seeds.groupby("components").agg(["mean", "std"])
                axes[i, j].plot(
                    drawn.index, drawn["mean"], style, color=colour, linewidth=width, marker=".", markersize=2
                )
                low, high = drawn["mean"] - drawn["std"], drawn["mean"] + drawn["std"]
                axes[i, j].fill_between(drawn.index, low, high, color=colour, alpha=0.15, linewidth=0)
        axes[0, j].set(title=label, xscale="log", yscale="log")
        axes[1, j].set(xlabel="K", xticks=[1, 10, 100], xticklabels=["1", "10", "100"])
        held_out = mine[(mine["model"] == model) & (mine["metric"] == "log_likelihood_validation")]["value"]
        train = mine[(mine["model"] == model) & (mine["metric"] == "log_likelihood_train")]["value"]
        if len(held_out):  # an overfitted mixture's likelihood falls out of any scale: show where it turns
            best, simple = float(held_out.max()), float(min(held_out.median(), train.min()))
            axes[1, j].set_ylim(simple - 0.5 * (best - simple) - 1, best + 1.5 * (best - simple) + 1)
        for axis in axes[:, j]:
            axis.tick_params(labelsize=6, which="both")
    lowest = min(axis.get_ylim()[0] for axis in axes[0])
    highest = max(axis.get_ylim()[1] for axis in axes[0])
    for j, axis in enumerate(axes[0]):
        axis.set_ylim(lowest, highest)
        if j:
            axis.tick_params(labelleft=False, which="both")
    axes[0, 0].set_ylabel("Fréchet distance")
    axes[1, 0].set_ylabel("log-likelihood")
    sns.despine(figure)
    return figure


def protocols(spec: specs.SummarySpec, panel: pd.DataFrame, dataset: str) -> Figure:
    """Ranks of the rows (vertical) under each protocol (horizontal), a panel for each of columns N and GMM."""
    names = protocol_order(spec, dataset)
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 0.25 * len(spec.rows) + 1.4), layout="constrained")
    for axis, column in zip(axes, ("n", "gmm"), strict=True):
        means = pd.DataFrame({name: protocol_means(spec, panel, dataset, name, column) for name in names})
        axis.set(title=f"column {COLUMNS[column]}")
        if means.empty:  # no row has the column
            axis.set_axis_off()
            continue
        ranked = means.rank()
        ranked.index = [spec.rows[str(name)].label for name in ranked.index]
        ranked.columns = [name.replace("_", " ") for name in names]
        sns.heatmap(ranked, annot=True, fmt="g", cmap="viridis_r", cbar=False, ax=axis, annot_kws={"size": 7})
        axis.set(xlabel="", ylabel="")
        axis.tick_params(axis="y", rotation=0)
        plt.setp(axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    return figure
