"""The paper's claims as ratios of Fréchet distances, each called by the rules of `rae_bench.report.comparisons`.

A claim that one cell is better than another is supported where it is called better, contradicted where it is called
worse; where the two are called equal the claim has no leg to stand on, and where nothing is called it is undecided. A
claim about all models keeps every comparison, never an average.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from rae_bench.report.comparisons import Compared, verdicts
from rae_bench.report.rendering import Table
from rae_bench.report.tables.cells import Cell, compared
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


def verdict_table(spec: SummarySpec, frame: pd.DataFrame) -> Table:
    """Per claim and data set how many comparisons are supported, equal, undecided and contradicted."""
    families = {name: row.family for name, row in spec.competing.items()}
    labels = {name: row.label for name, row in spec.competing.items()}
    data = pd.concat(
        [
            judged(compared(spec, frame, dataset, *COLUMN_NAMES), families, labels, spec.equal_within).assign(
                dataset=dataset
            )
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
            " surely higher. Surely: p < 0.05 after Holm's correction over all comparisons of the data set. Close is"
            f" supported where the ratio is surely below {spec.equal_within:g}, contradicted where it is surely above."
            " Every comparison with its 95 % interval, unadjusted: claims.csv.",
        ],
        data,
    )


def judged(
    cells: Compared[Cell], families: Mapping[str, str], labels: Mapping[str, str], within: float
) -> pd.DataFrame:
    """Every comparison of a data set: its claim, the two cells, their ratio with its interval, and the verdict.

    `families` says of each row whether it is variational, regularized or plain. `within`: ratios up to it are equal.
    """
    margin = float(np.log(within))
    found = sorted(_sides(cells, families), key=lambda one: list(CLAIMS).index(one[0]))
    differences = [cells.difference(one, other) for _, one, other in found]
    # that a cell is close says that the ratio is below `within`, not below 1, and nothing of equality
    is_close = [claim == "ae_close" for claim, _, _ in found]
    said = [one.less(margin) if close else one for one, close in zip(differences, is_close, strict=True)]
    words = verdicts(said, [0 if close else margin for close in is_close])
    records: list[dict[str, Any]] = []
    for (claim, one, other), difference, word in zip(found, differences, words, strict=True):
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
                "verdict": VERDICTS[word],
            }
        )
    return pd.DataFrame(records)


def _sides(cells: Compared[Cell], families: Mapping[str, str]) -> Iterator[tuple[str, Cell, Cell]]:
    """Each claim with the cell that it says is the better one, and the other."""

    def members(*names: str) -> list[str]:
        return [row for row, family in families.items() if family in names]

    def best(rows: list[str], *columns: str) -> Cell | None:
        found = [(row, column) for row in rows for column in columns if (row, column) in cells.means]
        return min(found, key=lambda cell: cells.means[cell], default=None)

    variational, raes, plain = members("variational"), members("regularized"), members("plain")
    top = best(members("variational", "regularized"), "n", "gmm")
    sides = [
        *(("rae_gmm_best", (row, "gmm"), best(variational, "n", "gmm")) for row in raes),
        *(("rae_n_leads", (row, "n"), best(variational, "n")) for row in raes),
        *(("no_winner", best([rae for rae in raes if rae != row], "gmm"), (row, "gmm")) for row in raes),
        *(("ae_close", (row, "gmm"), top) for row in plain),
        *(("gmm_helps", (row, "gmm"), (row, "n")) for row in families),
        *(("gmm_beats_prior", (row, "gmm"), (row, "standard_normal")) for row in families),
        *(("interpolation", (row, "interpolation"), best(variational, "interpolation")) for row in [*raes, *plain]),
    ]
    for claim, one, other in sides:
        if one in cells.means and other in cells.means and one and other:
            yield claim, one, other
