"""What a user may write as text arrives unchanged, through Snakemake and the shell, and executes nothing on the way."""

import html
import json
import re
import shutil

import pytest
from checkout import ROOT, Checkout, put

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


@pytest.fixture(scope="module")
def hostile(smoke, tmp_path_factory):
    """The finished smoke study with another title and labels, summarised again; and what its files say."""
    checkout = Checkout(tmp_path_factory.mktemp("hostile"))
    shutil.rmtree(checkout.path)
    shutil.copytree(smoke.path, checkout.path, symlinks=True)
    with (
        checkout.edited("studies/smoke.yaml", lambda data: put(data, ["title"], HOSTILE)),
        checkout.edited("rows.yaml", lambda data: [put(data, [row, "label"], f"{row} {LABEL}") for row in data]),
        checkout.edited("models.yaml", lambda data: [put(data, [row, "label"], f"{row} {LABEL}") for row in data]),
        pytest.MonkeyPatch.context() as patch,
    ):
        ended = checkout.snakemake()
        assert ended.returncode == 0, ended.stdout + ended.stderr
        patch.setattr(config, "CONFIG", checkout.config)
        return checkout, load_study("smoke").summary()


def _nothing_was_executed(checkout):
    return not [path for path in checkout.path.rglob("*pwned*") if path.is_file()]


def test_a_title_and_labels_arrive_unchanged_and_execute_nothing(hostile):
    checkout, spec = hostile
    root = checkout.results / "smoke"
    assert spec.title == HOSTILE
    for file in ("metrics", "tables/index", "figures/index", "report"):
        assert read_json(root / f"{file}.record.json")["settings"] == {"fingerprint": fingerprint(spec)}
    page = (root / "report.html").read_text()
    assert html.unescape(re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1]) == HOSTILE
    assert _nothing_was_executed(checkout)


def test_a_label_is_text_in_every_format(hostile):
    checkout, _ = hostile
    tables = checkout.results / "smoke" / "tables"
    assert "<script>" not in (checkout.results / "smoke" / "report.html").read_text()
    tex = (tables / "table1_digits_mini.tex").read_text()
    assert r"\textbackslash{}input\{/etc/passwd\}" in tex
    assert r"\input{" not in tex
    markdown = (tables / "table1_digits_mini.md").read_text()
    assert LABEL.replace("|", r"\|") in markdown


def test_a_data_sets_label_arrives_unchanged_and_executes_nothing(tmp_path):
    checkout = Checkout(tmp_path)
    place = ["digits_mini", "data", "label"]
    with checkout.edited("datasets.yaml", lambda data: put(data, place, HOSTILE)):
        ended = checkout.snakemake("--", "results/datasets/digits_mini/manifest.json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    record = json.loads((checkout.results / "datasets/digits_mini/manifest.record.json").read_text())
    assert record["settings"]["label"] == HOSTILE
    assert _nothing_was_executed(checkout)
