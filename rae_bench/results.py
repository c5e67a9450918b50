"""Metric files to one tidy frame: one value per row, with everything needed to interpret it."""

from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from rae_bench import __version__

KEYS = ["study", "dataset", "model", "train_seed", "image_set", "density", "sample_seed", "metric"]
"""What tells one row from another."""
COLUMNS = [
    "study",
    "dataset",
    "is_synthetic",
    "model",
    "train_seed",
    "image_set",
    "density",
    "sample_seed",
    "n_generated",
    "n_reference",
    "reference_split",
    "extractor",
    "extractor_label",
    "metric",
    "value",
    "floor",
    "train_fingerprint",
    "fit_fingerprint",
    "evaluate_fingerprint",
    "package_version",
]


class ResultError(RuntimeError):
    """Metric files that do not belong together."""


@dataclass(frozen=True)
class Context:
    """What all rows of one evaluation share."""

    study: str
    dataset: str
    is_synthetic: bool
    model: str
    train_seed: int
    n_generated: int
    n_reference: int
    reference_split: str
    extractor: str
    extractor_label: str
    train_fingerprint: str
    evaluate_fingerprint: str


def run_frame(
    context: Context, rows: list[dict[str, Any]], fits: dict[str, dict[str, Any]], reference: dict[str, Any]
) -> pd.DataFrame:
    """The rows of one run as a frame of `COLUMNS`; `floor` is the real-against-real value of the same metric, or NaN.

    `fits` and `reference` are what the density files and the reference file say of themselves.
    """
    all_rows = [dict(row) for row in rows]
    for density, fit in fits.items():
        for split, value in fit["log_likelihood"].items():
            if value is not None:
                all_rows.append(
                    {"density": density, "metric": f"log_likelihood_{split}", "value": value, "image_set": "codes"}
                )
    pca = {"image_set": "reconstruction", "metric": "pca_squared_error", "value": reference["pca_squared_error"]}
    all_rows.append(pca)
    for row in all_rows:
        row.setdefault("density", "")
        row.setdefault("sample_seed", 0)
        row |= asdict(context)
        row["floor"] = reference["floor"].get(row["metric"], float("nan"))
        row["fit_fingerprint"] = fits[row["density"]]["fingerprint"] if row["density"] in fits else ""
        row["package_version"] = __version__
    return pd.DataFrame(all_rows)[COLUMNS]


def collect(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """All runs in one frame, sorted by what tells rows apart.

    Raises:
        ResultError: a value that stands twice, or runs of one data set measured by different rulers.
    """
    frame = pd.concat(frames, ignore_index=True)
    twice = frame[frame.duplicated(KEYS)]
    if len(twice):
        raise ResultError(f"metrics hold a value twice: {twice.iloc[0][KEYS].to_dict()}")
    for column in ("extractor", "n_generated", "n_reference", "reference_split", "package_version"):
        found = frame.groupby("dataset")[column].nunique()
        if (found > 1).any():
            dataset = str(found.idxmax())
            values = sorted(frame.loc[frame["dataset"] == dataset, column].astype(str).unique())
            raise ResultError(
                f"runs of {dataset!r} differ in {column}: {values}; they cannot share a table, run them again"
            )
    return frame.sort_values(KEYS, ignore_index=True)
