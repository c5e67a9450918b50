"""Tables as markdown and LaTeX that other programs can read."""

import re

import pandas as pd
import pytest
from checkout import ROOT

from rae_bench.report.rendering import Table, latex, markdown

ESCAPED = {
    "&": [r"\&"],
    "%": [r"\%"],
    "_": [r"\_"],
    "#": [r"\#"],
    "$": [r"\$"],
    "{": [r"\{"],
    "}": [r"\}"],
    "~": [r"\textasciitilde{}", r"\~{}"],
    "^": [r"\textasciicircum{}", r"\^{}"],
    "\\": [r"\textbackslash{}"],
    "<": ["$<$"],
    ">": ["$>$"],
    "|": ["$|$"],
}
"""TeX's special characters and how LaTeX prints them."""


def _table(label="A", title="Title", note="A note."):
    return Table(
        name="t",
        title=title,
        header=["", "Rec.", "N"],
        rows=[[label, "1.00 ± 0.10", "–"], ["B", "2.00 ± 0.20", "3.00 ± 0.30"]],
        bold={(0, 1)},
        notes=[note],
        data=pd.DataFrame(),
    )


def _cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_is_a_table_with_its_title_and_notes():
    lines = markdown(_table()).splitlines()
    assert lines[0] == "**Title**"
    rows = [_cells(line) for line in lines if line.startswith("|")]
    assert rows == [
        ["", "Rec.", "N"],
        ["---", "---:", "---:"],
        ["A", "**1.00 ± 0.10**", "–"],
        ["B", "2.00 ± 0.20", "3.00 ± 0.30"],
    ]
    assert lines[-1].strip() == "A note."


def test_a_bar_in_a_label_does_not_split_a_markdown_cell():
    rows = [_cells(line) for line in markdown(_table(label="p(z|x)")).splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {3}


def test_latex_is_a_booktabs_table():
    lines = latex(_table()).splitlines()
    for name in ("table", "tabular"):
        assert sum(line.startswith(rf"\begin{{{name}}}") for line in lines) == 1
        assert sum(line.startswith(rf"\end{{{name}}}") for line in lines) == 1
    rules = [line for line in lines if line.endswith("rule")]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"A & \textbf{1.00 $\pm$ 0.10} & -- \\" in lines
    assert r"B & 2.00 $\pm$ 0.20 & 3.00 $\pm$ 0.30 \\" in lines


def test_latex_declares_as_many_columns_as_rows_have():
    text = latex(_table())
    assert re.search(r"\\begin\{tabular\}\{lrr\}", text)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {2}


@pytest.mark.parametrize("character", ESCAPED)
def test_special_characters_of_tex_are_escaped(character):
    text = latex(_table(label=f"x{character}y", title=f"x{character}y", note=f"x{character}y"))
    assert sum(text.count(f"x{escaped}y") for escaped in ESCAPED[character]) == 3


def test_symbols_of_the_tables_are_set_in_tex():
    text = latex(_table(title="‖x − x̂‖² ↓", note="↑ – ± Fréchet"))
    for symbol in (r"$\|x-\hat{x}\|^2$", r"$\downarrow$", r"$\uparrow$", "--", r"$\pm$", r"Fr\'echet"):
        assert symbol in text


@pytest.mark.parametrize("module", sorted((ROOT / "rae_bench/report/tables").glob("*.py")), ids=lambda path: path.stem)
def test_every_symbol_that_a_table_may_hold_is_set_in_tex(module):
    """TeX reads ASCII and the accented letters of Latin scripts."""
    assert not re.findall(r"[^\x00-\x7f\xc0-\u017f]", latex(_table(title=module.read_text())))
