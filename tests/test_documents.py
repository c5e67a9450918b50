"""What the documents name is there: files, links and their headings, commands and their options, studies, modules."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT, script
from PIL import Image

from rae_bench import cli
from rae_bench.study.config import study_names

OTHERS = (ROOT / "results" / "README.md", ROOT / "benchmarks" / "found" / "tables.md")
PAGES = [*sorted(ROOT.glob("*.md")), *OTHERS, *sorted((ROOT / "docs").glob("*.md"))]
BELOW = (
    "",
    "rae_bench",
    "rae_bench/report",
    "rae_bench/scoring",
    "rae_bench/scoring/weights",
    "workflow/config",
    "workflow/config/studies",
    "docs",
)
"""The folders from which a document may name a file."""
EXAMPLES = tuple(f"examples/{path.name}" for path in (ROOT / "examples").iterdir())
USERS = {"FILE.py", "mylab/study.yaml", "theirs.safetensors"}
"""What only a user has."""
FILE = re.compile(r"[\w./-]*\w\.(py|yaml|yml|md|smk|sh|csv|toml|lock|safetensors|jinja)")
GENERATED = re.compile(
    r"results/.*|(.*/)?(costs|index|record|table1|published|claims|search|model|codes|sheets|theirs)\.[\w.*]+"
    r"|metrics\.csv|table\.md|FILE\.py"
)
"""What commands write and users bring, wherever that is."""
GENERATED_NAMES = ("images.npy", "croissant.json", "files.sha256", "metrics.parquet", "protocols.parquet")


def prose_and_code(page):
    """Every command line of a page's code blocks, and every `quoted` piece of its prose."""
    text = page.read_text()
    blocks = re.findall(r"^```(?!mermaid)\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return lines, re.findall(r"`([^`\n]+)`", prose)


def exists(name):
    return any(list((ROOT / folder).glob(name)) for folder in (*BELOW, *EXAMPLES))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_a_page_names_is_there(page):
    lines, quoted = prose_and_code(page)
    named = {piece for text in (*lines, *quoted) for piece in re.split(r"[\s=\"'(),:]+", text)}
    files = {name for name in named if FILE.fullmatch(name) and not GENERATED.fullmatch(name)}
    assert not {name for name in files - USERS if not exists(name)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        if "://" in target or path.startswith(("results/", "../results/")):
            continue
        there = (page.parent / path) if path else page
        assert there.exists(), target
        assert not heading or heading in headings(there.read_text()), target


def headings(text):
    """The anchors that a page's headings have on the usual hosts."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(page):
    """The words of every command of the suite, of make and of Snakemake that a page gives."""
    lines, quoted = prose_and_code(page)
    for text in (*lines, *quoted):
        text = re.sub(r"\s#.*|\s>.*|\|.*", "", text.strip().removeprefix("$ "))
        if text.count('"') % 2 or text.count("'") % 2:
            continue
        words = [word for word in shlex.split(text) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
        if words[:3] == ["python", "-m", "rae_bench"]:
            words = ["rae-bench", *words[3:]]
        if words[:1] == ["rae-bench"]:
            yield from [words[1:]] if words[1:] else []  # none where the program alone is named
        elif words and words[0] in ("make", "snakemake"):
            yield [*words, *re.findall(r"STUDY=\S+", text)]
        elif len(words) > 1 and words[0] in subcommands() and re.match("-|STUDY|FILE|NAME", words[1]):
            yield words


def subcommands():
    return next(action for action in cli.parser(cli._commands([]))._actions if action.choices).choices


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page):
        options = [word.partition("=")[0] for word in words[1:] if word.startswith("--")]
        if words[0] == "make":
            assert words[1] in targets, words
        elif words[0] != "snakemake":
            assert words[0] in subcommands(), words
            assert set(options) <= set(subcommands()[words[0]]._option_string_actions), words
        for study in re.findall(r"(?:study|STUDY)=(\w+)", " ".join(words)):
            assert study in (*study_names(), "NAME", "mine", "mylab", "examples"), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_the_package_is_one(page):
    """`rae_bench.room.module.thing`, and `module.thing` of any module."""
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "rae_bench").rglob("*.py")]
    for text in prose_and_code(page)[1]:
        if not re.fullmatch(r"[a-z_]+(\.\w+)+", text) or FILE.fullmatch(text) or text in modules:
            continue
        holder, _, name = text.rpartition(".")
        holders = [one for one in modules if one == holder or one.endswith(f".{holder}")]
        if holder.startswith("rae_bench") or (holders and f"{holder}.{name}" not in GENERATED_NAMES):
            assert any(hasattr(importlib.import_module(one), name) for one in holders), text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_of_the_examples_is_shown_as_it_is(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    paste, text = script("documents"), page.read_text()
    for name in re.findall(r"<!-- paste (examples/\S+) -->", text):
        assert f"<!-- paste {name} -->\n\n{paste.content(Path(name))}\n<!-- end -->" in text, name


def test_a_page_gets_the_tables_figures_and_commit_of_the_studies_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    documents = script("documents")
    for name, text in (
        ("one/tables/a.md", "| new |"),
        ("one/figures/b.png", "picture"),
        ("two/recognised.md", "| 94 |"),
    ):
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / name).write_text(text)
    page = tmp_path / "docs" / "page.md"
    (tmp_path / "docs" / "figures").mkdir(parents=True)
    page.write_text(
        "At <!-- commit one -->0000000 and <!-- commit two -->1111111.\n"
        "<!-- paste results/one/tables/a.md -->\n\n| old |\n\n<!-- end -->\n"
        "<!-- copy results/one/figures/b.png -->\n![A picture](figures/c.png)\n"
        "<!-- paste results/two/recognised.md -->\n<!-- end -->\n"
    )
    names = [Path("results", name) for name in ("one/tables/a.md", "two/recognised.md", "one/figures/b.png")]
    assert documents.shown(page) == names
    documents.fill(page, {"one": "1234567"})
    text = page.read_text()
    assert "At <!-- commit one -->1234567 and <!-- commit two -->1111111.\n" in text
    assert "-->\n\n| new |\n<!-- end -->" in text
    assert (tmp_path / "docs" / "figures" / "c.png").read_text() == "picture"
    before = page.read_bytes()
    documents.main([str(page), "--paste"])
    assert page.read_bytes() == before
    heavy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8))
    heavy.save(tmp_path / "results" / "one" / "figures" / "b.png")
    documents.main([str(page), "--paste"])
    kept = tmp_path / "docs" / "figures" / "c.png"
    assert kept.stat().st_size < documents.HEAVY < (tmp_path / "results" / "one" / "figures" / "b.png").stat().st_size
    with Image.open(kept) as image:
        assert image.size == heavy.size
    (tmp_path / "results" / "one" / "figures" / "b.png").unlink()
    (tmp_path / "results" / "one" / "tables" / "a.md").write_text("| newer |")
    with pytest.raises(SystemExit, match=r"not there: results/one/figures/b\.png"):
        documents.main([str(page), "--paste"])
    assert page.read_bytes() == before


SAYS = re.compile(r"<!-- says(?: in (.+?))?: (.+?) \| (.+?) \| (.+?) -->")
"""What a sentence that claims is bound to: how a row of a table begins, a column, and what stands there.

Of a table on its page; or of the page that is named from the top of the repository, in the section whose heading begins
with what follows the `#`.
"""


def _tables(text):
    """Every Markdown table of a page: its header, and its rows as lists of cells."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip().strip("*") for cell in line.strip()[1:-1].split("|")] for line in block.splitlines()]
        yield rows[0], rows[2:]


