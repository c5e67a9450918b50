"""How models and columns look in every figure: colours that differ in lightness too, and a marker or dash beside each.

The families' colours keep apart in greyscale and under the common colour blindnesses, which
`tests/report/test_plots.py` simulates; columns are told apart by their markers as well.
"""

from dataclasses import dataclass
from typing import Literal

from rae_bench.study.specs import Family, SummarySpec

FAMILIES: dict[Family, tuple[str, str]] = {
    "variational": ("#0a3a78", "o"),
    "regularized": ("#c9510f", "s"),
    "plain": ("#38a0d0", "^"),
    "own": ("#000000", "D"),
    "baseline": ("#585858", "h"),
}
"""The colour and the marker of each family of rows."""
Dash = Literal["-"] | tuple[float, tuple[float, ...]]
"""A line as matplotlib takes it: solid, or an offset and the lengths of dashes and gaps."""
DASHES: tuple[Dash, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""The lines of a family's models, in order, again from the first where there are more."""
COLUMNS = {
    "reconstruction": ("#636363", "s"),
    "n": ("#000000", "D"),
    "standard_normal": ("#38a0d0", "v"),
    "gaussian": ("#0a3a78", "o"),
    "gmm": ("#c9510f", "^"),
    "second_stage": ("#8a2c8f", "P"),
    "interpolation": ("#b59b00", "x"),
}
"""The colour and the marker of each column of Table 1."""


MANY = 12
"""More models than these are drawn another way: names beside each other stand upright, curves have a panel each."""


@dataclass(frozen=True)
class Look:
    """How a trained model is drawn."""

    colour: str
    dash: Dash


def looks(spec: SummarySpec) -> dict[str, Look]:
    """How each trained model of a study is drawn, by its family and its place in it."""
    families: dict[str, Family] = {}
    for row in spec.ordered_rows.values():
        if not row.has_no_model:
            families.setdefault(row.model, row.family)
    found: dict[str, Look] = {}
    for model, family in families.items():
        place = sum(families[other] == family for other in found)
        found[model] = Look(FAMILIES[family][0], DASHES[place % len(DASHES)])
    return found
