"""Own priors and fitted densities side by side, and the spread of the rows, from planted distances."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rae_bench.report.answer import ERASURE, question, sentences
from rae_bench.report.rendering import latex, markdown
from rae_bench.report.tables.catalogue import build
from rae_bench.report.tables.cells import place
from rae_bench.report.tables.spread import own_priors, prior_table, spread_rows, spread_table
from rae_bench.study.config import load_study, resolve_study
from rae_bench.study.results import COLUMNS

SPEC = load_study("variants").summary()
PRIORS = {
    *("vae", "sigma_vae", "sigma_vae_learnt", "free_bits_vae", "capacity_vae", "tc_vae", "dip_vae_1", "dip_vae_2"),
    *(
        "cv_vae_small",
        "info_vae",
        "mmd_vae",
        "iwae",
        "vae_mixture",
        "vampprior",
        "wae",
        "vq_vae",
        "sphere_ae",
        "sigreg_ae",
    ),
}


def planted(own, fitted, noise=0.01, seeds=(0, 1, 2)):
    """Fréchet distances: under a prior of its own the study's row i has `own`[i], in every other column `fitted`."""
    rng, lines, priors = np.random.default_rng(0), {}, own_priors(SPEC, "digits")
    for i, (name, row) in enumerate(SPEC.ordered_rows.items()):
        columns = dict.fromkeys(("reconstruction", "gaussian", "gmm", "gmm_selected", "interpolation"), fitted)
        columns |= {priors[name]: np.broadcast_to(own, len(SPEC.order))[i]} if name in priors else {}
        for column, mean in columns.items():
            image_set, density = place(row, column)
            for seed in seeds:
                run = {"model": row.model, "image_set": image_set, "density": density, "train_seed": seed}
                lines[tuple(run.values())] = {**run, "value": mean * np.exp(noise * rng.standard_normal())}
    alike = {
        "dataset": "digits",
        "metric": "frechet_distance",
        "fit_seed": 0,
        "sample_seed": 0,
        "floor": 0.01,
        "floor_sd": 0.001,
    }
    counts = {"n_reference": 1000, "n_generated": 5000, "extractor": "digits", "extractor_label": "digits"}
    return pd.DataFrame(lines.values()).assign(**alike, **counts).reindex(columns=COLUMNS)


def test_a_rows_own_prior_is_what_its_objective_draws_codes_to_whatever_its_column_n():
    learnt = {"vae_mixture": "learnt_prior", "vampprior": "learnt_prior", "vq_vae": "uniform_indices"}
    assert own_priors(SPEC, "digits") == {name: learnt.get(name, "standard_normal") for name in PRIORS}
    found = own_priors(load_study("digits").summary(), "digits")
    assert set(found) == {"vae", "cv_vae", "wae"}  # CV-VAE's column N is a Gaussian, 2sVAE's another model's
    normal = {name: replace(row, n="standard_normal") for name, row in SPEC.rows.items()}
    assert own_priors(replace(SPEC, rows=normal), "digits") == own_priors(SPEC, "digits")


OWN = np.linspace(1.0, 3.0, 24) + 0.5 * (np.arange(24) > 0)
"""Under own priors the last row lies at three and a half times the first."""


@pytest.fixture(scope="module")
def erased():
    """All rows alike once a density is fitted."""
    return planted(OWN, 1.0)


def test_every_row_stands_in_every_column_and_an_own_prior_where_there_is_one(erased):
    table = prior_table(SPEC, erased, "digits")
    assert table.header == ["", "Rec.", "Own prior", "Gaussian", "GMM", "GMM, selected K", "Interp."]
    shown = dict(zip(SPEC.order, table.rows, strict=True))
    for i, (name, cells) in enumerate(shown.items()):
        assert (cells[2] != "–") == (name in PRIORS)
        if name in PRIORS:
            assert float(cells[2].split()[0]) == pytest.approx(OWN[i], rel=0.02)
        assert all(float(cells[j].split()[0]) == pytest.approx(1, rel=0.02) for j in (1, 3, 4, 5, 6))
    bold = [list(shown)[i] for i, j in table.bold if j == 2]
    assert bold == ["vae"]
    assert {j for _, j in table.bold} == {1, 2, 3, 4, 5, 6}


def test_the_spread_is_the_worst_rows_ratio_to_the_best_and_erased_where_it_is_small(erased):
    table = spread_table(SPEC, erased, "digits")
    found = table.data.set_index("column")
    having = [OWN[i] for i, name in enumerate(SPEC.order) if name in PRIORS]
    assert list(found.index) == ["own", "gaussian", "gmm", "gmm_selected"]
    assert (found.loc["own", "best"], found.loc["own", "worst"]) == ("vae", "sigreg_ae")
    assert found.loc["own", "ratio"] == pytest.approx(max(having) / min(having), rel=0.03)
    assert found.loc["own", "low"] < max(having) / min(having) < found.loc["own", "high"]
    assert list(found["word"]) == ["", "erased", "erased", "erased"]
    assert "18 models" in table.title


@pytest.mark.parametrize(
    ("own", "fitted", "noise", "word"),
    [
        (1.0, 1.0, 0.01, "undecided"),  # nothing to erase
        (OWN, 1.0, 0.5, "undecided"),
        (1.0, OWN, 0.01, "wider"),
    ],
)
def test_a_spread_is_called_what_its_interval_bears_out(own, fitted, noise, word):
    frame = planted(own, 1.0, noise)
    if np.ndim(fitted):
        scale = dict(zip((row.model for row in SPEC.ordered_rows.values()), fitted, strict=True))
        is_fitted = frame["density"].isin(["gmm10", "gmm_selected", "gaussian"])
        frame.loc[is_fitted, "value"] *= frame.loc[is_fitted, "model"].map(scale)
    found = spread_table(SPEC, frame, "digits").data.set_index("column")
    assert found.loc["gmm", "word"] == word


