"""Scoring a run's image sets: all in one process, against one `torch_fidelity.calculate_metrics` per folder of PNGs.

Run with [DATASET ...]; digits (reconstruction, interpolation and ten densities) and photos (four of them) by default,
1,000 images a set, a briefly trained VAE. Both sides start from the same codes of every set, decode them with the same
network, take features with the same extractor, and give the same metrics: FID, KID of torch-fidelity's own settings
(100 subsets of 1,000), precision and recall; it is checked that they agree. Each side is a process of its own, imports
included, with as many threads as cores (or RAE_BENCH_THREADS); sides take turns, medians of REPEATS.

ours     decode -> features -> metrics in memory. The reference is there already: a study makes it once for all runs.
other    decode -> PNG files -> calculate_metrics(folder, folder of reference images) for every set, in one process;
         all else is as torch-fidelity has it, the loader's worker processes included.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

REPEATS = 3
N = 1000
SETS = {
    "digits": (
        *("reconstruction", "interpolation", "standard_normal", "gaussian", "gmm1", "gmm10", "gmm50", "gmm100"),
        *("dp50", "kde", "flow", "second_stage"),
    ),
    "photos": ("reconstruction", "interpolation", "gaussian", "gmm10"),
}
FIDELITY = {"kernel_subsets": 100, "kernel_subset_size": 1000}
"""torch-fidelity's default; the studies of 1,000 images have fewer and smaller subsets."""


def main(names: Sequence[str]) -> None:
    import records

    threads = int(os.environ.get("RAE_BENCH_THREADS", len(os.sched_getaffinity(0))))
    ratios: list[records.Ratio] = []
    rows: list[tuple[str, str, float, float]] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            call([sys.executable, __file__, "prepare", name, folder], threads)
            what = f"{name}, {len(SETS[name])} image sets of {N:,}"
            runs = [(run(folder, "ours", threads), run(folder, "other", threads)) for _ in range(REPEATS)]
            for ours, other in runs:
                check_agreement(ours["values"], other["values"])
            seconds, memory = (
                [statistics.median(run[side][key] for run in runs) for side in (0, 1)] for key in ("seconds", "MiB")
            )
            ratios.append(records.Ratio(f"{what}, time", *seconds, "s", seconds[1] / seconds[0], 5))
            ratios.append(records.Ratio(f"{what}, largest memory", *memory, "MiB", memory[1] / memory[0], 1))
            rows += [(what, "ours", *seconds[:1], *memory[:1]), (what, "torch-fidelity", *seconds[1:], *memory[1:])]
            for side, label in VARIANTS.items():
                found = run(folder, side, threads)
                rows.append((what, label, found["seconds"], found["MiB"]))
    table = records.Table(
        f"Whole processes, {threads} threads; the first two lines of a data set are medians, the others single runs",
        ("", "side", "s", "MiB"),
        rows,
    )
    title = "Scoring a run's image sets, against torch-fidelity on folders of PNGs"
    records.write("scoring", title, ratios, tables=[table], packages=("torch", "torch-fidelity", "numpy"))


VARIANTS = {
    "ours-reference": "ours, the reference made in it, too",
    "ours-all": "ours, every metric of two sets of features, as in the studies",
    "other-cached": "torch-fidelity, reference cached in a file after the first folder",
    "ours-study": "ours, KID of 10 subsets of 500 as in the studies",
    "other-study": "torch-fidelity, KID of 10 subsets of 500",
    "other-cached-study": "torch-fidelity, KID of 10 subsets of 500, reference cached",
}


