"""One function per stage of the workflow: load what it reads, call one function, save what comes out; no decisions.

Each takes its settings and paths, and can be called as well from Python; the subcommand of the same name is made from
its signature (`rae_bench.cli`). Heavy modules are imported inside the stage that needs them (`rae_bench.study.loads`),
after the number of threads has been set: the libraries read it when they load.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rae_bench.base.plain import ConfigError, fingerprint, parse, to_plain
from rae_bench.data.specs import MANIFEST, DatasetSpec
from rae_bench.densities.specs import Density, FitSpec
from rae_bench.models.specs import TrainingSpec
from rae_bench.run.process import begin
from rae_bench.scoring.specs import EvaluationSpec, FloorSpec, ProtocolSpec, ReferenceSpec, is_fid
from rae_bench.study import loads
from rae_bench.study.files import RunFiles, StudyFiles
from rae_bench.study.specs import DensityPart, MeasurePart, SummarySpec, TrainingPart, TryoutSpec

if TYPE_CHECKING:
    import pandas as pd

    from rae_bench.densities.density import FittedDensity
    from rae_bench.models.autoencoder import Model
    from rae_bench.scoring.evaluation import Given, Ruler, Subject
    from rae_bench.scoring.metrics.reference import Reference

log = logging.getLogger(__name__)


# --- images and what they are measured against ------------------------------------------------------------


def prepare(*, spec: DatasetSpec, data: Path) -> None:
    """Source -> uint8 images, splits and manifest, in the folder `data`."""
    loads.load(loads.STAGES["prepare"])
    from rae_bench.data import catalogue, store
    from rae_bench.run import jobs

    writes = {"manifest": data / MANIFEST}
    with jobs.running("prepare", spec, {}, writes, {"dataset": data.absolute().name}) as progress:
        writes |= store.save(catalogue.prepare(spec), spec, data, progress)


def reference(*, spec: ReferenceSpec, data: Path, out: Path) -> None:
    """Real images of a split -> features and all that can be computed from them once, shared by all studies."""
    begin(spec.compute, loads.STAGES["reference"])
    from rae_bench.base import memory, storage
    from rae_bench.data import store
    from rae_bench.run import jobs
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.metrics.reference import Reference

    reads = {"manifest": data / MANIFEST}
    with jobs.running("reference", spec, reads, {"reference": out}, {}, {"manifest": fingerprint(spec.dataset)}):
        extractor = load_extractor(spec.extractor, spec.compute.device)
        with memory.explained(f"{spec.extractor}, batches of {extractor.batch} images"):
            images = store.open_split(data, spec.split, spec.n_images)
            about = {"fingerprint": fingerprint(spec), **extractor.about}
            found = Reference.of(extractor(images), spec.neighbours, f"{data}, {spec.split}")
            storage.write_arrays(out, found.arrays(), about)


def floor(*, spec: FloorSpec, data: Path, reference: Path, other: Path, training: Path, out: Path) -> None:
    """Two sets of real features -> every metric of one against the other."""
    begin(spec.compute, loads.of_scoring("floor", spec))
    from rae_bench.base import storage
    from rae_bench.data import store
    from rae_bench.run import jobs
    from rae_bench.scoring.evaluation import attribute_metrics
    from rae_bench.scoring.metrics.measure import measure
    from rae_bench.scoring.metrics.memorisation import Training

    reads = {"manifest": data / MANIFEST, "reference": reference, "other": other, "training": training}
    with jobs.running("floor", spec, reads, {"floor": out}, {}, spec.made_by):
        (real, about), (fake, _), (copied, _) = (_reference(path) for path in (reference, other, training))
        values = measure(real, fake.raw, spec.metrics, is_fid=is_fid(spec.extractor), prd_real=real, name=fake.name)
        copies = Training.of(copied.raw, real.raw)
        values["nearest_training_ratio"] = copies.ratio(fake.raw)
        values["nearest_training_ratio_sd"] = copies.ratio_sd(fake.raw, spec.metrics.seed)
        if spec.has_factors:
            values |= attribute_metrics(store.load_split(data, spec.floor_split, spec.n_images))
        found = {"values": values, "training_distance": copies.typical}
        storage.write_json(out, {**about, **found, "fingerprint": fingerprint(spec)})


def _reference(path: Path, extractor: str | None = None) -> "tuple[Reference, dict[str, str]]":
    """The real features in a file, which `extractor` is to have made, if told; and what it says of itself."""
    from rae_bench.base import storage
    from rae_bench.scoring.metrics.reference import Reference

    arrays, about = storage.read_arrays(path, "features", "squared_radii")
    with storage.reading(path, "reference"):
        found = Reference.restore(arrays, str(path))
        about = {name: str(about[name]) for name in ("fingerprint", "extractor", "label")}
    if extractor not in (None, about["extractor"]):
        raise ConfigError(f"{path}: made with {about['extractor']}, now {extractor}; delete it and run again")
    return found, about


def tryout(*, spec: TryoutSpec, data: Path, out: Path) -> None:
    """Code of a user's own -> whether it does what it has to, on two batches, before anything is trained."""
    begin(spec.compute, loads.STAGES["tryout"])
    from rae_bench.base import storage
    from rae_bench.data import store
    from rae_bench.models import training
    from rae_bench.run import jobs, tryouts

    reads = {"manifest": data / MANIFEST}
    with jobs.running("tryout", spec, reads, {"tryout": out}, {}, spec.made_by):
        match spec.part:
            case TrainingPart(training=trained):
                images = store.load_split(data, "train", 2 * min(trained.optimisation.batch_size, tryouts.MOST_IMAGES))
                tryouts.try_training(trained, training.to_device(images, spec.compute.device)[:])
            case DensityPart(density=density, latent_dim=latent_dim):
                tryouts.try_density(density, latent_dim, seed=0)
            case MeasurePart(measure=measure):
                tryouts.try_measure(measure, store.load_split(data, "train", 2 * tryouts.MOST_IMAGES), seed=0)
        storage.write_json(out, {"fingerprint": fingerprint(spec)})