def test_a_spread_that_is_narrower_but_may_be_beyond_equal_is_called_so():
    frame = planted(OWN, 1.0)
    is_fitted = frame["density"] == "gmm10"
    frame.loc[is_fitted & (frame["model"] == "wae"), "value"] *= 1.4
    assert spread_table(SPEC, frame, "digits").data.set_index("column").loc["gmm", "word"] == "narrower"


def test_a_row_that_fails_for_some_seeds_is_left_out_of_every_line(erased):
    """Else the range of rows that vary alike would be taken of one that does not."""
    is_wild = (erased["model"] == "vampprior") & (erased["density"] == "gmm10") & (erased["train_seed"] > 0)
    failing = erased.assign(value=erased["value"].where(~is_wild, 5 * erased["value"]))
    table, without = (spread_table(SPEC, one, "digits") for one in (failing, erased[erased["model"] != "vampprior"]))
    assert table.data["ratio"].tolist() == pytest.approx(without.data["ratio"].tolist())
    assert table.data["high"].tolist() == pytest.approx(without.data["high"].tolist())
    assert "Left out: VampPrior, from seed to seed" in " ".join(table.notes)
    assert "the worst of 17 models" in table.title


def test_one_training_seed_bounds_no_spread():
    table = spread_table(SPEC, planted(OWN, 1.0, seeds=(0,)), "digits")
    assert [row[4] for row in table.rows] == ["–"] * 4
    assert list(table.data["word"]) == ["", *["undecided"] * 3]


def test_a_study_with_one_prior_of_a_models_own_has_no_spread(erased):
    rows = tuple(name for name in SPEC.order if name not in PRIORS - {"vae"})
    few = replace(SPEC, order=rows, rows={name: SPEC.rows[name] for name in rows}, tables=("priors",))
    assert [table.name for table in build(few, erased, None)] == ["priors_digits"]


def test_the_answer_to_a_study_of_priors_is_the_tables(erased):
    assert question(SPEC) == ERASURE
    asked, helped, first = sentences(SPEC, erased)
    own, gaussian, gmm, selected = (
        dict(zip(("", "", "", "ratio", "within", "word"), row, strict=True))
        for row in spread_table(SPEC, erased, "digits").rows
    )
    fitted = [
        f"{line['ratio']} times with {name} ({line['within']}, erased)"
        for name, line in (("Gaussian", gaussian), ("GMM", gmm), ("GMM, selected K", selected))
    ]
    assert asked == (
        "With Gaussian, with GMM and with GMM, selected K surely erased: the worst of 18 models lies"
        f" {own['ratio']} times as far as the best under their own priors ({own['within']}), {fitted[0]}, {fitted[1]}"
        f" and {fitted[2]}."
    )
    assert helped.startswith("Under a GMM fitted ex post")
    assert first.startswith("Of the models in column GMM")
    noisy = planted(1.0, 1.0)
    assert sentences(SPEC, noisy)[0].startswith("Nowhere surely erased: the worst of 18 models lies 1.")
    assert sentences(SPEC, planted(OWN, 1.0, seeds=(0,)))[0] == "Undecided: one training seed decides nothing."


def test_a_study_without_a_question_has_no_answer(erased):
    spec = replace(SPEC, tables=("claims",))
    assert question(spec) == ""
    assert sentences(spec, erased) == []


def test_a_row_that_is_left_out_is_named_in_the_answer(erased):
    is_wild = (erased["model"] == "vampprior") & (erased["density"] == "gmm10") & (erased["train_seed"] > 0)
    failing = erased.assign(value=erased["value"].where(~is_wild, 5 * erased["value"]))
    assert sentences(SPEC, failing)[0].endswith(
        "; VampPrior left out, for a spread over seeds surely larger than the others'."
    )


def _variants(rows, densities, *tables):
    return resolve_study(
        "some", replace(load_study("variants").file, rows=rows, densities=densities, tables=tables)
    ).summary()


def test_a_density_that_no_row_can_have_is_not_looked_for():
    """A study without VQ-VAE has nobody for the entries of a codebook."""
    spec = _variants(("vae", "ae"), ("standard_normal", "gaussian", "gmm10", "uniform_indices"), "priors")
    assert spec.densities == ("standard_normal", "gaussian", "gmm10")
    assert own_priors(spec, "digits") == {"vae": "standard_normal"}


def test_a_study_of_priors_need_not_have_a_gaussian_nor_a_mixture(erased):
    two = _variants(("vae", "wae"), ("standard_normal", "gmm10"), "priors", "comparisons", "claims")
    found = {table.name: table for table in build(two, erased, None)}
    assert [row[0] for row in found["spread_digits"].rows] == ["Own prior", "GMM"]
    assert found["priors_digits"].header == ["", "Rec.", "Own prior", "GMM", "Interp."]
    rows = {name: replace(row, gmm="") for name, row in two.rows.items()}
    bare = replace(two, rows=rows, densities=("standard_normal",))
    assert spread_rows(bare, "digits") == []
    assert [table.name for table in build(bare, erased, None)] == ["priors_digits", "claims"]
    assert sentences(bare, erased)[0] == (
        "Not asked: no two models have priors of their own and a density fitted ex post."
    )


def test_a_study_of_one_row_makes_its_tables(erased):
    spec = _variants(("ae",), ("gaussian", "gmm10"), "claims", "comparisons")
    spec = replace(spec, rows={"ae": replace(spec.rows["ae"], gmm="")})
    (table,) = build(spec, erased, None)
    assert table.rows == []
    assert "tabular" in latex(table)
    assert markdown(table)
