"""The comparison of two sets of seeds, of `scripts/replicate.py`, and what the documents say of it."""

import ast
import functools

import numpy as np
import pandas as pd
import pytest
from checkout import ROOT, script

from rae_bench.report.comparisons import Compared, pairs, verdicts
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

    sources = {("row", str(i)): str(i) for i in range(9)}
    words = functools.partial(pairs, within=1.25)
    expected = replicate.expected([drawn() for _ in range(6)], sources, 1.25, rng, words)
    found = [replicate.changes(pairs(drawn(), 1.25), pairs(drawn(), 1.25), 1.25) for _ in range(100)]
    assert (expected.sum(axis=1) == 36).all()
    assert expected["opposite"].mean() < 0.1
    for kind in ("same", "decided or not"):
        assert expected[kind].mean() == pytest.approx(np.mean([one[kind] for one in found]), abs=2.5)


def test_one_training_under_two_names_is_drawn_once(replicate):
    rng = np.random.default_rng(0)
    sources = {("vae", "n"): "vae", ("two", "n"): "vae", ("ae", "n"): "ae"}
    runs = {cell: pd.Series(rng.normal(size=3)) for cell in sources}
    runs["two", "n"] = runs["vae", "n"]
    words = functools.partial(pairs, within=1.25)
    found = replicate.expected([Compared.of(runs, None, sources)] * 2, sources, 1.25, rng, words)
    assert (found["same"] >= 1).all()  # the two names are equal in every set


def test_what_seeds_do_to_a_column_is_expected_of_comparisons_between_columns(replicate):
    """A seed's effect, which cancels within a column, widens a ratio of two columns: drawn as often as it happens."""
    rng = np.random.default_rng(3)
    cells = {(row, column): row for row in "abc" for column in ("n", "gmm")}
    place = {cell: cell[1] for cell in cells}
    across = [((row, "gmm"), (row, "n")) for row in "abc"]

    def drawn():
        effects = {column: 0.3 * rng.normal(size=4) for column in ("n", "gmm")}
        means = {"n": 0.0, "gmm": -0.6}
        runs = {
            (row, column): pd.Series(means[column] + effects[column] + 0.02 * rng.normal(size=4))
            for row, column in cells
        }
        return Compared.of(runs, place, cells)

    def words(compared):
        differences = [compared.difference(*pair) for pair in across]
        found = verdicts(differences, [np.log(1.25)] * 3)
        low, high = np.exp([one.interval for one in differences]).T
        return pd.DataFrame({"verdict": found, "low": low, "high": high})

    expected = replicate.expected([drawn() for _ in range(20)], cells, 1.25, rng, words)
    found = [replicate.changes(words(drawn()), words(drawn()), 1.25) for _ in range(200)]
    assert np.mean([one["decided or not"] for one in found]) > 0.3
    for kind in ("same", "decided or not"):
        assert expected[kind].mean() == pytest.approx(np.mean([one[kind] for one in found]), abs=0.4)


def test_a_claim_that_is_supported_is_a_cell_that_is_better(replicate, smoke_spec):
    """The mixture at half the distance of column N for every row; each claim's words are those of pairs."""
    rows = list(smoke_spec.competing)
    noise = iter(np.random.default_rng(4).normal(scale=0.01, size=(2 * len(rows), 3)))
    runs = {(row, column): pd.Series(mean + next(noise)) for row in rows for column, mean in (("n", 0), ("gmm", -0.7))}
    place = {cell: cell[1] for cell in runs}
    found = replicate.claimed(smoke_spec, Compared.of(runs, place, {cell: cell[0] for cell in runs}))
    helped = found.loc[found["claim"] == "gmm_helps", "verdict"]
    assert set(helped) == {"better"}
    assert len(helped) == len(rows)
    assert set(found["verdict"]) <= {"better", "equal", "worse", "undecided"}


def test_sets_of_seeds_have_to_be_of_one_size(replicate, capsys):
    with pytest.raises(SystemExit):
        replicate.main(["smoke", "--seeds", "0,1,2", "3,4"])
    assert "are sets of different sizes" in capsys.readouterr().err


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
    every = counts.groupby("change")[["found", "expected"]].sum()
    assert every.loc["opposite", "found"] == 0
    assert (every.loc["decided or not", "found"], round(every.loc["decided or not", "expected"])) == (60, 65)
    assert "Sixty changed between decided and undecided" in text
    assert "sets' own means and spreads, expects 65;" in text


def test_what_the_page_says_of_all_seeds_is_what_they_say():
    pairs = pd.read_csv(ROOT / "docs" / "replication_pairs.csv")
    text = " ".join((ROOT / "docs" / "digits.md").read_text().split())
    decided = (pairs["verdict"] != "undecided").groupby(pairs["seeds"]).sum()
    assert (
        f"decide {decided['0 1 2 3 4 5']} of the {len(pairs) // 3} pairs, where three decide {decided['0 1 2']} and"
        f" {decided['3 4 5']}" in text
    )
    mixture = pairs[(pairs["column"] == "gmm") & (pairs["seeds"] == "0 1 2 3 4 5")]
    words = mixture["verdict"].value_counts()
    assert (len(mixture), words["undecided"], words["equal"]) == (36, 36 - 20, 13)
    assert "There 20 of 36 pairs are decided, where three seeds decide one. Thirteen are equal; " in text
    first = pairs[(pairs["column"] == "gmm") & (pairs["seeds"] == "0 1 2")]
    reach = 100 * (first["high"] / first["ratio"] - 1)
    assert f"are known to about {reach.median():.0f} % or better, the widest to {reach.max():.0f} %." in text
    three = pairs[(pairs["column"] == "gmm") & (pairs["seeds"] != "0 1 2 3 4 5") & (pairs["verdict"] != "undecided")]
    assert len(three) == 2
    assert (mixture["high"] / mixture["ratio"] - 1).median() == pytest.approx(0.08, abs=0.005)
    found = mixture[mixture["verdict"].isin(["better", "worse"])]
    worse = {tuple(ast.literal_eval(cell)[0] for cell in pair) for pair in zip(found["a"], found["b"], strict=True)}
    assert set(found["verdict"]) == {"worse"}
    assert worse == {
        *(("vae", other) for other in ("rae_l2", "ae", "ae_l2")),
        *(("wae", other) for other in ("rae_l2", "ae_l2")),
        *((one, "ae_l2") for one in ("rae_sn", "rae")),
    }
    assert (
        "VAE is surely worse than RAE-L2, AE and AE-L2, WAE is surely worse than RAE-L2 and AE-L2, and so are RAE-SN"
        " and RAE than AE-L2" in text
    )