# --- a run ------------------------------------------------------------------------------------------------


def train(*, spec: TrainingSpec, data: Path, run: RunFiles) -> None:
    """Images -> weights, codes of the training and validation images, one row of losses per epoch."""
    begin(spec.compute, loads.of_training(spec))
    import numpy as np
    import pandas as pd
    import torch

    from rae_bench import __version__
    from rae_bench.base import memory, storage
    from rae_bench.base.checkpoints import Checkpoint
    from rae_bench.data import store
    from rae_bench.models import optimisation, training
    from rae_bench.run import jobs

    reads = {"manifest": data / MANIFEST}
    writes = {"model": run.model, "codes": run.codes, "history": run.history}
    batches = f"batch_size {spec.optimisation.batch_size} (validation: at most {optimisation.VALIDATION_BATCH})"
    change = "a smaller batch_size in budgets.yaml, which changes the study,"
    with (
        jobs.running("train", spec, reads, writes, {"seed": run.seed}) as progress,
        memory.explained(batches, change),
    ):
        decides = (spec, run.seed, store.load_manifest(data).sha256, torch.__version__, __version__)
        checkpoint = Checkpoint.beside(run.model, fingerprint(decides))
        images = {
            split: training.to_device(store.open_split(data, split), spec.compute.device)
            for split in dict.fromkeys(("train", "validation", spec.validation_split))
        }
        validation = images[spec.validation_split]
        trained = training.train(spec, images["train"], validation, int(run.seed), progress, checkpoint)
        about = {"fingerprint": fingerprint(spec), "seed": run.seed, "best_epoch": trained.best_epoch}
        weights = {name: np.asarray(value.cpu().numpy()) for name, value in trained.model.state_dict().items()}
        storage.write_arrays(run.model, weights, about)  # before encoding, which may iterate spectral norms
        # densities are judged on images that were not trained on, always
        codes = training.encode_splits(trained.model, {split: images[split] for split in ("train", "validation")})
        storage.write_arrays(run.codes, codes, about)
        history = pd.DataFrame(trained.history)
        history.attrs.update(about)
        storage.write_frame(run.history, history)
    checkpoint.remove()  # last: an output or a record that cannot be written costs no training


