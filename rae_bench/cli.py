"""One subcommand per stage: parse paths, load, call one function, save; no decisions. Also `status` and `score`.

Heavy modules are imported inside the subcommand that needs them, after the number of threads has been set: the
libraries read it when they load.
"""

import argparse
import ctypes
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rae_bench import specs
from rae_bench.plain import ConfigError, fingerprint, parse, to_plain

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from rae_bench.autoencoder import Autoencoder

Spec = TypeVar("Spec")
RESULTS = Path("results")
log = logging.getLogger("rae_bench")


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand; a mistake of the user's is one line on stderr and exit status 1."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:
        if not _is_expected(error):
            raise
        sys.exit(f"rae_bench {options.command}: {' '.join(str(error).split())}")


def _is_expected(error: Exception) -> bool:
    """Whether the message alone says what is wrong: the suite's own errors, a full memory, a missing device."""
    own = type(error).__module__.startswith("rae_bench.")
    return own or isinstance(error, (MemoryError, ImportError))


def _configure(compute: specs.Compute) -> None:
    """Process-wide settings that change bytes or speed: threads, determinism, the allocator."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(compute.threads)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    _keep_pages()


def _configure_torch(compute: specs.Compute) -> None:
    import torch

    if compute.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device: 'cuda', but this machine offers torch no GPU; use a study with device: cpu")
    torch.set_num_threads(compute.threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _keep_pages() -> None:
    """Let glibc keep freed pages: else large tensors are returned and page-faulted in again at every step."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)
    mallopt(mmap_max, 0)


def _spec(kind: type[Spec], options: argparse.Namespace) -> Spec:
    try:
        data = json.loads(options.spec)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--spec: not JSON: {error}") from None
    spec: Spec = parse(kind, data, "--spec")
    return spec


# --- stages -----------------------------------------------------------------------------------------------


def prepare(options: argparse.Namespace) -> None:
    """Source -> uint8 images, splits and manifest."""
    from rae_bench import datasets, jobs

    spec = _spec(specs.DatasetSpec, options)
    folder = options.manifest.parent
    with jobs.running("prepare", to_plain(spec), {}, {"manifest": options.manifest, "images": folder / "images.npy"}):
        datasets.save(datasets.prepare(spec), spec, folder)


def reference(options: argparse.Namespace) -> None:
    """Images of the reference split -> features, moments; the floor: another split's images against them."""
    spec = _spec(specs.ReferenceSpec, options)
    _configure(spec.compute)
    import torch_fidelity.metric_fid  # noqa: F401  counted as imports, not as work

    from rae_bench import datasets, jobs, storage
    from rae_bench.evaluation import pca_squared_error
    from rae_bench.features import load_extractor
    from rae_bench.metrics import Reference, measure

    _configure_torch(spec.compute)
    folder = options.manifest.parent
    with jobs.running("reference", to_plain(spec), {"manifest": options.manifest}, {"reference": options.reference}):
        extractor = load_extractor(spec.extractor)
        images = datasets.load_split(folder, spec.reference_split)[: spec.n_images]
        others = datasets.load_split(folder, spec.floor_split)[: spec.n_images]
        real = Reference.of(extractor(images))
        about: dict[str, Any] = {
            "fingerprint": fingerprint(spec),
            "extractor": extractor.id,
            "label": extractor.label,
            "floor": measure(real, extractor(others), spec.metrics),
            "pca_squared_error": pca_squared_error(
                datasets.load_split(folder, "train"), images, spec.pca_components, seed=0
            ),
        }
        arrays: storage.Arrays = {"features": real.features, "mean": real.mean, "covariance": real.covariance}
        storage.write_arrays(options.reference, arrays, about)


def train(options: argparse.Namespace) -> None:
    """Images -> weights, codes of the training and validation images, one row of losses per epoch."""
    spec = _spec(specs.TrainingSpec, options)
    _configure(spec.compute)
    import numpy as np
    import pandas as pd

    from rae_bench import datasets, jobs, storage, training

    _configure_torch(spec.compute)
    folder = options.manifest.parent
    writes = {"model": options.model, "codes": options.codes, "history": options.history}
    with jobs.running("train", to_plain(spec), {"manifest": options.manifest}, writes) as progress:
        data = {
            split: training.to_device(datasets.load_split(folder, split), spec.compute.device)
            for split in ("train", "validation")
        }
        trained = training.train(
            spec.network,
            spec.objective,
            spec.optimisation,
            data["train"],
            data["validation"],
            options.seed,
            progress,
        )
        about = {"fingerprint": fingerprint(spec), "seed": options.seed, "best_epoch": trained.best_epoch}
        codes = {
            f"{split}.{name}": array
            for split, images in data.items()
            for name, array in training.encode(trained.model, images).items()
        }
        weights = {name: np.asarray(value.cpu().numpy()) for name, value in trained.model.state_dict().items()}
        storage.write_arrays(options.model, weights, about)
        storage.write_arrays(options.codes, codes, about)
        storage.write_frame(options.history, pd.DataFrame(trained.history))


