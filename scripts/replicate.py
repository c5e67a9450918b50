"""Run a study with other seeds and see whether its verdicts come out the same.

    python scripts/replicate.py digits --seeds 0,1,2 3,4,5 6,7,8 [--cores 2] [--out docs/replication]

Each set of training seeds is a study of its own, STUDY_seeds_3_4_5 (its file is written beside STUDY's and stays, so
that an interrupted run goes on); its fits and draws are seeded by it, too. Data sets and real features are shared.
Writes OUT_pairs.csv and OUT_claims.csv, every pair of rows in every column and every comparison of the paper's claims
with its verdict in each set and from all seeds together, and OUT.csv: for every two sets how many verdicts are the
same, how many changed and how, and how many changes a simulation from the sets' own means and spreads expects. Ends
with status 1 if two verdicts are opposite: better and worse, or equal and an interval wholly beyond the margin.
"""

import argparse
import functools
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from rae_bench.base import storage
from rae_bench.report.comparisons import Compared
from rae_bench.report.tables.cells import COLUMNS, Cell, compared
from rae_bench.report.tables.claims import COLUMN_NAMES, claimed
from rae_bench.report.verdicts import pairs
from rae_bench.study.config import CONFIG, load_study

KINDS = ("same", "decided or not", "equal or not", "opposite")
SIMULATED = 200
"""Pairs of tables from which the expected changes are counted."""


