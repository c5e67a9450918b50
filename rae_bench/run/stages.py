"""One function per stage, the subcommand of the same name: parse paths, load, call one function, save; no decisions.

Heavy modules are imported inside the stage that needs them (`rae_bench.study.loads`), after the number of threads has
been set: the libraries read it when they load.
"""

import argparse
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rae_bench.base.plain import ConfigError, fingerprint, parse, to_plain
from rae_bench.data.specs import DatasetSpec
from rae_bench.densities.specs import Density, FitSpec
from rae_bench.models.specs import TrainingSpec
from rae_bench.run import records
from rae_bench.run.process import configure, configure_torch
from rae_bench.scoring.specs import EvaluationSpec, FloorSpec, ProtocolSpec, ReferenceSpec, is_fid
from rae_bench.study import loads
from rae_bench.study.specs import SummarySpec

if TYPE_CHECKING:
    import pandas as pd

    from rae_bench.base.storage import Arrays
    from rae_bench.densities.catalogue import FittedDensity
    from rae_bench.densities.codes import Posteriors
    from rae_bench.models.autoencoder import Autoencoder
    from rae_bench.scoring.evaluation import Subject
    from rae_bench.scoring.metrics.reference import Reference
    from rae_bench.study.results import Floor

Spec = TypeVar("Spec")
log = logging.getLogger(__name__)


def _spec(kind: type[Spec], options: argparse.Namespace) -> Spec:
    try:
        data = json.loads(options.spec)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--spec: not JSON: {error}") from None
    spec: Spec = parse(kind, data, "--spec")
    return spec


def prepare(options: argparse.Namespace) -> None:
    """Source -> uint8 images, splits and manifest."""
    loads.load(loads.STAGES["prepare"])
    from rae_bench.data import catalogue as sources
    from rae_bench.data import store
    from rae_bench.run import jobs

    spec = _spec(DatasetSpec, options)
    folder = options.manifest.parent
    writes = {"manifest": options.manifest}
    with jobs.running("prepare", spec, {}, writes, {"dataset": folder.absolute().name}) as progress:
        writes |= store.save(sources.prepare(spec), spec, folder, progress)


def reference(options: argparse.Namespace) -> None:
    """Real images of a split -> features and all that can be computed from them once, shared by all studies."""
    spec = _spec(ReferenceSpec, options)
    configure(spec.compute)
    loads.load(loads.STAGES["reference"])
    from rae_bench.base import memory, storage
    from rae_bench.data import store
    from rae_bench.run import jobs
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.metrics.reference import Reference

    configure_torch(spec.compute)
    reads, writes = {"manifest": options.manifest}, {"reference": options.reference}
    with jobs.running("reference", spec, reads, writes, {}, {"manifest": fingerprint(spec.dataset)}):
        extractor = load_extractor(spec.extractor, spec.compute.device)
        with memory.explained(f"{spec.extractor}, batches of {extractor.batch} images"):
            images = store.open_split(options.manifest.parent, spec.split, spec.n_images)
            about = {"fingerprint": fingerprint(spec), "extractor": extractor.id, "label": extractor.label}
            name = f"{options.manifest.parent}, {spec.split}"
            found = Reference.of(extractor(images), spec.neighbours, name)
            storage.write_arrays(options.reference, found.arrays(), about)