def fit(*, spec: FitSpec, run: RunFiles, density: str) -> None:
    """Codes -> the arrays of every fit of a density, with the log-likelihoods of training and validation codes."""
    begin(spec.compute, loads.of_density(spec.density))
    from rae_bench.base import memory, storage
    from rae_bench.base.rng import derive
    from rae_bench.densities import catalogue
    from rae_bench.densities.codes import Posteriors
    from rae_bench.run import jobs

    with (
        jobs.running("fit", spec, {"codes": run.codes}, {"density": run.density(density)}, {"seed": run.seed}),
        memory.explained(f"the fit of {spec.density.kind!r}"),
    ):
        arrays, source = storage.read_arrays(run.codes, "train.mean", "validation.mean")
        with storage.reading(run.codes, "codes"):
            train_fingerprint = str(source["fingerprint"])
            posteriors = {
                split: Posteriors(arrays[f"{split}.mean"], arrays.get(f"{split}.log_sigma"))
                for split in ("train", "validation")
            }
            prior = Posteriors(arrays["prior.mean"], arrays["prior.log_sigma"]) if "prior.mean" in arrays else None
        posteriors["train"] = posteriors["train"].without_last(spec.leave_out_last)
        states: dict[str, Any] = {}
        likelihoods: dict[str, dict[str, float | None]] = {}
        for fit_seed in spec.fit_seeds:
            seed = derive(int(run.seed), "fit", fit_seed)
            of = (posteriors["train"], posteriors["validation"], seed, prior, arrays.get("codebook"))
            fitted = catalogue.fit(spec.density, *of)
            likelihoods[str(fit_seed)] = catalogue.log_likelihoods(fitted, spec.density, posteriors, seed)
            states |= {f"{fit_seed}.{name}": array for name, array in fitted.state().items()}
        about = {
            "fingerprint": fingerprint(spec),
            "train_fingerprint": train_fingerprint,
            "seed": run.seed,
            "density": to_plain(spec.density),
            "log_likelihood": likelihoods,
        }
        storage.write_arrays(run.density(density), states, about)


def decode(*, spec: EvaluationSpec, data: Path, reference: Path, run: RunFiles) -> None:
    """Model, densities and images -> all that `evaluate` needs networks for: on a GPU, which it then leaves free."""
    begin(spec.compute, loads.STAGES["decode"])
    from rae_bench.base import memory
    from rae_bench.run import jobs
    from rae_bench.scoring import decoded, evaluation, generation

    reads = {**_read_of_run(spec, data, run, spec.densities), "reference": reference}
    with (
        jobs.running("decode", spec, reads, {"decoded": run.decoded}, _identity(run), spec.made_by),
        memory.explained(f"batches of {generation.BATCH} images"),
    ):
        fitted, _ = _load_densities({name: run.density(name) for name in spec.densities})
        subject = _subject(spec, reads, fitted, int(run.seed))
        about = {"fingerprint": fingerprint(spec), **subject.extractor.about}
        decoded.write(run.decoded, evaluation.made(subject), about)


def _read_of_run(spec: EvaluationSpec, data: Path, run: RunFiles, densities: Collection[str]) -> dict[str, Path]:
    """The images, and the model and densities that image sets are made by."""
    return {
        "manifest": data / MANIFEST,
        **({"model": run.model} if spec.training else {}),
        **{f"densities/{name}": run.density(name) for name in densities},
    }


def _identity(run: RunFiles) -> dict[str, Any]:
    return {"study": run.of.study, "dataset": run.dataset, "model": run.model_name, "seed": run.seed}


def evaluate(
    *,
    spec: EvaluationSpec,
    data: Path,
    reference: Path,
    prd_reference: Path,
    training: Path,
    run: RunFiles,
    decoded: Path | None = None,
) -> None:
    """Model, densities, reference and images -> every metric of every image set, and sheets to look at.

    A run of given images has no model and no densities: its images are scored as they are. `decoded`: what `decode` has
    made of all image sets; then nothing is decoded here, and no GPU is used.
    """
    score(
        spec=spec,
        data=data,
        reference=reference,
        prd_reference=prd_reference,
        training=training,
        run=run,
        decoded=decoded,
    )


