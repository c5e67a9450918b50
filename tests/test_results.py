"""Metric files to one tidy frame, refused where they do not belong together."""

import math

import pandas as pd
import pytest

import rae_bench
from rae_bench.results import COLUMNS, KEYS, Context, ResultError, collect, run_frame

CONTEXT = Context(
    study="digits",
    dataset="digits",
    is_synthetic=False,
    model="vae",
    train_seed=3,
    n_generated=1000,
    n_reference=1000,
    reference_split="test",
    extractor="net@32",
    extractor_label="Net",
    train_fingerprint="t" * 16,
    evaluate_fingerprint="e" * 16,
)
ROWS = [
    {"image_set": "reconstruction", "metric": "frechet_distance", "value": 1.5},
    {"image_set": "sample", "density": "gmm10", "sample_seed": 7, "metric": "frechet_distance", "value": 2.5},
]
FITS = {
    "gmm10": {"fingerprint": "f" * 16, "log_likelihood": {"train": -3.0, "validation": -4.0}},
    "second_stage": {"fingerprint": "s" * 16, "log_likelihood": {"train": None, "validation": None}},
}
REFERENCE = {"floor": {"frechet_distance": 0.25}, "pca_squared_error": 30.5}


def _frame(**changes):
    return run_frame(Context(**{**vars(CONTEXT), **changes}), ROWS, FITS, REFERENCE)


def _one(frame, **wanted):
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def test_a_run_is_one_value_a_row_with_what_is_needed_to_read_it():
    frame = _frame()
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 5  # two measured, two log-likelihoods, PCA's error
    sample = _one(frame, image_set="sample")
    assert (sample["value"], sample["floor"], sample["density"], sample["sample_seed"]) == (2.5, 0.25, "gmm10", 7)
    assert (sample["model"], sample["train_seed"], sample["n_generated"]) == ("vae", 3, 1000)
    assert (sample["train_fingerprint"], sample["fit_fingerprint"]) == ("t" * 16, "f" * 16)
    assert sample["package_version"] == rae_bench.__version__


def test_reconstructions_have_no_density_and_no_fit():
    row = _one(_frame(), image_set="reconstruction", metric="frechet_distance")
    assert (row["density"], row["fit_fingerprint"], row["sample_seed"]) == ("", "", 0)


def test_log_likelihoods_are_rows_where_the_density_has_one():
    frame = _frame()
    assert _one(frame, metric="log_likelihood_train")["value"] == -3.0
    assert _one(frame, metric="log_likelihood_validation")["density"] == "gmm10"
    assert math.isnan(_one(frame, metric="log_likelihood_train")["floor"])


def test_the_error_of_pca_is_a_row():
    assert _one(_frame(), metric="pca_squared_error")["value"] == 30.5


def test_the_order_of_files_does_not_matter():
    frames = [_frame(), _frame(train_seed=1), _frame(model="rae"), _frame(dataset="photos", extractor="other@96")]
    forwards, backwards = collect(frames), collect(frames[::-1])
    pd.testing.assert_frame_equal(forwards, backwards)
    assert len(forwards) == 20
    assert not forwards.duplicated(KEYS).any()


def test_a_value_that_stands_twice_is_refused():
    with pytest.raises(ResultError, match=r"hold a value twice: .*'model': 'vae', 'train_seed': 3") as error:
        collect([_frame(train_seed=1), _frame(), _frame()])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [("extractor", "other@96"), ("n_generated", 500), ("n_reference", 500), ("reference_split", "validation")],
)
def test_runs_measured_by_different_rulers_are_refused(column, value):
    with pytest.raises(ResultError, match=rf"runs of 'digits' differ in {column}: .*{value}") as error:
        collect([_frame(), _frame(train_seed=4, **{column: value})])
    assert "\n" not in str(error.value)
