"""Rows in order, how stable their ranks are, and whom they beat."""

import numpy as np
import pandas as pd

from rae_bench.report.comparisons import LEVEL, pairs, rank_agreement, ranks
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import as_records, extractor_label, sampler_values
from rae_bench.report.tables.wording import density_label, distance_name, mean_sd
from rae_bench.study.specs import SummarySpec


def ranking_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Rows ordered by their sampler's mean distance, with the stability of their ranks and whom they beat."""
    samples = {name: sampler_values(frame, dataset, row) for name, row in spec.ordered_rows.items()}
    ranked, compared = ranks(samples), pairs(samples)
    records = []
    for name, values in samples.items():
        wins = compared[
            ((compared["a"] == name) & (compared["mean_difference"] < 0))
            | ((compared["b"] == name) & (compared["mean_difference"] > 0))
        ]
        seeds = values.groupby(level="train_seed").mean()
        records.append(
            {
                "dataset": dataset,
                "row": name,
                "label": spec.rows[name].label,
                "sampler": spec.rows[name].gmm or spec.rows[name].n,
                "mean": seeds.mean(),
                "sd": seeds.std(ddof=1),
                "mean_rank": ranked.loc[name].mean(),
                "best_rank": ranked.loc[name].min(),
                "worst_rank": ranked.loc[name].max(),
                "p_best": (ranked.loc[name] == ranked.min()).mean(),
                "beats": int((wins["p_value"] < LEVEL).sum()),
                "beats_holm": int((wins["p_holm"] < LEVEL).sum()),
            }
        )
    data = pd.DataFrame(records).sort_values(["mean", "row"], ignore_index=True)
    rows = [
        [
            f"{one['label']} ({density_label(one['sampler'])})",
            mean_sd(one["mean"], one["sd"], "frechet_distance"),
            f"{one['mean_rank']:.1f}",
            f"{one['best_rank']:g} to {one['worst_rank']:g}",
            f"{one['p_best']:.2f}",
            str(one["beats"]),
            str(one["beats_holm"]),
        ]
        for one in as_records(data)
    ]
    agreement = rank_agreement(ranked)
    return Table(
        f"ranking_{dataset}",
        f"{spec.datasets[dataset].label}: ranking of samplers by"
        f" {distance_name('FD', extractor_label(frame, dataset))}",
        ["", "Distance ↓", "mean rank", "ranks", "P(first)", f"beats, of {len(samples) - 1}", "after correction"],
        rows,
        set(),
        [
            f"Over {ranked.shape[1]} pairs of training and sample seed. Two of them rank the rows alike with Kendall's"
            f" tau {agreement:.2f} (mean over pairs of seeds)."
            if not np.isnan(agreement)
            else "One row or one seed: no stability is known.",
            f"Beats: paired t-test over training seeds, p < {LEVEL:g}; after correction: Holm's, over all"
            f" {len(compared)} pairs (comparisons_{dataset}.csv).",
        ],
        data,
    )


def comparisons_table(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> Table:
    """Every pair of rows: difference of their samplers' distances, and the probability that one beats the other."""
    samples = {name: sampler_values(frame, dataset, row) for name, row in spec.ordered_rows.items()}
    data = pairs(samples)
    data.insert(0, "dataset", dataset)
    labels = {name: row.label for name, row in spec.rows.items()}
    beats = {(one["a"], one["b"]): float(one["p_a_beats_b"]) for one in as_records(data)}
    beats |= {(b, a): 1 - value for (a, b), value in beats.items()}
    rows = [
        [labels[a], *("–" if a == b else f"{beats[a, b]:.2f}" for b in spec.ordered_rows)] for a in spec.ordered_rows
    ]
    return Table(
        f"comparisons_{dataset}",
        f"{spec.datasets[dataset].label}: probability that the row's sampler beats the column's",
        ["", *(labels[name] for name in spec.ordered_rows)],
        rows,
        set(),
        ["Share of common training and sample seeds at which the row's Fréchet distance is the lower one; ties half."],
        data,
    )
