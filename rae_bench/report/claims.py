"""The paper's claims as paired differences over training seeds, each with a 95 % t-interval.

A comparison is a difference of Fréchet distances, paired by seed (the same seed gives both sides the same
batches' order). It is supported where its interval lies on the claimed side of zero, contradicted where on the
other, undecided where it holds zero. A claim about all models keeps every comparison, never an average.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from rae_bench.report.comparisons import holm, interval, p_value

LEVEL = 0.05
CLOSE = 1.25
"""How near an AE's GMM must come to the best to be "close"; the paper's worst ratio is 1.23 (MNIST: 10.66, 8.69)."""

COLUMN_NAMES = {"n": "N", "gmm": "GMM", "interpolation": "interp."}

Values = Mapping[tuple[str, str], pd.Series]
"""(row, column) to the cell's value for each training seed."""

CLAIMS = {
    "rae_gmm_best": "A RAE with a GMM samples better than every variational model, whatever its column",
    "rae_n_leads": "With a single Gaussian (column N), too, a RAE leads every variational model's column N",
    "no_winner": "No decoder regulariser wins everywhere: each RAE's GMM is beaten by another RAE's",
    "ae_close": f"Even a plain AE with a GMM is close to the best sampler (within {CLOSE:g} times its distance)",
    "gmm_helps": "A GMM fitted ex post helps every model: better than its own column N",
    "gmm_beats_prior": "A GMM fitted ex post beats N(0,I) for every model",
    "interpolation": "Interpolation does not suffer without a prior: better than the best variational model's",
}


@dataclass(frozen=True)
class Comparison:
    """`difference` per seed; the claim says it is negative."""

    claim: str
    label: str
    difference: pd.Series


def verdict(low: float, high: float) -> str:
    """What an interval says of a claim that its quantity is negative."""
    if high < 0:
        return "supported"
    return "contradicted" if low > 0 else "undecided"


def claims_table(
    values: Mapping[str, Values], families: Mapping[str, str], labels: Mapping[str, str]
) -> tuple[pd.DataFrame, list[tuple[object, ...]]]:
    """Every comparison of every data set (a frame), and per claim and data set the count of each verdict.

    The last count is of those supported still after Holm's correction over all comparisons of the data set.
    `values` by data set; `families` says of each row whether it is variational, regularized or plain.
    """
    records: list[dict[str, object]] = []
    summary: list[tuple[object, ...]] = []
    for dataset, cells in values.items():
        found = list(_comparisons(cells, families, labels))
        p_values = [p_value(one.difference) for one in found]
        corrected = dict(zip(map(id, found), zip(p_values, holm(p_values), strict=True), strict=True))
        for claim, text in CLAIMS.items():
            verdicts, sure = [], 0
            for comparison in (one for one in found if one.claim == claim):
                mean, low, high = interval(comparison.difference)
                verdicts.append(verdict(low, high))
                p, p_holm = corrected[id(comparison)]
                sure += verdicts[-1] == "supported" and p_holm < LEVEL
                records.append(
                    {
                        "claim": claim,
                        "text": text,
                        "dataset": dataset,
                        "comparison": comparison.label,
                        "mean_difference": mean,
                        "low": low,
                        "high": high,
                        "n_seeds": len(comparison.difference),
                        "p_value": p,
                        "p_holm": p_holm,
                        "verdict": verdicts[-1],
                    }
                )
            if verdicts:
                counts = [verdicts.count(name) for name in ("supported", "undecided", "contradicted")]
                summary.append((text, dataset, *counts, sure))
    return pd.DataFrame(records), summary


def _comparisons(cells: Values, families: Mapping[str, str], labels: Mapping[str, str]) -> Iterator[Comparison]:
    def members(*names: str) -> list[str]:
        return [row for row in labels if families[row] in names]

    def best(rows: list[str], *columns: str) -> tuple[str, pd.Series] | None:
        found = [(f"{labels[row]} {COLUMN_NAMES[column]}", cells[row, column]) for row in rows for column in columns]
        present = [(name, series) for name, series in found if len(series)]
        return min(present, key=lambda one: float(one[1].mean()), default=None)

    raes, everyone = members("regularized"), list(labels)
    variational = best(members("variational"), "n", "gmm")
    variational_n = best(members("variational"), "n")
    for claim, column, rival in (("rae_gmm_best", "gmm", variational), ("rae_n_leads", "n", variational_n)):
        for row in raes:
            if rival is not None:
                name = f"{labels[row]} {COLUMN_NAMES[column]} − {rival[0]}"
                yield Comparison(claim, name, cells[row, column] - rival[1])

    for row in raes:
        other = best([rae for rae in raes if rae != row], "gmm")
        if other is not None:  # claimed: the other is better
            yield Comparison("no_winner", f"{other[0]} − {labels[row]} GMM", other[1] - cells[row, "gmm"])

    top = best([row for row in everyone if families[row] != "plain"], "n", "gmm")
    for row in members("plain"):
        if top is not None:
            name = f"{labels[row]} GMM − {CLOSE:g} · {top[0]}"
            yield Comparison("ae_close", name, cells[row, "gmm"] - CLOSE * top[1])

    for row in everyone:
        if not len(cells[row, "gmm"]):
            continue
        yield Comparison("gmm_helps", f"{labels[row]}: GMM − N", cells[row, "gmm"] - cells[row, "n"])
        prior = cells[row, "gmm"] - cells[row, "standard_normal"]
        yield Comparison("gmm_beats_prior", f"{labels[row]}: GMM − N(0,I)", prior)

    rival = best(members("variational"), "interpolation")
    for row in members("regularized", "plain"):
        if rival is not None:
            name = f"{labels[row]} interp. − {rival[0]}"
            yield Comparison("interpolation", name, cells[row, "interpolation"] - rival[1])
