"""Rows in order, whom each surely beats or equals, and how stable their ranks are."""

from typing import Any

import numpy as np
import pandas as pd

from rae_bench.report.comparisons import Compared
from rae_bench.report.ranks import rank_agreement, ranks
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import COLUMNS, Cell, as_records, cell_values, compared, extractor_label
from rae_bench.report.tables.wording import density_label, distance_name, mean_sd
from rae_bench.report.verdicts import WORDS, decided, pairs, seeds_to_decide, verdicts
from rae_bench.study.specs import SummarySpec

RANKED = "gmm"
"""The column whose cells are ranked and shown pair by pair."""
DECIDED = 1.1
"""The ratio whose price in training seeds is told."""


def ranking_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Rows in order of their GMM's distance, how each stands to the others, and how stable their ranks are."""
    rows = {name: row for name, row in spec.competing.items() if row.gmm}
    values = {name: cell_values(frame, dataset, row, RANKED) for name, row in rows.items()}
    ranked, stands = ranks(values), _both_ways(spec, frame, dataset)
    baselines = {name: row for name, row in spec.baselines.items() if row.shown(RANKED)}
    held = {name: held_against(spec, frame, dataset, name) for name in baselines}
    first = min(values, key=lambda name: float(values[name].mean()))
    records = []
    for name, mine in values.items():
        words = stands[stands["a"] == name]
        to_first = words[words["b"] == first].iloc[0] if name != first else None
        records.append(
            {
                "dataset": dataset,
                "row": name,
                "label": rows[name].label,
                "sampler": rows[name].gmm,
                "mean": mine.mean(),
                "sd": mine.std(ddof=1),
                **{key: 1.0 if to_first is None else to_first[key] for key in ("ratio", "low", "high")},
                "to_first": "" if to_first is None else to_first["verdict"],
                **{word: int((words["verdict"] == word).sum()) for word in WORDS},
                "mean_rank": ranked.loc[name].mean(),
                "best_rank": ranked.loc[name].min(),
                "worst_rank": ranked.loc[name].max(),
                **{f"{part}_{key}": one for part, found in held.items() for key, one in found[name].items()},
            }
        )
    data = pd.DataFrame(records).sort_values(["mean", "row"], ignore_index=True)
    texts = [
        [
            f"{one['label']} ({density_label(one['sampler'])})",
            mean_sd(one["mean"], one["sd"], "frechet_distance"),
            f"{one['ratio']:.2f} ({one['low']:.2f} to {one['high']:.2f})" if one["to_first"] else "first",
            one["to_first"] or "–",
            *(str(one[word]) for word in WORDS),
            f"{one['mean_rank']:.1f} ({one['best_rank']:g} to {one['worst_rank']:g})",
            *(f"{one[f'{name}_ratio']:.2f} {one[f'{name}_verdict']}" for name in held),
        ]
        for one in as_records(data)
    ]
    agreement = rank_agreement(ranked)
    return Table(
        f"ranking_{dataset}",
        f"{spec.datasets[dataset].label}: ranking of models under their mixture by"
        f" {distance_name('FD', extractor_label(frame, dataset))}",
        ["", "Distance ↓", "Ratio to the first", "is", *(f"{word} {_of(word)}" for word in WORDS), "rank"]
        + [f"Over {row.label}" for row in baselines.values()],
        texts,
        set(),
        [
            *verdict_notes(spec, compared(spec, frame, dataset, RANKED), RANKED),
            f"Rank: mean over {ranked.shape[1]} training seeds, and from best to worst. Two seeds rank the rows alike"
            f" with Kendall's tau {agreement:.2f} (mean over pairs of seeds)."
            if not np.isnan(agreement)
            else "One row or one seed: no stability is known.",
            *(
                [f"Over a baseline: the ratio to its distance; a correction of its own over the {len(rows)} rows."]
                if held
                else []
            ),
        ],
        data,
    )


