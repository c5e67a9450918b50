"""What stands behind each cell of Table 1: seeds, counts, reference, fingerprints, the command for it, and images."""

import base64
import io
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from rae_bench.base import storage
from rae_bench.report.sheets import Sheets, sheet_key, tile
from rae_bench.report.tables.cells import COLUMNS, cell_frame, compared, place
from rae_bench.report.verdicts import leaders
from rae_bench.study.files import StudyFiles
from rae_bench.study.specs import Row, SummarySpec

METRIC = "frechet_distance"
SHOWN = 8
"""Images shown behind a cell."""


def table1_rows(
    spec: SummarySpec, frame: pd.DataFrame, files: StudyFiles, shown: Mapping[str, Sequence[Sequence[str]]]
) -> list[dict[str, Any]]:
    """The rows of Table 1 of all data sets together; `shown`: by data set the texts of its own table."""
    mine = frame[frame["metric"] == METRIC]
    found = []
    for dataset, texts in shown.items():
        every = {column: compared(spec, mine, dataset, column) for column in COLUMNS}
        bold = [cell for one in every.values() for cell in leaders(one, "lower", spec.equal_within)]
        for (name, row), (label, *cells) in zip(spec.ordered_rows.items(), texts[1:], strict=True):
            sheets, _ = storage.read_arrays(files.run(dataset, row.model, spec.train_seeds[0]).sheets)
            found.append(
                {
                    **{"name": name, "label": label, "family": row.family, "dataset": dataset},
                    "cells": [
                        {
                            **{"column": column, "text": text, "is_bold": (name, column) in bold},
                            "behind": _behind(spec, mine, sheets, dataset, row, column),
                        }
                        for column, text in zip(COLUMNS, cells, strict=True)
                    ],
                }
            )
    return found


def _behind(
    spec: SummarySpec, frame: pd.DataFrame, sheets: Sheets, dataset: str, row: Row, column: str
) -> dict[str, Any] | None:
    """What a cell is made of; None where there is no such cell."""
    mine, shown = cell_frame(frame, dataset, row, column, METRIC), place(row, column)
    if mine.empty or shown is None:
        return None
    image_set, density = shown
    first, seeds = mine.iloc[0], mine.groupby("train_seed")["value"].mean()
    fits, values = mine["fit_seed"].nunique(), len(mine) // len(seeds)
    made_with = {kind: first[f"{kind}_fingerprint"] for kind in ("train", "fit", "evaluate")}
    cell = f"{dataset}/{row.model}/{density if image_set == 'sample' else image_set}/seed{seeds.index[0]}"
    return {
        "mean": float(seeds.mean()),
        "seeds": [(seed, f"{value:.6g}") for seed, value in zip(seeds.index.tolist(), seeds, strict=True)],
        "counts": (
            f"{first['n_generated']:,} images a value; a seed is the mean of {values} (fits: {fits}, draws of each:"
            f" {values // fits})"
            if values > 1
            else f"{first['n_generated']:,} images; one value a seed"
        ),
        "reference": (
            f"{first['n_reference']:,} {first['reference_split']} images in features {first['extractor']}; real against"
            f" real {first['floor']:.4g}"
        ),
        "fingerprints": ", ".join(f"{kind} {value}" for kind, value in made_with.items() if value),
        "picture": None if (key := sheet_key(row, column)) is None else _picture(sheets[key][:SHOWN]),
        "command": f"python -m rae_bench verify {shlex.quote(spec.source)} --cell {cell}",
    }


def _picture(images: npt.NDArray[np.uint8]) -> str:
    """Images (n, C, H, W) in one line, as a PNG in base 64."""
    page = io.BytesIO()
    Image.fromarray(tile(images, SHOWN)).save(page, "PNG", optimize=True)
    return base64.b64encode(page.getvalue()).decode()