def _said(text, row, column):
    """What the tables of a text have in this column of this row."""
    return [
        dict(zip(header, cells, strict=False))[column]
        for header, rows in _tables(text)
        if column in header
        for cells in rows
        if all(cell.startswith(part) for cell, part in zip(cells, row.split(" / "), strict=False))
    ]


def unbound(text):
    """Bindings of a page that no table bears out, each with what was found instead.

    Where a section has tables with that row and column, one of them has to: another section's is of other data.
    """
    wrong = []
    for section in _sections(text):
        for place, row, column, value in SAYS.findall(section):
            page, _, heading = place.partition("#")
            others = [one for one in _sections((ROOT / page).read_text()) if one.startswith(heading)] if place else []
            there = "".join(others) if place else text
            found = (not place and _said(section, row, column)) or _said(there, row, column)
            if value not in found:
                wrong.append((row, column, value, found))
    return wrong


def _sections(text):
    return re.split(r"^## ", text, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_that_claim_say_what_the_tables_say(page):
    assert not unbound(page.read_text())


def test_a_binding_that_no_table_bears_out_is_found():
    table = "| Claim | Data | Supported |\n|---|---|---:|\n| A helps B | digits | 9 |\n"
    assert not unbound(f"{table}\nIt helps <!-- says: A helps / digits | Supported | 9 -->.")
    (wrong,) = unbound(f"{table}\nIt helps <!-- says: A helps / digits | Supported | 8 -->.")
    assert wrong[-1] == ["9"]
    assert unbound(f"{table}\nIt helps <!-- says: A helps / photos | Supported | 9 -->.")
    other = table.replace("| 9 |", "| 3 |")
    assert unbound(f"## One\n{table}## Two\n{other}It helps <!-- says: A helps / digits | Supported | 9 -->.")
    assert not unbound(f"## One\n{table}## Two\nIt helps <!-- says: A helps / digits | Supported | 9 -->.")
    of_another_page = "All are equal <!-- says in docs/embedded.md#{}: WAE (GMM-10) | Over Linear AE | 0.56 better -->."
    assert not unbound(of_another_page.format("Faces"))
    assert unbound(of_another_page.format("Photographs"))
    assert unbound(of_another_page.format("None"))


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("README.md", 3),
        ("docs/digits.md", 8),
        ("docs/variants.md", 15),
        ("docs/embedded.md", 8),
        ("docs/architectures.md", 20),
        ("docs/densities.md", 20),
        ("docs/densities_tables.md", 6),
    ],
)
def test_the_accounts_of_results_are_bound(page, least):
    assert len(SAYS.findall((ROOT / page).read_text())) >= least


@pytest.mark.parametrize(("page", "most"), [("README.md", 700), ("docs/speed.md", 900)])
def test_pages_for_everybody_are_short(page, most):
    """Outside tables that programs write and what they say of themselves, and the rules of others."""
    written = r"<!-- (paste|written by) .*?<!-- end -->|<!-- says.*?-->"
    text = re.sub(written, "", (ROOT / page).read_text(), flags=re.DOTALL)
    assert len([word for word in text.split() if not re.fullmatch(r"[|:-]+", word)]) <= most
