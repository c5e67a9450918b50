"""The comparison of two sets of seeds, of `scripts/replicate.py`, and what the documents say of it."""

import ast
import functools
import re

import numpy as np
import pandas as pd
import pytest
from checkout import ROOT, script

from rae_bench.report.comparisons import Compared
from rae_bench.report.tables.cells import COLUMNS
from rae_bench.report.tables.claims import CLAIMS, VERDICTS, claimed
from rae_bench.report.verdicts import pairs, verdicts


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
        (_pair("supported", 0.7, 0.9), _pair("contradicted", 1.1, 1.3), "opposite"),
        (_pair("supported", 0.7, 0.9), _pair("undecided"), "decided or not"),
        (_pair("equal"), _pair("contradicted", 1.3, 1.7), "opposite"),
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
    """A seed's effects on two columns, nine tenths of them in common, of which that much cancels in their ratio."""
    rng = np.random.default_rng(3)
    cells = {(row, column): row for row in "abc" for column in ("n", "gmm")}
    place = {cell: cell[1] for cell in cells}
    across = [((row, "gmm"), (row, "n")) for row in "abc"]

    def drawn():
        common = rng.normal(size=4)
        effects = {column: np.sqrt(0.9) * common + np.sqrt(0.1) * rng.normal(size=4) for column in ("n", "gmm")}
        means = {"n": 0.0, "gmm": -0.6}
        runs = {
            (row, column): pd.Series(means[column] + 0.6 * effects[column] + 0.02 * rng.normal(size=4))
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
        assert expected[kind].mean() == pytest.approx(np.mean([one[kind] for one in found]), abs=0.25)


def test_claims_are_said_in_their_own_words(smoke_spec):
    """The mixture at half the distance of column N for every row, and nothing known of interpolations."""
    rows = list(smoke_spec.competing)
    noise = iter(np.random.default_rng(4).normal(scale=0.01, size=(2 * len(rows), 3)))
    runs = {(row, column): pd.Series(mean + next(noise)) for row in rows for column, mean in (("n", 0), ("gmm", -0.7))}
    place = {cell: cell[1] for cell in runs}
    found = claimed(smoke_spec, Compared.of(runs, place, {cell: cell[0] for cell in runs}))
    helped = found.loc[found["claim"] == "gmm_helps", "verdict"]
    assert list(helped) == ["supported"] * len(rows)
    assert "interpolation" not in set(found["claim"])
    assert set(found["verdict"]) <= set(VERDICTS.values())


def test_sets_of_seeds_have_to_be_of_one_size(replicate, capsys):
    with pytest.raises(SystemExit):
        replicate.main(["smoke", "--seeds", "0,1,2", "3,4"])
    assert "are sets of different sizes" in capsys.readouterr().err


def test_sets_of_one_seed_are_refused_before_anything_runs(replicate, capsys):
    with pytest.raises(SystemExit):
        replicate.main(["smoke", "--seeds", "0", "1"])
    assert "one seed decides nothing; give two or more" in capsys.readouterr().err


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


SETS = ("0 1 2", "3 4 5", "6 7 8")
ALL = " ".join(SETS)


@pytest.fixture(scope="module")
def page():
    """The part of docs/digits.md that tells of the replication."""
    return (ROOT / "docs" / "digits.md").read_text().split("## With other seeds")[1]


@pytest.fixture(scope="module")
def counts():
    return pd.read_csv(ROOT / "docs" / "replication.csv")


@pytest.fixture(scope="module")
def listed():
    """Every verdict by set of seeds: of pairs, and of comparisons of the claims."""
    return {name: pd.read_csv(ROOT / "docs" / f"replication_{name}.csv") for name in ("pairs", "claims")}


def test_the_page_of_the_digits_shows_the_counts_that_were_made(counts, page):
    """Three pairs of sets in every cell; what is expected is the same of all, being of sets from one law."""
    for column, label in {**COLUMNS, "claims": "the claims' comparisons"}.items():
        kinds = {kind: one.reset_index(drop=True) for kind, one in counts[counts["column"] == column].groupby("change")}
        changed = kinds["decided or not"]
        assert len(changed) == 3
        low, high, mean = (changed[key].unique() for key in ("low", "high", "expected"))
        found = {kind: ", ".join(map(str, one["found"])) for kind, one in kinds.items()}
        cells = [
            *(label, changed["pairs"][0], found["same"], found["decided or not"]),
            f"{mean.item():.1f} ({low.item():.0f} to {high.item():.0f})",
            *(found[kind] for kind in ("equal or not", "opposite")),
        ]
        assert f"| {' | '.join(map(str, cells))} |" in page
    assert ((counts["low"] <= counts["found"]) & (counts["found"] <= counts["high"])).all()
    every = counts.groupby("change")[["found", "expected"]].sum()
    assert every.loc["opposite", "found"] == 0
    words = " ".join(page.split())
    n_pairs, n_claims = (
        int(counts.loc[(counts["column"] == "claims") == is_claim, "pairs"].sum()) for is_claim in (False, True)
    )
    assert f"Of {n_pairs // 12} pairs of rows and {n_claims // 12} comparisons of the claims none has" in words
    for kind, said in (
        ("decided or not", "{:.0f} words changed between decided and undecided, where"),
        ("equal or not", "and {:.0f} between equal and better or worse, where it expects"),
    ):
        assert said.format(every.loc[kind, "found"]) in words
    assert f"expects {every.loc['decided or not', 'expected']:.0f}, and" in words
    assert f"where it expects {every.loc['equal or not', 'expected']:.1f};" in words


def test_the_page_says_how_much_nine_seeds_decide(listed, page):
    words = " ".join(page.split())
    pairs, claims = (
        (one["verdict"] != "undecided").groupby(one["seeds"]).agg(["sum", "size"]) for one in listed.values()
    )
    few = [tuple(one.loc[seeds, "sum"] for seeds in SETS) for one in (pairs, claims)]
    assert claims.loc[ALL, "sum"] == claims.loc[ALL, "size"]
    assert (
        f"decide {pairs.loc[ALL, 'sum']} of the {pairs.loc[ALL, 'size']} pairs, where three decide {few[0][0]},"
        f" {few[0][1]} and {few[0][2]}, and all {claims.loc[ALL, 'size']} comparisons of the claims, where three decide"
        f" {few[1][0]}, {few[1][1]} and {few[1][2]}." in words
    )
    mixture = listed["pairs"][listed["pairs"]["column"] == "gmm"]
    said = mixture.groupby("seeds")["verdict"].value_counts().unstack(fill_value=0)
    assert f"{36 - said.loc[ALL, 'undecided']} of 36 pairs are decided, {said.loc[ALL, 'equal']} as equal" in words
    assert set(36 - said.loc[list(SETS), "undecided"]) == {1, 2}
    assert "three seeds decide one or two." in words
    first = mixture[mixture["seeds"] == SETS[0]].set_index(["a", "b"])["verdict"]
    nine = mixture[mixture["seeds"] == ALL].set_index(["a", "b"])["verdict"]
    left = nine[first[first == "undecided"].index]
    whole = " ".join((ROOT / "docs" / "digits.md").read_text().split())
    assert f"the other {len(left)} pairs are undecided;" in whole
    assert f"decide {(left != 'undecided').sum()} of them." in whole
    mine = mixture[mixture["seeds"] == ALL]
    reach = 100 * (mine["high"] / mine["ratio"] - 1)
    assert f"to about {reach.median():.0f} % (median of the pairs; at most {reach.max():.0f} %)" in words
    first = mixture[mixture["seeds"] == SETS[0]]
    reach = 100 * (first["high"] / first["ratio"] - 1)
    assert f"are known to about {reach.median():.0f} % or better, the widest to {reach.max():.0f} %." in whole
    others = [mixture[mixture["seeds"] == seeds] for seeds in list(SETS)[1:]]
    reach = [100 * (one["high"] / one["ratio"] - 1) for one in others]
    halves, widest = (" and ".join(f"{found(one):.0f}" for one in reach) for found in (pd.Series.median, pd.Series.max))
    assert f"half of them are known to {halves} %, the widest to {widest} %." in whole


def test_the_page_shows_what_nine_seeds_say_of_every_claim(listed, page):
    mine = listed["claims"][listed["claims"]["seeds"] == ALL]
    assert set(mine["claim"]) == set(CLAIMS)
    for claim, found in mine.groupby("claim"):
        counts = [str((found["verdict"] == word).sum()) for word in VERDICTS.values()]
        assert f"| {CLAIMS[claim]} | nine | {' | '.join(counts)} |" in page


def test_what_the_page_says_of_models_is_what_nine_seeds_say(listed, page):
    mine = listed["pairs"][(listed["pairs"]["column"] == "gmm") & (listed["pairs"]["seeds"] == ALL)]
    said = {}
    for a, b, word in zip(mine["a"], mine["b"], mine["verdict"], strict=True):
        a, b = (ast.literal_eval(cell)[0] for cell in (a, b))
        said[a, b], said[b, a] = word, {"better": "worse", "worse": "better"}.get(word, word)
    rows = {row for row, _ in said}
    assert {row for row in rows if said.get(("ae_l2", row)) == "better"} == rows - {"ae_l2", "rae_l2"}
    assert said["ae_l2", "rae_l2"] == "equal"
    assert all(said["rae_l2", row] == "better" for row in ("vae", "cv_vae", "wae", "rae_gp", "rae_sn", "rae"))
    assert {row for row in rows if said.get(("vae", row)) == "worse"} == rows - {"vae", "rae_gp", "wae"}
    assert (said["vae", "rae_gp"], said["vae", "wae"]) == ("undecided", "equal")
    words = " ".join(page.split())
    assert "is equal to RAE-L2 and surely better than the seven others" in words
    assert "VAE is surely worse than all others but RAE-GP, undecided, and WAE, equal." in words
    assert "it is surely better than RAE-GP, RAE-SN and RAE <!--" in words
    claims = listed["claims"]
    best = claims[(claims["claim"] == "rae_gmm_best") & (claims["seeds"] == ALL)]
    better = best.loc[best["verdict"] == "supported", "comparison"]
    assert list(better) == ["RAE-L2 GMM / CV-VAE GMM"]
    ratio, low, high = best.loc[better.index[0], ["ratio", "low", "high"]].astype(float)
    assert (
        f"at {ratio:.2f} ({low:.2f} to {high:.2f}, unadjusted) of the distance of the one found best, CV-VAE." in words
    )
    assert round(100 * (1 - ratio)) == 12
    assert list(best["verdict"]).count("equal") == 3
    readme = " ".join(re.sub(r" ?\s?<!-- says.*?-->", "", (ROOT / "README.md").read_text()).split())
    assert (
        "decide it: RAE-L2 does, by 12 %, and the other three are equal to the best variational model; AE-L2," in readme
    )
