"""The paper's claims as paired differences over training seeds, each with a 95 % t-interval.

A comparison is a difference of Fréchet distances, paired by seed (the same seed gives both sides the same
batches' order). It is supported where its interval lies on the claimed side of zero, contradicted where on the
other, undecided where it holds zero. A claim about all models keeps every comparison, never an average.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from rae_bench.report.comparisons import LEVEL, holm, interval, p_value
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import COLUMNS, cell_values
from rae_bench.study.specs import SummarySpec

CLOSE = 1.25
"""How near an AE's GMM must come to the best to be "close"; the paper's worst ratio is 1.23 (MNIST: 10.66, 8.69)."""
COLUMN_NAMES = {"n": "N", "gmm": "GMM", "interpolation": "interp."}
VERDICTS = ("supported", "undecided", "contradicted")
Values = Mapping[tuple[str, str], pd.Series]
"""(row, column) to the cell's value for each training seed."""
Named = tuple[str, pd.Series]
"""A side of a comparison: its printed name, and a value for each training seed."""

CLAIMS = {
    "rae_gmm_best": "A RAE with a GMM samples better than every variational model, whatever its column",
    "rae_n_leads": "With a single Gaussian (column N), too, a RAE leads every variational model's column N",
    "no_winner": "No decoder regulariser wins everywhere: each RAE's GMM is beaten by another RAE's",
    "ae_close": f"Even a plain AE with a GMM is close to the best sampler (within {CLOSE:g} times its distance)",
    "gmm_helps": "A GMM fitted ex post helps every model: better than its own column N",
    "gmm_beats_prior": "A GMM fitted ex post beats N(0,I) for every model",
    "interpolation": "Interpolation does not suffer without a prior: better than the best variational model's",
}


def verdict_table(spec: SummarySpec, frame: pd.DataFrame) -> Table:
    """Per claim and data set how many comparisons are supported, undecided and contradicted."""
    data, summary = claims_table(
        {
            dataset: {
                (name, column): cell_values(frame, dataset, row, column)
                for name, row in spec.ordered_rows.items()
                for column in COLUMNS
            }
            for dataset in spec.datasets
        },
        {name: row.family for name, row in spec.ordered_rows.items()},
        {name: row.label for name, row in spec.ordered_rows.items()},
    )
    return Table(
        "claims",
        "The paper's claims, held against these results",
        [
            "Claim (Ghosh et al. 2020, section 6)",
            "Data set",
            *(name.capitalize() for name in VERDICTS),
            "Supported after correction",
        ],
        [[str(text) for text in row] for row in summary],
        set(),
        [
            "Each comparison is a difference of Fréchet distances, paired by training seed, with a 95 % t-interval:"
            " supported where the interval lies on the claimed side of zero, contradicted where on the other,"
            " undecided where it holds zero. Every comparison with its interval: claims.csv.",
            "The three counts are uncorrected: of 20 true ties one is expected to be called. The last column counts"
            " those whose p stays below 0.05 after Holm's correction over all comparisons of the data set.",
        ],
        data,
    )


def claims_table(
    values: Mapping[str, Values], families: Mapping[str, str], labels: Mapping[str, str]
) -> tuple[pd.DataFrame, list[tuple[object, ...]]]:
    """Every comparison of every data set (a frame), and per claim and data set the count of each verdict.

    The last count is of those supported still after Holm's correction over all comparisons of the data set.
    `values` by data set; `families` says of each row whether it is variational, regularized or plain.
    """
    records: list[dict[str, Any]] = []
    summary: list[tuple[object, ...]] = []
    for dataset, cells in values.items():
        found = sorted(_comparisons(cells, families, labels), key=lambda one: list(CLAIMS).index(one[0]))
        p_values = [p_value(difference) for _, _, difference in found]
        mine: list[dict[str, Any]] = []
        for (claim, label, difference), p, p_holm in zip(found, p_values, holm(p_values), strict=True):
            mean, low, high = interval(difference)
            mine.append(
                {
                    "claim": claim,
                    "text": CLAIMS[claim],
                    "dataset": dataset,
                    "comparison": label,
                    "mean_difference": mean,
                    "low": low,
                    "high": high,
                    "n_seeds": len(difference),
                    "p_value": p,
                    "p_holm": p_holm,
                    "verdict": verdict(low, high),
                }
            )
        records += mine
        for claim in dict.fromkeys(one["claim"] for one in mine):
            verdicts = [(one["verdict"], one["p_holm"] < LEVEL) for one in mine if one["claim"] == claim]
            counts = [sum(said == name for said, _ in verdicts) for name in VERDICTS]
            summary.append((CLAIMS[claim], dataset, *counts, verdicts.count(("supported", True))))
    return pd.DataFrame(records), summary


def verdict(low: float, high: float) -> str:
    """What an interval says of a claim that its quantity is negative."""
    if high < 0:
        return "supported"
    return "contradicted" if low > 0 else "undecided"


def _comparisons(
    cells: Values, families: Mapping[str, str], labels: Mapping[str, str]
) -> Iterator[tuple[str, str, pd.Series]]:
    """Each claim, the name of a comparison, and the differences that the claim says are negative."""

    def members(*names: str) -> list[str]:
        return [row for row in labels if families[row] in names]

    def cell(row: str, column: str) -> Named:
        return f"{labels[row]} {COLUMN_NAMES[column]}", cells[row, column]

    def best(rows: list[str], *columns: str) -> Named | None:
        found = [cell(row, column) for row in rows for column in columns if len(cells[row, column])]
        return min(found, key=lambda one: float(one[1].mean()), default=None)

    variational, raes, plain = members("variational"), members("regularized"), members("plain")
    top = best(members("variational", "regularized"), "n", "gmm")
    close = top and (f"{CLOSE:g} · {top[0]}", CLOSE * top[1])
    sides: list[tuple[str, Named | None, Named | None]] = [
        *(("rae_gmm_best", cell(row, "gmm"), best(variational, "n", "gmm")) for row in raes),
        *(("rae_n_leads", cell(row, "n"), best(variational, "n")) for row in raes),
        *(("no_winner", best([rae for rae in raes if rae != row], "gmm"), cell(row, "gmm")) for row in raes),
        *(("ae_close", cell(row, "gmm"), close) for row in plain),
        *(
            ("interpolation", cell(row, "interpolation"), best(variational, "interpolation"))
            for row in members("regularized", "plain")
        ),
    ]
    for claim, one, other in sides:
        if one and other:
            yield claim, f"{one[0]} − {other[0]}", one[1] - other[1]
    for row, label in labels.items():
        if len(gmm := cells[row, "gmm"]):
            yield "gmm_helps", f"{label}: GMM − N", gmm - cells[row, "n"]
            yield "gmm_beats_prior", f"{label}: GMM − N(0,I)", gmm - cells[row, "standard_normal"]
