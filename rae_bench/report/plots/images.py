"""Pictures of images: what each model makes of originals, of samples, and of the way between two originals."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rae_bench.report.sheets import Sheets, sheet_key, tile
from rae_bench.report.tables.cells import COLUMNS
from rae_bench.scoring.specs import STEPS
from rae_bench.study.specs import SummarySpec

PER_CELL = 6
"""Images shown of each set in a sample sheet."""
IN_STRIP = 3
"""Images shown in a line of a cell in the strip of the first screen; there are two lines."""
STRIP = {"reconstruction": "Reconstruction", "standard_normal": "N(0,I)", "gaussian": "Gaussian", "gmm": "GMM"}
"""The columns of the strip, beside real images."""


def _sampled(spec: SummarySpec) -> list[str]:
    """The columns shown beside originals; N(0,I) only where the study has it."""
    columns = ("reconstruction", "n", "standard_normal", "gmm")
    return [column for column in columns if column != "standard_normal" or column in spec.densities]


def _stripped(spec: SummarySpec) -> list[str]:
    """The columns of the strip that the study has."""
    fitted = {"standard_normal", "gaussian"} - set(spec.densities)
    return [column for column in STRIP if column not in fitted]


def sheet_keys(spec: SummarySpec) -> dict[str, set[str]]:
    """What the figures show of each model's sheets."""
    keys: dict[str, set[str]] = {
        row.model: set() if row.has_no_model else {"original", "codes"} for row in spec.rows.values()
    }
    for row in spec.rows.values():
        columns = {*_sampled(spec), "interpolation", *_stripped(spec)}
        keys[row.model] |= {key for column in columns if (key := sheet_key(row, column))}
    return keys


def sample_sheet(spec: SummarySpec, sheets: dict[str, Sheets]) -> Figure:
    """A row of pictures per table row: originals, reconstructions, and samples of columns N, N(0,I) and GMM."""
    rows, columns = spec.ordered_rows.values(), _sampled(spec)
    keys = [
        (row.model, [None if row.has_no_model else "original", *(sheet_key(row, column) for column in columns)])
        for row in rows
    ]
    pictures = [
        [None if key is None else tile(sheets[model][key][: 2 * PER_CELL], PER_CELL) for key in shown]
        for model, shown in keys
    ]
    figure, axes = _pictures([row.label for row in rows], pictures, 0.62, 0.04)
    for axis, title in zip(axes, ["Original", *(COLUMNS[column] for column in columns)], strict=True):
        axis.set_title(title)
    return figure


def strip(spec: SummarySpec, sheets: dict[str, Sheets], names: Sequence[str]) -> Figure:
    """Real images, reconstructions and samples of these rows, the first few as they were drawn."""
    rows = [spec.rows[name] for name in names]
    columns = [column for column in _stripped(spec) if any(sheet_key(row, column) for row in rows)]
    pictures = [
        [
            None if key is None else tile(sheets[row.model][key][: 2 * IN_STRIP], IN_STRIP)
            for key in ("original", *(sheet_key(row, column) for column in columns))
        ]
        for row in rows
    ]
    figure, axes = _pictures([row.label for row in rows], pictures, 0.6, 0.04, width=4.6)
    for axis, title in zip(axes, ["Real", *(STRIP[column] for column in columns)], strict=True):
        axis.set_title(title)
    return figure


def interpolation_strips(spec: SummarySpec, sheets: dict[str, Sheets]) -> Figure:
    """Two strips per table row that has codes, from one test image's to another's."""
    rows = [row for row in spec.ordered_rows.values() if not row.has_no_model]
    strips = [sheets[row.model][str(sheet_key(row, "interpolation"))][: 2 * STEPS] for row in rows]
    pictures = [[tile(images[:STEPS], STEPS), tile(images[STEPS:], STEPS)] for images in strips]
    return _pictures([row.label for row in rows], pictures, 0.48, 0.02)[0]


def _pictures(
    labels: list[str],
    pictures: Sequence[Sequence[npt.NDArray[np.uint8] | None]],
    height: float,
    gap: float,
    width: float = 7.2,
) -> tuple[Figure, list[Axes]]:
    """A figure of pictures, a line of them behind each label, and the axes of its first line."""
    figure, axes = plt.subplots(
        len(labels), len(pictures[0]), figsize=(width, height * len(labels)), squeeze=False, layout="constrained"
    )
    for line, label, shown in zip(axes, labels, pictures, strict=True):
        for axis, picture in zip(line, shown, strict=True):
            axis.set_axis_off()
            if picture is not None:
                axis.imshow(picture, interpolation="nearest")
            else:  # the table's dash
                axis.text(0.5, 0.5, "–", ha="center", va="center", color="0.5")
        line[0].text(-gap, 0.5, label, ha="right", va="center", transform=line[0].transAxes)
    return figure, list(axes[0])
