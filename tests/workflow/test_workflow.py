"""The workflow as users run it: what it plans, what a change reruns, and what survives a failure or a kill."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import yaml
from checkout import ROOT, Checkout, environment, our_lines, put, refusal, unshared

from rae_bench.base import storage
from rae_bench.run.jobs import read_state, study_jobs
from rae_bench.study.config import load_study

SUMMARIES = ["collect", "tables", "figures", "report"]
STAGES = ["prepare", "reference", "floor", "train", "fit", "evaluate", "protocols", *SUMMARIES]
TARGETS = [f"results/smoke/digits_mini/rae_l2/seed{seed}/model.safetensors" for seed in (0, 1)]


# --- plans ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "datasets", "models", "seeds", "references", "panels", "given"),
    [
        *[("digits", 1, 10, 3, 3, 0, 1), ("embedded", 3, 10, 3, 9, 0, 1), ("smoke", 1, 3, 2, 5, 4, 1)],
        *[("paper_clean", 3, 10, 5, 9, 0, 1), ("paper_as_described", 3, 9, 3, 9, 0, 0)],
        *[("paper_as_released", 3, 9, 3, 11, 0, 0), ("smoke_cuda", 1, 5, 1, 3, 0, 1)],
    ],
)
def test_a_study_plans_each_job_once(fresh, study, datasets, models, seeds, references, panels, given):
    """Three densities for each run, and the second stage for each of the VAE's; 2sVAE is a row, not a training.

    Digits: 30 trainings, 30 x 3 + 3 fits, 33 evaluations, three of given images. References: test, floor and training
    images of each data set; of smoke's four protocols truncation shares the study's own, another split the floor's. The
    official code draws PRD against its validation images: on MNIST and CIFAR-10 one more reference, on CelebA the
    floor's own. What is trained on a GPU is decoded there too, in a job before each evaluation.
    """
    runs = datasets * models * seeds
    counts = {
        "prepare": datasets,
        "reference": references,
        "floor": datasets,
        **({"protocols": panels} if panels else {}),
        "train": runs,
        "fit": 3 * runs + datasets * seeds,
        "evaluate": runs + datasets * given * seeds,
        **dict.fromkeys(SUMMARIES, 1),
    }
    if load_study(study).file.compute.device == "cuda":
        counts["decode"] = counts["evaluate"]
    planned = fresh.plan(study)
    assert Counter(job.split()[0] for job in planned) == counts
    listed = study_jobs(load_study(study), fresh.results)  # what status and costs go by
    assert Counter(job.stage for job in listed) == counts
    assert {str(job.output.relative_to(fresh.path)) for job in listed} == set(planned.values())
    assert not fresh.results.exists()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (["study=smok"], "rae_bench: study: unknown study 'smok'; did you mean 'smoke'?"),
        (["study=../smoke"], "rae_bench: study: unknown study '../smoke'"),
        (["study=smoke", "seed=3"], "rae_bench: --config takes one key, study; found ['seed']"),
    ],
)
def test_a_command_that_cannot_be_meant_is_one_line_and_starts_nothing(fresh, config, expected):
    ended = fresh.run("snakemake", "--cores", "1", "--config", *config)
    assert refusal(fresh, ended).startswith(expected)


# --- the smoke study --------------------------------------------------------------------------------------


def test_the_smoke_study_leaves_every_output(smoke):
    jobs = study_jobs(load_study("smoke"), smoke.results)
    assert {read_state(job)["status"] for job in jobs} == {"done"}
    for job in jobs:
        assert job.output.stat().st_size > 0
        record = json.loads(job.output.with_suffix(".record.json").read_text())
        assert record["wrote"]
    assert (smoke.results / "smoke" / "costs.csv").exists()


def test_its_metrics_are_complete_and_finite(smoke_frame):
    """Fourteen metrics of images that are made of images; of each fit ten, and three of each of its two draws."""
    # three pixel errors and the label of each reconstruction, likelihoods of codes; a bound, and of each estimate four
    vae = 3 * (14 + 4) + 3 * 14 + (1 + 1 + 2 + 2) * (10 + 2 * 3) + 4 + 2 * (1 + 1 + 2) + 1 + 3 * 4
    rae = (14 + 4) + 14 + (1 + 1 + 2) * (10 + 2 * 3) + 3 + 2 * (1 + 1 + 2)
    counts = {"vae": vae, "rae_l2": rae, "linear": rae, "training_images": 10 + 2 * 3 + 1}
    assert smoke_frame.groupby("model").size().to_dict() == {model: 2 * count for model, count in counts.items()}
    assert np.isfinite(smoke_frame["value"]).all()
    assert set(smoke_frame["train_seed"]) == {0, 1}
    shares = smoke_frame[smoke_frame["metric"].isin(["precision", "recall", "label_agreement"])]["value"]
    assert shares.between(0, 1).all()


def test_seeds_are_independent_runs(smoke_frame):
    frechet = smoke_frame[smoke_frame["metric"] == "frechet_distance"]
    values = frechet.pivot_table(index=["model", "image_set", "density"], columns="train_seed", values="value")
    assert (values[0] != values[1]).all()


def test_its_logs_hold_no_traceback(smoke):
    logs = list((smoke.results / "smoke" / "logs").rglob("*.log"))
    assert len(logs) == 43  # every job's but those of the data set and its references
    assert not any("Traceback" in log.read_text() for log in logs)


# --- what a change reruns ---------------------------------------------------------------------------------


MODELS = ("vae", "rae_l2", "linear")
RUNS = [f"digits_mini {model} {seed}" for model in MODELS for seed in (0, 1)]
PANELLED = RUNS[:4]
GIVEN = [f"digits_mini training_images {seed}" for seed in (0, 1)]
SMOKE = "studies/smoke.yaml"


def _of(runs, *stages):
    return [f"{stage} {run}" for stage in stages for run in runs]


def _made(runs):
    """All that is made for some runs: a fit of each density, for a VAE one more, and scores, two but of a baseline."""
    fits = [f"fit {run} {density}" for run in runs for density in ("standard_normal", "gaussian", "gmm10")]
    fits += [f"fit {run} second_stage" for run in runs if " vae " in run]
    return [*_of(runs, "train", "evaluate"), *_of([run for run in runs if " linear " not in run], "protocols"), *fits]


RERUN = {
    "a model's weight": ("models.yaml", ["rae_l2", "weights", "digits", "latent"], 0.77, _made(RUNS[2:4])),
    "a seed more": (
        *(SMOKE, ["train_seeds"], [0, 1, 7]),
        [*_made([f"digits_mini {model} 7" for model in MODELS]), "evaluate digits_mini training_images 7"],
    ),
    "a density more": (
        *(SMOKE, ["densities"], ["standard_normal", "gaussian", "gmm10", "gmm1"]),
        [*(f"fit {run} gmm1" for run in RUNS), *_of(RUNS, "evaluate")],
    ),
    "a metric's setting": (
        *("metrics.yaml", ["smoke", "neighbours"], 4),
        ["floor digits_mini", *_of([*RUNS, *GIVEN], "evaluate")],
    ),
    "a protocol more": (
        *(SMOKE, ["protocols", "tiny"], {"n_images": 50}),
        ["reference digits_mini test.50.digit_classifier", *_of(PANELLED, "protocols")],
    ),
    "what references hold": (
        *("metrics.yaml", ["smoke", "coverage_neighbours"], 7),
        [
            *("reference digits_mini test.300.digit_classifier", "floor digits_mini"),
            *_of([*RUNS, *GIVEN], "evaluate"),
            *_of(PANELLED, "protocols"),
        ],
    ),
    "a title": (SMOKE, ["title"], "Another title", []),
}
"""What is changed, and what then runs again besides the summaries; references without their fingerprints."""


@pytest.mark.parametrize("change", RERUN)
def test_a_change_reruns_what_depends_on_it(planned, change):
    file, keys, value, expected = RERUN[change]
    with planned.edited(file, lambda data: put(data, keys, value)):
        plan = planned.plan()
    jobs = [re.sub(r"^(reference .*)\.\w+$", r"\1", job) for job in plan]
    assert sorted(jobs) == sorted([*expected, *SUMMARIES])
    # real features are shared by all studies: other settings must never overwrite them
    assert not [job for job, output in plan.items() if "reference" in job and (planned.path / output).exists()]


@contextlib.contextmanager
def _respelt(checkout):
    """Every configuration file with a comment, its keys in another order and its numbers spelt another way."""
    before = {path: path.read_bytes() for path in checkout.config.rglob("*.yaml")}
    try:
        for path, text in before.items():
            data = unshared(yaml.safe_load(text))
            path.write_text("# a comment\n" + yaml.safe_dump(dict(reversed(data.items())), sort_keys=False))
        yield
    finally:
        for path, text in before.items():
            path.write_bytes(text)


def test_spelling_reruns_nothing(planned):
    assert "learning_rate: 4.0e-3" in (planned.config / "budgets.yaml").read_text()
    with _respelt(planned):
        assert "learning_rate: 0.004" in (planned.config / "budgets.yaml").read_text()
        assert planned.plan() == {}


SCORING = "scoring/specs.py"
VERSIONS = {
    "prepare": ("data/specs.py", "version: Literal[1] = 1", "version: Literal[2] = 2", set(STAGES)),
    "reference": (
        *(SCORING, "REFERENCE_VERSION = 2", "REFERENCE_VERSION = 9"),
        {"reference", "floor", "evaluate", "protocols", *SUMMARIES},
    ),
    "floor": (SCORING, "FLOOR_VERSION = 3", "FLOOR_VERSION = 9", {"floor", "evaluate", *SUMMARIES}),
    "train": (
        *("models/specs.py", "TRAIN_VERSION = 1", "TRAIN_VERSION = 9"),
        {"train", "fit", "evaluate", "protocols", *SUMMARIES},
    ),
    "fit": ("densities/specs.py", "FIT_VERSION = 3", "FIT_VERSION = 9", {"fit", "evaluate", "protocols", *SUMMARIES}),
    "evaluate": (SCORING, "EVALUATE_VERSION = 4", "EVALUATE_VERSION = 9", {"evaluate", *SUMMARIES}),
    "protocols": (SCORING, "PROTOCOL_VERSION = 2", "PROTOCOL_VERSION = 9", {"protocols", *SUMMARIES}),
    "collect": ("study/specs.py", "SUMMARY_VERSION = 8", "SUMMARY_VERSION = 9", set(SUMMARIES)),
}
"""By stage: where its version stands, another one, and the stages that then run again."""


@pytest.mark.parametrize("stage", VERSIONS)
def test_a_raised_version_reruns_its_stage_and_those_after_it(planned, stage):
    file, old, new, expected = VERSIONS[stage]
    path = planned.path / "rae_bench" / file
    before = path.read_text()
    assert before.count(old) == 1
    try:
        path.write_text(before.replace(old, new))
        plan = planned.plan()
    finally:
        path.write_text(before)
    assert {job.split()[0] for job in plan} == expected


def test_a_study_is_run_in_batches_which_collect_joins(fresh, planned):
    """Snakemake's own: a part of the runs at a time, and with the last of them all that is made of all."""
    metrics = "results/smoke/metrics.parquet"
    whole = {job for job in fresh.plan(arguments=("--", metrics)) if job.startswith("evaluate")}
    first = fresh.plan(arguments=("--batch", "collect=1/3", "--", metrics))
    assert "collect" not in first
    assert 0 < len({job for job in first if job.startswith("evaluate")}) < len(whole)
    kept = (planned.path / metrics).rename(planned.path / "kept.parquet")
    try:
        assert list(planned.plan(arguments=("--batch", "collect=3/3", "--", metrics))) == ["collect"]
    finally:
        kept.rename(planned.path / metrics)


