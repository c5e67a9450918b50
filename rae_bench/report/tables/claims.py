"""The paper's claims as ratios of Fréchet distances, each called by the rules of `rae_bench.report.verdicts`.

A claim that one cell is better than another is supported where it is called better, contradicted where it is called
worse; where the two are called equal the claim has no leg to stand on, and where nothing is called it is undecided. A
claim about all models keeps every comparison, never an average.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from rae_bench.report.comparisons import Compared, FromLeast
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import Cell, compared
from rae_bench.report.verdicts import OPPOSITE, verdicts
from rae_bench.study.specs import SummarySpec

COLUMN_NAMES = {"n": "N", "gmm": "GMM", "standard_normal": "N(0,I)", "interpolation": "interp."}
VERDICTS = {"better": "supported", "equal": "equal", "undecided": "undecided", "worse": "contradicted"}
"""What is said of a claim that one cell is better than another, by what the cell is called."""

CLAIMS = {
    "rae_gmm_best": "A RAE with a GMM samples better than every variational model, whatever its column",
    "rae_n_leads": "With a single Gaussian (column N), too, a RAE leads every variational model's column N",
    "no_winner": "No decoder regulariser wins everywhere: each RAE's GMM is beaten by another RAE's",
    "ae_close": "Even a plain AE with a GMM is close to the best sampler",
    "gmm_helps": "A GMM fitted ex post helps every model: better than its own column N",
    "gmm_beats_prior": "A GMM fitted ex post beats N(0,I) for every model",
    "interpolation": "Interpolation does not suffer without a prior: better than the best variational model's",
}
RECORD = ["claim", "text", "comparison", "ratio", "low", "high", "seeds", "verdict"]
"""The columns of `claims.csv`, but for the data set."""
BEATEN = ("no_winner",)
"""The claims that the cell named is the worse one."""


def verdict_table(spec: SummarySpec, frame: pd.DataFrame) -> Table:
    """Per claim and data set how many comparisons are supported, equal, undecided and contradicted."""
    data = pd.concat(
        [
            claimed(spec, compared(spec, frame, dataset, *COLUMN_NAMES)).assign(dataset=dataset)
            for dataset in spec.datasets
        ],
        ignore_index=True,
    )
    counts = Counter(zip(data["claim"], data["dataset"], data["verdict"], strict=True))
    stated = dict.fromkeys(zip(data["dataset"], data["claim"], strict=True))
    return Table(
        "claims",
        "The paper's claims, held against these results",
        ["Claim (Ghosh et al. 2020, section 6)", "Data set", *(name.capitalize() for name in VERDICTS.values())],
        [
            [CLAIMS[claim], dataset, *(str(counts[claim, dataset, verdict]) for verdict in VERDICTS.values())]
            for dataset, claim in stated
        ],
        set(),
        [
            "Each comparison is a ratio of Fréchet distances, paired by training seed. Supported: surely lower, as the"
            f" claim says. Equal: surely between {1 / spec.equal_within:.2f} and {spec.equal_within:g}. Contradicted:"
            " surely higher. Surely: p < 0.05 after Holm's correction over all comparisons of the data set. The best of"
            " several is whichever truly is: lower than it means lower than each, higher than it higher than one, at as"
            " many times the p as there are. Close is"
            f" supported where the ratio is surely below {spec.equal_within:g}, contradicted where it is surely above."
            " Every comparison with its 95 % interval, unadjusted: claims.csv.",
        ],
        data,
    )


def claimed(spec: SummarySpec, cells: Compared[Cell]) -> pd.DataFrame:
    """Every comparison of a study's claims on a data set, whose `cells` are those of `COLUMN_NAMES`: see `judged`."""
    families = {name: row.family for name, row in spec.competing.items()}
    labels = {name: row.label for name, row in spec.competing.items()}
    return judged(cells, families, labels, spec.equal_within)


def judged(
    cells: Compared[Cell], families: Mapping[str, str], labels: Mapping[str, str], within: float
) -> pd.DataFrame:
    """Every comparison of a data set: its claim, the two cells, their ratio with its interval, and the verdict.

    `families` says of each row whether it is variational, regularized or plain. `within`: ratios up to it are equal.
    """
    margin = float(np.log(within))
    found = sorted(_sides(cells, families), key=lambda one: list(CLAIMS).index(one[0]))
    said = []
    for claim, cell, others in found:
        from_best = FromLeast(tuple(cells.difference(cell, other) for other in others))
        # that a cell is close says that the ratio is below `within`, not below 1, and nothing of equality
        said.append(from_best.less(margin) if claim == "ae_close" else from_best)
    words = verdicts(said, [0 if claim == "ae_close" else margin for claim, _, _ in found])
    records: list[dict[str, Any]] = []
    for (claim, cell, others), word in zip(found, words, strict=True):
        best = min(others, key=lambda other: cells.means[other])
        one, other = (best, cell) if claim in BEATEN else (cell, best)
        difference = cells.difference(one, other)
        low, high = np.exp(difference.interval)
        records.append(
            {
                "claim": claim,
                "text": CLAIMS[claim],
                "comparison": " / ".join(f"{labels[row]} {COLUMN_NAMES[column]}" for row, column in (one, other)),
                "ratio": np.exp(difference.mean),
                "low": low,
                "high": high,
                "seeds": cells.seeds,
                "verdict": VERDICTS[OPPOSITE.get(word, word) if claim in BEATEN else word],
            }
        )
    return pd.DataFrame(records, columns=RECORD)


def _sides(cells: Compared[Cell], families: Mapping[str, str]) -> Iterator[tuple[str, Cell, list[Cell]]]:
    """Each claim with the cell that it says is better, or else worse (`BEATEN`), than the best of the others."""

    def members(*names: str) -> list[str]:
        return [row for row, family in families.items() if family in names]

    def among(rows: list[str], *columns: str) -> list[Cell]:
        return [(row, column) for row in rows for column in columns if (row, column) in cells.means]

    variational, raes, plain = members("variational"), members("regularized"), members("plain")
    top = among([*variational, *raes], "n", "gmm")
    sides = [
        *(("rae_gmm_best", (row, "gmm"), among(variational, "n", "gmm")) for row in raes),
        *(("rae_n_leads", (row, "n"), among(variational, "n")) for row in raes),
        *(("no_winner", (row, "gmm"), among([rae for rae in raes if rae != row], "gmm")) for row in raes),
        *(("ae_close", (row, "gmm"), top) for row in plain),
        *(("gmm_helps", (row, "gmm"), among([row], "n")) for row in families),
        *(("gmm_beats_prior", (row, "gmm"), among([row], "standard_normal")) for row in families),
        *(("interpolation", (row, "interpolation"), among(variational, "interpolation")) for row in [*raes, *plain]),
    ]
    for claim, cell, others in sides:
        if cell in cells.means and others:
            yield claim, cell, others
