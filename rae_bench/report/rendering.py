"""A table as markdown for people and as LaTeX (booktabs) for papers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Table:
    """A table ready to be written: text cells, the same numbers as data, and the notes that belong under it."""

    name: str
    title: str
    header: list[str]
    rows: list[list[str]]
    bold: set[tuple[int, int]]
    notes: list[str]
    data: pd.DataFrame


def markdown(table: Table) -> str:
    """The table as GitHub markdown, its notes below."""
    lines = [f"**{table.title}**", "", "| " + " | ".join(table.header) + " |"]
    lines.append("|" + "|".join(["---"] + ["---:"] * (len(table.header) - 1)) + "|")
    for i, row in enumerate(table.rows):
        escaped = [text.replace("|", r"\|") for text in row]
        texts = [f"**{text}**" if (i, j) in table.bold else text for j, text in enumerate(escaped)]
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join([*lines, "", *(f"{note}  " for note in table.notes)]) + "\n"


_TEX = {
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "–": "--",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "<": "$<$",  # in text, TeX's own font has other signs in these three places
    ">": "$>$",
    "|": "$|$",
    "‖x − x̂‖²": r"$\|x-\hat{x}\|^2$",
    "−": "$-$",
    "é": r"\'e",
    "≤": r"$\leq$",
    "√": r"$\surd$",
    "·": r"$\cdot$",
    "²": "$^2$",
    "∞": r"$\infty$",
    "β": r"$\beta$",
}


def latex(table: Table) -> str:
    """The table for a paper: a `table` environment with booktabs rules, its notes in the caption."""

    def escape(text: str) -> str:
        return re.sub("|".join(map(re.escape, sorted(_TEX, key=len, reverse=True))), lambda found: _TEX[found[0]], text)

    def line(texts: Sequence[str]) -> str:
        return " & ".join(texts) + r" \\"

    is_wide = max((len(row[0]) for row in table.rows), default=0) > 40  # sentences, not names
    first = r"p{0.5\linewidth}" if is_wide else "l"
    body = [
        line([rf"\textbf{{{escape(text)}}}" if (i, j) in table.bold else escape(text) for j, text in enumerate(row)])
        for i, row in enumerate(table.rows)
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape(table.title)}. {escape(' '.join(table.notes))}}}",
            rf"\begin{{tabular}}{{{first}{'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            line([escape(text) for text in table.header]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
