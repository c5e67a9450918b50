"""Published numbers: the files say what the paper's table says, and nothing else is read as published."""

import csv
import shutil
from collections import Counter

import pytest

from rae_bench.report.published.numbers import FOLDER, Published, PublishedError, lookup, reproductions, table1

TABLE1 = """
VAE    18.26 19.21 17.66 18.21  57.94 106.37 103.78 88.62  39.12 48.12 45.52 44.49
CV-VAE 15.15 33.79 17.87 25.12  37.74 94.75 86.64 69.71    40.41 48.87 49.30 44.96
WAE    10.03 20.42 9.39 14.34   35.97 117.44 93.53 76.89   34.81 53.67 42.73 40.93
2sVAE  20.31 18.81 - 18.35      62.54 109.77 - 89.06       42.04 49.70 - 47.54
RAE-GP 14.04 22.21 11.54 15.32  32.17 83.05 76.33 64.08    39.71 116.30 45.63 47.00
RAE-L2 10.53 22.22 8.69 14.54   32.24 80.80 74.16 62.54    43.52 51.13 47.97 45.98
RAE-SN 15.65 19.67 11.74 15.15  27.61 84.25 75.30 63.62    36.01 44.74 40.95 39.53
RAE    11.67 23.92 9.81 14.67   29.05 83.87 76.28 63.27    40.18 48.20 44.68 43.67
AE     12.95 58.73 10.66 17.12  30.52 84.74 76.47 61.57    40.79 127.85 45.10 50.94
"""
"""Rec., N, GMM, Interp. of MNIST, CIFAR-10 and CelebA, as the paper lays its table out: typed in a second time."""
PLACES = [
    (dataset, column)
    for dataset in ("MNIST", "CIFAR-10", "CelebA")
    for column in ("reconstruction", "n", "gmm", "interpolation")
]


def test_every_value_is_the_papers():
    lines = [line.split() for line in TABLE1.strip().splitlines()]
    assert {key: found.value for key, found in table1().items()} == {
        (dataset, row, column): float(text)
        for row, *texts in lines
        for (dataset, column), text in zip(PLACES, texts, strict=True)
        if text != "-"
    }


def test_every_line_of_the_file_is_looked_up_by_the_suites_names():
    names = {"rec": "reconstruction", "n": "n", "gmm": "gmm", "interp": "interpolation"}
    with (FOLDER / "table1_fid.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(table1()) == 105
    for line in lines:
        expected = Published(float(line["value"]), line["status"], line["second_source"])
        assert lookup(line["dataset"], line["model"], names[line["column"]]) == expected


def test_the_statuses_are_as_many_as_the_readme_says():
    counts = Counter(value.status for value in table1().values())
    assert counts == {"confirmed": 24, "approx_confirmed": 3, "single_source": 78}
    text = (FOLDER / "README.md").read_text()
    for status, count in counts.items():
        assert any(line.startswith(f"| `{status}`") and line.endswith(f"| {count} |") for line in text.splitlines())


@pytest.mark.parametrize(
    "place",
    [
        *(("MNIST", "2sVAE", "gmm"), ("CelebA", "AE-L2", "n"), ("MNIST", "RAE", "standard_normal")),
        *(("MNIST", "RAE", "gaussian"), ("digits", "RAE", "gmm"), ("MNIST", "rae", "gmm"), ("SVHN", "RAE", "gmm")),
    ],
)
def test_what_the_paper_does_not_have_has_no_value(place):
    assert lookup(*place) is None


def test_reproductions_are_as_printed_in_the_files_order():
    with (FOLDER / "third_party_reproductions.csv").open(newline="") as file:
        lines = [{name: text for name, text in line.items() if name != "metric"} for line in csv.DictReader(file)]
    assert [vars(found) for found in reproductions()] == lines
    assert [found.value for found in reproductions() if found.dataset == "CelebA"] == ["~60", "55", "56.5"]


@pytest.fixture
def folder(tmp_path):
    """A copy of the published numbers that may be edited."""
    return shutil.copytree(FOLDER, tmp_path / "published")


FIRST = "MNIST,VAE,rec,FID,18.26,single_source,"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (FIRST, FIRST.replace("single_source", "certain"), "table1_fid.csv:2: status 'certain' is not one of ['conf"),
        (FIRST, FIRST.replace("MNIST", "mnist"), "table1_fid.csv:2: dataset 'mnist' is not one of ['MNIST', "),
        (FIRST, FIRST.replace("rec", "recon"), "table1_fid.csv:2: column 'recon' is not one of ['rec', "),
        (FIRST, FIRST.replace("FID", "KID"), "table1_fid.csv:2: metric 'KID' is not one of ['FID']"),
        (FIRST, FIRST.replace("18.26", "18,26"), "table1_fid.csv:2: 8 fields, expected 7"),
        (FIRST, FIRST.replace("18.26", "18.26*"), "table1_fid.csv:2: value '18.26*' is not a distance"),
        (FIRST, FIRST.replace("18.26", "nan"), "table1_fid.csv:2: value 'nan' is not a distance"),
        (FIRST, FIRST.replace("18.26", "-1"), "table1_fid.csv:2: value '-1' is not a distance"),
        (FIRST, FIRST.replace("single_source", "confirmed"), "table1_fid.csv:2: 'confirmed' by no second source"),
        (FIRST, f"{FIRST}\n{FIRST}", "table1_fid.csv:3: MNIST, VAE, reconstruction stands twice"),
        (f"{FIRST}\n", "", "table1_fid.csv: values by status are "),
        (FIRST, f"{FIRST}home\n{FIRST.replace('VAE', 'AE-L2')}", "table1_fid.csv: values by status are "),
        ("second_source", "source", "table1_fid.csv: columns are ['dataset', "),
    ],
)
def test_a_file_other_than_the_one_checked_is_refused(folder, old, new, expected):
    path = folder / "table1_fid.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(PublishedError) as refused:
        table1(folder)
    assert str(refused.value).startswith(f"{folder}/{expected}")


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_a_missing_or_spoilt_file_is_refused(folder, content):
    for read in (table1, reproductions):
        path = folder / ("table1_fid.csv" if read is table1 else "third_party_reproductions.csv")
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(PublishedError, match=path.name):
            read(folder)


def test_a_reproduction_of_another_metric_or_without_a_number_is_refused(folder):
    path = folder / "third_party_reproductions.csv"
    whole = path.read_text()
    for old, new in ((",FID,", ",IS,"), ("~90", "about 90"), ("MNIST", "SVHN")):
        assert old in whole
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(PublishedError, match=r"third_party_reproductions\.csv:"):
            reproductions(folder)
