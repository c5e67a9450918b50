"""The study's question and its answer: sentences made from verdicts by rules, so that no result contradicts them.

A sentence counts words of `rae_bench.report.verdicts` and says no more than that count. What a row's ratio to the
best of its column is, which the first figure shows, is found here too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd

from rae_bench.report.tables.cells import COLUMNS, as_records, cell_values, compared, narrowed
from rae_bench.report.tables.claims import COLUMN_NAMES, VERDICTS, claimed
from rae_bench.report.tables.rankings import held_against
from rae_bench.report.tables.spread import COLUMNS as SPREAD_NAMES
from rae_bench.report.tables.spread import spread_rows, spread_table
from rae_bench.report.verdicts import OPPOSITE, Word, pairs
from rae_bench.study.specs import Family, SummarySpec

CLAIM = (
    "Does a deterministic autoencoder with a density fitted ex post on its codes sample as well as a variational one"
    " (the claim of Ghosh et al., ICLR 2020)?"
)
ERASURE = (
    "Does a density fitted ex post on the codes erase the differences between models that have priors of their own?"
)
SURELY = {
    CLAIM: "p < 0.05 after Holm's correction",
    ERASURE: "p < 0.05 after Holm's correction; erased, narrower and wider by intervals that hold all at once",
}
"""What is meant by surely, by question."""
SAMPLED = ("n", "gaussian", "standard_normal")
"""The columns of samples that stand in for column GMM where no row has one."""
SAID = {"better": "surely better", "equal": "equal", "undecided": "undecided", "worse": "surely worse"}
ASKED = {
    "rae_gmm_best": "with a GMM, against the best variational cell ({other}), {counted}",
    "rae_n_leads": "with one Gaussian, against the best variational cell ({other}), {counted}",
}
"""The claims that answer the question, the first that can be tested."""
WORDS: dict[str, Word] = {VERDICTS[word]: word for word in get_args(Word)}


@dataclass(frozen=True)
class Standing:
    """A row's distance over that of the best row of its column, with its 95 % interval, unadjusted, and its word.

    The word is adjusted for all pairs of the column; the best row and baselines have none.
    """

    row: str
    label: str
    family: Family
    mean: float
    ratio: float
    low: float
    high: float
    word: Word | None

    @property
    def text(self) -> str:
        """The ratio as it is printed."""
        known = np.isfinite(self.high) and self.low < self.high
        return f"{self.label} {self.ratio:.2f}" + (f" ({self.low:.2f} to {self.high:.2f})" if known else "")


def ranked_column(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> str:
    """The column in which rows are held against the best: GMM, else that of the lowest distance; empty if none."""
    lowest = {column: min(_means(spec, frame, dataset, column).values(), default=np.inf) for column in SAMPLED}
    if _means(spec, frame, dataset, "gmm"):
        return "gmm"
    column = min(lowest, key=lambda name: lowest[name])
    return column if np.isfinite(lowest[column]) else ""


def standings(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> list[Standing]:
    """How each row of the ranked column stands to the best, in the study's order; a baseline is never the best."""
    frame = narrowed(frame, dataset)
    column = ranked_column(spec, frame, dataset)
    means = _means(spec, frame, dataset, column)
    if not means:
        return []
    best = min(means, key=lambda name: means[name])
    cells = compared(spec, frame, dataset, column)
    words: dict[str, Word] = {}
    for pair in as_records(pairs(cells, spec.equal_within)):
        (a, _), (b, _), word = pair["a"], pair["b"], pair["verdict"]
        if b == best:
            words[a] = word
        elif a == best:
            words[b] = OPPOSITE.get(word, word)
    found = []
    for name, row in spec.ordered_rows.items():
        values = cell_values(frame, dataset, row, column)
        if not len(values):
            continue
        against = cells if name in means else compared(spec, frame, dataset, column, baseline=name)
        difference = against.difference((name, column), (best, column))
        ratio, low, high = np.exp([difference.mean, *difference.interval])
        if name == best:
            ratio = low = high = 1.0
        mean = float(values.mean())
        family = "baseline" if name in spec.baselines else row.family
        found.append(Standing(name, row.label, family, mean, ratio, low, high, words.get(name)))
    return found