def score(
    *,
    spec: EvaluationSpec,
    data: Path,
    reference: Path,
    prd_reference: Path,
    training: Path,
    run: RunFiles,
    decoded: Path | None = None,
    only: str = "",
) -> None:
    """Do the work of `evaluate`, or only that of one column: a density, "reconstruction" or "interpolation".

    A part of the scores is no run's: `only` is for a folder that is thrown away (`rae_bench.run.cells`).
    """
    here = spec.compute if decoded is None else replace(spec.compute, device="cpu", tf32=False)
    begin(here, loads.of_scoring("evaluate", spec))
    from rae_bench.base import memory, storage
    from rae_bench.data import store
    from rae_bench.run import jobs
    from rae_bench.scoring import decoded as handed
    from rae_bench.scoring import evaluation, generation
    from rae_bench.study import results

    densities = {name: run.density(name) for name in evaluation.densities_for(spec, only)}
    reads = {
        **_read_of_run(spec, data, run, densities),
        "reference": reference,
        "prd_reference": prd_reference,
        "training": training,
        "floor": run.of.floor(run.dataset),
        **({} if decoded is None else {"decoded": decoded}),
    }
    made_by = {**spec.made_by, "decoded": fingerprint(spec)}
    with (
        jobs.running("evaluate", spec, reads, {"metrics": run.metrics, "sheets": run.sheets}, _identity(run), made_by),
        memory.explained(f"batches of {generation.BATCH} images"),
    ):
        fitted, fits = _load_densities(densities)
        path = reads["floor"]
        floor_values: results.Floor = parse(results.Floor, storage.read_json(path), str(path))
        if decoded is None:
            subject = _subject(spec, reads, fitted, int(run.seed))
            parts, network = evaluation.made(subject, only), subject.extractor.about
        else:
            parts, network = handed.read(decoded)
        ruler = _ruler(spec, reads, floor_values.training_distance, network["extractor"])
        evaluated = evaluation.measured(ruler, parts)
        about = {
            **{"study": run.of.study, "dataset": run.dataset, "model": run.model_name, "train_seed": int(run.seed)},
            "n_features": ruler.reference.features.shape[1],
            "is_synthetic": store.load_manifest(data).synthetic,
            **{"extractor": network["extractor"], "extractor_label": network["label"]},
        }
        frame = results.run_frame(spec, about, evaluated.rows, fits, floor_values)
        storage.write_arrays(run.sheets, evaluated.sheets, {"fingerprint": fingerprint(spec)})
        storage.write_frame(run.metrics, frame)


def _ruler(spec: EvaluationSpec, reads: Mapping[str, Path], training_distance: float, extractor: str) -> "Ruler":
    """What images are held against, all of it made with `extractor`."""
    from rae_bench.scoring.evaluation import Ruler
    from rae_bench.scoring.metrics.memorisation import Training

    real, _ = _reference(reads["reference"], extractor)
    is_own = reads["prd_reference"] == reads["reference"]
    return Ruler(
        spec=spec,
        reference=real,
        prd_reference=real if is_own else _reference(reads["prd_reference"])[0],
        training=Training(_reference(reads["training"])[0].raw, training_distance),
    )


def _subject(
    spec: EvaluationSpec,
    reads: Mapping[str, Path],
    densities: "Mapping[str, Mapping[int, FittedDensity]]",
    seed: int,
) -> "Subject | Given":
    """What is evaluated."""
    from rae_bench.data import store
    from rae_bench.scoring import sides
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.evaluation import Given, Real, Subject

    folder, sets = reads["manifest"].parent, spec.image_sets
    extractor = load_extractor(spec.extractor, spec.compute.device)
    source: dict[str, Any] = {"spec": spec, "extractor": extractor, "seed": seed}
    if spec.measures:
        originals = store.load_split(folder, spec.reference_split, spec.n_images)
        source["real"] = Real(originals, _reference(reads["reference"], extractor.id)[0].raw)
    if spec.training is None:
        given: dict[str, Any] = {name: store.open_split(folder, split) for name, split in spec.given.items()}
        shape = store.open_split(folder, spec.reference_split).shape[1:]
        made = {name: sides.generated(one, shape, spec.n_images) for name, one in spec.generated.items()}
        return Given(**source, sets={**given, **made})
    images = {
        split: store.load_split(folder, split, spec.n_images)
        for split in dict.fromkeys((spec.reference_split, sets.reconstructed, sets.interpolated))
    }
    labels = store.load_digits(folder, sets.reconstructed)
    return Subject(
        **source,
        model=load_model(reads["model"], spec.training),
        densities=densities,
        images=images,
        labels=None if labels is None else labels[: spec.n_images],
    )


