"""Metric files to one tidy frame, refused where they do not belong together."""

import math

import pandas as pd
import pytest

import rae_bench
from rae_bench.base.plain import fingerprint
from rae_bench.study.config import load_study
from rae_bench.study.results import (
    COLUMNS,
    KEYS,
    Floor,
    ResultError,
    check_runs,
    collect,
    collect_panels,
    gpus,
    run_frame,
    warnings,
    with_gpus,
)

STUDY = load_study("smoke")
EVALUATION = STUDY.evaluation("digits_mini", "vae")
RUN = {
    **{"study": "digits", "dataset": "digits", "is_synthetic": False, "model": "vae", "train_seed": 3},
    **{"n_features": 128, "extractor": "net@32", "extractor_label": "Net"},
}
ROWS = [
    {"image_set": "reconstruction", "metric": "frechet_distance", "value": 1.5},
    {"image_set": "sample", "density": "gmm10", "fit_seed": 1, "sample_seed": 7, "n_generated": 600}
    | {"metric": "frechet_distance", "value": 2.5},
]
FITS = {
    "gmm10": {"fingerprint": "f" * 16, "log_likelihood": {"1": {"train": -3.0, "validation": -4.0}}},
    "second_stage": {"fingerprint": "s" * 16, "log_likelihood": {"0": {"train": None, "validation": None}}},
}
FLOOR = Floor({"frechet_distance": 0.25, "frechet_distance_half_sd": 0.05}, 1.0, "net@32", "Net", "")


def _frame(rows=None, **changes):
    """One run's frame; changes are of columns."""
    return run_frame(EVALUATION, RUN, rows or ROWS, FITS, FLOOR).assign(**changes)


def _one(frame, **wanted):
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_a_run_is_one_value_a_row_with_what_is_needed_to_read_it():
    frame = _frame()
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 4  # two measured, two log-likelihoods
    sample = _one(frame, image_set="sample")
    assert (sample["value"], sample["floor"], sample["density"]) == (2.5, 0.25, "gmm10")
    assert (sample["fit_seed"], sample["sample_seed"], sample["n_generated"]) == (1, 7, 600)
    assert sample["floor_sd"] == 0.05
    assert (sample["model"], sample["train_seed"]) == ("vae", 3)
    assert _one(frame, metric="log_likelihood_train")["fit_seed"] == 1
    assert _one(frame, image_set="reconstruction", metric="frechet_distance")["n_generated"] == EVALUATION.n_images
    assert sample["train_fingerprint"] == fingerprint(EVALUATION.training)
    assert (sample["evaluate_fingerprint"], sample["fit_fingerprint"]) == (fingerprint(EVALUATION), "f" * 16)
    assert sample["package_version"] == rae_bench.__version__


def test_log_likelihoods_are_rows_where_the_density_has_one():
    frame = _frame()
    assert _one(frame, metric="log_likelihood_train")["value"] == -3.0
    assert _one(frame, metric="log_likelihood_validation")["density"] == "gmm10"
    assert math.isnan(_one(frame, metric="log_likelihood_train")["floor"])


def test_the_order_of_files_does_not_matter():
    frames = [_frame(), _frame(train_seed=1), _frame(model="rae"), _frame(dataset="photos", extractor="other@96")]
    forwards, backwards = collect(frames), collect(frames[::-1])
    pd.testing.assert_frame_equal(forwards, backwards)
    assert len(forwards) == 16
    assert not forwards.duplicated(KEYS).any()


def test_a_value_that_stands_twice_is_refused():
    with pytest.raises(ResultError, match=r"hold a value twice: .*'model': 'vae', 'train_seed': 3") as error:
        collect([_frame(train_seed=1), _frame(), _frame()])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("extractor", "other@96"), ("n_generated", 500), ("n_reference", 500)),
        *(("n_features", 64), ("reference_split", "validation")),
        *(("device", "cuda"), ("tf32", True), ("precision", "bfloat16")),
    ],
)
def test_runs_measured_by_different_rulers_are_refused(column, value):
    with pytest.raises(ResultError, match=rf"runs of 'digits' differ in {column}: .*{value}") as error:
        collect([_frame(), _frame(train_seed=4, **{column: value})])
    assert "\n" not in str(error.value)


def test_given_images_have_no_precision_of_a_training():
    """Beside models that were trained in bfloat16, too."""
    given = _frame(model="training_images", train_fingerprint="", precision="float32")
    assert len(collect([_frame(precision="bfloat16"), given])) == 2 * len(given)


def test_the_gpus_of_a_frame_are_those_of_its_runs_each_once():
    frames = [_frame(device="cuda", train_seed=seed) for seed in (3, 4, 5)]
    known = ([], ["A, driver 1"], ["A, driver 1", "B, driver 1"])
    frame = collect([with_gpus(one, names) for one, names in zip(frames, known, strict=True)])
    assert gpus(frame) == ["A, driver 1", "B, driver 1"]
    assert gpus(frame[frame["train_seed"] == 4]) == ["A, driver 1"]
    assert gpus(frame[frame["train_seed"] == 3]) == []
    assert gpus(collect([_frame()])) == []  # a CPU study: there is no such column


# --- the runs of a study ----------------------------------------------------------------------------------

SPEC = STUDY.summary()
RUNS = [(model, seed) for model in ("linear", "training_images", "vae", "rae_l2") for seed in (0, 1)]
PANELLED = [run for run in RUNS if run[0] in ("vae", "rae_l2")]


def _run(model, train_seed, changes=None):
    made_with = {"evaluate_fingerprint": SPEC.evaluations["digits_mini"][model]}
    given = {"study": "smoke", "dataset": "digits_mini", "model": model, "train_seed": train_seed}
    return _frame(**given | made_with | (changes or {}))


