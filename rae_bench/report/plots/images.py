"""Pictures of images: what each model makes of originals, of samples, and of the way between two originals."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from rae_bench.report.tables.cells import COLUMNS
from rae_bench.study.specs import Row, SummarySpec

PER_CELL = 6
"""Images shown of each set in a sample sheet."""
STEPS = 8
"""Images of an interpolation strip, both ends included."""
Sheets = dict[str, npt.NDArray[Any]]


def _tile(images: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
    """Images (n, C, H, W) as one picture, `columns` wide, a white pixel between them; (H', W', 3)."""
    n, _, height, width = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + 1), (i % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return canvas


def _sheet_key(row: Row, column: str) -> str | None:
    if column in ("reconstruction", "interpolation"):
        return f"{column}.{row.through}" if row.through else column
    density = {"n": row.n, "gmm": row.gmm}.get(column, column)
    return f"sample.{density}" if density else None


def _sampled(spec: SummarySpec) -> list[str]:
    """The columns shown beside originals; N(0,I) only where the study has it."""
    columns = ("reconstruction", "n", "standard_normal", "gmm")
    return [column for column in columns if column != "standard_normal" or column in spec.densities]


def sheet_keys(spec: SummarySpec) -> dict[str, set[str]]:
    """What the figures show of each model's sheets."""
    keys: dict[str, set[str]] = {row.model: {"original", "codes"} for row in spec.rows.values()}
    for row in spec.rows.values():
        shown = (_sheet_key(row, column) for column in (*_sampled(spec), "interpolation"))
        keys[row.model] |= {key for key in shown if key is not None}
    return keys


def sample_sheet(spec: SummarySpec, sheets: dict[str, Sheets]) -> Figure:
    """A row of pictures per table row: originals, reconstructions, and samples of columns N, N(0,I) and GMM."""
    columns = {"original": "Original", **{column: COLUMNS[column] for column in _sampled(spec)}}
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


def interpolation_strips(spec: SummarySpec, sheets: dict[str, Sheets]) -> Figure:
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
