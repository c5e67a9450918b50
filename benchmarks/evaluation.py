"""Time of scoring one run as `evaluate` does: reconstruction, interpolation and ten densities, all metrics.

Run with [DATASET ...]; digits and photos by default. 1,000 images a set, a briefly trained VAE, `threads` of the study
`densities` unless RAE_BENCH_THREADS says otherwise. Reference features count as there already, as they are for all
runs but the first.
"""

import os
import sys
import time

threads = int(os.environ.get("RAE_BENCH_THREADS", "1"))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = str(threads)

from dataclasses import replace  # noqa: E402  threads come first

import torch  # noqa: E402

from rae_bench import datasets, densities, evaluation, training  # noqa: E402
from rae_bench.config import load_study  # noqa: E402
from rae_bench.densities.codes import Posteriors  # noqa: E402
from rae_bench.features import load_extractor  # noqa: E402
from rae_bench.metrics import Reference, Training  # noqa: E402

TEN = (
    *("standard_normal", "gaussian", "gmm1", "gmm10", "gmm50", "gmm100"),
    *("dp50", "kde", "flow", "second_stage"),
)


def main(names: list[str]) -> None:
    torch.set_num_threads(threads)
    vocabulary = load_study("densities")
    for name in names:
        study = load_study("embedded")
        data = datasets.prepare(study.datasets[name].data)
        splits = {split: data.images[indices] for split, indices in data.splits.items()}
        spec = study.training(name, "vae")
        optimisation = replace(spec.optimisation, epochs=1)
        on_device = {split: training.to_device(images, "cpu") for split, images in splits.items()}
        model = training.train(
            spec.network, spec.objective, optimisation, on_device["train"], on_device["validation"], seed=0
        ).model
        codes = {split: Posteriors(**training.encode(model, on_device[split])) for split in ("train", "validation")}
        fitted = {
            key: densities.fit(
                (vocabulary if key != "second_stage" else study).fit("digits", "vae", key).density, **codes, seed=0
            )
            for key in TEN
        }
        extractor = load_extractor(study.datasets[name].extractor)
        evaluate = replace(study.evaluation(name, "vae"), densities=TEN, through=(), priors=TEN[:3])
        images = splits["test"][: evaluate.n_images]
        real = Reference.of(extractor(images), 5)
        copies = Training.of(extractor(splits["train"]), real.features)
        started = time.perf_counter()
        found = evaluation.evaluate(
            evaluation.Subject(evaluate, model, fitted, real, real, copies, {"test": images}, None, extractor, seed=0)
        )
        seconds = time.perf_counter() - started
        print(f"{name}: {len(TEN) + 2} image sets, {len(found.rows)} values, {threads} threads: {seconds:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:] or ["digits", "photos"])