def fit(options: argparse.Namespace) -> None:
    """Codes -> a density's arrays, with the log-likelihood of training and validation codes."""
    spec = _spec(specs.FitSpec, options)
    _configure(spec.compute)
    if isinstance(spec.density, specs.GaussianMixture):
        import sklearn.mixture  # noqa: F401  counted as imports, not as work

    from rae_bench import densities, jobs, storage

    if isinstance(spec.density, specs.SecondStage):
        _configure_torch(spec.compute)
    with jobs.running("fit", to_plain(spec), {"codes": options.codes}, {"density": options.density}):
        codes, source = storage.read_arrays(options.codes, "train.mean", "validation.mean")
        fitted = densities.fit(spec.density, codes["train.mean"], codes["validation.mean"], options.seed)
        about = {
            "fingerprint": fingerprint(spec),
            "train_fingerprint": source["fingerprint"],
            "seed": options.seed,
            "density": to_plain(spec.density),
            "log_likelihood": {
                split: fitted.log_likelihood(codes[f"{split}.mean"]) for split in ("train", "validation")
            },
        }
        storage.write_arrays(options.density, fitted.state(), about)


def evaluate(options: argparse.Namespace) -> None:
    """Model, densities, reference and images -> every metric of every image set, and sheets to look at."""
    spec = _spec(specs.EvaluationSpec, options)
    _configure(spec.compute)
    import torch_fidelity.metric_fid  # noqa: F401  counted as imports, not as work

    from rae_bench import datasets, densities, jobs, results, storage
    from rae_bench.evaluation import evaluate as run
    from rae_bench.features import load_extractor
    from rae_bench.metrics import Reference

    _configure_torch(spec.compute)
    folder = options.manifest.parent
    fitted_paths = {name: options.densities / f"{name}.safetensors" for name in spec.densities}
    reads = {"manifest": options.manifest, "model": options.model, "reference": options.reference, **fitted_paths}
    with jobs.running("evaluate", to_plain(spec), reads, {"metrics": options.metrics, "sheets": options.sheets}):
        arrays, real_about = storage.read_arrays(options.reference)
        extractor = load_extractor(spec.extractor)
        if real_about["extractor"] != extractor.id:
            raise ConfigError(
                f"{options.reference}: made with {real_about['extractor']}, now {extractor.id}; delete it and run again"
            )
        model = _load_model(options.model, spec.training)
        fitted: dict[str, densities.FittedDensity] = {}
        fits: dict[str, dict[str, Any]] = {}
        for name, path in fitted_paths.items():
            state, fits[name] = storage.read_arrays(path)
            fitted[name] = densities.restore(parse(specs.Density, fits[name]["density"], f"{path}: density"), state)
        manifest = storage.read_json(options.manifest)
        labels = datasets.load_labels(folder, spec.reference_split)
        real = Reference(arrays["features"], arrays["mean"], arrays["covariance"])
        images = datasets.load_split(folder, spec.reference_split)[: spec.n_images]
        if labels is not None:
            labels = labels[: spec.n_images]
        evaluated = run(spec, model, fitted, real, images, labels, extractor, options.seed)
        context = results.Context(
            study=options.study,
            dataset=options.dataset,
            is_synthetic=bool(manifest["synthetic"]),
            model=options.model_name,
            train_seed=options.seed,
            n_generated=len(images),
            n_reference=len(images),
            reference_split=spec.reference_split,
            extractor=extractor.id,
            extractor_label=str(real_about["label"]),
            train_fingerprint=fingerprint(spec.training),
            evaluate_fingerprint=fingerprint(spec),
        )
        frame = results.run_frame(context, evaluated.rows, fits, real_about)
        storage.write_arrays(options.sheets, evaluated.sheets, {"fingerprint": fingerprint(spec)})
        storage.write_frame(options.metrics, frame)


def _load_model(path: Path, spec: specs.TrainingSpec) -> "Autoencoder":
    import torch

    from rae_bench import storage
    from rae_bench.autoencoder import build

    weights, about = storage.read_arrays(path)
    if about["fingerprint"] != fingerprint(spec):
        raise ConfigError(f"{path}: made with other settings than this evaluation's; delete it and run again")
    model = build(spec.network, spec.objective, seed=0).to(spec.compute.device)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.eval()


def _summary_stage(stage: str, options: argparse.Namespace, write: Callable[[specs.SummarySpec, Any], None]) -> None:
    """What tables, figures and report have in common: the settings and the study's metrics."""
    from rae_bench import jobs, storage

    spec = _spec(specs.SummarySpec, options)
    with jobs.running(stage, {"fingerprint": fingerprint(spec)}, {"metrics": options.metrics}, {stage: options.out}):
        write(spec, storage.read_frame(options.metrics))