def test_another_number_of_cores_reruns_nothing(planned):
    assert planned.plan(cores=1) == {}


# --- failures ---------------------------------------------------------------------------------------------


def test_a_failed_stage_fails_the_command_says_why_in_one_line_and_leaves_no_output(tmp_path):
    checkout = Checkout(tmp_path)
    place = ["digits_smoke", "optimisation", "learning_rate"]
    with checkout.edited("budgets.yaml", lambda data: put(data, place, 1.0e30)):
        ended = checkout.snakemake("--", TARGETS[0])
        status = checkout.run("rae_bench", "status", "smoke")
    assert ended.returncode != 0
    log = (checkout.results / "smoke/logs/train/digits_mini.rae_l2.seed0.log").read_text()
    (line,) = our_lines(log)
    assert line.startswith("rae_bench train: epoch ")
    assert "the loss is not finite: reconstruction " in line
    assert "the loss is not finite" in ended.stdout + ended.stderr
    assert "Traceback" not in log + ended.stdout + ended.stderr
    left = (checkout.path / TARGETS[0]).parent.iterdir()
    assert sorted(path.name for path in left) == ["model.job.json", "model.lock"]
    rows = {line.split()[0]: line.split()[1:] for line in status.stdout.splitlines()}
    assert rows["prepare"] == ["1", "0", "0", "0", "0"]
    assert rows["train"] == ["0", "0", "1", "0", "5"]  # done, running, failed, interrupted, waiting
    assert "failed: train digits_mini/rae_l2/seed0: epoch " in status.stdout