def held_against(spec: SummarySpec, frame: pd.DataFrame, dataset: str, baseline: str) -> dict[str, dict[str, Any]]:
    """Each row's ratio to a baseline in the ranked column, with its interval and word."""
    cells = compared(spec, frame, dataset, RANKED, baseline=baseline)
    rows = [row for row, _ in cells.means if row != baseline]
    differences = [cells.difference((row, RANKED), (baseline, RANKED)) for row in rows]
    words = verdicts(differences, [float(np.log(spec.equal_within))] * len(rows))
    found = {}
    for row, difference, verdict in zip(rows, differences, words, strict=True):
        low, high = np.exp(difference.interval)
        found[row] = {"ratio": np.exp(difference.mean), "low": low, "high": high, "verdict": verdict}
    return found


def _of(word: str) -> str:
    return {"better": "than", "equal": "to", "worse": "than", "undecided": "against"}[word]


def comparisons_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Every pair of rows under their mixtures: the ratio of their distances and its word; the csv has every column."""
    stands = _both_ways(spec, frame, dataset)
    found = {(one["a"], one["b"]): f"{one['ratio']:.2f} {one['verdict']}" for one in as_records(stands)}
    names = [name for name, row in spec.competing.items() if row.gmm]
    return Table(
        f"comparisons_{dataset}",
        f"{spec.datasets[dataset].label}: distance of the row's GMM over that of the column's, and what it is",
        ["", *(spec.rows[name].label for name in names)],
        [[spec.rows[a].label, *(found.get((a, b), "–") for b in names)] for a in names],
        set(),
        [
            *verdict_notes(spec, compared(spec, frame, dataset, RANKED), RANKED),
            f"Every pair in every column of Table 1, with its interval: comparisons_{dataset}.csv.",
        ],
        pd.concat(
            [_pairs(spec, frame, dataset, column).assign(dataset=dataset, column=column) for column in COLUMNS],
            ignore_index=True,
        ),
    )


def verdict_notes(spec: SummarySpec, cells: Compared[Cell], column: str) -> list[str]:
    """What the words of a table of pairs mean, of what they speak, and what it could have called."""
    n_pairs = len(cells.means) * (len(cells.means) - 1) // 2
    if cells.seeds < 2 or not n_pairs:
        return ["One row or one training seed: nothing is decided."]
    within = spec.equal_within
    wild = ", ".join(spec.rows[row].label for row, _ in cells.columns[column].wild)
    least, most = decided(cells.typical(column, cells.seeds), n_pairs, within)
    needed = seeds_to_decide(cells, column, DECIDED, n_pairs, within)
    found = pairs(cells, within)
    reaches = 100 * (found["high"] / found["ratio"] - 1)
    return [
        f"Ratios of distances, paired over {cells.seeds} training seeds. Equal: surely between {1 / within:.2f} and"
        f" {within:g}. Better, worse: surely lower, higher, and not surely equal. Surely: p < 0.05 after Holm's"
        f" correction over the {n_pairs} pairs; intervals are of 95 %, unadjusted. All of it speaks of this training"
        " set, these reference images and these features.",
        "SD of a cell from one training seed to another, beside what is common to all rows:"
        f" {100 * np.expm1(np.sqrt(cells.columns[column].pool)):.0f} %. A pair's ratio is known to within"
        f" {reaches.median():.0f} % (median of the pairs; at most {reaches.max():.0f} %). Of two cells with this SD"
        + (" every ratio is decided" if least >= most else f" a ratio is decided from {most:.2f} on")
        + (f", and up to {least:.2f} (as equal)" if 1 <= least < most else "")
        + f"; one of {DECIDED:g} with {needed or 'over 1,000'} seeds.",
        *([f"By a spread of their own, from seed to seed surely larger than the others': {wild}."] if wild else []),
    ]


def _pairs(spec: SummarySpec, frame: pd.DataFrame, dataset: str, column: str) -> pd.DataFrame:
    """`pairs` of a column, by the names of their rows."""
    found = pairs(compared(spec, frame, dataset, column), spec.equal_within)
    return found.assign(a=[row for row, _ in found["a"]], b=[row for row, _ in found["b"]])


def _both_ways(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The pairs of the ranked column, and each with its sides exchanged."""
    one = _pairs(spec, frame, dataset, RANKED)
    other = one.rename(columns={"a": "b", "b": "a", "low": "high", "high": "low"})
    other[["ratio", "low", "high"]] = 1 / other[["ratio", "low", "high"]]
    other["verdict"] = other["verdict"].replace({"better": "worse", "worse": "better"})
    return pd.concat([one, other], ignore_index=True)