def collect(options: argparse.Namespace) -> None:
    """Every run's metrics -> one tidy frame."""
    from rae_bench import jobs, results, storage

    spec = _spec(specs.SummarySpec, options)
    reads = {str(path): path for path in options.runs}
    with jobs.running("collect", {"fingerprint": fingerprint(spec)}, reads, {"metrics": options.metrics}):
        storage.write_frame(options.metrics, results.collect([storage.read_frame(path) for path in options.runs]))


def tables(options: argparse.Namespace) -> None:
    """Tidy frame -> Table 1, claims ... as csv, md and tex."""
    from rae_bench import tables as module

    _summary_stage("tables", options, lambda spec, frame: module.write(spec, frame, options.out))


def figures(options: argparse.Namespace) -> None:
    """Tidy frame, sheets and histories -> pdf and png."""
    from rae_bench import plots

    _summary_stage(
        "figures", options, lambda spec, frame: plots.write(spec, frame, options.metrics.parent, options.out)
    )


def report(options: argparse.Namespace) -> None:
    """Tables, figures, settings, provenance and costs -> one HTML file."""
    from rae_bench import report as module

    _summary_stage(
        "report", options, lambda spec, frame: module.write(spec, frame, options.metrics.parent, options.out)
    )


# --- for people -------------------------------------------------------------------------------------------


def status(options: argparse.Namespace) -> None:
    """What is done, running, failed, and how long is left."""
    from rae_bench.config import load_study
    from rae_bench.status import describe

    print(describe(load_study(options.study), RESULTS))


def costs(options: argparse.Namespace) -> None:
    """Every job's time and memory to costs.csv, and how the wall time divides."""
    from rae_bench.config import load_study
    from rae_bench.status import write_costs

    print(write_costs(load_study(options.study), RESULTS, options.cores, options.since))


def score(options: argparse.Namespace) -> None:
    """The metrics of two feature matrices."""
    from rae_bench import storage
    from rae_bench.metrics import Reference, measure

    real, fake = (_features(storage.read_npy(path), path) for path in (options.real, options.fake))
    settings = specs.MetricSettings(
        kernel_subsets=options.kernel_subsets,
        kernel_subset_size=min(options.kernel_subset_size, len(real), len(fake)),
        neighbours=options.neighbours,
    )
    values = measure(Reference.of(real), fake, settings)
    if options.json:
        counts = {"n_real": len(real), "n_fake": len(fake), "kernel_subset_size": settings.kernel_subset_size}
        print(json.dumps({**values, **counts}, sort_keys=True))
        return
    for name, value in values.items():
        print(f"{name:28} {value:.6g}")
    print(f"{len(real)} real, {len(fake)} fake images; kernel subsets of {settings.kernel_subset_size}")


def _features(array: "npt.NDArray[Any]", path: Path) -> "npt.NDArray[np.float32]":
    from rae_bench.metrics import MetricError
    from rae_bench.metrics.reference import check_features

    try:
        check_features("", array)
    except MetricError as error:
        raise MetricError(f"{path}:{error}") from None
    return array


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rae_bench", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        run: Callable[[argparse.Namespace], None], *paths: str, seeded: bool = False
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__, help=(run.__doc__ or "").strip(), allow_abbrev=False)
        added.set_defaults(run=run)
        for path in paths:
            added.add_argument(f"--{path}", type=Path, required=True)
        if paths:
            added.add_argument("--spec", required=True, help="the stage's settings as JSON")
        if seeded:
            added.add_argument("--seed", type=int, required=True)
        return added

    command(prepare, "manifest")
    command(reference, "manifest", "reference")
    command(train, "manifest", "model", "codes", "history", seeded=True)
    command(fit, "codes", "density", seeded=True)
    evaluation = command(evaluate, "manifest", "model", "densities", "reference", "metrics", "sheets", seeded=True)
    for name in ("study", "dataset", "model-name"):
        evaluation.add_argument(f"--{name}", required=True)
    command(collect, "metrics").add_argument("--runs", type=Path, nargs="+", required=True)
    command(tables, "metrics", "out")
    command(figures, "metrics", "out")
    command(report, "metrics", "out")

    command(status).add_argument("study")
    costing = command(costs)
    costing.add_argument("study")
    costing.add_argument("--cores", type=int)
    costing.add_argument("--since", type=float, help="when the command that ran the jobs began, in Unix time")
    scoring = command(score)
    scoring.add_argument("real", type=Path, help="features of real images: .npy, (n, d), a row an image")
    scoring.add_argument("fake", type=Path, help="features of generated images, same extractor")
    scoring.add_argument("--json", action="store_true", help="print JSON")
    scoring.add_argument("--kernel-subsets", type=int, default=100)
    scoring.add_argument("--kernel-subset-size", type=int, default=1000)
    scoring.add_argument("--neighbours", type=int, default=3)
    return parser