def shown_rows(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> list[str]:
    """The best row and two others: the best of each other family, then whoever comes next; at most three."""
    ranked = sorted((one for one in standings(spec, frame, dataset) if one.family != "baseline"), key=lambda x: x.mean)
    first: dict[str, str] = {}
    for one in ranked:
        first.setdefault(one.family, one.row)
    return list(dict.fromkeys([*first.values(), *(one.row for one in ranked)]))[:3]


def question(spec: SummarySpec) -> str:
    """The question of a study; empty for one whose tables answer none."""
    return next((text for table, text in {"table1": CLAIM, "priors": ERASURE}.items() if table in spec.tables), "")


def sentences(spec: SummarySpec, frame: pd.DataFrame) -> list[str]:
    """The answer to the question, what a mixture does to every model, and who stands first; none to no question."""
    if not (about := question(spec)):
        return []
    known = [name for name in spec.datasets if standings(spec, frame, name)]
    claims = {name: _claims(spec, frame, name) for name in known}
    asked, helped, first = {}, {}, {}
    for name in spec.datasets:
        if name not in known:
            asked[name] = "nothing is known yet"
        elif _seeds(spec, frame, name) < 2:
            asked[name] = "undecided: one training seed decides nothing"
        else:
            answered = _asked(claims[name]) if about == CLAIM else _erased(spec, frame, name)
            asked[name] = _unbeaten(spec, frame, name) or answered
            helped[name] = _helped(claims[name])
    for name in known:
        first[name] = _first(COLUMNS[ranked_column(spec, frame, name)], standings(spec, frame, name))
    return [text for part in (asked, helped, first) if (text := _joined(part, len(spec.datasets)))]


def lead(words: Sequence[Word]) -> str:
    """What is answered first: yes where all are better or equal, no where all are worse, mixed where they differ."""
    if set(words) <= {"better", "equal"}:
        return "yes"
    return {"worse": "no", "undecided": "undecided"}.get(words[0], "mixed") if len(set(words)) == 1 else "mixed"


def counted(words: Sequence[Word], noun: str) -> str:
    """How many of what is called `noun` are what."""
    n, present = len(words), [word for word in SAID if word in words]
    if n == 1:
        return f"the one {noun} is {SAID[words[0]]}"
    if present == ["undecided"]:
        return f"none of {n} {noun}s is surely better, equal or surely worse"
    if len(present) == 1:
        return f"all {n} {noun}s are {SAID[present[0]]}"
    parts = [f"{words.count(word)} {'is' if words.count(word) == 1 else 'are'} {SAID[word]}" for word in present]
    return f"of {n} {noun}s {_listed(parts)}"


def _means(spec: SummarySpec, frame: pd.DataFrame, dataset: str, column: str) -> dict[str, float]:
    """The mean distance of each row that competes in a column."""
    mine = narrowed(frame, dataset)
    values = {name: cell_values(mine, dataset, row, column) for name, row in spec.competing.items()} if column else {}
    return {name: float(found.mean()) for name, found in values.items() if len(found)}


def _seeds(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> int:
    return compared(spec, frame, dataset, ranked_column(spec, frame, dataset)).seeds


def _claims(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> dict[str, list[tuple[str, Word]]]:
    """The second cell of each comparison and the word of the first, listed by claim."""
    found: dict[str, list[tuple[str, Word]]] = {}
    for one in as_records(claimed(spec, compared(spec, frame, dataset, *COLUMN_NAMES))):
        other = one["comparison"].partition(" / ")[2]
        found.setdefault(one["claim"], []).append((other, WORDS[one["verdict"]]))
    return found


def _asked(claims: Mapping[str, Sequence[tuple[str, Word]]]) -> str:
    for claim, text in ASKED.items():
        if claim in claims:
            words = [word for _, word in claims[claim]]
            said = text.format(other=claims[claim][0][0], counted=counted(words, "regularized model"))
            return f"{lead(words)}: {said}"
    return "not asked: no regularized model stands beside a variational one"


def _unbeaten(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> str:
    """That models which do no better than a trained baseline answer nothing about each other; empty if one does."""
    for name, row in spec.baselines.items():
        found = held_against(spec, frame, dataset, name) if row.gmm and not row.has_no_model else {}
        if found and all(one["verdict"] != "better" for one in found.values()):
            return f"not answered: under a GMM no model is surely better than the baseline {row.label}"
    return ""


def _erased(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> str:
    if len(spread_rows(spec, dataset)) < 2:
        return "not asked: no two models have priors of their own and a density fitted ex post"
    own, *fitted = as_records(spread_table(spec, frame, dataset).data)
    erased = [f"with {SPREAD_NAMES[one['column']]}" for one in fitted if one["word"] == "erased"]
    ratios = _listed(
        [
            f"{one['ratio']:.2f} times with {SPREAD_NAMES[one['column']]} ({_within(one)}, {one['word']})"
            for one in fitted
        ]
    )
    return (
        f"{_listed(erased) if erased else 'nowhere'} surely erased: the worst of {own['n_rows']} models lies"
        f" {own['ratio']:.2f} times as far as the best under their own priors ({_within(own)}), {ratios}"
        + (
            f"; {own['left_out']} left out, for a spread over seeds surely larger than the others'"
            if own["left_out"]
            else ""
        )
    )


def _within(line: Mapping[str, float]) -> str:
    return f"{line['low']:.2f} to {line['high']:.2f}" if np.isfinite(line["high"]) else "unknown"


def _helped(claims: Mapping[str, Sequence[tuple[str, Word]]]) -> str:
    words = [word for _, word in claims.get("gmm_helps", ())]
    return f"under a GMM fitted ex post, against the same model's column N, {counted(words, 'model')}" if words else ""


def _first(column: str, found: Sequence[Standing]) -> str:
    ranked = [one for one in found if one.family != "baseline"]
    lowest = min(one.mean for one in ranked)
    tied, others = ([one for one in ranked if (one.mean == lowest) == same] for same in (True, False))
    names = _listed([one.label for one in tied])
    said = f"of the models in column {column}, {names} {'have' if len(tied) > 1 else 'has'} the lowest mean distance"
    words: list[Word] = [one.word or "undecided" for one in others]
    return said + (f"; against it {counted(words, 'other model')}" if words else "")


def _joined(by_dataset: Mapping[str, str], n_datasets: int) -> str:
    """One sentence of what holds on each data set; the data sets of which the same is said together."""
    groups: dict[str, list[str]] = {}
    for name, text in by_dataset.items():
        if text:
            groups.setdefault(text, []).append(name)
    parts = [text if n_datasets == 1 else f"on {_listed(names)}, {text}" for text, names in groups.items()]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
