"""Time and memory of `python -m rae_bench score` on large sets.

    python benchmarks/score.py                     10,000 x 10,000 PNG files, against torch-fidelity
    python benchmarks/score.py folders N           N x N
    python benchmarks/score.py features [N D]      feature matrices, ours alone: 10,000 x 10,000 x 2,048

Of two folders (patches of photographs, 32x32; the second darkened) torch-fidelity gives FID, KID, precision and
recall, through the same network, with the kernel's subsets of `score`; it is checked that these agree. `score` gives in
addition the floor, the SD of the Fréchet distance, its extrapolation, density, coverage and precision-recall curves: a
second line has as little of these as it lets itself be told. Each side is a process of its own with as many threads as
cores (or RAE_BENCH_THREADS), imports included. Features are correlated and not negative, as after a ReLU.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

N, D = 10_000, 2048
FEWEST = ("--half-samples", "2", "--infinity-sizes", "2", "--prd-runs", "1")


def folders(n: int) -> None:
    import records
    import scoring

    threads = int(os.environ.get("RAE_BENCH_THREADS", len(os.sched_getaffinity(0))))
    size = min(500, n // 2)  # that of `standard`; half of the real set, the floor's, needs as many
    with tempfile.TemporaryDirectory() as folder:
        scoring.call([sys.executable, __file__, "prepare", folder, str(n)], threads)
        sides = [f"{folder}/real", f"{folder}/fake"]
        command = [sys.executable, "-m", "rae_bench", "score", *sides, "--json", "--kernel-subset-size", str(size)]
        every = scoring.call(command, threads)
        fewest = scoring.call([*command, *FEWEST], threads)
        other = scoring.call([sys.executable, __file__, "other", *sides, str(size)], threads)
    for name, theirs in other["values"].items():
        mine = every["values"]["values"][name]
        # torch-fidelity's kernel is in single precision; an image may lie on the edge of a ball
        tolerance = 2 / n if name in ("precision", "recall") else 1e-3 * max(1, abs(theirs))
        assert abs(mine - theirs) <= tolerance, f"{name}: {mine} and {theirs}"
    what = f"two folders of {n:,} PNG files"
    ratios = [
        records.Ratio(f"{what}, {called}, {key}", one[at], other[at], unit, other[at] / one[at])
        for called, one in (("all that `score` gives", every), ("the fewest repeats", fewest))
        for key, at, unit in (("time", "seconds", "s"), ("largest memory", "MiB", "MiB"))
    ]
    title = f"`score` against torch-fidelity, {threads} threads, single runs"
    records.write("score", title, ratios, packages=("torch", "torch-fidelity", "numpy"))


def prepare(folder: Path, n: int) -> None:
    """Two folders of images; that of the darkened ones has the last of the photographs' patches."""
    from scoring import save_pngs

    from rae_bench.data import catalogue
    from rae_bench.study.config import load_study

    images = catalogue.prepare(load_study("embedded").preparation("photos")).images
    save_pngs(images[:n], folder / "real")
    save_pngs(images[-n:] // 10 * 9, folder / "fake")
    print("{}")


def other(real: str, fake: str, size: int) -> None:
    """What torch-fidelity says of the two folders; its loader's worker processes included."""
    import scoring
    import torch
    import torch_fidelity

    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.specs import DEFAULT_EXTRACTOR

    torch.set_num_threads(int(os.environ["RAE_BENCH_THREADS"]))
    scoring.register(load_extractor(DEFAULT_EXTRACTOR))
    asked: dict[str, Any] = {
        "cuda": False,
        "verbose": False,
        "feature_extractor": "ours",
        "cache": False,
        "rng_seed": 0,
    }
    asked |= {"fid": True, "kid": True, "prc": True, "kid_subsets": 10, "kid_subset_size": size}
    found = torch_fidelity.calculate_metrics(input1=fake, input2=real, **asked)
    named = {
        "frechet_distance": "frechet_inception_distance",
        "kernel_distance": "kernel_inception_distance_mean",
        "precision": "precision",
        "recall": "recall",
    }
    print(json.dumps({name: found[key] for name, key in named.items()}))


def features(n: int, d: int) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((d, d), dtype=np.float32) * np.linspace(1, 0.02, d, dtype=np.float32) / np.sqrt(d)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.npy" for name in ("real", "fake")]
        for path, scale in zip(paths, (1.0, 1.1), strict=True):
            np.save(path, scale * np.maximum(rng.standard_normal((n, d), dtype=np.float32) @ mixing, 0))
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "rae_bench", "score", *map(str, paths)])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    if status:
        sys.exit(f"score ended with status {status}")
    print(f"{n} x {n} x {d}, {os.cpu_count()} cores: {seconds:.0f} s, largest memory {usage.ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare", folder, n]:
            prepare(Path(folder), int(n))
        case ["other", real, fake, size]:
            other(real, fake, int(size))
        case ["features", *counts]:
            features(*(map(int, counts) if counts else (N, D)))
        case ["folders", n]:
            folders(int(n))
        case []:
            folders(N)
        case unknown:
            sys.exit(f"{unknown}: expected nothing, folders N, or features [N D]")
