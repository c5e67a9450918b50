"""The search for loss weights, of `scripts/search.py`: what is tried next, what is kept, what is told."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from checkout import script

from rae_bench.study.config import load_study, resolve_study, study_names
from rae_bench.study.vocabulary import check_name


@pytest.fixture(scope="module")
def search():
    return script("search")


def _tried(*points):
    """Points of one model: latent weight, regulariser weight, criterion."""
    return pd.DataFrame(points, columns=["latent", "regulariser", "criterion"]).astype(float)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        # beyond the least and the largest weight by a factor of 3
        ([(0.003, None, 1.0), (0.01, None, 2.0)], {"latent": 0.001}),
        ([(0.003, None, 2.0), (0.01, None, 1.0)], {"latent": 0.03}),
        # between the best and its better neighbour
        ([(0.01, None, 3.0), (0.04, None, 1.0), (0.16, None, 2.0)], {"latent": 0.08}),
        ([(0.01, None, 2.0), (0.04, None, 1.0), (0.16, None, 3.0)], {"latent": 0.02}),
        # of two terms at an edge the first, then, that being tried, the second
        ([(0.03, 0.1, 1.0), (0.01, 0.01, 2.0)], {"latent": 0.09, "regulariser": 0.1}),
        ([(0.03, 0.1, 1.0), (0.01, 0.01, 2.0), (0.09, 0.1, 3.0)], {"latent": 0.03, "regulariser": 0.3}),
        # a term inside its range is left where the other is at an edge
        ([(0.03, 0.1, 1.0), (0.01, 0.1, 2.0), (0.1, 0.01, 2.0)], {"latent": 0.03, "regulariser": 0.3}),
        # a model with one term
        ([(None, 0.1, 1.0), (None, 0.01, 2.0)], {"regulariser": 0.3}),
    ],
)
def test_the_next_point_lies_beyond_an_edge_or_beside_the_best(search, points, expected):
    assert search.next_point(_tried(*points)) == expected


def test_an_edge_is_a_weight_with_nothing_tried_beyond_it(search):
    tried = _tried((0.01, 0.1, 2.0), (0.03, 0.1, 1.0), (0.1, 0.01, 3.0))
    assert not search.edge(tried, "latent")
    assert search.edge(tried, "regulariser")
    assert search.last_step(tried, "regulariser") == pytest.approx(1 / 3 - 1)  # the other point has the same penalty
    alike = _tried((0.01, 0.1, 2.0), (0.03, 0.1, 1.0), (0.1, 0.01, 3.0), (0.03, 0.01, 4.0), (0.03, 0.001, 2.0))
    assert search.last_step(alike, "regulariser") == pytest.approx(1 / 4 - 1)  # at an equal latent weight, the nearest
    assert search.last_step(_tried((None, 0.1, 1.0), (None, 0.01, 2.0)), "regulariser") == pytest.approx(-0.5)


def _result(row, point, settings, rec=1.0, gmm=1.0):
    criterion = float(np.cbrt(rec * gmm))
    return {
        **{"dataset": "digits", "row": row, "latent": np.nan, "regulariser": np.nan, **point, "fd_n": 1.0},
        **{"fd_reconstruction": rec, "fd_gmm": gmm, "criterion": criterion, "noise": 0.01, "settings": settings},
    }


@pytest.fixture
def study(search, monkeypatch):
    """Three of the models of a search, one of which has no weight."""
    file = load_study("search_digits").file
    rows = ("vae", "rae_l2", "ae")
    made = resolve_study("search_digits", replace(file, rows=rows, search={row: file.search[row] for row in rows[:2]}))
    monkeypatch.setattr(search, "load_study", lambda _: made)
    return made


def _settings(search, study, row, point):
    return search.settings(study, row, tuple(point.items()))


def test_every_model_gets_its_grid_and_two_points_more_and_a_file_is_gone_on_from(search, study, monkeypatch, tmp_path):
    """Trainings are stood in for by a law of the weights: the best latent weight is 0.02."""
    monkeypatch.setattr(search, "FOUND", tmp_path)
    rounds = []

    def run(of, points, cores):
        rounds.append(dict(points))
        assert (of, cores) == (study, "2")
        return pd.DataFrame(
            _result(row, point, _settings(search, study, row, point), 1, _law(point)) for row, point in points.items()
        )

    monkeypatch.setattr(search, "run", run)
    search.main(["search_digits"])
    assert [list(one) for one in rounds] == [["vae", "rae_l2", "ae"], *[["vae", "rae_l2"]] * 6]
    assert rounds[0]["vae"] == {"latent": 0.01}
    assert rounds[5]["vae"] == {"latent": 0.017}  # between 0.03, the best, and 0.01
    found = pd.read_csv(tmp_path / "search_digits.csv")
    assert found.groupby("row").size().to_dict() == {"vae": 7, "rae_l2": 7, "ae": 1}
    assert found.groupby("row")["chosen"].sum().to_dict() == {"vae": 1, "rae_l2": 1, "ae": 1}
    assert "edge (regulariser)" in (tmp_path / "search_digits.md").read_text()
    assert (tmp_path / "search_digits.png").stat().st_size > 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    search.main(["search_digits"])
    assert len(rounds) == 7  # nothing is run again
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    lost = found[~((found["row"] == "vae") & (found["latent"] == 0.03))]
    lost.drop(columns="chosen").to_csv(tmp_path / "search_digits.csv", index=False)
    search.main(["search_digits"])
    assert rounds[7:] == [{"vae": {"latent": 0.03}}]
    assert len(pd.read_csv(tmp_path / "search_digits.csv")) == len(found)


def _law(point):
    """Least at a latent weight of 0.02, and falling with the regulariser's."""
    return 1 + np.log(point.get("latent", 1) / 0.02) ** 2 + point.get("regulariser", 0)


