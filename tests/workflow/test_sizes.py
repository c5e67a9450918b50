"""A user's own images of other sizes than the paper's, from files to tables: photos of 128x128, digits of 28x28."""

import json

import numpy as np
import pytest
import yaml
from checkout import Checkout, unshared
from PIL import Image

from rae_bench.base import storage
from rae_bench.data import embedded
from rae_bench.run.jobs import read_state, study_jobs
from rae_bench.study import config, resources

SPLITS = {"n_train": 120, "n_validation": 100, "n_test": 100}
N = sum(SPLITS.values())
SETS = {
    "crops": {"channels": 3, "size": 128, "padding": 0, "kernel": 5, "extractor": "efficientnet_lite0"},
    "small_digits": {"channels": 1, "size": 32, "padding": 2, "kernel": 4, "extractor": "digit_classifier"},
}


def crops(folder):
    """Squares of 128x128 pixels of the photographs inside scikit-learn and scikit-image, as PNG files."""
    photographs, chance = [embedded._decode(file) for file in embedded.PHOTO_FILES], np.random.default_rng(0)
    for number in range(N):
        photograph = photographs[number % len(photographs)]
        top, left = (chance.integers(0, side - 127) for side in photograph.shape[:2])
        Image.fromarray(photograph[top : top + 128, left : left + 128]).save(folder / f"{number:03d}.png")


def small_digits(folder, digits):
    """Digits as their makers' 28x28 pixels, as PNG files."""
    for number, image in enumerate(digits.images[digits.splits["train"]][:N]):
        Image.fromarray(image[0, 2:30, 2:30]).save(folder / f"{number:03d}.png")


def entry(name, folder):
    """A data set's entry, and a budget for it."""
    asked = SETS[name]
    source = {"kind": "folder", "path": str(folder), "split": "seeded", "crop": 0, "filter": "lanczos"}
    source["padding"] = asked["padding"]
    data = {"label": name, "source": source, "channels": asked["channels"], "size": asked["size"], "seed": 0, **SPLITS}
    like = {"follows": "mnist", "is_the_papers": False, "weights": "digits"}
    return {"data": data, "extractor": asked["extractor"], **like}


@pytest.fixture(scope="module")
def own(tmp_path_factory, digits):
    """A copy of the repository in which a study of both has run, two epochs of a narrow VAE."""
    checkout = Checkout(tmp_path_factory.mktemp("own"))
    smoke = unshared(yaml.safe_load((checkout.config / "budgets.yaml").read_text()))["digits_smoke"]
    smoke["optimisation"]["epochs"] = 2
    datasets, budgets = {}, {}
    for name, asked in SETS.items():
        folder = tmp_path_factory.mktemp(name)
        crops(folder) if name == "crops" else small_digits(folder, digits)
        datasets[name] = entry(name, folder)
        budgets[f"{name}_quick"] = {**smoke, "layout": {**smoke["layout"], "kernel": asked["kernel"]}}
    for file, entries in (("datasets.yaml", datasets), ("budgets.yaml", budgets)):
        with (checkout.config / file).open("a") as opened:
            opened.write("\n" + yaml.safe_dump(entries))
    study = yaml.safe_load((checkout.config / "studies" / "smoke.yaml").read_text())
    study |= {"datasets": {name: f"{name}_quick" for name in SETS}, "rows": ["vae"], "protocols": {}, "n_images": 100}
    study |= {"n_generated": 100, "densities": ["standard_normal", "gmm10"], "tables": ["table1"]}
    study |= {seeds: [0] for seeds in ("train_seeds", "fit_seeds", "sample_seeds")}
    (checkout.config / "studies" / "own.yaml").write_text(yaml.safe_dump(study))
    ended = checkout.snakemake(study="own")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return checkout


def test_they_are_trained_on_and_scored(own):
    frame = storage.read_frame(own.results / "own" / "metrics.parquet")
    for name, asked in SETS.items():
        images = np.load(own.results / "datasets" / name / "images.npy", mmap_mode="r")
        assert images.shape == (N, asked["channels"], asked["size"], asked["size"])
        of = frame[(frame["dataset"] == name) & (frame["metric"] == "frechet_distance")]
        assert {"reconstruction", "interpolation", "sample"} <= set(of["image_set"])
        assert np.isfinite(of["value"]).all()
        history = storage.read_frame(own.results / "own" / name / "vae" / "seed0" / "history.parquet")
        assert len(history) == 2
        assert history["train_reconstruction"].iloc[1] < history["train_reconstruction"].iloc[0]
        assert (own.results / "own" / "tables" / f"table1_{name}.md").is_file()


def test_their_cost_is_told_and_enough_was_asked_for(own, monkeypatch):
    ended = own.run("rae_bench", "cost", "own", "--json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)["datasets"]
    assert told["crops"]["network_flops"] > 5 * told["small_digits"]["network_flops"] > 0
    monkeypatch.setattr(config, "CONFIG", own.config)
    study = config.load_study("own")
    for job in study_jobs(study, own.results):
        if job.stage not in ("prepare", "train", "evaluate"):
            continue
        need = resources.of_job(study, job.stage, job.name.split("/")[:2])
        state = read_state(job)
        assert 0.8 * state["peak_mib"] * 2**20 < need.libraries + need.bytes, job
        assert state["peak_mib"] * 2**20 < 1e6 * need.mem_mb(1), job
        assert state["seconds"] < 60 * need.minutes(1), job
