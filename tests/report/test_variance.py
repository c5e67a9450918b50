"""The sources of variance on planted distances whose SDs are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rae_bench.report.tables.variance import Estimate, half_width, sources, variance_table
from rae_bench.study.specs import Row

PLANTED = {"training": 0.07, "fit": 0.12, "draw": 0.03}
TRAININGS, FITS, DRAWS = 200, 4, 3
ROWS = {
    "vae": Row("VAE", "variational", "vae", "standard_normal", "gmm10", ""),
    "two": Row("2sVAE", "variational", "vae", "second_stage", "", "second_stage"),  # the same weights: counted once
    "rae": Row("RAE", "regularized", "rae_l2", "gaussian", "gmm10", ""),
}


def _planted(model, density, fits, rng, repeats=None):
    """Distances whose logarithms are sums of independent normal errors, as the model of the table has it."""
    frame = pd.DataFrame(
        [(t, f, d) for t in range(repeats or TRAININGS) for f in range(fits) for d in range(DRAWS)],
        columns=["train_seed", "fit_seed", "sample_seed"],
    )
    logs = rng.normal(0, PLANTED["draw"], len(frame))
    for source, names in (("training", ["train_seed"]), ("fit", ["train_seed", "fit_seed"])):
        if source == "fit" and fits == 1:
            continue
        codes = frame.groupby(names).ngroup()
        logs += rng.normal(0, PLANTED[source], codes.max() + 1)[codes]
    about = {"dataset": "digits_mini", "model": model, "image_set": "sample", "density": density}
    values = frame.assign(**about, metric="frechet_distance", value=5 * np.exp(logs))
    first = values[(values["fit_seed"] == 0) & (values["sample_seed"] == 0)]
    halves = first.assign(metric="frechet_distance_reference_sd", value=0.04 * first["value"])
    return pd.concat([values, halves])


@pytest.fixture
def spec(smoke_spec):
    return replace(smoke_spec, rows=ROWS, order=tuple(ROWS))


@pytest.fixture
def frame():
    rng = np.random.default_rng(3)
    parts = [_planted(model, "gmm10", FITS, rng) for model in ("vae", "rae_l2")]
    parts += [_planted("vae", "standard_normal", 1, rng), _planted("rae_l2", "gaussian", 1, rng)]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("source", list(PLANTED))
def test_planted_sds_are_found_within_their_error(spec, frame, source):
    found = sources(spec, frame, "digits_mini", "gmm")[source]
    assert found.sd == pytest.approx(PLANTED[source], abs=3 * found.error)
    assert 0 < found.error < 0.1 * PLANTED[source]


def test_the_order_of_rows_of_the_same_weights_changes_nothing(spec, frame):
    turned = replace(spec, order=("two", "vae", "rae"))
    for column in ("gmm", "n"):
        assert (
            sources(turned, frame, "digits_mini", column)["fit"] == sources(spec, frame, "digits_mini", column)["fit"]
        )


def test_the_references_sd_is_that_of_its_halves(spec, frame):
    assert sources(spec, frame, "digits_mini", "gmm")["reference"].sd == pytest.approx(0.04)


def test_a_density_without_chance_has_no_spread_of_fits(spec, frame):
    found = sources(spec, frame, "digits_mini", "n")
    assert np.isnan(found["fit"].sd)
    for source in ("training", "draw"):
        assert found[source].sd == pytest.approx(PLANTED[source], abs=3 * found[source].error)


def test_the_half_width_is_that_of_ratios_that_are_drawn():
    """Ratios of two planted cells of 3 trainings, 4 fits and 3 draws: 95 % lie within the half-width."""
    rng = np.random.default_rng(8)
    logs = []
    for _ in range(300):
        pair = [_planted("vae", "gmm10", FITS, rng, repeats=3) for _ in range(2)]
        means = [np.log(part.loc[part["metric"] == "frechet_distance", "value"]).mean() for part in pair]
        logs.append(means[0] - means[1])
    found = {{"training": "paired"}.get(name, name): Estimate(sd**2, 0.0) for name, sd in PLANTED.items()}
    assert half_width(found, (3, 4, 3)) == pytest.approx(np.expm1(1.96 * np.std(logs)), rel=0.15)


def test_twice_as_many_of_each_source_buys_what_it_varies(spec, frame):
    data = variance_table(spec, frame, "digits_mini").data.set_index("column")
    assert np.isnan(data.loc["n", "half_width_twice_fit"])  # no density there is fitted twice
    assert data.loc["gmm", "half_width_twice_paired"] < data.loc["gmm", "half_width_twice_fit"]
    assert data.loc["gmm", "half_width_twice_fit"] < data.loc["gmm", "half_width"]
    assert data.loc["gmm", ["n_training", "n_fit", "n_draw"]].tolist() == [TRAININGS, FITS, DRAWS]
    assert list(data.index) == ["n", "standard_normal", "gaussian", "gmm"]


def test_one_training_seed_tells_no_half_width(spec, frame):
    one = frame[frame["train_seed"] == 0]
    table = variance_table(spec, one, "digits_mini")
    assert table.data["half_width"].isna().all()
    assert {row[6] for row in table.rows} == {"–"}


def test_what_a_seed_does_to_all_rows_alike_cancels_in_ratios(spec):
    """Three models that share half of their training variance: the rest is what is paired."""
    rng = np.random.default_rng(11)
    rows = {name: replace(ROWS["vae"], model=name) for name in ("one", "two", "three")}
    spec = replace(spec, rows=rows, order=tuple(rows))
    parts = [_planted(name, "gmm10", FITS, rng) for name in rows]
    shared = rng.normal(0, 0.07, TRAININGS)
    common = [part.assign(value=part["value"] * np.exp(shared[part["train_seed"]])) for part in parts]
    found = sources(spec, pd.concat(common, ignore_index=True), "digits_mini", "gmm")
    assert found["training"].sd == pytest.approx(0.07 * np.sqrt(2), abs=3 * found["training"].error)
    assert found["paired"].sd == pytest.approx(0.07, abs=3 * found["paired"].error)


def test_an_error_is_as_large_as_estimates_vary_from_study_to_study(spec):
    """Of studies of the size of `digits`, whose rows share half of the variance of training."""
    rng = np.random.default_rng(13)
    rows = {f"row{i}": replace(ROWS["vae"], model=f"row{i}") for i in range(6)}
    spec = replace(spec, rows=rows, order=tuple(rows))
    found = []
    for _ in range(60):
        parts, shared = [_planted(name, "gmm10", FITS, rng, repeats=3) for name in rows], rng.normal(0, 0.07, 3)
        frame = pd.concat([part.assign(value=part["value"] * np.exp(shared[part["train_seed"]])) for part in parts])
        found.append(sources(spec, frame, "digits_mini", "gmm"))
    for source in ("training", "paired", "fit", "draw"):
        variances = np.array([(one[source].variance, one[source].variance_error) for one in found])
        assert variances[:, 1].mean() == pytest.approx(variances[:, 0].std(), rel=0.3), source
        truth = (2 if source == "training" else 1) * PLANTED[{"paired": "training"}.get(source, source)] ** 2
        assert variances[:, 0].mean() == pytest.approx(truth, abs=3 * variances[:, 0].std() / np.sqrt(60)), source
