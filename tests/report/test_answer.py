"""The answer on planted distances: each word leads to its sentence, and no sentence says what a verdict contradicts."""

import itertools
import re
from dataclasses import replace

import pandas as pd
import pytest
from planted_distances import gmm, planted, planted_study

from rae_bench.report.answer import SAID, counted, lead, ranked_column, sentences, shown_rows, standings
from rae_bench.scoring.specs import GeneratedImages

WORDS = ("better", "equal", "undecided", "worse")


@pytest.fixture(scope="module")
def study():
    return planted_study()


N = {(model, "n"): 40.0 for model in ("cv_vae", "rae_gp", "rae_l2", "ae", "linear")}
HELPED = "Under a GMM fitted ex post, against the same model's column N, all 4 models are surely better."
AGAINST = "with a GMM, against the best variational cell (CV-VAE GMM), "


@pytest.mark.parametrize(
    ("distances", "asked"),
    [
        (gmm(20, 5, 6, 10), f"Yes: {AGAINST}all 2 regularized models are surely better."),
        (gmm(10, 10.01, 10.02, 20), f"Yes: {AGAINST}all 2 regularized models are equal."),
        (gmm(5, 20, 10, 30), f"No: {AGAINST}all 2 regularized models are surely worse."),
        (gmm(10, 5, 20, 30), f"Mixed: {AGAINST}of 2 regularized models 1 is surely better and 1 is surely worse."),
        (gmm(10, 5, 10.01, 30), f"Yes: {AGAINST}of 2 regularized models 1 is surely better and 1 is equal."),
    ],
)
def test_each_verdict_has_its_answer(study, distances, asked):
    assert sentences(study, planted(distances | N))[:2] == [asked, HELPED]


def test_models_that_do_no_better_than_a_baseline_answer_nothing(study):
    """5 against the baseline's 9 is better, against 5.5 equal: then blur may be compared with blur."""
    asked = "Not answered: under a GMM no model is surely better than the baseline Linear AE."
    assert sentences(study, planted(gmm(20, 5, 6, 10, linear=5.5) | N))[0] == asked
    assert sentences(study, planted(gmm(20, 5, 6, 10, linear=1.0) | N))[0] == asked
    assert sentences(study, planted(gmm(20, 5, 6, 10, linear=9.0) | N))[0].startswith("Yes: ")


def test_what_no_verdict_decides_is_undecided(study):
    unsure = {cell: (value, 0.3) for cell, value in (gmm(10, 9, 11, 12) | N).items()}
    asked, helped, first = sentences(study, planted(unsure))
    assert asked == f"Undecided: {AGAINST}none of 2 regularized models is surely better, equal or surely worse."
    assert helped.startswith("Under a GMM fitted ex post")
    assert first == (
        "Of the models in column GMM, RAE-GP has the lowest mean distance; against it none of 3 other models is surely"
        " better, equal or surely worse."
    )


def test_the_first_and_what_the_others_are_against_it(study):
    *_, first = sentences(study, planted(gmm(10, 5, 5.02, 30, linear=1.0) | N))
    assert first == (
        "Of the models in column GMM, RAE-GP has the lowest mean distance; against it of 3 other models 1 is equal and"
        " 2 are surely worse."  # a baseline's 1.0 is not a model's
    )


def test_a_tie_is_shared(study):
    distances = gmm(10, 5, 5, 30)
    frame = planted(distances | N, spread=0.0)
    *_, first = sentences(study, frame)
    assert first.startswith("Of the models in column GMM, RAE-GP and RAE-L2 have the lowest mean distance; against it")
    assert "all 2 other models are surely worse" in first
    assert [one.ratio for one in standings(study, frame, "digits")][1:3] == [1.0, 1.0]


def test_a_data_set_without_results_is_named(study):
    both = replace(study, datasets={"digits": study.datasets["digits"], "photos": study.datasets["digits"]})
    asked, helped, first = sentences(both, planted(gmm(20, 5, 6, 10) | N))
    assert asked.endswith("all 2 regularized models are surely better; on photos, nothing is known yet.")
    assert asked.startswith("On digits, yes: ")
    assert "photos" not in helped + first
    assert sentences(study, planted(N, dataset="photos")) == ["Nothing is known yet."]


def test_what_is_the_same_of_two_data_sets_is_said_once(study):
    spec = replace(
        study,
        datasets={"digits": study.datasets["digits"], "photos": study.datasets["digits"]},
    )
    frame = pd.concat([planted(gmm(20, 5, 6, 10) | N, dataset=name) for name in spec.datasets])
    asked, *_ = sentences(spec, frame)
    assert asked == f"On digits and photos, yes: {AGAINST}all 2 regularized models are surely better."


