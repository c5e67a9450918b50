"""What a user may write as text arrives unchanged, through Snakemake and the shell, and executes nothing on the way."""

import html
import re

import pytest
from checkout import ROOT, put

from rae_bench.base.plain import fingerprint
from rae_bench.base.storage import read_json
from rae_bench.study import config
from rae_bench.study.config import load_study

RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
HOSTILE = (
    'It\'s "quoted" $(touch pwned0) `touch pwned1` ; touch pwned2 & touch pwned3 | tee pwned4 > pwned5 \\\n'
    "touch pwned6\n{braces} {{twice}} {wildcards.study} {0} %s ${HOME} $$ ~ * ? # ! -- --spec \\' \\\" é 漢 \u202e"
)
"""Of labels, which stand in tables, too."""
LABEL = "L' \" $(touch pwned7) `touch pwned8` {x} \\frac$ \\input{/etc/passwd} <script>alert(1)</script> & % | _ ; é"


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_every_field_of_a_shell_command_is_quoted(path):
    """`:q`, whatever it holds: a path, a wildcard or a list of options."""
    blocks = re.findall(r'^    shell:\n((?: +"[^\n]*\n)+)', path.read_text(), re.MULTILINE)
    assert len(blocks) == path.read_text().count("    shell:")
    for block in blocks:
        assert [field for field in re.findall(r"\{([^{}]*)\}", block) if not field.endswith(":q")] == []


def nothing_was_executed(checkout):
    return not [path for path in checkout.path.rglob("*pwned*") if path.is_file()]


def test_a_title_and_labels_are_text_in_every_format_and_execute_nothing(smoke, tmp_path, monkeypatch):
    """The finished smoke study with another title and labels, summarised again."""
    checkout = smoke.copy(tmp_path / "copy")
    with (
        checkout.edited("studies/smoke.yaml", lambda data: put(data, ["title"], HOSTILE)),
        checkout.edited("rows.yaml", lambda data: [put(data, [row, "label"], f"{row} {LABEL}") for row in data]),
        checkout.edited("models.yaml", lambda data: [put(data, [row, "label"], f"{row} {LABEL}") for row in data]),
    ):
        ended = checkout.snakemake()
        monkeypatch.setattr(config, "CONFIG", checkout.config)
        spec = load_study("smoke").summary()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert nothing_was_executed(checkout)
    root = checkout.results / "smoke"
    assert spec.title == HOSTILE
    for file in ("metrics", "tables/index", "figures/index", "report"):
        assert read_json(root / f"{file}.record.json")["settings"] == {"fingerprint": fingerprint(spec)}
    page = (root / "report.html").read_text()
    assert html.unescape(re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1]) == HOSTILE
    assert page.count("<script>") == 1  # the page's own
    tex = (root / "tables" / "table1_digits_mini.tex").read_text()
    assert r"\textbackslash{}input\{/etc/passwd\}" in tex
    assert r"\input{" not in tex
    assert LABEL.replace("|", r"\|") in (root / "tables" / "table1_digits_mini.md").read_text()
