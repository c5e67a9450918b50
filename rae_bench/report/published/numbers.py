"""Published numbers: Table 1 of Ghosh et al. (2020), and what others report who ran it again.

The files beside this one are the only source; README.md there says where each value was read and what its status
means. They are read strictly, and once: a row too many, a status without a meaning or a value that is no number is
an error, never a gap in a table.
"""

import csv
import functools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rae_bench.study.specs import PAPER_DATASETS

FOLDER = Path(__file__).parent
COLUMNS = {"rec": "reconstruction", "n": "n", "gmm": "gmm", "interp": "interpolation"}
"""A column as the files name it, and as the suite does."""
STATUSES = {"confirmed": 24, "approx_confirmed": 3, "single_source": 78}
"""How sure a value is, and of how many that is said."""
N_IMAGES = 10_000
"""Generated images of every published distance, and test images they were held against."""


class PublishedError(RuntimeError):
    """A file of published numbers that is not as it was checked."""


@dataclass(frozen=True)
class Published:
    """A value of the paper's Table 1; `second_source` is where it was found again, or empty."""

    value: float
    status: str
    second_source: str


@dataclass(frozen=True)
class Reproduction:
    """What somebody else reports, as printed: `model`, `column` and `value` may be inexact."""

    dataset: str
    model: str
    column: str
    value: str
    who: str
    note: str


def lookup(dataset: str, row: str, column: str) -> Published | None:
    """The published FID of the paper's `dataset` and `row`, in the suite's `column`; None where there is none."""
    return table1().get((dataset, row, column))


@functools.cache
def table1(folder: Path = FOLDER) -> Mapping[tuple[str, str, str], Published]:
    """Every value of Table 1 by data set, row (both as the paper names them) and column (as the suite does).

    Raises:
        PublishedError: not the file that was checked.
    """
    path = folder / "table1_fid.csv"
    values: dict[tuple[str, str, str], Published] = {}
    for place, line in _lines(path, "dataset", "model", "column", "metric", "value", "status", "second_source"):
        _check(place, line, dataset=PAPER_DATASETS.values(), column=COLUMNS, metric=("FID",), status=STATUSES)
        key = line["dataset"], line["model"], COLUMNS[line["column"]]
        if key in values:
            raise PublishedError(f"{place}: {', '.join(key)} stands twice")
        values[key] = Published(_number(line["value"], place), line["status"], line["second_source"])
        if line["status"] != "single_source" and not line["second_source"]:
            raise PublishedError(f"{place}: {line['status']!r} by no second source")
    counts = Counter(value.status for value in values.values())
    if counts != STATUSES:
        raise PublishedError(f"{path}: values by status are {dict(counts)}, expected {STATUSES}; restore the file")
    return values


@functools.cache
def reproductions(folder: Path = FOLDER) -> tuple[Reproduction, ...]:
    """What others report, in the file's order.

    Raises:
        PublishedError: not a file of such reports.
    """
    path = folder / "third_party_reproductions.csv"
    found = []
    for place, line in _lines(path, "dataset", "model", "column", "metric", "value", "who", "note"):
        _check(place, line, dataset=PAPER_DATASETS.values(), metric=("FID",))
        _number(line["value"].removeprefix("~"), place)
        found.append(Reproduction(**{name: text for name, text in line.items() if name != "metric"}))
    return tuple(found)


def _lines(path: Path, *header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each line below the header with its place, for messages."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise PublishedError(f"{path}: cannot be read: {error}; restore it from version control") from None
    if not rows or rows[0] != list(header):
        raise PublishedError(f"{path}: columns are {rows[0] if rows else []}, expected {list(header)}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise PublishedError(f"{path}:{number}: {len(row)} fields, expected {len(header)}")
        yield f"{path}:{number}", dict(zip(header, row, strict=True))


def _check(place: str, line: dict[str, str], **known: Collection[str]) -> None:
    for name, values in known.items():
        if line[name] not in values:
            raise PublishedError(f"{place}: {name} {line[name]!r} is not one of {list(values)}")


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise PublishedError(f"{place}: value {text!r} is not a distance")
    return value
