"""Tidy frame to paper-style tables: csv for programs, md for people, tex (booktabs) for papers; a module per table.

`table1` has the columns of the paper's Table 1 (reconstruction, N, GMM, interpolation), and beside them N(0, I)
and the single Gaussian for every row, because column N means one or the other by row. One such table per
metric.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from rae_bench.base import storage
from rae_bench.report.rendering import Table, latex, markdown
from rae_bench.report.tables.claims import verdict_table
from rae_bench.report.tables.densities import (
    GRID,
    density_table,
    density_verdict_table,
    likelihood_table,
    selection_tables,
)
from rae_bench.report.tables.networks import network_table
from rae_bench.report.tables.notes import gpu_notes
from rae_bench.report.tables.protocols import protocol_table
from rae_bench.report.tables.published import published_tables
from rae_bench.report.tables.rankings import comparisons_table, ranking_table
from rae_bench.report.tables.reconstruction import reconstruction_table
from rae_bench.report.tables.search import search_table
from rae_bench.report.tables.spread import prior_table, spread_rows, spread_table
from rae_bench.report.tables.table1 import table1
from rae_bench.report.tables.variance import variance_table
from rae_bench.report.tables.wording import words
from rae_bench.study.files import StudyFiles
from rae_bench.study.results import PANEL_COLUMNS
from rae_bench.study.specs import SummarySpec


def inputs(spec: SummarySpec, files: StudyFiles) -> list[Path]:
    """What tables are made from beside the metrics: the panel of protocols, where the study has one."""
    return [files.panel] if "protocols" in spec.tables else []


def write(spec: SummarySpec, frame: pd.DataFrame, files: StudyFiles, index: Path) -> list[Path]:
    """Write every table of a study beside `index`, and `index`, a list of what there is.

    Returns the tables' files.
    """
    made: list[Path] = []
    built = build(spec, frame, files)
    for table in built:
        csv, md, tex = (index.with_name(f"{table.name}.{suffix}") for suffix in ("csv", "md", "tex"))
        storage.write_frame(csv, table.data)
        storage.write_text(md, markdown(table))
        storage.write_text(tex, latex(table))
        made += [csv, md, tex]
    shown = ("name", "title", "header", "rows", "notes")
    storage.write_json(index, [{**{key: vars(one)[key] for key in shown}, "bold": sorted(one.bold)} for one in built])
    return made


def build(spec: SummarySpec, frame: pd.DataFrame, files: StudyFiles) -> list[Table]:
    """Every table the study asks for, in order."""
    built = [table for name in spec.tables for table in _build(name, spec, frame, files)]
    return [replace(one, notes=[*one.notes, *gpu_notes(frame, set(one.data.get("dataset", ())))]) for one in built]


def _build(name: str, spec: SummarySpec, frame: pd.DataFrame, files: StudyFiles) -> list[Table]:
    match name:
        case "table1":
            return [table1(spec, frame, dataset, "frechet_distance") for dataset in spec.datasets]
        case "published":
            return published_tables(spec, frame)
        case "details":
            return [table for dataset in spec.datasets for table in _details(spec, frame, dataset)]
        case "claims":
            return [verdict_table(spec, frame)]
        case "comparisons":
            kinds = (ranking_table, comparisons_table) if any(row.gmm for row in spec.competing.values()) else ()
            return [table(spec, frame, dataset) for dataset in spec.datasets for table in kinds]
        case "densities":
            return [table for dataset in spec.datasets for table in _densities(spec, frame, dataset)]
        case "variance":
            return [variance_table(spec, frame, dataset) for dataset in spec.datasets]
        case "protocols":
            panel = storage.read_frame(files.panel, *PANEL_COLUMNS)
            return [protocol_table(spec, panel, dataset) for dataset in spec.datasets]
        case "networks":
            return [network_table(spec)]
        case "priors":
            return [table for dataset in spec.datasets for table in _priors(spec, frame, dataset)]
        case "search":
            return [search_table(spec, frame, dataset) for dataset in spec.datasets]
        case _:
            raise ValueError(f"no table is called {name!r}")


def _priors(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> list[Table]:
    """Every row under its own prior and fitted densities, and the spread of the rows, where two have a prior."""
    has_spread = len(spread_rows(spec, dataset)) > 1
    return [
        prior_table(spec, frame, dataset),
        *([spread_table(spec, frame, dataset)] if has_spread else []),
    ]


def _densities(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> list[Table]:
    """The grids, and every density beside the mixture of column GMM, where rows have one and another."""
    mixtures = [row.gmm for row in spec.competing.values() if row.gmm]
    is_compared = any(density != mixture for density in spec.densities for mixture in mixtures)
    return [
        *(density_table(spec, frame, dataset, metric) for metric in GRID),
        *([density_verdict_table(spec, frame, dataset)] if is_compared else []),
    ]


def _details(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> list[Table]:
    """Reconstructions, every other metric as in Table 1, likelihoods where there are any, and what mixtures chose."""
    present = set(frame.loc[frame["dataset"] == dataset, "metric"])
    return [
        reconstruction_table(spec, frame, dataset),
        *(table1(spec, frame, dataset, metric) for metric in words(spec) if metric in present - {"frechet_distance"}),
        *([likelihood_table(spec, frame, dataset)] if "evidence_bound" in present else []),
        *selection_tables(spec, frame, dataset),
    ]