def test_one_seed_decides_nothing(study):
    frame = planted(gmm(20, 5, 6, 10) | N, seeds=1)
    assert sentences(study, frame) == [
        "Undecided: one training seed decides nothing.",
        "Of the models in column GMM, RAE-GP has the lowest mean distance; against it none of 3 other models is surely"
        " better, equal or surely worse.",
    ]
    assert next(one.text for one in standings(study, frame, "digits")) == "CV-VAE 4.00"  # no interval is known


def test_without_a_mixture_another_column_stands_in(study):
    n = {("cv_vae", "n"): 10.0, ("rae_gp", "n"): 5.0, ("rae_l2", "n"): 20.0, ("ae", "n"): 30.0}
    frame = planted(n)
    assert ranked_column(study, frame, "digits") == "n"
    asked, first = sentences(study, frame)
    assert asked == (
        "Mixed: with one Gaussian, against the best variational cell (CV-VAE N), of 2 regularized models 1 is surely"
        " better and 1 is surely worse."
    )
    assert first.startswith("Of the models in column N, RAE-GP has")


def test_rows_that_the_claim_does_not_speak_of_ask_nothing(study):
    spec = replace(study, order=("ae", "rae_l2"))
    asked, *_ = sentences(spec, planted({("ae", "gmm"): 3.0, ("rae_l2", "gmm"): 4.0}))
    assert asked == "Not asked: no regularized model stands beside a variational one."


def test_no_sentence_says_what_a_verdict_contradicts():
    """Every count is that of its word, nothing is left out, and the lead follows from the words."""
    for words in (found for n in (1, 2, 3, 4) for found in itertools.product(WORDS, repeat=n)):
        text = counted(list(words), "model")
        found = dict.fromkeys(WORDS, 0)
        if re.fullmatch(r"none of (\d+) models is .*", text):
            found["undecided"] = len(words)
        elif match := re.fullmatch(r"(?:all (\d+) models are|the one model is) (.*)", text):
            found[next(word for word, said in SAID.items() if said == match[2])] = int(match[1] or 1)
        else:
            for number, said in re.findall(r"(\d+) (?:is|are) (surely better|equal|undecided|surely worse)", text):
                found[next(word for word, one in SAID.items() if one == said)] = int(number)
        assert found == {word: words.count(word) for word in WORDS}
        expected = {
            "yes": not {"undecided", "worse"} & set(words),
            "no": set(words) == {"worse"},
            "undecided": set(words) == {"undecided"},
        }
        assert lead(words) == next((name for name, holds in expected.items() if holds), "mixed")


def test_ratios_are_those_to_the_best_and_baselines_stand_apart(study):
    found = {one.row: one for one in standings(study, planted(gmm(10, 5, 5.02, 30, linear=1.0)), "digits")}
    assert list(found) == list(study.order)  # the study's order, in every figure
    assert [round(one.ratio, 2) for one in found.values()] == [2.0, 1.0, 1.0, 6.0, 0.2]
    assert [one.word for one in found.values()] == ["worse", None, "equal", "worse", None]
    assert all(one.low <= one.ratio <= one.high for one in found.values())


def test_a_generators_images_stand_apart_as_baselines_do(study):
    """They vary by no training seed, so no word is said of them; and the answer counts models alone."""
    frame = planted(gmm(10, 5, 5.02, 30, linear=1.0))
    mine = frame["model"] == "linear"
    frame.loc[mine & (frame["density"] == study.rows["linear"].gmm), "density"] = "generated_gmm"
    gan = replace(study.rows["linear"], family="own", n="", gmm="", generated={"gmm": GeneratedImages("made", "")})
    made = replace(study, rows={**study.rows, "linear": gan})
    (found,) = [one for one in standings(made, frame, "digits") if one.row == "linear"]
    assert (found.family, found.word, round(found.ratio, 2)) == ("baseline", None, 0.2)
    assert sentences(made, frame) == sentences(study, planted(gmm(10, 5, 5.02, 30)))


def test_the_best_row_is_shown_beside_the_best_of_other_families(study):
    assert shown_rows(study, planted(gmm(10, 5, 4, 30, linear=1.0)), "digits") == ["rae_l2", "cv_vae", "ae"]
    two = replace(study, order=("rae_gp", "rae_l2", "linear"))
    assert shown_rows(two, planted(gmm(10, 5, 4, 30, linear=1.0)), "digits") == ["rae_l2", "rae_gp"]
