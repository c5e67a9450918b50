"""What a benchmark found, kept as benchmarks/found/NAME.json with date, processor and versions; docs/speed.md shows it.

Every claim is a ratio of two sides measured in one run. `benchmarks/table.py` turns the files into the tables.
"""

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOUND = Path(__file__).parent / "found"


@dataclass(frozen=True)
class Ratio:
    """One claim: `ours` against `other`, both in `unit`; `ratio` is how much better ours is, `bar` what was asked."""

    what: str
    ours: float
    other: float
    unit: str
    ratio: float
    bar: float | None = None
    at_most: bool = False  # the bar is an upper one
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """Figures behind the claims, as they are to be printed."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]


def processor() -> str:
    """The name of this machine's processor and how many cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def write(
    name: str,
    title: str,
    ratios: Sequence[Ratio],
    *,
    tables: Sequence[Table] = (),
    packages: Sequence[str] = ("torch",),
) -> None:
    """Keep what benchmark `name` found, and print it; `packages` are those whose versions matter."""
    found: dict[str, Any] = {
        "title": title,
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in packages},
        "ratios": [asdict(ratio) for ratio in ratios],
        "tables": [asdict(table) for table in tables],
    }
    FOUND.mkdir(exist_ok=True)
    (FOUND / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    for ratio in ratios:
        bar = "" if ratio.bar is None else f" (asked: {'<=' if ratio.at_most else '>='} {ratio.bar:g})"
        print(f"{ratio.what}: {ratio.ours:.4g} / {ratio.other:.4g} {ratio.unit}, ratio {ratio.ratio:.3g}{bar}")