def floor(options: argparse.Namespace) -> None:
    """Two sets of real features -> every metric of one against the other; and what PCA makes of the images."""
    spec = _spec(FloorSpec, options)
    configure(spec.compute)
    loads.load(loads.of_scoring("floor", spec))
    from rae_bench.base import storage
    from rae_bench.data import store
    from rae_bench.run import jobs
    from rae_bench.scoring.evaluation import attribute_metrics, pca_squared_error
    from rae_bench.scoring.metrics.measure import measure
    from rae_bench.scoring.metrics.memorisation import Training

    configure_torch(spec.compute)
    reads = {name: getattr(options, name) for name in ("manifest", "reference", "other", "training")}
    with jobs.running("floor", spec, reads, {"floor": options.floor}, {}, spec.made_by):
        (real, about), (other, _), (training, _) = (_reference(reads[name]) for name in list(reads)[1:])
        values = measure(real, other.raw, spec.metrics, is_fid=is_fid(spec.extractor), prd_real=real, name=other.name)
        copies = Training.of(training.raw, real.raw)
        values["nearest_training_ratio"] = copies.ratio(other.raw)
        folder = options.manifest.parent
        if spec.has_factors:
            values |= attribute_metrics(store.load_split(folder, spec.floor_split, spec.n_images))
        images = store.load_split(folder, spec.reference_split, spec.n_images)
        pca = pca_squared_error(store.open_split(folder, "train"), images, spec.pca_components, seed=0)
        found = {"values": values, "pca_squared_error": pca, "training_distance": copies.typical}
        storage.write_json(options.floor, {**about, **found, "fingerprint": fingerprint(spec)})


def _reference(path: Path) -> "tuple[Reference, dict[str, Any]]":
    from rae_bench.base import storage
    from rae_bench.scoring.metrics.reference import Reference

    arrays, about = storage.read_arrays(path, "features", "squared_radii")
    with storage.reading(path, "reference"):
        return Reference.restore(arrays, str(path)), {
            name: str(about[name]) for name in ("fingerprint", "extractor", "label")
        }


def train(options: argparse.Namespace) -> None:
    """Images -> weights, codes of the training and validation images, one row of losses per epoch."""
    spec = _spec(TrainingSpec, options)
    configure(spec.compute)
    loads.load(loads.STAGES["train"])
    import numpy as np
    import pandas as pd
    import torch

    from rae_bench import __version__
    from rae_bench.base import memory, storage
    from rae_bench.base.checkpoints import Checkpoint
    from rae_bench.data import store
    from rae_bench.models import training
    from rae_bench.run import jobs

    configure_torch(spec.compute)
    folder = options.manifest.parent
    writes = {"model": options.model, "codes": options.codes, "history": options.history}
    batches = f"batch_size {spec.optimisation.batch_size} (validation: at most {training.VALIDATION_BATCH})"
    change = "a smaller batch_size in budgets.yaml, which changes the study,"
    with (
        jobs.running("train", spec, {"manifest": options.manifest}, writes, {"seed": options.seed}) as progress,
        memory.explained(batches, change),
    ):
        decides = (spec, options.seed, store.load_manifest(folder).sha256, torch.__version__, __version__)
        checkpoint = Checkpoint.beside(options.model, fingerprint(decides))
        data = {
            split: training.to_device(store.open_split(folder, split), spec.compute.device)
            for split in dict.fromkeys(("train", "validation", spec.validation_split))
        }
        trained = training.train(
            spec.network,
            spec.objective,
            spec.optimisation,
            data["train"],
            data[spec.validation_split],
            options.seed,
            progress,
            checkpoint,
            spec.compute.precision,
        )
        about = {"fingerprint": fingerprint(spec), "seed": options.seed, "best_epoch": trained.best_epoch}
        weights = {name: np.asarray(value.cpu().numpy()) for name, value in trained.model.state_dict().items()}
        storage.write_arrays(options.model, weights, about)  # before encoding, which may iterate spectral norms
        # densities are judged on images that were not trained on, always
        codes = training.encode_splits(trained.model, {split: data[split] for split in ("train", "validation")})
        storage.write_arrays(options.codes, codes, about)
        history = pd.DataFrame(trained.history)
        history.attrs.update(about)
        storage.write_frame(options.history, history)
    checkpoint.remove()  # last: an output or a record that cannot be written costs no training


