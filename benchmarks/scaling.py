"""How time and memory grow, axis by axis, beside what the counts of operations say; draws docs/figures/scaling.png.

Run with [AXIS ...], all by default; what was found before of the other axes is kept. One thread, as the studies compute
here. Each point is a process of its own, forked from one that has imported everything; its memory is the most it held
(VmHWM) above what it held then. Everything but the axis stays at a base point. Training: RAE-L2 on photos of 32x32x3,
the paper's layout at width 16, 16 latent dimensions, batches of 100; 500 images, for latent sizes 1,000. Models are the
first of MODELS, one after another; seeds are commands `train` of one epoch, imports and files included. Mixtures: 4,000
codes (principal components of photos) in 16 dimensions, K 10. Image sets: digits, all metrics of the study `embedded`.
Times are medians of repeats, of epochs without the first; with all axes it takes five minutes.

An exponent is the slope of log time over log x, least squares with its standard error, and between the last two points.
"Counted" is the same slope of the FLOPs of the very same work: of training as torch counts a step (rae_bench.run.cost),
of mixtures and metrics their leading terms, with the iterations that EM took; and of the memory by the sizes of what is
held.
"""

import json
import logging
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import records
from scaling_curves import AXES, Point, draw, from_row, summary, to_row

from rae_bench.base.plain import to_json
from rae_bench.models.specs import TrainingSpec
from rae_bench.run.process import configure, configure_torch
from rae_bench.study.config import load_study

FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "scaling.png"
MODELS = ("rae", "rae_l2", "vae", "wae", "rae_sn", "rae_gp", "cv_vae", "ae_l2")
PRELOADED = (
    *(
        "rae_bench.scoring.evaluation",
        "rae_bench.models.training",
        "rae_bench.densities.catalogue",
        "torch.utils.flop_counter",
    ),
    *("torch_fidelity.metric_kid", "sklearn.cluster", "sklearn.mixture", "torch._inductor.config"),
)
VALIDATED = 100
ENOUGH, MANY = 1.0, 20
"""What takes less than ENOUGH seconds is repeated, up to MANY times."""
CONTEXT = multiprocessing.get_context("forkserver")


# --- in a process of its own ------------------------------------------------------------------------------------


def _begun() -> int:
    """Set this process up as a stage does; the memory it holds then."""
    compute = load_study("embedded").compute
    configure(compute)
    configure_torch(compute)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    return _status("VmRSS")


def _status(key: str) -> int:
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0])


def _median(run: Callable[[], object]) -> float:
    """Seconds of `run`, the median of as many as ENOUGH allows."""
    taken: list[float] = []
    while not taken or (sum(taken) < ENOUGH and len(taken) < MANY):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def training_spec(model: str, width: int = 16, latent: int = 16, epochs: int = 1) -> TrainingSpec:
    """The base point but for what is given."""
    spec = load_study("embedded").training("photos", model)
    network = replace(spec.network, width=width, start_width=8 * width, latent_dim=latent)
    return replace(spec, network=network, optimisation=replace(spec.optimisation, batch_size=100, epochs=epochs))


