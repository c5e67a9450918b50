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

from rae_bench import specs, storage
from rae_bench.plots.codes import code_views
from rae_bench.plots.components import components
from rae_bench.plots.distances import distances
from rae_bench.plots.images import interpolation_strips, sample_sheet, sheet_keys
from rae_bench.plots.protocols import protocols
from rae_bench.plots.published import compared_cells, published_against_ours
from rae_bench.plots.training import training_curves
from rae_bench.results import PANEL_COLUMNS

mpl.use("agg")

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
}


def write(spec: specs.SummarySpec, frame: pd.DataFrame, root: Path, index: Path) -> None:
    """Draw every figure of every data set beside `index`, and write `index`, a list of what there is."""
    listed: list[dict[str, str]] = []
    if "search" in spec.tables:
        storage.write_json(index, listed)
        return
    # matplotlib would set what stands between two $ as mathematics
    rows = {name: replace(row, label=row.label.replace("$", r"\$")) for name, row in spec.rows.items()}
    spec = replace(spec, rows=rows)
    with plt.rc_context(STYLE):
        for dataset, data in spec.datasets.items():
            seed = spec.train_seeds[0]
            sheets = {
                model: storage.read_arrays(root / dataset / model / f"seed{seed}" / "sheets.safetensors", *keys)[0]
                for model, keys in sheet_keys(spec).items()
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
                _save(draw(), index.parent / name)
                listed.append({"name": name, "dataset": dataset, "caption": caption})
    if "published" in spec.tables:
        listed.append(_published(spec, frame, index.parent))
    storage.write_json(index, listed)


def write_published(spec: specs.SummarySpec, frame: pd.DataFrame, index: Path) -> None:
    """Draw published against reproduced beside `index`, from whatever runs there are, and write `index`."""
    storage.write_json(index, [_published(spec, frame, index.parent)])


def _published(spec: specs.SummarySpec, frame: pd.DataFrame, folder: Path) -> dict[str, str]:
    """Draw the figure, if there is a cell to draw; what the index says of it, `missing` being why it is not there."""
    caption = (
        "Published against reproduced: a point per cell of the paper's Table 1. Bars: the noise, as in the tables."
        " Where a bar misses the line, the difference is outside it, the point's edge black. Hollow: one seed, no bar."
    )
    cells, missing = compared_cells(spec, frame)
    if not missing:
        with plt.rc_context(STYLE):
            _save(published_against_ours(spec, cells), folder / "published")
    return {"name": "published", "dataset": "", "caption": caption, **({"missing": missing} if missing else {})}


def _save(figure: Figure, path: Path) -> None:
    """Write `figure` as `path`.pdf and `path`.png, without the date, and close it."""
    for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        storage.render(
            path.with_name(f"{path.name}.{suffix}"),
            lambda target, suffix=suffix, metadata=metadata: figure.savefig(  # type: ignore[misc]
                target, format=suffix, metadata=metadata, dpi=200, bbox_inches="tight"
            ),
        )
    plt.close(figure)
