"""A run's sheets, the first images of each of its sets: what those of a cell are called, and how they are laid out."""

from typing import Any

import numpy as np
import numpy.typing as npt

from rae_bench.report.tables.cells import place
from rae_bench.study.specs import Row

Sheets = dict[str, npt.NDArray[Any]]
"""The arrays of a run's sheets by their names."""


def tile(images: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.uint8]:
    """Images (n, C, H, W) as one picture, `columns` wide, a white pixel between them; (H', W', 3)."""
    n, _, height, width = images.shape
    rows = -(-n // columns)
    framed = np.full((rows * columns, height + 1, width + 1, 3), 255, dtype=np.uint8)
    framed[:n, :height, :width] = images.transpose(0, 2, 3, 1)
    lines = framed.reshape(rows, columns, height + 1, width + 1, 3).swapaxes(1, 2)
    return lines.reshape(rows * (height + 1), columns * (width + 1), 3)[:-1, :-1]


def sheet_key(row: Row, column: str) -> str | None:
    """What the pictures of a cell are called; None where the row has no such cell."""
    shown = None if row.has_no_model and column not in row.images else place(row, column)
    return shown and ".".join(part for part in shown if part)
