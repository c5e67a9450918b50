"""A study's forecast: its jobs, sums and bounds, from real studies and from one of the paper's size."""

import dataclasses
import json
import time
from pathlib import Path

import pytest

from rae_bench import forecast, resources, specs, work
from rae_bench.config import load_study
from rae_bench.demands import TYPICAL_ITERATIONS, about, demand
from rae_bench.jobs import Job, study_jobs

SMOKE = load_study("smoke")
LARGE = ("embedded", "paper_clean")


def _one_second(_):
    return 1.0


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    return forecast.job_frame(SMOKE, tmp_path_factory.mktemp("results"), _one_second)


def papers_size(study):
    """A study of the paper's size: its networks, epochs, batches and numbers of images, on three data sets."""
    sizes = {"digits": (50_000, 10_000, 10_000), "photos": (40_000, 10_000, 10_000), "faces": (162_770, 19_867, 19_962)}
    datasets = {
        name: dataclasses.replace(
            entry,
            extractor="inception_v3_compat",
            data=dataclasses.replace(
                entry.data, n_train=sizes[name][0], n_validation=sizes[name][1], n_test=sizes[name][2]
            ),
        )
        for name, entry in study.datasets.items()
    }
    trainings = {
        key: dataclasses.replace(
            spec,
            network=dataclasses.replace(spec.network, width=128, start_width=1024),
            optimisation=dataclasses.replace(spec.optimisation, epochs=100, batch_size=100),
            compute=dataclasses.replace(spec.compute, device="cuda"),
        )
        for key, spec in study.trainings.items()
    }
    file = dataclasses.replace(study.file, n_images=10_000, train_seeds=(0, 1, 2, 3, 4))
    return dataclasses.replace(study, file=file, datasets=datasets, trainings=trainings)


def test_every_job_is_forecast(frame, tmp_path):
    jobs = study_jobs(SMOKE, tmp_path)
    assert list(frame["job"]) == [job.name for job in jobs]
    assert list(frame["stage"]) == [job.stage for job in jobs]
    assert frame.notna().all(axis=None)
    assert not frame["is_done"].any()


def test_seeds_cost_the_same_and_models_differ(frame):
    train = frame[frame["stage"] == "train"].set_index("job")["network_flops"]
    assert train["digits_mini/vae/seed0"] == train["digits_mini/vae/seed1"] > train["digits_mini/rae_l2/seed0"]


def test_images_of_an_evaluation(frame):
    """Reconstructions and interpolations, also through the second stage, and samples of its four densities."""
    evaluations = frame[frame["stage"] == "evaluate"].set_index("job")["images"]
    assert evaluations["digits_mini/vae/seed0"] == (2 * 2 + 4) * 300
    assert evaluations["digits_mini/rae_l2/seed0"] == (2 + 3) * 300


def test_totals_are_sums_and_memory_is_the_largest(frame):
    found = forecast.summary(SMOKE, frame, "a clock", at_once=1)
    stages = found["stages"].values()
    for name in ("jobs", "left", "images", "network_flops", "other_flops", "most_flops", "disk_bytes"):
        assert found["total"][name] == pytest.approx(sum(stage[name] for stage in stages))
    assert found["total"]["host_bytes"] == max(stage["host_bytes"] for stage in stages)
    assert found["total"]["hours"] == pytest.approx(frame["seconds"].sum() / 3600)
    assert found == json.loads(json.dumps(found))


def test_what_is_done_is_told_apart(frame, tmp_path):
    jobs = study_jobs(SMOKE, tmp_path)
    first = next(job for job in jobs if job.stage == "train")
    first.output.parent.mkdir(parents=True)
    first.output.write_text("")
    first.output.with_suffix(".job.json").write_text(json.dumps({"stage": "train", "status": "done"}))
    found = forecast.summary(SMOKE, forecast.job_frame(SMOKE, tmp_path, _one_second), "a clock", at_once=1)
    assert (found["stages"]["train"]["jobs"], found["stages"]["train"]["left"]) == (4, 3)
    assert found["left"]["jobs"] == len(jobs) - 1
    done = frame.loc[frame["job"] == first.name, "seconds"].iloc[0]
    assert found["left"]["hours"] == pytest.approx(found["total"]["hours"] - done / 3600)


def test_only_mixtures_are_bounded_above_what_is_expected(frame):
    more = frame[frame["most_seconds"] > frame["seconds"]]
    assert set(more["job"].str.rpartition("/")[2]) == {"gmm10"}
    density = SMOKE.fit("digits_mini", "vae", "gmm10").density
    parts = demand(SMOKE, Job("fit", "digits_mini/vae/seed0/gmm10", None)).parts
    (bounded,) = [part for part in parts if part.at_most != part.times]
    assert isinstance(bounded.piece, work.Iterations)
    assert bounded.times * work.EM_AT_ONCE == TYPICAL_ITERATIONS
    assert bounded.at_most * work.EM_AT_ONCE == density.max_iter == 2000