# --- kills ------------------------------------------------------------------------------------------------


def _survivors(checkout, seconds=30.0):
    """What is still at work in a copy after at most so many seconds."""
    deadline = time.monotonic() + seconds
    while (processes := checkout.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes


def test_a_second_command_is_refused_while_the_first_lives(tmp_path):
    checkout = Checkout(tmp_path)
    with checkout.edited("budgets.yaml", lambda data: put(data, ["digits_smoke", "optimisation", "epochs"], 100_000)):
        driver = checkout.start("--", TARGETS[0], cores=1)
        checkout.wait_for_training(driver)
        second = checkout.snakemake("--", TARGETS[1], cores=1)
        driver.kill()
        driver.wait()
    assert second.returncode != 0
    (line,) = our_lines(second.stdout + second.stderr)
    assert line.startswith(f"rae_bench: results/ is in use by another command, process {driver.pid} on ")
    assert line.endswith("; wait for it or end it")
    assert "Traceback" not in second.stdout + second.stderr
    assert not (checkout.path / TARGETS[1]).parent.exists()
    assert not _survivors(checkout)


def test_a_killed_command_leaves_no_process_and_the_same_command_finishes(tmp_path, smoke):
    checkout = Checkout(tmp_path)
    driver = checkout.start("--", *TARGETS)
    checkout.wait_for_training(driver)
    driver.kill()
    driver.wait()
    assert not _survivors(checkout)
    states = {
        read_state(job)["status"] for job in study_jobs(load_study("smoke"), checkout.results) if job.stage == "train"
    }
    assert "interrupted" in states
    assert checkout.snakemake("--", *TARGETS).returncode == 0
    for target in TARGETS:
        assert (checkout.path / target).read_bytes() == (smoke.path / target).read_bytes()


@pytest.mark.slow
def test_six_kills_at_random_times_change_nothing(smoke):
    """scripts/kill_study.py makes fifty."""
    script = [sys.executable, ROOT / "scripts/kill_study.py", "--kills=6", "--seed=1", f"--undisturbed={smoke.path}"]
    ended = subprocess.run(script, env=environment(ROOT), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 kills (" in ended.stdout
    assert ended.stdout.endswith("verdict: the same bytes\n")


# --- a protocol -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_as_released_runs_its_tables_say_so_and_its_cells_come_out_again(tmp_path):
    """Its spectral norm iterates at test time, too: a cell's numbers hang on the passes before it."""
    checkout = Checkout(tmp_path)
    changes = {"protocol": "as_released", "protocols": {}, "tables": ["table1"], "n_images": 200, "train_seeds": [0]}
    changes |= {"rows": ["vae", "two_stage_vae", "rae_sn"]}
    with checkout.edited("studies/smoke.yaml", lambda data: data.update(changes)):
        ended = checkout.snakemake()
        assert ended.returncode == 0, ended.stderr
        for column in ("gmm10", "interpolation"):
            ended = checkout.run("rae_bench", "verify", "smoke", "--cell", f"digits_mini/rae_sn/{column}/seed0")
            assert ended.returncode == 0, ended.stdout + ended.stderr
    table = (checkout.results / "smoke/tables/table1_digits_mini.md").read_text()
    assert "Protocol: as released." in table
    assert "Rec. is of the official code's validation images" in table
    assert "Column N is N(0,I): VAE, RAE-SN; second stage: 2sVAE." in table
    assert "a Dirichlet-process mixture of at most 10 Gaussians: RAE-SN" in table
    references = {path.name.split(".")[0] for path in checkout.results.glob("references/digits_mini/*.safetensors")}
    assert references == {"test", "validation", "train", "overlapping"}
    density, about = storage.read_arrays(
        checkout.results / "smoke/digits_mini/rae_sn/seed0/densities/gmm10.safetensors"
    )
    assert about["density"]["kind"] == "dirichlet_mixture"
    assert density