def _whole():
    metrics = {f"{model}{seed}.parquet": _run(model, seed) for model, seed in RUNS}
    panels = {}
    for model, seed in PANELLED:
        made_with = SPEC.panels["digits_mini"][model]
        panels[f"{model}{seed}.panel"] = _panel(model).assign(
            dataset="digits_mini", train_seed=seed, protocol_fingerprint=made_with
        )
    return metrics, panels


def test_the_runs_of_a_study_may_be_collected():
    check_runs(SPEC, *_whole())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"study": "digits"}, "vae1.parquet: of the study digits, not 'smoke'"),
        ({"dataset": "photos"}, "vae1.parquet: of photos/vae, seed 1, which is no run of the study 'smoke'"),
        ({"model": "ae"}, "vae1.parquet: of digits_mini/ae, seed 1, which is no run of"),
        ({"train_seed": 7}, "vae1.parquet: of digits_mini/vae, seed 7, which is no run of"),
        ({"train_seed": 0}, "vae1.parquet: of digits_mini/vae, seed 0, as vae0.parquet is; each run once"),
        (
            {"evaluate_fingerprint": "f" * 16},
            f"vae1.parquet: scored with other settings (evaluate_fingerprint {'f' * 16}) than the study's ("
            f"{SPEC.evaluations['digits_mini']['vae']}); delete it",
        ),
    ],
)
def test_metrics_of_another_run_or_other_settings_are_refused_by_name(changes, expected):
    metrics, panels = _whole()
    metrics["vae1.parquet"] = _run("vae", 1, changes)
    with pytest.raises(ResultError) as error:
        check_runs(SPEC, metrics, panels)
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda panel: panel.assign(protocol_fingerprint="f"), "rae_l20.panel: scored with other settings"),
        (lambda panel: panel.assign(train_seed=1), "rae_l21.panel: of digits_mini/rae_l2, seed 1, as rae_l20.panel is"),
        (lambda panel: panel.drop(columns="model"), "rae_l20.panel: holds no column 'model'"),
        (lambda panel: panel.assign(train_seed=[0, 1]), "rae_l20.panel: holds 2 runs or settings, expected one"),
        (lambda panel: panel[:0], "rae_l20.panel: holds 0 runs or settings, expected one"),
    ],
)
def test_panels_of_another_run_or_other_settings_are_refused_by_name(damage, expected):
    metrics, panels = _whole()
    panels["rae_l20.panel"] = damage(panels["rae_l20.panel"])
    with pytest.raises(ResultError) as error:
        check_runs(SPEC, metrics, panels)
    assert str(error.value).startswith(expected)


def test_a_frame_that_is_no_metrics_file_is_refused_by_name():
    metrics, panels = _whole()
    metrics["vae1.parquet"] = pd.DataFrame({"epoch": [0, 1]})
    with pytest.raises(ResultError, match=r"^vae1.parquet: of the study \?, not 'smoke'"):
        check_runs(SPEC, metrics, panels)


@pytest.mark.parametrize("kind", [0, 1])
def test_a_run_that_is_missing_is_named(kind):
    whole = _whole()
    whole[kind].popitem()
    with pytest.raises(ResultError, match=r"^no file is of digits_mini/rae_l2, seed 1; the study asks for it$"):
        check_runs(SPEC, *whole)


# --- warnings ---------------------------------------------------------------------------------------------


def _sample(metric, value, image_set="sample"):
    return {"image_set": image_set, "density": "gmm10", "metric": metric, "value": value}


def test_ordinary_numbers_need_no_warning():
    assert warnings(_frame(rows=[_sample("frechet_distance", 0.11), _sample("precision", 0.5)])) == []


def test_fewer_images_than_two_a_feature_are_warned_of():
    (found,) = warnings(_frame(n_features=151))
    assert "digits: 300 images for 151 features, fewer than 2 a feature" in found
    assert warnings(_frame(n_features=150)) == []


def test_samples_better_than_real_images_are_warned_of_and_reconstructions_are_not():
    # three SDs of 0.05 below 0.25
    (found,) = warnings(_frame(rows=[_sample("frechet_distance", 0.09)]))
    assert "vae seed 3, sample of gmm10: frechet_distance 0.09 is more than 3 SDs below the floor, 0.25" in found
    assert warnings(_frame(rows=[_sample("frechet_distance", 0.01, "reconstruction")])) == []


@pytest.mark.parametrize(("metric", "value"), [("precision", 1.0), ("recall", 0.0)])
def test_saturated_precision_and_recall_are_warned_of(metric, value):
    (found,) = warnings(_frame(rows=[_sample(metric, value)]))
    assert found == f"digits: vae seed 3, sample of gmm10: {metric} is saturated at {value:g}"


# --- panels -----------------------------------------------------------------------------------------------


def _panel(model="vae", protocols=("own", "half"), value=1.0):
    return pd.DataFrame(
        {
            "dataset": "digits",
            "model": model,
            "train_seed": 0,
            "density": "gmm10",
            "fit_seed": 0,
            "sample_seed": 0,
            "protocol": list(protocols),
            "value": value,
        }
    )


def test_panels_are_collected_in_any_order():
    panels = [_panel(), _panel("rae")]
    pd.testing.assert_frame_equal(collect_panels(panels), collect_panels(panels[::-1]))


def test_panels_of_other_protocols_do_not_mix():
    with pytest.raises(
        ResultError, match=r"runs were scored by different protocols: \[\('half', 'own'\), \('own',\)\]"
    ):
        collect_panels([_panel(), _panel("rae", protocols=("own",))])


def test_a_panels_value_that_stands_twice_is_refused():
    with pytest.raises(ResultError, match="the panel holds a value twice"):
        collect_panels([_panel(), _panel()])