def protocols(*, spec: ProtocolSpec, run: RunFiles) -> None:
    """Model, densities and references -> the distance of the same samples, scored in other ways."""
    begin(spec.compute, loads.STAGES["protocols"])
    import pandas as pd

    from rae_bench.base import memory, storage
    from rae_bench.run import jobs
    from rae_bench.scoring import generation
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.evaluation import score_protocols

    paths = {key: run.of.reference(run.dataset, name) for key, name in spec.references.items()}
    densities = {name: run.density(name) for name in spec.densities}
    reads = {
        "model": run.model,
        **{f"densities/{name}": path for name, path in densities.items()},
        **{f"references/{key}": path for key, path in paths.items()},
    }
    identity = {"dataset": run.dataset, "model": run.model_name, "seed": run.seed}
    with (
        jobs.running("protocols", spec, reads, {"panel": run.panel}, identity, spec.made_by),
        memory.explained(f"batches of {generation.BATCH} images"),
    ):
        names = {one.extractor for one in spec.protocols.values()}
        extractors = {name: load_extractor(name, spec.compute.device) for name in names}
        references = {
            key: _reference(path, extractors[spec.protocols[key].extractor].id)[0] for key, path in paths.items()
        }
        model = load_model(run.model, spec.training)
        fitted, _ = _load_densities(densities)
        rows = score_protocols(spec, model, fitted, references, extractors, int(run.seed))
        about = {"dataset": run.dataset, "model": run.model_name, "train_seed": int(run.seed)}
        made_with = {"protocol_fingerprint": fingerprint(spec)}
        storage.write_frame(run.panel, pd.DataFrame([{**about, **row, **made_with} for row in rows]))


def _load_densities(
    paths: Mapping[str, Path],
) -> "tuple[dict[str, dict[int, FittedDensity]], dict[str, dict[str, Any]]]":
    """Every fit of every density, and what its file says of itself."""
    from rae_bench.base import storage
    from rae_bench.densities import catalogue

    fitted, fits = {}, {}
    for name, path in paths.items():
        arrays, about = storage.read_arrays(path)
        with storage.reading(path, "density"):
            fits[name] = {key: about[key] for key in ("fingerprint", "log_likelihood")}
            spec = parse(Density, about["density"], "density")
            states: dict[int, dict[str, Any]] = {}
            for key, array in arrays.items():
                fit_seed, _, part = key.partition(".")
                states.setdefault(int(fit_seed), {})[part] = array
            fitted[name] = {fit_seed: catalogue.restore(spec, state) for fit_seed, state in sorted(states.items())}
    return fitted, fits


def load_model(path: Path, spec: TrainingSpec) -> "Model":
    """The trained model of `spec` whose weights stand in `path`, on the device it is for, in evaluation mode."""
    import torch

    from rae_bench.base import storage
    from rae_bench.models.catalogue import build
    from rae_bench.models.networks import placed

    weights, _ = storage.read_arrays(path)
    model = placed(build(spec.network, spec.objective, seed=0), spec.compute.device)
    with storage.reading(path, "model"):
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return model.eval()


# --- all runs together ------------------------------------------------------------------------------------