def fit(options: argparse.Namespace) -> None:
    """Codes -> a density's arrays, with the log-likelihood of training and validation codes."""
    spec = _spec(FitSpec, options)
    configure(spec.compute)
    loads.load(loads.of_density(spec.density))
    from rae_bench.base import memory, storage
    from rae_bench.densities import catalogue as densities
    from rae_bench.run import jobs

    if isinstance(spec.density, densities.NETWORKS):
        configure_torch(spec.compute)
    with (
        jobs.running("fit", spec, {"codes": options.codes}, {"density": options.density}, {"seed": options.seed}),
        memory.explained(f"the fit of {spec.density.kind!r}"),
    ):
        arrays, source = storage.read_arrays(options.codes, "train.mean", "validation.mean")
        with storage.reading(options.codes, "codes"):
            train_fingerprint, posteriors = str(source["fingerprint"]), posteriors_of(arrays)
        fitted, likelihoods = fit_codes(spec, posteriors, options.seed)
        about = {
            "fingerprint": fingerprint(spec),
            "train_fingerprint": train_fingerprint,
            "seed": options.seed,
            "density": to_plain(spec.density),
            "log_likelihood": likelihoods,
        }
        storage.write_arrays(options.density, fitted.state(), about)


def posteriors_of(codes: "Arrays") -> "dict[str, Posteriors]":
    """Those of a run's training and validation images, as `train` writes them."""
    from rae_bench.densities.codes import Posteriors

    return {
        split: Posteriors(codes[f"{split}.mean"], codes.get(f"{split}.log_sigma")) for split in ("train", "validation")
    }


def fit_codes(
    spec: FitSpec, posteriors: "Mapping[str, Posteriors]", seed: int
) -> "tuple[FittedDensity, dict[str, float | None]]":
    """The density of a run's codes, and the log-likelihood of training and of validation codes under it."""
    from rae_bench.densities import catalogue as densities

    kept = {**posteriors, "train": posteriors["train"].without_last(spec.leave_out_last)}
    fitted = densities.fit(spec.density, kept["train"], kept["validation"], seed)
    return fitted, {
        split: fitted.log_likelihood(densities.codes_of(spec.density, part, seed, split))
        for split, part in kept.items()
    }


def evaluate(options: argparse.Namespace) -> None:
    """Model, densities, reference and images -> every metric of every image set, and sheets to look at."""
    spec = _spec(EvaluationSpec, options)
    configure(spec.compute)
    loads.load(loads.of_scoring("evaluate", spec))
    from rae_bench.base import memory, storage
    from rae_bench.data import store
    from rae_bench.run import jobs
    from rae_bench.scoring import evaluation, generation
    from rae_bench.study import results

    configure_torch(spec.compute)
    reads = {
        name: getattr(options, name)
        for name in ("manifest", "model", "reference", "prd_reference", "training", "floor")
    }
    densities = _density_paths(options.densities, spec.densities)
    reads |= {f"densities/{name}": path for name, path in densities.items()}
    writes = {"metrics": options.metrics, "sheets": options.sheets}
    run = {"study": options.study, **_run(options)}
    with (
        jobs.running("evaluate", spec, reads, writes, run, spec.made_by),
        memory.explained(f"batches of {generation.BATCH} images"),
    ):
        subject, fits, floor_values = load_subject(spec, reads, densities, options.seed)
        evaluated = evaluation.evaluate(subject)
        about = {
            **{"study": options.study, "dataset": options.dataset, "model": options.model_name},
            **{"train_seed": options.seed, "n_features": subject.reference.features.shape[1]},
            "is_synthetic": store.load_manifest(options.manifest.parent).synthetic,
            **{"extractor": subject.extractor.id, "extractor_label": subject.extractor.label},
        }
        frame = results.run_frame(spec, about, evaluated.rows, fits, floor_values)
        storage.write_arrays(options.sheets, evaluated.sheets, {"fingerprint": fingerprint(spec)})
        storage.write_frame(options.metrics, frame)


