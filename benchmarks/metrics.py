"""What each metric of an image set costs one core, at the size of the paper's studies; features are planted.

Seconds of CPU time, so that other work on the machine does not count: 10,000 reference and 10,000 generated images of
2,048 features, as Inception's, among 50,000 training images (MNIST's and CIFAR-10's; CelebA's are 162,770).

Run with [--images 10000] [--features 2048] [--training 50000]; about four minutes.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
import records
import torch

from rae_bench.scoring.metrics import frechet, kernel, manifold, memorisation, prd, reference
from rae_bench.study.config import load_study


def planted(rng: np.random.Generator, n: int, mixing: np.ndarray, shift: float) -> np.ndarray:
    """Features (n, d), correlated and not below 0, as those behind a ReLU."""
    drawn = rng.standard_normal((n, len(mixing)), np.float32) @ mixing
    return np.maximum(drawn + np.float32(shift), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("images", 10_000), ("features", 2048), ("training", 50_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    n, d, rng = asked.images, asked.features, np.random.default_rng(0)
    settings = load_study("paper_as_released").metrics
    mixing = (rng.standard_normal((d, d)) / np.sqrt(d)).astype(np.float32)
    real, fake, copied = (
        planted(rng, *sizes) for sizes in ((n, mixing, 0.1), (n, mixing, 0.2), (asked.training, mixing, 0.1))
    )
    held = reference.Reference.of(real, settings.coverage_neighbours)
    parts: dict[str, Callable[[], object]] = {
        "Fréchet distance, torch-fidelity's and ours": lambda: frechet.fid(held, fake),
        "its SD over halves of the images": lambda: frechet.half_sample_sd(held, fake, settings.half_samples, 0),
        "its SD over halves of the reference": lambda: frechet.reference_half_sample_sd(
            held, fake, settings.half_samples, 0
        ),
        "kernel distance": lambda: kernel.kernel_distance(held, fake, settings),
        "precision, recall, density, coverage, MMD": lambda: manifold.pair_metrics(held, fake, settings),
        "precision-recall curves": lambda: prd.prd(held, fake, settings),
        "nearest training images": lambda: memorisation.Training(copied, 1.0).ratio(fake),
    }
    rows = []
    for name, part in parts.items():
        started = time.process_time()
        part()
        rows.append((name, round(time.process_time() - started, 1)))
        print(*rows[-1], flush=True)
    rows.append(("all", round(sum(seconds for _, seconds in rows), 1)))
    title = f"Metrics of an image set ({n:,} x {d:,} features, {asked.training:,} training images, one core)"
    table = records.Table("CPU time.", ("metric", "seconds"), rows)
    records.write("metrics", title, [], tables=[table], packages=("numpy", "scikit-learn", "torch", "torch-fidelity"))


if __name__ == "__main__":
    main()