def call(command: Sequence[str], threads: int) -> dict[str, Any]:
    """Run it with so many threads: what it printed as JSON, its wall time, and its largest process's memory."""
    keys = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAE_BENCH_THREADS")
    started = time.perf_counter()
    environment = {**os.environ, **dict.fromkeys(keys, str(threads)), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with status {status}")
    seconds = time.perf_counter() - started
    return {"values": json.loads(printed), "seconds": seconds, "MiB": usage.ru_maxrss / 2**10}


def run(folder: str, side: str, threads: int) -> dict[str, Any]:
    """One side, or a variant of it."""
    return call([sys.executable, __file__, side, folder], threads)


def check_agreement(ours: dict[str, dict[str, float]], other: dict[str, dict[str, float]]) -> None:
    """Raise AssertionError unless both sides give the same numbers for every image set."""
    assert ours.keys() == other.keys()
    for name, mine in ours.items():
        theirs = other[name]
        for metric, tolerance in (
            ("frechet_distance", 1e-3 * max(1, mine["frechet_distance"])),
            ("kernel_distance", 1e-5 * max(1, mine["kernel_distance"])),  # torch-fidelity's is in float32
            ("precision", 2 / N),  # an image on the edge of a ball
            ("recall", 2 / N),
        ):
            difference = abs(mine[metric] - theirs[metric])
            assert difference <= tolerance, f"{name}, {metric}: {mine[metric]} and {theirs[metric]}"


# --- what both sides start from -----------------------------------------------------------------------------------


def prepare(name: str, folder: Path) -> None:
    """Train, fit, and leave in `folder`: model, codes of every set, reference images, reference, settings."""
    import numpy as np
    from PIL import Image

    from rae_bench.base import storage
    from rae_bench.base.plain import to_json
    from rae_bench.base.rng import numpy_generator
    from rae_bench.data import catalogue as sources
    from rae_bench.densities import catalogue as densities
    from rae_bench.densities.codes import Posteriors
    from rae_bench.models import training
    from rae_bench.run.process import configure_torch
    from rae_bench.scoring import generation
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.metrics.reference import Reference
    from rae_bench.study.config import load_study

    study, vocabulary = load_study("embedded"), load_study("densities")
    data = sources.prepare(study.datasets[name].data)
    splits = {split: data.images[indices] for split, indices in data.splits.items()}
    spec, evaluation = study.training(name, "vae"), study.evaluation(name, "vae")
    configure_torch(with_threads(spec.compute))
    on_device = {split: training.to_device(images, "cpu") for split, images in splits.items()}
    short = replace(spec, optimisation=replace(spec.optimisation, epochs=1))
    model = training.train(short, on_device["train"], on_device["validation"], seed=0).model
    encoded = {split: Posteriors(**training.encode(model, images)) for split, images in on_device.items()}
    real = encoded["test"].mean[:N]
    codes = {
        "reconstruction": real,
        "interpolation": generation.midpoints(real, generation.interpolation_pairs(len(real), seed=0)),
    }
    for key in SETS[name][2:]:
        density = (vocabulary if key != "second_stage" else study).fit("digits", "vae", key).density
        fitted = densities.fit(density, encoded["train"], encoded["validation"], seed=0)
        codes[key] = fitted.sample(N, numpy_generator(0, "sample", key))
    np.savez(folder / "codes.npz", **codes)
    np.save(folder / "test.npy", splits["test"][:N])
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    storage.write_arrays(folder / "model.safetensors", weights, {})
    (folder / "spec.json").write_text(to_json(evaluation))
    extractor = load_extractor(evaluation.extractor)
    storage.write_arrays(folder / "test.safetensors", Reference.of(extractor(splits["test"][:N]), 5).arrays(), {})
    save_pngs(splits["test"][:N], folder / "reference")
    assert Image.open(folder / "reference" / "0000.png").size == splits["test"].shape[:1:-1]
    print("{}")


def with_threads(compute: Any) -> Any:
    """The study's, but for as many threads as both sides get."""
    return replace(compute, threads=int(os.environ["RAE_BENCH_THREADS"]))


def settings_of(folder: Path) -> Any:
    from rae_bench.base.plain import parse
    from rae_bench.scoring.specs import EvaluationSpec

    return parse(EvaluationSpec, json.loads((folder / "spec.json").read_text()), "spec")


def save_pngs(images: Any, folder: Path) -> None:
    """uint8 (n, C, H, W) as PNG files."""
    from PIL import Image

    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(folder / f"{index:04}.png")


# --- the two sides ------------------------------------------------------------------------------------------------


def ours(folder: Path, variant: str) -> None:
    """Every set decoded once, its features taken once, every metric from them, by what `evaluate` calls."""
    from rae_bench.run.process import configure, configure_torch

    spec = settings_of(folder)
    configure(with_threads(spec.compute))
    import numpy as np

    from rae_bench.base import storage
    from rae_bench.run import stages
    from rae_bench.scoring import generation
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.metrics.frechet import frechet_distance
    from rae_bench.scoring.metrics.kernel import kernel_distance
    from rae_bench.scoring.metrics.manifold import pair_metrics
    from rae_bench.scoring.metrics.measure import measure
    from rae_bench.scoring.metrics.reference import Reference

    configure_torch(with_threads(spec.compute))
    settings = spec.metrics if variant in ("study", "all") else replace(spec.metrics, **FIDELITY)
    extractor = load_extractor(spec.extractor)
    model = stages.load_model(folder / "model.safetensors", spec.training)
    if variant == "reference":
        real = Reference.of(extractor(np.load(folder / "test.npy")), 5)
    else:
        real = Reference.restore(storage.read_arrays(folder / "test.safetensors")[0])
    found = {}
    for name, codes in np.load(folder / "codes.npz").items():
        features = extractor(generation.decode(model, codes))
        if variant == "all":
            found[name] = measure(real, features, settings, is_fid=False, prd_real=real)
        else:
            found[name] = {
                "frechet_distance": frechet_distance(real, features),
                **kernel_distance(real, features, settings),
                **pair_metrics(real, features, settings),
            }
    print(json.dumps(found))


def other(folder: Path, variant: str) -> None:
    """Every set decoded, saved as PNG files, and given to torch-fidelity with the folder of reference images."""
    import numpy as np
    import torch
    import torch_fidelity

    from rae_bench.run import stages
    from rae_bench.scoring import generation
    from rae_bench.scoring.catalogue import load_extractor

    spec = settings_of(folder)
    torch.set_num_threads(with_threads(spec.compute).threads)
    extractor = load_extractor(spec.extractor)
    model = stages.load_model(folder / "model.safetensors", spec.training)

    register(extractor)
    asked: dict[str, Any] = {"cuda": False, "verbose": False, "feature_extractor": "ours"}
    asked |= {"fid": True, "kid": True, "prc": True, "rng_seed": spec.metrics.seed}
    if "study" in variant:
        asked |= {"kid_subsets": spec.metrics.kernel_subsets, "kid_subset_size": spec.metrics.kernel_subset_size}
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        if "cached" in variant:
            asked |= {"input2_cache_name": "reference", "cache_root": scratch}
        for name, codes in np.load(folder / "codes.npz").items():
            save_pngs(generation.decode(model, codes), Path(scratch) / name)
            values = torch_fidelity.calculate_metrics(
                input1=str(Path(scratch) / name), input2=str(folder / "reference"), **asked
            )
            found[name] = {
                "frechet_distance": values["frechet_inception_distance"],
                "kernel_distance": values["kernel_inception_distance_mean"],
                "precision": values["precision"],
                "recall": values["recall"],
            }
    print(json.dumps(found))


def register(extractor: Any) -> None:
    """Make our network torch-fidelity's extractor "ours": uint8 RGB images in, a tuple of features out."""
    import torch
    import torch_fidelity

    class Ours(torch_fidelity.FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name: str, features: list[str], **_: Any) -> None:
            super().__init__(name, features)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("pooled",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:  # noqa: ARG004
            return "pooled"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            return (extractor.forward(images if 3 in extractor.channels else images[:, :1]),)

    torch_fidelity.register_feature_extractor("ours", Ours)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare", name, folder]:
            prepare(name, Path(folder))
        case [side, folder] if side.split("-")[0] in ("ours", "other"):
            (ours if side.startswith("ours") else other)(Path(folder), side.partition("-")[2])
        case names:
            main(names or list(SETS))
