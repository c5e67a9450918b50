"""Tidy frame, image sheets and training histories to figures, pdf and png, for print; a module per figure.

Sample sheets (model x column, as in the paper's figures), interpolation strips, distance per model and density
with every seed visible, training curves of each loss part, and codes against fitted densities in two
dimensions.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rae_bench.base import storage
from rae_bench.report.plots.codes import code_views
from rae_bench.report.plots.components import components
from rae_bench.report.plots.distances import distances
from rae_bench.report.plots.images import interpolation_strips, sample_sheet, sheet_keys
from rae_bench.report.plots.protocols import protocols
from rae_bench.report.plots.published import compared_cells, published_against_ours
from rae_bench.report.plots.training import history_path, training_curves
from rae_bench.study.results import PANEL_COLUMNS
from rae_bench.study.specs import SummarySpec

mpl.use("agg")

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
}


def inputs(spec: SummarySpec, root: Path) -> list[Path]:
    """What figures are drawn from beside the metrics; of a search none are drawn."""
    if "search" in spec.tables:
        return []
    models = dict.fromkeys(row.model for row in spec.rows.values())
    sheets = [_sheet_path(spec, root, dataset, model) for dataset in spec.datasets for model in models]
    histories = [
        history_path(root, dataset, model, seed)
        for dataset in spec.datasets
        for model in models
        for seed in spec.train_seeds
    ]
    return [*sheets, *histories, *([root / "protocols.parquet"] if "protocols" in spec.tables else [])]


def _sheet_path(spec: SummarySpec, root: Path, dataset: str, model: str) -> Path:
    return root / dataset / model / f"seed{spec.train_seeds[0]}" / "sheets.safetensors"


def write(spec: SummarySpec, frame: pd.DataFrame, root: Path, index: Path) -> list[Path]:
    """Draw every figure of every data set beside `index`, and write `index`, a list of what there is.

    Returns the figures' files.
    """
    listed: list[dict[str, str]] = []
    made: list[Path] = []
    if "search" in spec.tables:
        storage.write_json(index, listed)
        return made
    # matplotlib would set what stands between two $ as mathematics
    rows = {name: replace(row, label=row.label.replace("$", r"\$")) for name, row in spec.rows.items()}
    spec = replace(spec, rows=rows)
    with plt.rc_context(STYLE):
        for dataset, data in spec.datasets.items():
            seed = spec.train_seeds[0]
            sheets = {
                model: storage.read_arrays(_sheet_path(spec, root, dataset, model), *keys)[0]
                for model, keys in sheet_keys(spec).items()
            }
            synthetic = "SYNTHETIC images. " if data.source.is_synthetic else ""
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
                panel = storage.read_frame(root / "protocols.parquet", *PANEL_COLUMNS)
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
                made += _save(draw(), index.parent / name)
                listed.append({"name": name, "dataset": dataset, "caption": caption})
    if "published" in spec.tables:
        entry, files = _published(spec, frame, index.parent)
        listed.append(entry)
        made += files
    storage.write_json(index, listed)
    return made


def write_published(spec: SummarySpec, frame: pd.DataFrame, index: Path) -> None:
    """Draw published against reproduced beside `index`, from whatever runs there are, and write `index`."""
    storage.write_json(index, [_published(spec, frame, index.parent)[0]])


def _published(spec: SummarySpec, frame: pd.DataFrame, folder: Path) -> tuple[dict[str, str], list[Path]]:
    """Draw the figure, if there is a cell to draw; what the index says of it, and its files.

    `missing` in the index is why it is not there.
    """
    caption = (
        "Published against reproduced: a point per cell of the paper's Table 1. Bars: the noise, as in the tables."
        " Where a bar misses the line, the difference is outside it, the point's edge black. Hollow: one seed, no bar."
    )
    cells, missing = compared_cells(spec, frame)
    entry = {"name": "published", "dataset": "", "caption": caption}
    if missing:
        return {**entry, "missing": missing}, []
    with plt.rc_context(STYLE):
        return entry, _save(published_against_ours(spec, cells), folder / "published")


def _save(figure: Figure, path: Path) -> list[Path]:
    """Write `figure` as `path`.pdf and `path`.png, without the date, and close it; the two files."""
    made = []
    for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        made.append(path.with_name(f"{path.name}.{suffix}"))
        storage.render(
            made[-1],
            lambda target, suffix=suffix, metadata=metadata: figure.savefig(  # type: ignore[misc]
                target, format=suffix, metadata=metadata, dpi=200, bbox_inches="tight"
            ),
        )
    plt.close(figure)
    return made