def collect(*, spec: SummarySpec, results: Path) -> None:
    """Every run's metrics -> one tidy frame; and every run's panel of protocols, where the study has one."""
    loads.load(loads.STAGES["collect"])
    from rae_bench.base import storage
    from rae_bench.run import jobs, records
    from rae_bench.study import results as frames

    files = StudyFiles(results, spec.study)

    def runs(of: Mapping[str, Collection[str]]) -> list[RunFiles]:
        return [files.run(name, run, seed) for name, found in of.items() for run in found for seed in spec.train_seeds]

    scored = [run.metrics for run in runs(spec.evaluations)]
    panelled = [run.panel for run in runs(spec.panels)]
    writes = {"metrics": files.metrics, **({"panel": files.panel} if panelled else {})}
    reads = {str(path): path for path in (*scored, *panelled)}
    with jobs.running("collect", jobs.summary_settings(spec), reads, writes):
        metrics = {str(path): storage.read_frame(path, *frames.COLUMNS) for path in scored}
        panels = {str(path): storage.read_frame(path, *frames.PANEL_COLUMNS) for path in panelled}
        frames.check_runs(spec, metrics, panels)
        if panels:
            storage.write_frame(files.panel, frames.collect_panels(list(panels.values())))
        if any("cuda" in set(frame["device"]) for frame in metrics.values()):
            gpus = records.computed_on(scored)
            metrics = {str(path): frames.with_gpus(metrics[str(path)], gpus[path]) for path in scored}
        frame = frames.collect(list(metrics.values()))
        for warning in frames.warnings(frame):
            log.warning("%s", warning)
        storage.write_frame(files.metrics, frame)


def tables(*, spec: SummarySpec, results: Path) -> None:
    """Tidy frame -> Table 1, claims ... as csv, md and tex."""
    loads.load(loads.STAGES["tables"])
    from rae_bench.report.tables import catalogue

    files = StudyFiles(results, spec.study)
    _summarise("tables", spec, files, files.tables, catalogue.inputs(spec, files), catalogue.write)


def figures(*, spec: SummarySpec, results: Path) -> None:
    """Tidy frame, sheets and histories -> pdf and png."""
    loads.load(loads.STAGES["figures"])
    from rae_bench.report.plots import catalogue

    files = StudyFiles(results, spec.study)
    _summarise("figures", spec, files, files.figures, catalogue.inputs(spec, files), catalogue.write)


def report(*, spec: SummarySpec, results: Path) -> None:
    """Tables, figures, settings, provenance and costs -> one HTML file."""
    loads.load(loads.STAGES["report"])
    from rae_bench.report import page
    from rae_bench.run import records
    from rae_bench.run.status import cost_frame
    from rae_bench.study.config import load_study

    def write(spec: SummarySpec, frame: "pd.DataFrame", files: StudyFiles, path: Path) -> list[Path]:
        page.write(spec, frame, cost_frame(load_study(spec.source), results), files, path)
        return []

    files = StudyFiles(results, spec.study)
    drawn = records.find(files.figures)
    pictures = [files.figures.with_name(name) for name in drawn[1].wrote if name.endswith(".png")] if drawn else []
    sheets = [
        files.run(name, row.model, spec.train_seeds[0]).sheets for name in spec.datasets for row in spec.rows.values()
    ]
    shown = [files.tables, files.figures, *pictures, *dict.fromkeys(sheets), *map(files.manifest, spec.datasets)]
    _summarise("report", spec, files, files.report, shown, write)


def _summarise(
    stage: str,
    spec: SummarySpec,
    files: StudyFiles,
    out: Path,
    inputs: Collection[Path],
    write: "Callable[[SummarySpec, pd.DataFrame, StudyFiles, Path], list[Path]]",
) -> None:
    """What tables, figures and report have in common: the settings, the study's metrics and its folder."""
    from rae_bench.base import storage
    from rae_bench.run import jobs

    settings = jobs.summary_settings(spec)
    reads, writes = {"metrics": files.metrics, **{str(path): path for path in inputs}}, {stage: out}
    with jobs.running(stage, settings, reads, writes, made_by={"metrics": fingerprint(settings)}):
        made = write(spec, storage.read_frame(files.metrics), files, out)
        writes |= {str(path): path for path in made}


ALL = (prepare, tryout, reference, floor, train, fit, decode, evaluate, protocols, collect, tables, figures, report)
