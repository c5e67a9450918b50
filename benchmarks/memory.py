"""Peak memory of the stages that read all images, on a data set of CelebA's size; run with [TRAINING IMAGES].

The images are faces of the suite's own renderer, shifted, turned and given noise; they are saved as `prepare` saves
CelebA's, block by block, and the stages are the workflow's own commands with the settings of `paper_clean`, but on the
CPU. Memory is read while they run: a process's own (anonymous) pages, which is what it needs, and ru_maxrss, which
counts pages of mapped files too. At CelebA's width an epoch takes hours, so that width is measured in two parts: the
first updates on all images (then the process is asked to end), and a whole training on a few of them: its validation
finds the heap as updates leave it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import records

from rae_bench.base.plain import fingerprint, to_json
from rae_bench.base.rng import numpy_generator
from rae_bench.base.specs import Compute
from rae_bench.data import faces, store
from rae_bench.data.prepared import ImageFiles, Prepared
from rae_bench.data.specs import DatasetSpec
from rae_bench.models.specs import TrainingSpec
from rae_bench.run import jobs
from rae_bench.study.config import load_study

LIMIT = 4096.0
"""MiB, of a training."""
EVERY = 0.02
"""Seconds between two looks at a process."""
UPDATES_FOR = 22.0
"""Seconds of full-width updates before the process is asked to end."""
DRAWN, BLOCK = 1000, 2000
CPU = Compute("cpu", len(os.sched_getaffinity(0)), tf32=False, precision="float32")
STUDY = load_study("paper_clean")


@dataclass(frozen=True)
class Peak:
    """Of one process, in MiB: its own pages, and all resident ones; and how long it took, in seconds."""

    what: str
    own: float
    resident: float
    seconds: float


def main(n_train: int) -> None:
    """Measure every stage, and keep what was found."""
    data = replace(STUDY.preparation("celeba"), n_train=n_train)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        found = [
            _watched(
                "data set, written in blocks", [sys.executable, __file__, "prepare", str(root / "all"), str(n_train)]
            )
        ]
        few = replace(data, n_train=3000, n_validation=500, n_test=500)
        _save(few, root / "few")
        narrow, full = _training(width=2, start_width=16), _training()
        found += [
            _train("train, width 2, one epoch and all codes", narrow, root / "all"),
            _train(f"train, width {full.network.width}, first updates", full, root / "all", UPDATES_FOR),
            _train(f"train, width {full.network.width}, 3,000 + 500 images, all of it", full, root / "few"),
            _train(f"train linear, PCA of {n_train:,} images", _linear(), root / "all"),
            *_features(data, root / "all"),
        ]
    trainings = [peak for peak in found if peak.what.startswith("train,")]
    size = f"{n_train:,} + {data.n_validation:,} + {data.n_test:,} images of 3x64x64"
    records.write(
        "memory",
        f"Memory of a training on {size}",
        [
            records.Ratio(
                peak.what, getattr(peak, which), LIMIT, "MiB", getattr(peak, which) / LIMIT, 1.0, True, remark
            )
            for peak in trainings
            for which, remark in (("own", "own pages"), ("resident", "ru_maxrss"))
        ],
        tables=[
            records.Table(
                f"Peak memory by stage, {CPU.threads} threads",
                ("stage", "own pages, MiB", "ru_maxrss, MiB", "seconds"),
                [(peak.what, round(peak.own), round(peak.resident), round(peak.seconds)) for peak in found],
            )
        ],
        packages=("torch", "numpy", "scipy"),
    )


def _training(**network: int) -> TrainingSpec:
    spec = STUDY.training("celeba", "rae_l2")
    return replace(
        spec,
        compute=CPU,
        network=replace(spec.network, **network),
        optimisation=replace(spec.optimisation, epochs=1),
    )


def _linear() -> TrainingSpec:
    return replace(STUDY.training("celeba", "linear"), compute=CPU)


def _train(what: str, spec: TrainingSpec, folder: Path, stop_after: float | None = None) -> Peak:
    out = folder.parent / what.replace(" ", "_")
    command = [*_command("train", spec, folder), "--run", str(out / "celeba" / "rae_l2" / "seed0")]
    return _watched(what, command, stop_after)


def _features(data: DatasetSpec, folder: Path) -> Iterator[Peak]:
    """References of test, validation and training images, through an extractor without weights; then the floor."""
    made = {}
    settings = {}
    for split in ("test", "validation", "train"):
        n = data.count(split) if split == "train" else 1000
        spec = replace(
            STUDY.reference("celeba"),
            dataset=data,
            extractor="pixels",
            split=split,
            n_images=n,
            neighbours=0 if split == "train" else 5,
            compute=CPU,
        )
        made[split], settings[split] = folder.parent / "features" / f"{split}.safetensors", fingerprint(spec)
        yield _watched(
            f"reference, {n:,} {split} images", [*_command("reference", spec, folder), "--out", str(made[split])]
        )
    floor = replace(
        STUDY.floor("celeba"),
        extractor="pixels",
        n_images=1000,
        compute=CPU,
        made_by={
            "manifest": fingerprint(data),
            "reference": settings["test"],
            "other": settings["validation"],
            "training": settings["train"],
        },
    )
    names = {"reference": "test", "other": "validation", "training": "train"}
    options = [part for key, split in names.items() for part in (f"--{key}", str(made[split]))]
    yield _watched(
        "floor",
        [*_command("floor", floor, folder), *options, "--out", str(folder.parent / "floor.json")],
    )


def _command(stage: str, spec: Any, folder: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "rae_bench",
        stage,
        "--spec",
        to_json(spec),
        "--data",
        str(folder),
    ]


def _watched(what: str, command: list[str], stop_after: float | None = None) -> Peak:
    """Run `command` and watch its memory; after so many seconds of it ask it to end."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        timer = threading.Timer(stop_after, process.send_signal, [signal.SIGTERM]) if stop_after else None
        if timer:
            timer.start()
        own = 0.0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            own = max(own, _own_pages(process.pid))
            time.sleep(EVERY)
        code = os.waitstatus_to_exitcode(status)
        if code != (75 if stop_after else 0):
            log.seek(0)
            sys.exit(f"{what}: ended with status {code}\n{log.read().decode()}")
    peak = Peak(what, own, usage.ru_maxrss / 2**10, time.monotonic() - started)
    print(f"{peak.what}: {peak.own:.0f} MiB own, {peak.resident:.0f} MiB resident, {peak.seconds:.0f} s", flush=True)
    return peak