def test_a_study_of_several_data_sets_is_a_search_of_each(search, monkeypatch, tmp_path):
    """Each with its own budget and its own file; a point's settings are those of the study's own runs."""
    monkeypatch.setattr(search, "FOUND", tmp_path)
    whole, seen = load_study("search_architectures"), []

    def run(of, points, _):
        seen.extend((of.name, row) for row in points)
        return pd.DataFrame(
            _result(row, point, _settings(search, of, row, point), 1, _law(point)) for row, point in points.items()
        )

    monkeypatch.setattr(search, "run", run)
    made = search.parts(whole)
    assert [dict(one.file.datasets) for one in made] == [{name: name} for name in whole.datasets]
    for one in made:
        (dataset,) = one.datasets
        assert search.settings(one, "ae", ()) == whole.summary().evaluations[dataset]["ae"]
        search.searched(replace(one, file=replace(one.file, rows=("ae",))), "2", is_run=True)
    assert seen == [(one.name, "ae") for one in made]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{one.name}.csv" for one in made)
    assert made[0].name == "search_architectures_digits_residual"


@pytest.mark.parametrize("name", [name for name in study_names() if name.startswith("search_")])
def test_a_round_of_points_can_be_a_study_by_its_name(search, name):
    for part in search.parts(load_study(name)):
        check_name("studies", search.points_study(part))


def test_points_of_other_settings_are_run_again(search, study):
    point = {"latent": 0.01}
    own, stale = _settings(search, study, "vae", point), "0" * 16
    for settings, expected in ((own, {"latent": 0.03}), (stale, point)):
        found = search.valid(study, pd.DataFrame([_result("vae", point, settings)]))
        assert search.missing(study, found)["vae"] == expected


