"""Published numbers: the files say what the paper's table says, and nothing else is read as published."""

import csv
import shutil
from collections import Counter

import pytest

from rae_bench.base.storage import StorageError
from rae_bench.report.published.numbers import CHECKED, FOLDER, PublishedError, reproductions, table1

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


def test_the_values_are_the_papers_and_no_others():
    lines = [line.split() for line in TABLE1.strip().splitlines()]
    assert {key: found.value for key, found in table1().items()} == {
        (dataset, row, column): float(text)
        for row, *texts in lines
        for (dataset, column), text in zip(PLACES, texts, strict=True)
        if text != "-"
    }


def test_every_status_is_as_frequent_as_the_readme_says_and_confirmed_by_a_second_source():
    counts = Counter(value.status for value in table1().values())
    assert counts == {"confirmed": 24, "approx_confirmed": 3, "single_source": 78}
    text = (FOLDER / "README.md").read_text()
    for status, count in counts.items():
        assert any(line.startswith(f"| `{status}`") and line.endswith(f"| {count} |") for line in text.splitlines())
    assert all(value.second_source for value in table1().values() if value.status != "single_source")
    assert table1()["MNIST", "VAE", "n"].second_source == "official config comment"


def test_reproductions_are_as_printed_in_the_files_order():
    with (FOLDER / "third_party_reproductions.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line.pop("metric") == "FID"]
    found = [reproductions(dataset) for dataset in ("MNIST", "CIFAR-10", "CelebA", "SVHN")]
    assert [line for frame in found for line in frame.to_dict("records")] == lines
    assert found[2]["value"].tolist() == ["~60", "55", "56.5"]
    assert found[3].empty


@pytest.mark.parametrize(
    ("name", "read"),
    [("table1_fid.csv", table1), ("third_party_reproductions.csv", lambda folder: reproductions("MNIST", folder))],
)
@pytest.mark.parametrize("spoil", [lambda data: data.replace(b"9", b"8", 1), lambda data: data[:-1], lambda _: b""])
def test_a_file_other_than_the_one_checked_is_refused(tmp_path, name, read, spoil):
    folder = shutil.copytree(FOLDER, tmp_path / "published")
    (folder / name).write_bytes(spoil((folder / name).read_bytes()))
    expected = rf"{name}: SHA-256 [0-9a-f]{{12}}\.\.\., expected {CHECKED[name][:12]}\.\.\.; restore it"
    with pytest.raises(PublishedError, match=expected):
        read(folder)
    (folder / name).unlink()
    with pytest.raises(StorageError, match=f"{name}: no such file"):
        read(folder)
