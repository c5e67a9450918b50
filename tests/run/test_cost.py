"""What a study will cost: sums over its jobs, formulas held to torch's counter and to a run, and hours of a device."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
from checkout import ROOT

from rae_bench.base.plain import ConfigError, to_json
from rae_bench.run import cost
from rae_bench.run.jobs import study_jobs
from rae_bench.study import resources
from rae_bench.study.config import load_study
from rae_bench.study.gpus import GPUS, UTILISATION

SMOKE = load_study("smoke")
WHOLE = ("reference", "floor", "train", "fit", "evaluate", "protocols")
CALIBRATION = cost.Calibration("x", "cpu", {"train/digits_mini/vae": {"fixed": 3.0, "rate": 2.0}})


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    return cost.job_frame(SMOKE, tmp_path_factory.mktemp("results"), lambda *_: 1.0)


# --- sums -------------------------------------------------------------------------------------------------------


def test_every_job_is_forecast(frame, tmp_path):
    jobs = study_jobs(SMOKE, tmp_path)
    assert list(frame["job"]) == [job.name for job in jobs]
    assert list(frame["stage"]) == [job.stage for job in jobs]
    assert frame.notna().all(axis=None)
    assert not frame["is_done"].any()


def test_images_of_an_evaluation(frame):
    """Reconstructions and interpolations, also through both second stages; two draws of every fit."""
    evaluations = frame[frame["stage"] == "evaluate"].set_index("job")["images"]
    assert evaluations["digits_mini/vae/seed0"] == 2 * (1 + 2) * 300 + 2 * (2 + 2 * 2) * 600
    assert evaluations["digits_mini/rae_l2/seed0"] == 2 * 300 + 2 * (2 + 2) * 600


def test_totals_are_sums_and_memory_is_the_largest(frame):
    found = cost.summary(SMOKE, frame, "a clock", at_once=1)
    stages = found["stages"].values()
    for name in ("jobs", "left", "images", "network_flops", "other_flops", "disk_bytes"):
        assert found["total"][name] == pytest.approx(sum(stage[name] for stage in stages), abs=len(stages))
    assert found["total"]["host_bytes"] == max(stage["host_bytes"] for stage in stages)
    assert found["total"]["hours"] == pytest.approx(len(frame) / 3600)
    assert found == json.loads(json.dumps(found))


def test_what_is_done_is_told_apart(tmp_path):
    jobs = study_jobs(SMOKE, tmp_path)
    first = next(job for job in jobs if job.stage == "train")
    first.output.parent.mkdir(parents=True)
    first.output.write_text("")
    frame = cost.job_frame(SMOKE, tmp_path, lambda *_: 36.0)
    found = cost.summary(SMOKE, frame, "a clock", at_once=1)
    assert (found["stages"]["train"]["jobs"], found["stages"]["train"]["left"]) == (6, 5)
    assert found["left"]["hours"] == pytest.approx((len(jobs) - 1) / 100)


def test_wall_time_is_a_share_but_no_less_than_the_longest_run(frame):
    assert cost.wall_seconds(frame, 1) == len(frame)
    assert cost.wall_seconds(frame, 2) == len(frame) / 2
    assert cost.wall_seconds(frame, 10_000) == len(["train", "fit", "evaluate", "protocols"])
    assert cost.wall_seconds(frame[:0], 1) == 0


def test_with_a_gpu_the_jobs_that_need_none_run_beside_it(frame):
    """Trainings hold it: with one GPU they last, and with many the others do, on so many cores."""
    frame = frame.assign(gpu_seconds=np.where(frame["stage"] == "train", 100.0, 0.0))
    frame["seconds"] = np.maximum(frame["gpu_seconds"], 1.0)
    trainings = (frame["stage"] == "train").sum()
    assert cost.wall_seconds(frame, 1, beside=8) == 100 * trainings
    assert cost.wall_seconds(frame, 2, beside=8) == 50 * trainings
    frame.loc[frame["stage"] == "evaluate", "seconds"] = 1000.0
    others = frame.loc[frame["stage"] != "train", "seconds"].sum()
    assert cost.wall_seconds(frame, trainings, beside=2) == others / 2


def test_without_a_device_there_are_no_hours(tmp_path):
    found = cost.summary(SMOKE, cost.job_frame(SMOKE, tmp_path, None), "unknown", at_once=2)
    assert found["total"]["hours"] is found["wall_hours"] is found["left"]["hours"] is None
    text = cost.describe(found)
    assert "hours: unknown" in text
    assert "49 of 49 jobs" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345_678, "12.3 MB")])
def test_sizes_are_readable(value, text):
    assert cost._short(value, "B") == text


# --- formulas, torch's counter and a run --------------------------------------------------------------------------


def told(spec):
    return resources.update_operations(spec, resources.of_a_loss(spec, spec.network.counts))


@pytest.mark.parametrize("study", ["digits", "paper_clean", "paper_as_released"])
def test_a_training_step_by_formula_is_what_torch_counts(study):
    """Networks of 8 and 128 filters, images of 32 and 64 pixels; penalties on derivatives are less exact."""
    for (_, model), spec in load_study(study).trainings.items():
        if model not in ("vae", "rae_gp", "rae_sn"):
            continue
        plain = model != "rae_gp"
        assert told(spec) == pytest.approx(cost.step_flops(spec), rel=0.01 if plain else 0.1), model


@pytest.mark.parametrize("size", [16, 24, 128, 136])
def test_so_is_a_step_on_images_of_any_size(size):
    study = load_study("digits")
    for model, tolerance in (("vae", 0.01), ("rae_sn", 0.01), ("rae_gp", 0.1)):
        spec = study.training("digits", model)
        spec = dataclasses.replace(spec, network=dataclasses.replace(spec.network, size=size, kernel=5))
        assert told(spec) == pytest.approx(cost.step_flops(spec), rel=tolerance), model


def test_updates_of_every_architecture_take_at_most_one_and_a_half_times_those_of_the_papers():
    """As torch counts them, model by model; by formula they are as many, or a little more.

    A first layer has no gradient to pass on: of a dense one that is a sixth of its operations.
    """
    study = load_study("architectures")
    papers = {model: cost.step_flops(study.training("digits", model)) for model in study.models}
    for (dataset, model), spec in study.trainings.items():
        counted = cost.step_flops(spec)
        assert counted <= 1.5 * papers[model], (dataset, model)
        assert 0.99 < told(spec) / counted < 1.11, (dataset, model)


def test_a_study_is_timed_and_told_as_it_then_runs(smoke, tmp_path):
    """Hours within a factor of 1.6, by CPU time of one thread, whatever else runs here; memory within 1.2."""
    found = cost.calibrate(SMOKE, tmp_path)
    assert cost.stored(tmp_path) == {found.device: found}
    told = cost.summary(SMOKE, cost.job_frame(SMOKE, tmp_path, cost.seconds_on(found)), "here", at_once=1)["stages"]
    costs = pd.read_csv(smoke.results / "smoke" / "costs.csv").groupby("stage")
    spent, peaks = costs["cpu_seconds"].sum(), costs["peak_mib"].max() * 2**20
    ratios = {stage: 3600 * told[stage]["hours"] / spent[stage] for stage in WHOLE}
    assert all(1 / 1.6 < ratio < 1.6 for ratio in ratios.values()), ratios
    sizes = {stage: told[stage]["host_bytes"] / peaks[stage] for stage in WHOLE}
    assert all(1 / 1.2 < size < 1.2 for size in sizes.values()), sizes


# --- hours of a device --------------------------------------------------------------------------------------------


def test_a_job_not_timed_is_told_by_its_stage(tmp_path):
    seconds = cost.seconds_on(CALIBRATION)
    need = resources.Need(overhead=10.0)
    jobs = {job.stage: job for job in study_jobs(load_study("digits"), tmp_path)}
    assert seconds(jobs["train"], need) == 3.0 + 2.0 * 10.0
    assert seconds(jobs["report"], need) == 0
    with pytest.raises(ConfigError, match=r"no evaluate was timed on x; there: cost STUDY --calibrate"):
        seconds(jobs["evaluate"], need)


def test_a_device_timed_elsewhere_is_taken_by_its_name(tmp_path):
    gpu = dataclasses.replace(SMOKE.file.compute, device="cuda")
    study = dataclasses.replace(SMOKE, file=dataclasses.replace(SMOKE.file, compute=gpu))
    with pytest.raises(ConfigError, match=r"^--device: unknown device 'x'\. Known: A100, "):
        cost.on_device(study, tmp_path, False, "x")
    (tmp_path / "calibrations").mkdir()
    (tmp_path / "calibrations" / "x.json").write_text(to_json(CALIBRATION))
    placed, name, _ = cost.on_device(study, tmp_path, False, "x")
    assert (placed.gpus, name) == (0, "x, measured")
    with pytest.raises(ConfigError, match="unknown device 'y'"):
        cost.on_device(study, tmp_path, False, "y")


def test_a_gpu_that_was_not_timed_goes_by_its_stated_peak_and_its_cores(tmp_path):
    study, name, seconds = cost.on_device(load_study("paper_as_released"), tmp_path, False, "A100")
    assert study.gpus
    assert name.startswith("A100: 19.5 TFLOP/s (NVIDIA A100 data sheet) at 35%, all else by a slow core: ")
    rate = 19.5e12 * UTILISATION
    assert seconds(None, resources.Need(networks=rate, float32=2 * rate, samples=1e9, on_gpu=True)) == pytest.approx(3)
    assert seconds(None, resources.Need(float64=2 * resources.MATRIX_RATE, overhead=1.0, on_gpu=True)) == 3
    at_core = resources.Need(networks=2 * resources.NETWORK_RATE, float64=resources.MATRIX_RATE)
    assert seconds(None, at_core) == at_core.seconds == 3
    with pytest.raises(ConfigError, match=r"unknown device 'A10'; did you mean 'A100'\?"):
        cost.on_device(study, tmp_path, False, "A10")


def test_the_papers_hours_by_gpu_are_what_cost_says(tmp_path):
    text, study = (ROOT / "docs" / "paper.md").read_text(), load_study("paper_as_released")
    rows = re.findall(r"^\| ([\w ]+) \| ([\d.]+)" + r" \| (\d+)" * 4 + r" \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == ["V100", "A100", "H100"]
    for name, peak, *told in rows:
        _, _, seconds = cost.on_device(study, tmp_path, False, name)
        found = cost.summary(study, cost.job_frame(study, tmp_path, seconds), name, at_once=1)
        training, measuring = (found["stages"][stage]["hours"] for stage in ("train", "evaluate"))
        held, total = found["total"]["gpu_hours"], found["total"]["hours"]
        hours = (training, held, held + measuring, total)
        assert float(peak) == GPUS[name].teraflops
        assert [round(one) for one in hours] == [int(one) for one in told], f"docs/paper.md, {name}"


def test_hours_with_a_gpu_are_those_of_jobs_that_hold_one(tmp_path):
    study = load_study("paper_as_released")
    frame = cost.job_frame(study, tmp_path, lambda *_: 3600.0)
    found = cost.summary(study, frame, "a clock", at_once=1)
    holding = {stage for stage, totals in found["stages"].items() if totals["gpu_hours"]}
    assert holding == {stage for stage in found["stages"] if any(
        resources.of_job(study, job.stage, cost.about(job)).on_gpu
        for job in study_jobs(study, tmp_path) if job.stage == stage
    )}  # fmt: skip
    assert found["left"]["gpu_hours"] == sum(found["stages"][stage]["jobs"] for stage in holding) < len(frame)
    assert f"left: {len(frame)}, {found['left']['gpu_hours']:.4g} of them with a GPU; with 1 at once" in (
        cost.describe(found)
    )
    smoke = cost.summary(SMOKE, cost.job_frame(SMOKE, tmp_path, lambda *_: 36.0), "a clock", at_once=1)
    assert "of them with a GPU" not in cost.describe(smoke)


def test_a_stated_peak_divides_flops_of_networks_and_says_so():
    name, seconds = cost.from_peak(20.0, 0.25)
    assert seconds(None, resources.Need(networks=3e12, float32=2e12, float64=7e15)) == 1.0
    assert "20 TFLOP/s at 25%: from a stated peak, not measured" in name


@pytest.mark.parametrize(
    ("peak", "utilisation", "message"),
    [
        (10.0, None, "--from-peak and --utilisation need each other"),
        (None, 0.3, "--from-peak and --utilisation need each other"),
        (0.0, 0.3, "--from-peak: 0.0 must be above 0, in TFLOP/s"),
        (float("nan"), 0.3, "--from-peak: nan must be above 0"),
        (10.0, 1.5, "--utilisation: 1.5 must lie above 0 and be at most 1"),
    ],
)
def test_peaks_that_make_no_sense(peak, utilisation, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        cost.from_peak(peak, utilisation)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "cannot be read as JSON; expected what cost STUDY --calibrate writes"),
        (b"[1]", "expected a mapping of keys to values"),
        (b'{"device": "x"}', "missing "),
        (b'{"device": "x", "kind": "cpu", "jobs": {"a": {"fixed": "b"}}}', "found 'b'"),
    ],
)
def test_a_file_of_another_kind_among_those_copied_there_is_one_line(tmp_path, content, expected):
    path = tmp_path / "calibrations" / "x.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(path))) as error:
        cost.stored(tmp_path)
    assert expected in str(error.value)
    assert "delete" not in str(error.value)