def epoch(axis: str, x: int, folder: Path, model: str = "rae_l2", n: int = 500, **settings: int) -> Point:
    """An epoch of n images."""
    before = _begun()
    from rae_bench.models import training

    spec = training_spec(model, epochs=1 + max(1, 2000 // n), **settings)
    photos = np.load(folder / "photos.npy", mmap_mode="c")  # as writable as torch wants it, without a copy
    data, validation = (training.to_device(photos[part], "cpu") for part in (slice(n), slice(-VALIDATED, None)))
    ends: list[float] = []
    training.train(spec, data, validation, seed=0, progress=lambda *_: ends.append(time.perf_counter()))
    peak = _status("VmHWM") - before
    flops, held = epoch_counts(spec, n)
    return Point(axis, "epoch", x, float(np.median(np.diff(ends))), flops, peak, held)


def epoch_counts(spec: TrainingSpec, n: int) -> tuple[float, float]:
    """FLOPs of an epoch of n images, and the bytes of images, weights, Adam's moments, the best weights and a batch."""
    from rae_bench.run.cost import step_flops

    size = spec.network.counts
    images = 2 * (n + VALIDATED) * spec.network.values  # as they are read, and channels-last
    held = images + 4 * 4 * size.parameters + 4 * size.floats * spec.optimisation.batch_size
    return n // 100 * 100 * step_flops(spec) + VALIDATED * size.arithmetic, held


def mixture(axis: str, x: int, folder: Path, k: int = 10, d: int = 16, n: int = 4000) -> list[Point]:
    """A mixture fitted to n codes: principal components of photos."""
    before = _begun()
    from rae_bench.densities import catalogue as densities
    from rae_bench.densities.codes import Posteriors

    stated = load_study("densities").fit("digits", "rae_l2", "gmm10").density
    codes = np.load(folder / "codes.npy", mmap_mode="r")

    def fit(n: int, k: int) -> object:
        some = Posteriors(np.array(codes[:n, :d]), None)
        return densities.fit(replace(stated, n_components=k), some, some, 0)

    told = _Iterations()
    logging.getLogger("rae_bench.densities.mixture").addHandler(told)
    logging.getLogger("rae_bench.densities.mixture").setLevel(logging.INFO)
    fit(300, 2)  # to load what is loaded at first use
    seconds = _median(lambda: fit(n, k))
    peak = _status("VmHWM") - before
    flops = (told.iterations + 1) * 4.0 * n * k * d**2
    memory = (peak, 32 * n * (2 * d + k))
    return [
        Point(axis, "fit", x, seconds, flops, *memory),
        Point(axis, "EM iteration", x, seconds / told.iterations, flops / told.iterations, *memory),
    ]


class _Iterations(logging.Handler):
    """Hears how many iterations a mixture took."""

    iterations = 0

    def emit(self, record: logging.LogRecord) -> None:
        if found := re.search(r"converged after (\d+)", record.getMessage()):
            self.iterations = int(found[1])


def scores(axis: str, n: int, folder: Path) -> list[Point]:
    """One image set of n images against as many: features, every metric, and the nearest of 3,000 training images."""
    before = _begun()
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.metrics.manifold import pair_metrics
    from rae_bench.scoring.metrics.measure import measure
    from rae_bench.scoring.metrics.memorisation import Training
    from rae_bench.scoring.metrics.pairs import BLOCK
    from rae_bench.scoring.metrics.reference import Reference
    from rae_bench.study import resources

    settings = load_study("embedded").metrics
    extractor = load_extractor("digit_classifier")
    real, fake, training = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("real", "fake", "training"))
    copies = Training(extractor(np.array(training)), 1.0)

    def scored(n: int) -> tuple[float, float, float]:
        reference = Reference.of(extractor(np.array(real[:n])), settings.coverage_neighbours)
        images = np.array(fake[:n])
        reading = _median(lambda: extractor(images))
        found = extractor(images)

        def everything() -> None:
            measure(reference, found, settings, is_fid=False, prd_real=reference)
            copies.ratio(found)

        measuring = _median(everything)
        return reading, measuring, _median(lambda: pair_metrics(reference, found, settings))

    extractor(np.array(fake[:500]))
    reading, measuring, pairs = scored(n)
    peak = _status("VmHWM") - before
    read = n * resources.EXTRACTION["digit_classifier"]
    scored_flops = resources.scoring(resources.FEATURES["digit_classifier"], settings, n, len(training))
    held = 2 * n * 32**2 + 4 * 128 * (len(training) + 3 * n) + 8 * n * (128 + 3 * BLOCK)
    memory = (peak, held)
    return [
        Point(axis, "image set", n, reading + measuring, read + scored_flops, *memory),
        Point(axis, "pairs", n, pairs, 4.0 * n * n * 128, *memory),
        Point(axis, "features", n, reading, read, *memory),
    ]


def prepared(folder: Path) -> None:
    """Write the images and codes that the points are measured on, all of them real."""
    from rae_bench.data import catalogue as sources

    study = load_study("embedded")
    found = sources.prepare(study.preparation("photos"))
    photos = found.images[found.splits["train"]][: 8000 + VALIDATED]
    np.save(folder / "photos.npy", photos)
    grey = photos[:8000].mean(axis=1).reshape(8000, -1)
    grey -= grey.mean(axis=0)
    axes = np.linalg.eigh(grey.T @ grey)[1][:, ::-1]
    np.save(folder / "codes.npy", (grey @ axes[:, :64]).astype(np.float32))
    digits = sources.prepare(study.preparation("digits"))
    np.save(folder / "training.npy", digits.images[digits.splits["train"]])
    # there are 5,000 digits: beyond them the same ones moved by a pixel within their margin
    np.save(folder / "real.npy", np.concatenate([np.roll(digits.images, by, axis=3) for by in (0, 1)])[:8000])
    np.save(folder / "fake.npy", np.concatenate([np.roll(digits.images, by, axis=2) for by in (1, -1)])[:8000])


# --- the axes ---------------------------------------------------------------------------------------------------


def alone(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What `function` gives in a process of its own."""
    with ProcessPoolExecutor(1, CONTEXT) as pool:
        return pool.submit(function, *arguments, **named).result()


def models(x: int, folder: Path) -> Point:
    """An epoch of the first x models, a process each, one after another."""
    found: list[Point] = [alone(epoch, "models", x, folder, model, 500) for model in MODELS[:x]]
    return replace(
        found[0],
        seconds=sum(point.seconds for point in found),
        flops=sum(point.flops for point in found),
        peak=max(point.peak for point in found),
        held=max(point.held for point in found),
    )


def seeds(x: int, folder: Path) -> Point:
    """The command `train`, one epoch of 500 images, with x seeds, one after another."""
    spec = training_spec("rae_l2")
    data = folder / "small"
    if not data.exists():
        small = replace(
            load_study("embedded").preparation("photos"), n_train=500, n_validation=VALIDATED, n_test=VALIDATED
        )
        command("prepare", spec=to_json(small), data=data)
    started, peaks = time.perf_counter(), []
    for seed in range(x):
        run = folder / f"seeds{x}" / "photos" / "rae_l2" / f"seed{seed}"
        peaks.append(command("train", spec=to_json(spec), data=data, run=run))
    seconds = time.perf_counter() - started
    flops, held, imports = alone(command_counts, spec)
    return Point("seeds", "commands", x, seconds, x * flops, max(peaks) - imports, held)


def command(stage: str, **options: str | int | Path) -> int:
    """Run a stage's command; the most memory it held, imports included."""
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    process = subprocess.Popen([sys.executable, "-m", "rae_bench", stage, *given], stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(told)
    return 1024 * usage.ru_maxrss


def command_counts(spec: TrainingSpec) -> tuple[float, float, float]:
    """As `epoch_counts` of 500 images, and the memory of a process that has imported what `train` does."""
    from rae_bench.study.resources import LIBRARIES

    return *epoch_counts(spec, 500), LIBRARIES["train"]


def points(axis: str, folder: Path) -> Iterable[Point]:
    """Every point of an axis."""
    match axis:
        case "images":
            yield from (alone(epoch, axis, n, folder, n=n) for n in (500, 1000, 2000, 4000, 8000))
        case "width":
            yield from (alone(epoch, axis, width, folder, width=width) for width in (4, 8, 16, 32, 64))
        case "latent size":
            yield from (alone(epoch, axis, d, folder, n=1000, latent=d) for d in (8, 16, 32, 64, 128))
        case "models":
            yield from (models(x, folder) for x in (1, 2, 4, 8))
        case "seeds":
            yield from (seeds(x, folder) for x in (1, 2, 4, 8))
        case "K":
            yield from (point for k in (10, 20, 50, 100, 200) for point in alone(mixture, axis, k, folder, k=k))
        case "code size":
            yield from (point for d in (4, 8, 16, 32, 64) for point in alone(mixture, axis, d, folder, d=d))
        case "codes":
            yield from (point for n in (500, 1000, 2000, 4000, 8000) for point in alone(mixture, axis, n, folder, n=n))
        case "samples":
            yield from (point for n in (500, 1000, 2000, 4000, 8000) for point in alone(scores, axis, n, folder))
        case _:
            sys.exit(f"{axis!r} is not one of {', '.join(AXES)}")


def kept() -> list[Point]:
    """The points of the last run."""
    path = records.FOUND / "scaling.json"
    if not path.exists():
        return []
    *_, table = json.loads(path.read_text())["tables"]
    return [from_row(row) for row in table["rows"]]


def main(axes: list[str]) -> None:
    configure(load_study("embedded").compute)  # threads, before anything reads their number
    CONTEXT.set_forkserver_preload(list(PRELOADED))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone(prepared, folder)
        for axis in axes:
            started, measured = time.perf_counter(), []
            for point in points(axis, folder):
                print(point, flush=True)
                measured.append(point)
            print(f"{axis}: {time.perf_counter() - started:.0f} s", flush=True)
            keep([*(point for point in kept() if point.axis != axis), *measured])


def keep(found: list[Point]) -> None:
    """Write the record, and draw the figure once every axis is there."""
    found = sorted(found, key=lambda point: list(AXES).index(point.axis))
    tables = [
        records.Table("Exponents, measured and counted", *summary(found)),
        records.Table("Every point", *to_row(found)),
    ]
    packages = ("torch", "numpy", "scikit-learn")
    records.write("scaling", "How time and memory grow", [], tables=tables, packages=packages)
    if {point.axis for point in found} == set(AXES):
        draw(found, FIGURE)


if __name__ == "__main__":
    main(sys.argv[1:] or list(AXES))