def study_of(study: str, seeds: tuple[int, ...]) -> str:
    """The name of the study with these training seeds, its file written if it is not there."""
    text = (CONFIG / "studies" / f"{study}.yaml").read_text()
    if tuple(yaml.safe_load(text)["train_seeds"]) == seeds:
        return study
    name = "_".join([study, "seeds", *map(str, seeds)])
    lines = [f"train_seeds: {list(seeds)}" if line.startswith("train_seeds:") else line for line in text.splitlines()]
    (CONFIG / "studies" / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    return name


def change(one: pd.Series, other: pd.Series, within: float) -> str:
    """How a verdict differs between two sets; each a row of `pairs`, or of `claimed`."""
    said = {one["verdict"], other["verdict"]}
    if len(said) == 1:
        return "same"
    for equal, beyond in ((one, other), (other, one)):
        if equal["verdict"] == "equal" and (beyond["low"] > within or beyond["high"] < 1 / within):
            return "opposite"
    if said in ({"better", "worse"}, {"supported", "contradicted"}):
        return "opposite"
    return "decided or not" if "undecided" in said else "equal or not"


def changes(one: pd.DataFrame, other: pd.DataFrame, within: float) -> dict[str, int]:
    """How many pairs of two sets changed in which way."""
    found = [change(a, b, within) for (_, a), (_, b) in zip(one.iterrows(), other.iterrows(), strict=True)]
    return {kind: found.count(kind) for kind in KINDS}


def expected(
    sets: list[Compared[Cell]],
    sources: dict[Cell, str],
    within: float,
    rng: np.random.Generator,
    words: Callable[[Compared[Cell]], pd.DataFrame],
) -> pd.DataFrame:
    """The changes between two sets that are drawn from the mean of `sets`, with their mean spreads; a row a draw.

    Cells of one column that are one training under two names are drawn once; `sources`: the model of each cell. A
    model's residuals in two columns are drawn independently. The seeds' effects are drawn with the columns' mean
    covariance, less what the residuals add to its estimate. `words` makes a table of verdicts.
    """
    twins = {cell: twin for column in sets[0].columns.values() for cell, twin in column.twins.items()}
    names, seeds, place = list(sets[0].means), sets[0].seeds, sets[0].column
    means = np.mean([[one.means[name] for name in names] for one in sets], axis=0)
    spreads = np.sqrt(np.mean([[one.own[name] for name in names] for one in sets], axis=0))
    columns = list(sets[0].columns)
    effects = [np.array([one.columns[name].effects for name in columns]) for one in sets]
    added = [[one.columns[name].pool / max(len(one.columns[name].pooled), 1) for name in columns] for one in sets]
    shared = np.mean([np.atleast_2d(np.cov(one)) for one in effects], axis=0) - np.diag(np.mean(added, axis=0))
    sizes, axes = np.linalg.eigh(shared)
    root = axes * np.sqrt(np.maximum(sizes, 0))
    of_column = [columns.index(place[name]) for name in names]

    def drawn() -> pd.DataFrame:
        common = root @ rng.normal(size=(len(columns), seeds))
        values = means[:, None] + common[of_column] + spreads[:, None] * rng.normal(size=(len(names), seeds))
        cells = dict(zip(names, map(pd.Series, values), strict=True))
        cells |= {cell: cells[twin] for cell, twin in twins.items()}
        return words(Compared.of(cells, place, sources))

    return pd.DataFrame([changes(drawn(), drawn(), within) for _ in range(SIMULATED)])


def main(arguments: list[str] | None = None) -> None:
    """Run what is missing, compare, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--seeds", nargs="+", required=True, metavar="0,1,2", help="disjoint sets of training seeds")
    parser.add_argument("--cores", default="2")
    parser.add_argument("--out", type=Path, default=Path("docs/replication"))
    options = parser.parse_args(arguments)
    sets = [tuple(map(int, text.split(","))) for text in options.seeds]
    if any(set(a) & set(b) for a, b in combinations(sets, 2)):
        parser.error(f"--seeds: {options.seeds} overlap; sets that share a seed are no replications")
    if min(map(len, sets)) < 2:
        parser.error(f"--seeds: {options.seeds}: one seed decides nothing; give two or more in each set")
    if len({len(seeds) for seeds in sets}) > 1:
        parser.error(f"--seeds: {options.seeds} are sets of different sizes; what changes is expected of equal ones")
    names = [study_of(options.study, seeds) for seeds in sets]
    for name in names:
        command = [sys.executable, "-m", "snakemake", "--cores", options.cores, "--config", f"study={name}"]
        subprocess.run(command, check=True)
    study, rng = load_study(options.study), np.random.default_rng(0)
    within = study.file.equal_within
    spec = study.summary()
    frames = [storage.read_frame(Path("results") / name / "metrics.parquet") for name in names]
    counted: list[dict[str, Any]] = []
    listed: dict[str, list[pd.DataFrame]] = {"pairs": [], "claims": []}
    for dataset in study.datasets:
        for column in (*COLUMNS, "claims"):
            columns = COLUMN_NAMES if column == "claims" else (column,)
            words = functools.partial(claimed, spec) if column == "claims" else functools.partial(pairs, within=within)
            found = [compared(spec, frame, dataset, *columns) for frame in frames]
            tables = [words(cells) for cells in found]
            every = words(compared(spec, pd.concat(frames), dataset, *columns))
            sources = {(row, name): spec.rows[row].model for row, name in found[0].means}
            simulated = expected(found, sources, within, rng, words)
            listed["claims" if column == "claims" else "pairs"] += [
                table.assign(dataset=dataset, column=column, seeds=" ".join(map(str, seeds)))
                for table, seeds in zip([*tables, every], [*sets, sum(sets, start=())], strict=True)
            ]
            for (one, table), (other, another) in combinations(zip(sets, tables, strict=True), 2):
                about = {"dataset": dataset, "column": column, "one": f"{one}", "other": f"{other}"}
                for kind, count in changes(table, another, within).items():
                    low, high = np.quantile(simulated[kind], [0.025, 0.975])
                    counted.append(
                        {
                            **about,
                            **{"change": kind, "pairs": len(table), "found": count},
                            **{"expected": simulated[kind].mean(), "low": low, "high": high},
                        }
                    )
    table = pd.DataFrame(counted)
    table.to_csv(options.out.with_suffix(".csv"), index=False, float_format="%.4g")
    for name, parts in listed.items():
        path = options.out.with_name(f"{options.out.name}_{name}.csv")
        pd.concat(parts).to_csv(path, index=False, float_format="%.4g")
    print(table.to_string(index=False))
    opposite = int(table.loc[table["change"] == "opposite", "found"].sum())
    sys.exit(f"{opposite} verdicts are opposite between two sets" if opposite else 0)


if __name__ == "__main__":
    main()
