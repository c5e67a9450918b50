"""The words of a table's comparisons, each adjusted for the others: the one place of every verdict.

What the words are: `word`. How often they are wrong: `scripts/simulate_verdicts.py`.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import special

from rae_bench.report.comparisons import LEVEL, Cell, Compared, Difference, Tested

Word = Literal["better", "equal", "worse", "undecided"]
WORDS: tuple[str, ...] = get_args(Word)
"""Every word."""
APART = ("better", "worse")
OPPOSITE: dict[Word, Word] = {"better": "worse", "worse": "better"}
"""What is said of the second of two cells where this is said of the first."""
Better = Literal["lower", "higher"]


def word(difference: Tested, p_difference: float, p_equal: float) -> Word:
    """What is said of the first of two cells, lower being better; the p are those adjusted for the table's others.

    equal       surely within the margin, even if surely not the same
    better      surely lower, and not surely within the margin; worse: surely higher
    undecided   neither
    """
    if p_equal < LEVEL:
        return "equal"
    if p_difference < LEVEL:
        return "better" if difference.p_below(0) < difference.p_above(0) else "worse"
    return "undecided"


def verdicts(differences: Sequence[Tested], margins: Sequence[float]) -> list[Word]:
    """The words of all comparisons of a table, each kind of test adjusted for all of them after Holm.

    `margins`: how far apart, on the scale of the differences, each two cells may be and still be called equal; those
    of margin 0 are never called so.
    """
    p_differences = holm([one.p_difference for one in differences])
    p_equals = holm([one.p_equal(margin) for one, margin in zip(differences, margins, strict=True)])
    return [word(*found) for found in zip(differences, p_differences, p_equals, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979): the chance of any false rejection among all stays below the level."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors), 1)
    result = np.empty(len(p_values))
    result[order] = adjusted
    return [float(p) for p in result]


PAIR = ["a", "b", "ratio", "low", "high", "p_difference", "p_equal", "verdict", "seeds"]


def pairs(compared: Compared[Any], within: float) -> pd.DataFrame:
    """Every pair of cells of `compared` logarithms, as the ratio of the first to the second with its 95 % interval.

    `within`: ratios from 1 / `within` to `within` are equal. The intervals and p are unadjusted, the verdicts adjusted.
    """
    both = list(combinations(compared.means, 2))
    differences = [compared.difference(a, b) for a, b in both]
    margin = float(np.log(within))
    words = verdicts(differences, [margin] * len(both))
    records: list[dict[str, Any]] = []
    for (a, b), difference, verdict in zip(both, differences, words, strict=True):
        low, high = np.exp(difference.interval)
        records.append(
            {
                **{"a": a, "b": b, "ratio": np.exp(difference.mean), "low": low, "high": high},
                **{"p_difference": difference.p_difference, "p_equal": difference.p_equal(margin)},
                **{"verdict": verdict, "seeds": compared.seeds},
            }
        )
    return pd.DataFrame(records, columns=PAIR)


def decided(typical: Difference, n_pairs: int, within: float) -> tuple[float, float]:
    """The ratios of two typical cells up to which, and from which on, they are decided whatever else a table holds.

    By the strictest of so many tests. Up to the first they are equal, and none is so if it lies below 1. From the
    second on they are different, or equal where Holm's later steps, which are less strict, find them surely within the
    margin. 0 and infinite where one seed tells nothing.
    """
    if not typical.freedom:
        return 0.0, np.inf
    reach = float(np.exp(special.stdtrit(typical.freedom, 1 - LEVEL / 2 / n_pairs) * typical.standard_error))
    return within / reach, reach


def seeds_to_decide(compared: Compared[Any], column: str, ratio: float, n_pairs: int, within: float) -> int | None:
    """How many training seeds would decide of two typical cells at this `ratio`, either way; None beyond a thousand."""
    for seeds in range(2, 1001) if compared.seeds > 1 else ():
        least, most = decided(compared.typical(column, seeds), n_pairs, within)
        if not least < ratio < most:
            return seeds
    return None


def leaders(compared: Compared[Cell], better: Better, within: float = 1.0) -> list[Cell]:
    """The cells than which no other is called better, by the words of all pairs.

    `within`: of logarithms, as for `pairs`; at 1 nothing is called equal. None where one seed tells nothing.
    """
    if compared.seeds < 2:
        return []
    both = list(combinations(compared.means, 2))
    words = verdicts([compared.difference(a, b) for a, b in both], [float(np.log(within))] * len(both))
    worse = {"worse": 0, "better": 1} if better == "lower" else {"better": 0, "worse": 1}
    beaten = {pair[worse[word]] for pair, word in zip(both, words, strict=True) if word in APART}
    return [cell for cell in compared.means if cell not in beaten]