def _own_pages(pid: int) -> float:
    """MiB of anonymous memory of a process now; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith("RssAnon")), 0.0)


def _save(data: DatasetSpec, folder: Path) -> None:
    """A prepared data set as `prepare` leaves it, of turned and shifted faces; in the order of CelebA's partition."""
    random = numpy_generator(0, "benchmark")
    drawn = faces.render(faces.draw_factors(DRAWN, random), data.size)
    n = data.n_train + data.n_validation + data.n_test

    def blocks() -> Iterator[tuple[np.ndarray, list[str]]]:
        for start in range(0, n, BLOCK):
            count = min(BLOCK, n - start)
            block = drawn[random.integers(DRAWN, size=count)]
            block = np.roll(block, random.integers(data.size, size=2), axis=(2, 3))
            block[::2] = block[::2, :, :, ::-1]
            yield block ^ random.integers(16, size=block.shape, dtype=np.uint8), ["0" * 64] * count

    bounds = np.cumsum([0, data.n_train, data.n_validation, data.n_test])
    splits = {split: np.arange(*bounds[i : i + 2]) for i, split in enumerate(("train", "validation", "test"))}
    images = ImageFiles(tuple(f"{i:06}.jpg" for i in range(n)), (n, data.channels, data.size, data.size), blocks)
    writes = {"manifest": folder / "manifest.json"}
    with jobs.running("prepare", data, {}, writes, {"dataset": "celeba"}) as progress:
        writes |= store.save(Prepared(images, splits, {}, (), "for a measurement"), data, folder, progress)


if __name__ == "__main__":
    celeba = STUDY.preparation("celeba")
    if sys.argv[1:2] == ["prepare"]:
        _save(replace(celeba, n_train=int(sys.argv[3])), Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else celeba.n_train)
