"""Tidy frame to paper-style tables: csv for programs, md for people, tex (booktabs) for papers; a module per table.

`table1` has the columns of the paper's Table 1 (reconstruction, N, GMM, interpolation), and beside them N(0, I)
and the single Gaussian for every row, because column N means one or the other by row. One such table per
metric.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from rae_bench.base import storage
from rae_bench.report.rendering import Table, latex, markdown
from rae_bench.report.tables.claims import verdict_table
from rae_bench.report.tables.densities import GRID, density_table
from rae_bench.report.tables.likelihood import likelihood_table
from rae_bench.report.tables.protocols import protocol_table
from rae_bench.report.tables.published import published_tables
from rae_bench.report.tables.rankings import comparisons_table, ranking_table
from rae_bench.report.tables.reconstruction import reconstruction_table
from rae_bench.report.tables.search import search_table
from rae_bench.report.tables.table1 import table1
from rae_bench.report.tables.wording import METRICS
from rae_bench.study.results import PANEL_COLUMNS
from rae_bench.study.specs import SummarySpec


def inputs(spec: SummarySpec, root: Path) -> list[Path]:
    """What tables are made from beside the metrics: the panel of protocols, where the study in `root` has one."""
    return [root / "protocols.parquet"] if "protocols" in spec.tables else []


def write(spec: SummarySpec, frame: pd.DataFrame, root: Path, index: Path) -> list[Path]:
    """Write every table of the study in `root` beside `index`, and `index`, a list of what there is.

    Returns the tables' files.
    """
    listed: list[dict[str, Any]] = []
    made: list[Path] = []
    for table in build(spec, frame, root):
        csv, md, tex = (index.with_name(f"{table.name}.{suffix}") for suffix in ("csv", "md", "tex"))
        storage.write_frame(csv, table.data)
        storage.write_text(md, markdown(table))
        storage.write_text(tex, latex(table))
        made += [csv, md, tex]
        listed.append(
            {
                "name": table.name,
                "title": table.title,
                "header": table.header,
                "rows": table.rows,
                "bold": sorted(table.bold),
                "notes": table.notes,
            }
        )
    storage.write_json(index, listed)
    return made


def build(spec: SummarySpec, frame: pd.DataFrame, root: Path) -> list[Table]:
    """Every table the study asks for, in order; `root` holds the panel of protocols, where there is one."""
    made: list[Table] = []
    for name in spec.tables:
        match name:
            case "table1":
                made += [table1(spec, frame, dataset, "frechet_distance") for dataset in spec.datasets]
            case "published":
                made += published_tables(spec, frame)
            case "details":
                for dataset in spec.datasets:
                    made.append(reconstruction_table(spec, frame, dataset))
                    present = set(frame.loc[frame["dataset"] == dataset, "metric"])
                    others = [metric for metric in METRICS if metric in present - {"frechet_distance"}]
                    made += [table1(spec, frame, dataset, metric) for metric in others]
                    if "evidence_bound" in present:
                        made.append(likelihood_table(spec, frame, dataset))
            case "claims":
                made.append(verdict_table(spec, frame))
            case "comparisons":
                for dataset in spec.datasets:
                    made += [ranking_table(spec, frame, dataset), comparisons_table(spec, frame, dataset)]
            case "densities":
                for dataset in spec.datasets:
                    made += [density_table(spec, frame, dataset, metric) for metric in GRID]
            case "protocols":
                panel = storage.read_frame(root / "protocols.parquet", *PANEL_COLUMNS)
                made += [protocol_table(spec, panel, dataset) for dataset in spec.datasets]
            case "search":
                made += [search_table(spec, frame, dataset) for dataset in spec.datasets]
            case _:
                raise ValueError(f"no table is called {name!r}")
    return made
