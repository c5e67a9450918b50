"""Published numbers: Table 1 of Ghosh et al. (2020), and what others report who ran it again.

The files beside this one are the only source; README.md there says where each value was read and what its status
means. Each was checked, line by line, as the bytes whose SHA-256 stands here: no other bytes are read as published.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rae_bench.base import storage

FOLDER = Path(__file__).parent
CHECKED = {
    "table1_fid.csv": "cf08e884fcb8bf1fdd1856f535e5a52a855f9d09090ea70aa7829c861d12fd7a",
    "third_party_reproductions.csv": "714cdb0fb8dd166da13eb06fdf971b62a319511be0cbd9192c0b52bfbd77f6e0",
}
COLUMNS = {"rec": "reconstruction", "n": "n", "gmm": "gmm", "interp": "interpolation"}
"""A column as the files name it, and as the suite does."""
N_IMAGES = 10_000
"""Generated images of every published distance, and test images they were held against."""


class PublishedError(RuntimeError):
    """A file of published numbers that is not as it was checked, or a study that they cannot stand beside."""


@dataclass(frozen=True)
class Published:
    """A value of the paper's Table 1; `second_source` is where it was found again, or empty."""

    value: float
    status: str
    second_source: str


@functools.cache
def table1(folder: Path = FOLDER) -> Mapping[tuple[str, str, str], Published]:
    """Every FID of Table 1 by data set, row (both as the paper names them) and column (as the suite does)."""
    lines = _checked(folder / "table1_fid.csv").itertuples()
    return {
        (str(line.dataset), str(line.model), COLUMNS[str(line.column)]): Published(
            float(str(line.value)), str(line.status), str(line.second_source)
        )
        for line in lines
    }


def reproductions(dataset: str, folder: Path = FOLDER) -> pd.DataFrame:
    """What others report of the paper's `dataset`, as printed: `model`, `column` and `value` may be inexact."""
    lines = _checked(folder / "third_party_reproductions.csv")
    return lines[lines["dataset"] == dataset].drop(columns="metric")


def _checked(path: Path) -> pd.DataFrame:
    """The lines of a file as texts.

    Raises:
        PublishedError: not the file that was checked.
        StorageError: no file that can be read.
    """
    if (found := storage.sha256(path)) != CHECKED[path.name]:
        raise PublishedError(
            f"{path}: SHA-256 {found[:12]}..., expected {CHECKED[path.name][:12]}...; restore it from version control,"
            " or check its lines against their sources and note its hash in numbers.py"
        )
    return pd.read_csv(path, dtype=str, keep_default_na=False)