def load_subject(
    spec: EvaluationSpec, reads: Mapping[str, Path], densities: Mapping[str, Path], seed: int
) -> "tuple[Subject, dict[str, dict[str, Any]], Floor]":
    """What is evaluated and against what; what the files of `densities` say of themselves; and the floor's values.

    `reads`: the paths of manifest, reference, prd_reference, training, floor and model.
    """
    from rae_bench.base import storage
    from rae_bench.data import store
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.evaluation import Subject
    from rae_bench.scoring.metrics.memorisation import Training
    from rae_bench.study import results

    real, about = _reference(reads["reference"])
    is_own = reads["prd_reference"] == reads["reference"]
    prd_real = real if is_own else _reference(reads["prd_reference"])[0]
    training, _ = _reference(reads["training"])
    extractor = load_extractor(spec.extractor, spec.compute.device)
    _check_extractor(reads["reference"], about, extractor.id)
    model = load_model(reads["model"], spec.training)
    fitted, fits = _load_densities(densities)
    path = reads["floor"]
    floor_values: results.Floor = parse(results.Floor, storage.read_json(path), str(path))
    folder, sets = reads["manifest"].parent, spec.image_sets
    images = {
        split: store.load_split(folder, split, spec.n_images)
        for split in dict.fromkeys((spec.reference_split, sets.reconstructed, sets.interpolated))
    }
    labels = store.load_digits(folder, sets.reconstructed)
    if labels is not None:
        labels = labels[: spec.n_images]
    copies = Training(training.raw, floor_values.training_distance)
    subject = Subject(spec, model, fitted, real, prd_real, copies, images, labels, extractor, seed)
    return subject, fits, floor_values


def protocols(options: argparse.Namespace) -> None:
    """Model, densities and references -> the distance of the same samples, scored in other ways."""
    spec = _spec(ProtocolSpec, options)
    configure(spec.compute)
    loads.load(loads.STAGES["protocols"])
    import pandas as pd

    from rae_bench.base import memory, storage
    from rae_bench.run import jobs
    from rae_bench.scoring import generation
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.evaluation import score_protocols

    configure_torch(spec.compute)
    paths = {key: options.references / f"{name}.safetensors" for key, name in spec.references.items()}
    densities = _density_paths(options.densities, spec.densities)
    reads = {
        "model": options.model,
        **{f"densities/{name}": path for name, path in densities.items()},
        **{f"references/{key}": path for key, path in paths.items()},
    }
    with (
        jobs.running("protocols", spec, reads, {"panel": options.panel}, _run(options), spec.made_by),
        memory.explained(f"batches of {generation.BATCH} images"),
    ):
        names = {one.extractor for one in spec.protocols.values()}
        extractors = {name: load_extractor(name, spec.compute.device) for name in names}
        references = {}
        for key, path in paths.items():
            references[key], about = _reference(path)
            _check_extractor(path, about, extractors[spec.protocols[key].extractor].id)
        model = load_model(options.model, spec.training)
        fitted, _ = _load_densities(densities)
        frame = pd.DataFrame(score_protocols(spec, model, fitted, references, extractors, options.seed))
        frame.insert(0, "train_seed", options.seed)
        frame.insert(0, "model", options.model_name)
        frame.insert(0, "dataset", options.dataset)
        frame["protocol_fingerprint"] = fingerprint(spec)
        storage.write_frame(options.panel, frame)


def _run(options: argparse.Namespace) -> dict[str, Any]:
    return {"dataset": options.dataset, "model": options.model_name, "seed": options.seed}