def test_validations_are_forecast_in_the_batches_they_take():
    study = load_study("paper_clean")  # CelebA's 128 x 64 x 64 floats an image: 62 in 128 MiB
    train = next(job for job in study_jobs(study, Path("results")) if job.stage == "train" and "celeba" in job.name)
    (loss,) = [part for part in demand(study, train).parts if getattr(part.piece, "what", None) == "loss"]
    optimisation = study.training("celeba", train.name.split("/")[1]).optimisation
    assert loss.piece.batch == 62
    assert loss.times == optimisation.epochs * 19_867 / 62


def test_wall_time_is_a_share_but_no_less_than_the_longest_run(frame):
    total = frame["seconds"].sum()
    assert forecast.wall_seconds(frame, 1) == total
    assert forecast.wall_seconds(frame, 2) == total / 2
    run = frame[frame["run"] == "digits_mini/vae/seed0"]
    longest = sum(
        run.loc[run["stage"] == stage, "seconds"].max() for stage in ("train", "fit", "evaluate", "protocols")
    )
    assert forecast.wall_seconds(frame, 10_000) == longest
    assert forecast.wall_seconds(frame[:0], 1) == 0


def test_without_a_device_there_are_no_hours(tmp_path):
    found = forecast.summary(SMOKE, forecast.job_frame(SMOKE, tmp_path, None), "unknown", at_once=2)
    assert found["total"]["hours"] is found["wall_hours"] is found["left"]["most_hours"] is None
    text = forecast.describe(found)
    assert "hours: unknown" in text
    assert "37 of 37 jobs" in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_study_of_the_papers_size_is_counted_on_a_laptop(tmp_path):
    study = papers_size(load_study("embedded"))
    started = time.monotonic()
    found = forecast.summary(study, forecast.job_frame(study, tmp_path, None), "unknown", at_once=1)
    assert time.monotonic() - started < 120
    per_stage = {"prepare": 3, "reference": 9, "floor": 3, "train": 135, "fit": 3 * 5 * 28, "evaluate": 135}
    assert {stage: found["stages"][stage]["jobs"] for stage in per_stage} == per_stage
    # nine models, five seeds, a hundred epochs of the paper's images at 7 and 19 GFLOP each, penalties on top
    images = 9 * 5 * 100 * (50_000 * 7.1e9 + 40_000 * 7.2e9 + 162_770 * 19.2e9)
    assert images < found["stages"]["train"]["network_flops"] < 1.5 * images
    assert found["stages"]["train"]["device_bytes"] > 2**32 > found["stages"]["fit"]["device_bytes"] == 0


def test_a_mixture_of_a_single_iteration_is_no_less_than_itself():
    spec = SMOKE.fit("digits_mini", "vae", "gmm10")
    short = dataclasses.replace(spec, density=dataclasses.replace(spec.density, max_iter=8))
    study = dataclasses.replace(SMOKE, fits={**SMOKE.fits, ("digits_mini", "vae", "gmm10"): short})
    parts = demand(study, Job("fit", "digits_mini/vae/seed0/gmm10", None)).parts
    assert all(part.times == part.at_most for part in parts)


@pytest.mark.parametrize("name", ["smoke", *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_a_scheduler_is_asked_for_no_less_memory_than_is_forecast(name, tmp_path):
    """Two counts of the same, of their own each: bounds from shapes, without torch, and PyTorch's operations."""
    study = load_study(name)
    for job in study_jobs(study, tmp_path):
        names = [part for part in about(job) if not part.startswith("seed")]
        if names and ("/seed" not in job.name or f"seed{study.train_seeds[0]}" in job.name):
            asked = getattr(resources, job.stage)(study, *names).mem_mb(1)
            assert asked * 1e6 > demand(study, job).host_bytes, job


def test_weights_of_a_search_are_one_piece_of_work(tmp_path):
    study = load_study("search_digits")
    updates = [piece for piece in forecast.distinct(study, tmp_path) if getattr(piece, "what", "") == "update"]
    kinds = {(model.posterior, type(model.latent), type(model.regulariser)) for model in (p.objective for p in updates)}
    assert len(updates) == len(kinds) < len(study.models)
    assert isinstance(updates[0].network, specs.ConvolutionalNetwork)


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345_678, "12.3 MB")])
def test_sizes_are_readable(value, text):
    assert forecast._short(value, "B") == text