@pytest.mark.parametrize("settings", ["0" * 16, None])
def test_points_of_other_settings_are_not_overwritten_unasked(search, study, monkeypatch, tmp_path, capsys, settings):
    """They may be of another version, or of a search before settings were kept."""
    monkeypatch.setattr(search, "FOUND", tmp_path)
    old = pd.DataFrame([_result("vae", {"latent": 0.01}, settings)])
    (old if settings else old.drop(columns="settings")).to_csv(tmp_path / "search_digits.csv", index=False)
    before = (tmp_path / "search_digits.csv").read_bytes()
    with pytest.raises(SystemExit):
        search.main(["search_digits", "--table"])
    assert "search_digits.csv: holds points of other settings than search_digits has now; --restart" in (
        capsys.readouterr().err
    )
    assert (tmp_path / "search_digits.csv").read_bytes() == before
    assert search.missing(study, search.valid(study, search.read(study)))["vae"] == {"latent": 0.01}


def test_a_run_of_other_settings_ends_the_search(search, study, monkeypatch, tmp_path):  # noqa: ARG001  stands in
    monkeypatch.setattr(search, "FOUND", tmp_path)
    monkeypatch.setattr(search, "run", lambda *_: pd.DataFrame([_result("vae", {"latent": 0.01}, "other")]))
    with pytest.raises(SystemExit, match="ran other settings than it was asked for"):
        search.main(["search_digits"])


def test_the_frontier_holds_what_no_other_point_is_below_in_both(search):
    pairs = [(3.0, 1.0), (1.0, 4.0), (2.0, 2.0), (2.5, 2.0), (1.0, 5.0), (3.0, 3.0)]
    found = pd.DataFrame([_result("a", {}, "", rec, gmm) for rec, gmm in pairs])
    shown = search.frontier(found)[["fd_reconstruction", "fd_gmm"]].to_numpy()
    assert shown.tolist() == [[1.0, 4.0], [2.0, 2.0], [3.0, 1.0]]


def test_points_of_another_search_are_shown_beside_but_not_kept(search, study, monkeypatch, tmp_path, capsys):
    """Only of one that is judged alike and has been run."""
    monkeypatch.setattr(search, "FOUND", tmp_path)
    other = resolve_study("search_variants", replace(study.file, rows=("rae",), search={}))
    unlike = resolve_study("search_faces", load_study("search_faces").file)
    studies = {one.name: one for one in (study, other, unlike)}
    monkeypatch.setattr(search, "load_study", studies.__getitem__)
    for name, message in (("search_variants", "holds no points of its settings"), ("search_faces", "its datasets are")):
        with pytest.raises(SystemExit):
            search.main(["search_digits", "--table", "--beside", name])
        assert message in capsys.readouterr().err
    for one, row, point in ((study, "vae", {"latent": 0.01}), (other, "rae", {})):
        pd.DataFrame([_result(row, point, _settings(search, one, row, point))]).to_csv(
            tmp_path / f"{one.name}.csv", index=False
        )
    search.main(["search_digits", "--table", "--beside", "search_variants"])
    assert pd.read_csv(tmp_path / "search_digits.csv")["row"].tolist() == ["vae"]
    assert "| rae |" in (tmp_path / "search_digits.md").read_text()


def test_models_are_compared_at_a_reconstruction_that_most_of_them_reach(search):
    """At 1.5 times the median of 1, 2.5 and 90: one model that cannot reconstruct is left out, and sets no level."""
    found = pd.DataFrame(
        [
            *(_result("a", {}, "", rec, gmm) for rec, gmm in ((1.0, 9.0), (2.0, 5.0), (4.0, 3.0))),
            *(_result("b", {}, "", rec, gmm) for rec, gmm in ((2.5, 8.0), (3.0, 2.0))),
            *(_result("c", {}, "", rec, gmm) for rec, gmm in ((90.0, 0.5), (99.0, 0.1))),
        ]
    )
    level, near = search.of_good_reconstruction(found)
    assert level == 3.75
    assert near.set_index("row")["fd_gmm"].to_dict() == {"a": 5.0, "b": 2.0}
    assert search.good_table(found, "Digits").notes[0].startswith("FD Rec. at most 3.75, 1.5 times the median")
    assert "Not reached by c." in search.good_table(found, "Digits").notes[0]