def _density_paths(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    return {name: folder / f"{name}.safetensors" for name in names}


def _load_densities(paths: Mapping[str, Path]) -> "tuple[dict[str, FittedDensity], dict[str, dict[str, Any]]]":
    """Every fitted density, and what its file says of itself."""
    from rae_bench.base import storage
    from rae_bench.densities import catalogue as densities

    fitted, fits = {}, {}
    for name, path in paths.items():
        state, about = storage.read_arrays(path)
        with storage.reading(path, "density"):
            fits[name] = {key: about[key] for key in ("fingerprint", "log_likelihood")}
            fitted[name] = densities.restore(parse(Density, about["density"], "density"), state)
    return fitted, fits


def _check_extractor(path: Path, about: dict[str, Any], extractor: str) -> None:
    if about["extractor"] != extractor:
        raise ConfigError(f"{path}: made with {about['extractor']}, now {extractor}; delete it and run again")


def load_model(path: Path, spec: TrainingSpec) -> "Autoencoder":
    """The trained model of `spec` whose weights stand in `path`, on the device it is for, in evaluation mode."""
    import torch

    from rae_bench.base import storage
    from rae_bench.models.autoencoder import build

    weights, _ = storage.read_arrays(path)
    model = build(spec.network, spec.objective, seed=0).to(spec.compute.device)
    with storage.reading(path, "model"):
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.eval()


def collect(options: argparse.Namespace) -> None:
    """Every run's metrics -> one tidy frame; and every run's panel of protocols, where the study has one."""
    loads.load(loads.STAGES["collect"])
    from rae_bench.base import storage
    from rae_bench.run import jobs
    from rae_bench.study import results

    spec = _spec(SummarySpec, options)
    reads = {str(path): path for path in (*options.runs, *options.panels)}
    panel = options.metrics.with_name("protocols.parquet")
    writes = {"metrics": options.metrics, **({"panel": panel} if options.panels else {})}
    with jobs.running("collect", jobs.summary_settings(spec), reads, writes):
        runs = {str(path): storage.read_frame(path, *results.COLUMNS) for path in options.runs}
        panels = {str(path): storage.read_frame(path, *results.PANEL_COLUMNS) for path in options.panels}
        results.check_runs(spec, runs, panels)
        if panels:
            storage.write_frame(panel, results.collect_panels(list(panels.values())))
        frame = results.collect(list(runs.values()))
        for warning in results.warnings(frame):
            log.warning("%s", warning)
        storage.write_frame(options.metrics, frame)


def _summary_stage(
    stage: str,
    options: argparse.Namespace,
    inputs: Callable[[SummarySpec, Path], list[Path]],
    write: Callable[[SummarySpec, "pd.DataFrame", Path, Path], list[Path]],
) -> None:
    """What tables, figures and report have in common: the settings, the study's metrics and its folder."""
    from rae_bench.base import storage
    from rae_bench.run import jobs

    spec = _spec(SummarySpec, options)
    root, settings = options.metrics.parent, jobs.summary_settings(spec)
    reads = {"metrics": options.metrics, **{str(path): path for path in inputs(spec, root)}}
    writes = {stage: options.out}
    with jobs.running(stage, settings, reads, writes, made_by={"metrics": fingerprint(settings)}):
        made = write(spec, storage.read_frame(options.metrics), root, options.out)
        writes |= {str(path): path for path in made}


def tables(options: argparse.Namespace) -> None:
    """Tidy frame -> Table 1, claims ... as csv, md and tex."""
    loads.load(loads.STAGES["tables"])
    from rae_bench.report.tables import catalogue as module

    _summary_stage("tables", options, module.inputs, module.write)


def figures(options: argparse.Namespace) -> None:
    """Tidy frame, sheets and histories -> pdf and png."""
    loads.load(loads.STAGES["figures"])
    from rae_bench.report.plots import catalogue as plots

    _summary_stage("figures", options, plots.inputs, plots.write)


def report(options: argparse.Namespace) -> None:
    """Tables, figures, settings, provenance and costs -> one HTML file."""
    loads.load(loads.STAGES["report"])
    from rae_bench.report import page
    from rae_bench.run.status import cost_frame
    from rae_bench.study.config import load_study

    def write(spec: SummarySpec, frame: "pd.DataFrame", root: Path, path: Path) -> list[Path]:
        page.write(spec, frame, cost_frame(load_study(spec.study), root.parent), root, path)
        return []

    _summary_stage("report", options, _shown, write)


def _shown(spec: SummarySpec, root: Path) -> list[Path]:
    """What the report of the study in `root` shows beside the metrics."""
    indices = [root / kind / "index.json" for kind in ("tables", "figures")]
    drawn = records.find(indices[1])
    figures = [indices[1].with_name(name) for name in drawn[1].wrote if name.endswith(".png")] if drawn else []
    return [*indices, *figures, *(root.parent / "datasets" / name / "manifest.json" for name in spec.datasets)]
