"""The comparison of two sets of seeds, of `scripts/replicate.py`."""

import numpy as np
import pandas as pd
import pytest
from checkout import ROOT, script

from rae_bench.report.comparisons import Compared, pairs
from rae_bench.report.tables.cells import COLUMNS


@pytest.fixture(scope="module")
def replicate():
    return script("replicate")


def _pair(verdict, low=0.9, high=1.1):
    return pd.Series({"verdict": verdict, "low": low, "high": high})


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (_pair("equal"), _pair("equal"), "same"),
        (_pair("equal"), _pair("undecided"), "decided or not"),
        (_pair("worse"), _pair("undecided"), "decided or not"),
        (_pair("equal"), _pair("worse", 1.05, 1.4), "equal or not"),  # its interval reaches into the margin
        (_pair("equal"), _pair("worse", 1.3, 1.7), "opposite"),
        (_pair("equal"), _pair("better", 0.5, 0.79), "opposite"),
        (_pair("equal"), _pair("undecided", 1.3, 1.7), "opposite"),
        (_pair("better", 0.7, 0.9), _pair("worse", 1.1, 1.3), "opposite"),
    ],
)
def test_a_change_is_named_from_either_side(replicate, one, other, expected):
    assert replicate.change(one, other, 1.25) == expected
    assert replicate.change(other, one, 1.25) == expected


def test_the_expected_changes_are_those_of_the_same_law(replicate):
    """Sets that are drawn from one law change as often among themselves as the simulation from three of them says."""
    rng = np.random.default_rng(2)
    means = np.log(np.repeat([1.0, 1.1, 1.6], 3))

    def drawn():
        values = means[:, None] + 0.05 * rng.normal(size=(9, 4))
        return Compared.of({("row", str(i)): pd.Series(one) for i, one in enumerate(values)})

    expected = replicate.expected([drawn() for _ in range(6)], 1.25, rng)
    found = [replicate.changes(pairs(drawn(), 1.25), pairs(drawn(), 1.25), 1.25) for _ in range(100)]
    assert (expected.sum(axis=1) == 36).all()
    assert expected["opposite"].mean() < 0.1
    for kind in ("same", "decided or not"):
        assert expected[kind].mean() == pytest.approx(np.mean([one[kind] for one in found]), abs=2.5)


def test_a_study_with_other_seeds_is_the_study_but_for_them(replicate, monkeypatch, tmp_path):
    from rae_bench.study import config

    (tmp_path / "studies").mkdir()
    text = (config.CONFIG / "studies" / "smoke.yaml").read_text()
    (tmp_path / "studies" / "smoke.yaml").write_text(text)
    monkeypatch.setattr(replicate, "CONFIG", tmp_path)
    assert replicate.study_of("smoke", (0, 1)) == "smoke"
    name = replicate.study_of("smoke", (5, 6, 7))
    assert name == "smoke_seeds_5_6_7"
    written = (tmp_path / "studies" / f"{name}.yaml").read_text()
    assert written.replace("train_seeds: [5, 6, 7]", "train_seeds: [0, 1]") == text


def test_the_page_of_the_digits_shows_the_counts_that_were_made():
    counts = pd.read_csv(ROOT / "docs" / "replication.csv")
    text = (ROOT / "docs" / "digits.md").read_text()
    for column, label in COLUMNS.items():
        mine = counts[counts["column"] == column].set_index("change")
        changed = mine.loc["decided or not"]
        cells = [
            *(label, changed["pairs"], mine.loc["same", "found"], changed["found"]),
            f"{changed['expected']:.1f} ({changed['low']:.0f} to {changed['high']:.0f})",
            *(mine.loc[kind, "found"] for kind in ("equal or not", "opposite")),
        ]
        assert f"| {' | '.join(map(str, cells))} |" in text
        assert changed["low"] <= changed["found"] <= changed["high"]
    pairs = pd.read_csv(ROOT / "docs" / "replication_pairs.csv")
    decided = (pairs["verdict"] != "undecided").groupby(pairs["seeds"]).sum()
    assert (
        f"decide {decided['0 1 2 3 4 5']} of the {len(pairs) // 3} pairs, where three decide {decided['0 1 2']} and"
        f" {decided['3 4 5']}" in " ".join(text.split())
    )
