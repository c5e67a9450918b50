"""Tidy frame, image sheets and training histories to figures, pdf and png, for print; a module per figure.

The ratios to the best row, which carry the answer, and a strip of images beside them; sample sheets (model x column, as
in the paper's figures), interpolation strips, distance per model and density
with every seed visible, training curves of each loss part, and codes against fitted densities in two
dimensions.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rae_bench.base import storage
from rae_bench.report.answer import shown_rows
from rae_bench.report.plots.codes import code_views
from rae_bench.report.plots.components import components, has_several_counts
from rae_bench.report.plots.distances import distances
from rae_bench.report.plots.images import interpolation_strips, sample_sheet, sheet_keys, strip
from rae_bench.report.plots.protocols import protocols
from rae_bench.report.plots.published import compared_cells, published_against_ours
from rae_bench.report.plots.standings import standings_figure
from rae_bench.report.plots.texts import PUBLISHED, TEXTS, values
from rae_bench.report.plots.training import optimised, training_curves
from rae_bench.study.files import StudyFiles
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


def inputs(spec: SummarySpec, files: StudyFiles) -> list[Path]:
    """What figures are drawn from beside the metrics; of a search none are drawn."""
    if "search" in spec.tables:
        return []
    shown = [
        [files.run(dataset, row.model, spec.train_seeds[0]).sheets for row in spec.rows.values()]
        + [files.run(dataset, model, seed).history for model in trained for seed in spec.train_seeds]
        for dataset, trained in spec.trainings.items()
    ]
    panels = [files.panel] if "protocols" in spec.tables else []
    return list(dict.fromkeys([*itertools.chain(*shown), *panels]))


def write(spec: SummarySpec, frame: pd.DataFrame, files: StudyFiles, index: Path) -> list[Path]:
    """Draw every figure of every data set beside `index`, and write `index`, a list of what there is.

    Returns the figures' files.
    """
    listed: list[dict[str, str]] = []
    made: list[Path] = []
    plain = spec
    # matplotlib would set what stands between two $ as mathematics
    rows = {name: replace(row, label=row.label.replace("$", r"\$")) for name, row in spec.rows.items()}
    spec = replace(spec, rows=rows)
    for dataset, data in spec.datasets.items() if "search" not in spec.tables else ():
        about = f"{'SYNTHETIC images. ' if data.source.is_synthetic else ''}{data.label}: "
        words = values(plain, frame, dataset)
        for kind, draw in _figures(spec, frame, files, dataset).items():
            caption, alt = (text.format(**words) for text in (TEXTS[kind].caption, TEXTS[kind].alt))
            listed.append({"name": f"{kind}_{dataset}", "dataset": dataset, "caption": about + caption, "alt": alt})
            made += _save(draw, index.with_name(f"{kind}_{dataset}"))
    if "published" in spec.tables:
        entry, drawn = _published(spec, frame, index.parent)
        listed.append(entry)
        made += drawn
    storage.write_json(index, listed)
    return made


def _figures(
    spec: SummarySpec, frame: pd.DataFrame, files: StudyFiles, dataset: str
) -> dict[str, Callable[[], Figure]]:
    """What draws each figure of a data set."""
    sheets = {
        model: storage.read_arrays(files.run(dataset, model, spec.train_seeds[0]).sheets, *keys)[0]
        for model, keys in sheet_keys(spec).items()
    }
    shown = shown_rows(spec, frame, dataset)
    figures: dict[str, Callable[[], Figure]] = {
        **({"answer": partial(standings_figure, spec, frame, dataset)} if shown else {}),
        **({"strip": partial(strip, spec, sheets, shown)} if shown else {}),
        "samples": partial(sample_sheet, spec, sheets),
        "interpolations": partial(interpolation_strips, spec, sheets),
        "distances": partial(distances, spec, frame, dataset),
        **({"training": partial(training_curves, spec, files, dataset)} if optimised(spec, dataset) else {}),
        "codes": partial(code_views, spec, sheets, dataset),
    }
    if "densities" in spec.tables and has_several_counts(spec, dataset):
        figures["components"] = partial(components, spec, frame, dataset)
    if "protocols" in spec.tables:
        panel = storage.read_frame(files.panel, *PANEL_COLUMNS)
        figures["protocols"] = partial(protocols, spec, panel, dataset)
    return figures


def write_published(spec: SummarySpec, frame: pd.DataFrame, index: Path) -> None:
    """Draw published against reproduced beside `index`, from whatever runs there are, and write `index`."""
    storage.write_json(index, [_published(spec, frame, index.parent)[0]])


def _published(spec: SummarySpec, frame: pd.DataFrame, folder: Path) -> tuple[dict[str, str], list[Path]]:
    """Draw the figure, if there is a cell to draw; what the index says of it, and its files.

    `missing` in the index is why it is not there.
    """
    cells, missing = compared_cells(spec, frame)
    entry = {"name": "published", "dataset": "", "caption": PUBLISHED.caption, "alt": PUBLISHED.alt}
    if missing:
        return {**entry, "missing": missing}, []
    return entry, _save(partial(published_against_ours, spec, cells), folder / "published")


def _save(draw: Callable[[], Figure], path: Path) -> list[Path]:
    """Draw a figure as `path`.pdf and `path`.png, without the date, and close it; the two files."""
    undated = {path.with_suffix(".pdf"): {"CreationDate": None}, path.with_suffix(".png"): {"Software": None}}
    with plt.rc_context(STYLE):
        figure = draw()
        for file, metadata in undated.items():
            save = partial(figure.savefig, format=file.suffix[1:], metadata=metadata, dpi=200, bbox_inches="tight")
            storage.render(file, save)
    plt.close(figure)
    return list(undated)
