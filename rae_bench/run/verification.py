"""Whether a finished study is what its jobs wrote, and whether a cell of it comes out again.

`verify` re-hashes every file against the records, sees that the records close (what a job read is what another wrote),
and that every job ran with the settings of the study as configured now. `recompute` makes one cell of a table again
from weights and codes: codes, density, samples and every metric.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rae_bench import __version__
from rae_bench.base import storage
from rae_bench.base.plain import ConfigError, Plain, fingerprint, to_plain, unknown
from rae_bench.base.storage import StorageError
from rae_bench.data.specs import Split
from rae_bench.models.specs import SpectralNorm, TrainingSpec
from rae_bench.run import origins, records, stages
from rae_bench.run.jobs import Job, recorded, study_jobs
from rae_bench.run.origins import Finding
from rae_bench.run.process import configure_torch
from rae_bench.run.records import Record, RecordError
from rae_bench.study.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from rae_bench.scoring.evaluation import Row, Subject

LEFT_OUT = "archive.json"
"""Beside the results of an imported study: the index of its archive, which names what was left out."""
BESIDE = ("*.job.json", "*.lock", "*.log", ".*", "costs.csv", "costs.txt", LEFT_OUT)
"""Files of a study that no record holds: states, costs, logs and unfinished writes."""
BESIDE_FOLDERS = ("logs", "state", "settings")
IMAGE_SETS = ("reconstruction", "interpolation")
SPLITS: tuple[Split, ...] = ("train", "validation")


class VerificationError(RuntimeError):
    """A study that is not as it was made, or a cell that does not come out again."""


# --- files ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What is wrong, a line each; how many files each stage wrote; which of them are left out on purpose.

    `sources`: what is to be said of the files that the data sets were prepared from; results are what they are.
    """

    problems: list[str]
    files: Counter[str]
    size: int
    left_out: list[Path]
    sources: list[Finding]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong, nor any source another than what was prepared."""
        return not self.problems and not any(finding.is_changed for finding in self.sources)


def verify(study: Study, results: Path) -> Verdict:
    """Hold every file of `study` against the records of its jobs, and these against each other and the settings."""
    root = results / study.name
    problems: list[str] = []
    found: list[tuple[Job, Record]] = []
    unknown_folders: set[Path] = set()
    for job in study_jobs(study, results):
        try:
            found.append((job, recorded(job)))
        except (StorageError, RecordError) as error:
            problems.append(str(error))
            unknown_folders.add(job.output.parent)
    written = {job.file(name): (job, digest) for job, record in found for name, digest in record.wrote.items()}
    for job, record in found:
        settings = to_plain(job.settings)
        if fingerprint(record.settings) != fingerprint(settings):
            where = next(_differences(record.settings, settings))
            problems.append(f"{job.output}: stale: {job.stage} ran with other settings: {where}; run it again")
        for name, digest in record.read.items():
            path = job.file(name)
            if path in written and written[path][1] != digest:
                problems.append(f"{job.output}: made from another {path} than the one there now; run {job.stage} again")
            elif path not in written and path.parent not in unknown_folders:
                problems.append(f"{job.output}: made from {path}, which no job of the study wrote")
    allowed = left_out(root)
    absent = [path for path in written if not path.exists() and os.path.relpath(path, results) in allowed]
    size = 0
    for path, (job, digest) in written.items():
        if path in absent:
            continue
        try:
            altered = storage.sha256(path) != digest
        except StorageError as error:
            problems.append(str(error))
            continue
        size += path.stat().st_size
        if altered:
            problems.append(f"{path}: altered since {job.stage} wrote it; delete it and run again")
    owned = {*written, *(records.beside(job.output) for job, _ in found)}
    problems += [
        f"{path}: foreign: no job of the study wrote it"
        for path in _files(root)
        if path not in owned and path.parent not in unknown_folders
    ]
    sources = origins.findings(study, results, is_thorough=True)
    return Verdict(problems, Counter(job.stage for job, _ in written.values()), size, absent, sources)


def left_out(root: Path) -> set[str]:
    """What an imported study's archive left out, by path below the results; nothing of a study that ran here."""
    index = root / LEFT_OUT
    return set(storage.read_json(index)["left_out"]) if index.exists() else set()


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        folders = path.relative_to(root).parts[:-1]
        if path.is_dir() and not path.is_symlink():
            continue
        if not any(path.match(pattern) for pattern in BESIDE) and not set(folders) & set(BESIDE_FOLDERS):
            yield path


def _differences(old: Plain, new: Plain, where: str = "") -> Iterator[str]:
    """Where plain data differ: the key, what the study says now and what the job was run with."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}, key=lambda key: (key == "made_by", key)):  # what is named tells more
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    elif old != new:
        yield f"{where} was {old!r}, is {new!r} now"


def describe(study: Study, verdict: Verdict) -> str:
    """What is wrong, or one screen that says that all is well."""
    sources = [finding.text for finding in verdict.sources]
    if verdict.problems:
        return "\n".join([*verdict.problems, *sources])
    total = verdict.files.total()
    lines = [f"{study.name}: {total} files, {verdict.size / 1e6:.1f} MB, are what its jobs wrote, from the images on"]
    lines += [f"  {stage:10} {count:5} files" for stage, count in verdict.files.items()]
    if verdict.left_out:
        lines.append(f"left out of the archive it came from: {len(verdict.left_out)} files, their records are here")
    lines += sources
    return "\n".join([*lines, f"every job ran with the settings of the study as it is now; rae_bench {__version__}"])


# --- cells ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A cell of a table for one training seed; `column` is a density, "reconstruction" or "interpolation"."""

    dataset: str
    model: str
    column: str
    seed: int


@dataclass(frozen=True)
class Comparison:
    """Something recomputed: its name, whether it equals what is stored, and the value or the difference."""

    name: str
    is_equal: bool
    detail: str


def parse_cell(study: Study, text: str) -> Cell:
    """The cell that DATASET/MODEL/COLUMN/SEED names.

    Raises:
        ConfigError: not of this form, or a name the study does not know; with the nearest it does.
    """
    parts = text.split("/")
    if len(parts) != 4:
        raise ConfigError(f"--cell: {text!r} must read DATASET/MODEL/DENSITY/SEED, as in digits/rae_l2/gmm10/seed0")

    def known(noun: str, name: str, names: list[str]) -> str:
        if name not in names:
            raise ConfigError(unknown(f"--cell {text}", noun, name, names))
        return name

    dataset = known("data set", parts[0], list(study.datasets))
    model = known("model", parts[1], study.models)
    column = known("density or image set", parts[2], [*study.densities_of(model), *IMAGE_SETS])
    seed = known("seed", parts[3], [f"seed{seed}" for seed in study.train_seeds])
    return Cell(dataset, model, column, int(seed.removeprefix("seed")))


def recompute(study: Study, results: Path, cell: Cell) -> list[Comparison]:
    """Encode, fit, sample and score `cell` again from its weights and codes; each result against the stored one.

    Raises:
        StorageError, RecordError: a file that is needed is missing, altered or of something else.
    """
    from rae_bench.data import store
    from rae_bench.models import training
    from rae_bench.scoring import evaluation

    spec = study.evaluation(cell.dataset, cell.model)
    configure_torch(spec.compute)
    root = results / study.name / cell.dataset
    folder = root / cell.model / f"seed{cell.seed}"
    names = spec.through if cell.column in IMAGE_SETS else (cell.column,)
    if iterates := _changes_as_it_is_used(spec.training):
        names = spec.densities
    features = results / "references" / cell.dataset
    reads = {
        "manifest": results / "datasets" / cell.dataset / "manifest.json",
        "reference": features / f"{study.reference(cell.dataset).name}.safetensors",
        "prd_reference": features / f"{study.prd_reference(cell.dataset).name}.safetensors",
        "training": features / f"{study.training_reference(cell.dataset).name}.safetensors",
        "floor": root / "floor.json",
        "model": folder / "model.safetensors",
        "codes": folder / "codes.safetensors",
        "metrics": folder / "metrics.parquet",
    }
    densities = {name: folder / "densities" / f"{name}.safetensors" for name in names}
    run = {"study": study.name, "dataset": cell.dataset, "model": cell.model, "seed": cell.seed}
    made_by = {**spec.made_by, "codes": spec.made_by["model"], "metrics": fingerprint(spec)}
    every = {**reads, **{f"densities/{name}": path for name, path in densities.items()}}
    records.check(every, storage.hashes(every), made_by, run)

    codes, _ = storage.read_arrays(reads["codes"], "train.mean", "validation.mean")
    images = {split: store.open_split(reads["manifest"].parent, split) for split in SPLITS}
    on_device = {str(split): training.to_device(part, spec.compute.device) for split, part in images.items()}
    encoded = training.encode_splits(stages.load_model(reads["model"], spec.training), on_device)
    made = [_compare_arrays("codes", codes, encoded)]
    rows: list[evaluation.Row] = []
    refitted = {}
    for name, path in densities.items():
        fit = study.fit(cell.dataset, cell.model, name)
        refitted[name], likelihoods = stages.fit_codes(fit, stages.posteriors_of(codes), cell.seed)
        made.append(_compare_arrays(f"density {name}", storage.read_arrays(path)[0], refitted[name].state()))
        if name == cell.column:
            rows += [
                evaluation.row("codes", name, 0, f"log_likelihood_{split}", value)
                for split, value in likelihoods.items()
                if value is not None
            ]
    subject = replace(stages.load_subject(spec, reads, densities, cell.seed)[0], densities=refitted)
    if cell.column == "reconstruction":
        components = study.floor(cell.dataset).pca_components
        originals = subject.images[spec.reference_split]
        pca = evaluation.pca_squared_error(images["train"], originals, components, seed=0)
        rows.append(evaluation.row(cell.column, "", 0, "pca_squared_error", pca))
    if iterates:
        rows += [row for row in evaluation.evaluate(subject).rows if _is_of(cell.column, row)]
    else:
        rows += _scored(subject, cell.column)
    return [*made, *_compare_rows(stored(storage.read_frame(reads["metrics"]), cell.column), rows)]


def stored(frame: "pd.DataFrame", column: str) -> "list[Row]":
    """The rows of a run's metrics that belong to a cell."""
    rows = [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
    return [row for row in rows if _is_of(column, row)]


def _changes_as_it_is_used(spec: TrainingSpec) -> bool:
    """Whether a model's passes change it: then only all image sets in their order give a cell its numbers."""
    regulariser = spec.objective.regulariser
    return isinstance(regulariser, SpectralNorm) and regulariser.evaluation == "iterates"


def _scored(subject: "Subject", column: str) -> "list[Row]":
    """The rows of one cell, scored alone."""
    from rae_bench.scoring import evaluation

    match column:
        case "reconstruction":
            parts = [evaluation.reconstruction(subject, name) for name in ("", *subject.spec.through)]
            likelihoods = evaluation.likelihood(subject, ())
        case "interpolation":
            parts = [evaluation.interpolation(subject, name) for name in ("", *subject.spec.through)]
            likelihoods = []
        case density:
            parts = [evaluation.sample(subject, density)]
            likelihoods = evaluation.likelihood(subject, [density])[1:] if density in subject.spec.priors else []
    return [*(row for part in parts for row in part.rows), *likelihoods]  # the bound is the first, of no density


def _is_of(column: str, row: Mapping[str, Any]) -> bool:
    """Whether a row of a run's metrics belongs to a cell; the evidence bound goes with reconstructions."""
    match column:
        case "reconstruction":
            return row["image_set"] == column or (row["image_set"] == "reference" and not row["density"])
        case "interpolation":
            return bool(row["image_set"] == column)
        case _:
            return row["image_set"] not in IMAGE_SETS and row["density"] == column


def _compare_arrays(name: str, stored: storage.Arrays, found: Mapping[str, npt.NDArray[Any]]) -> Comparison:
    """Equal bytes, or the array that differs most."""
    if {key: array.shape for key, array in stored.items()} != {key: array.shape for key, array in found.items()}:
        return Comparison(
            name, False, f"arrays {sorted(stored)} stored, {sorted(found)} recomputed, or of other shapes"
        )
    unequal = {
        key: float(np.max(np.abs(array.astype(np.float64) - found[key])))
        for key, array in stored.items()
        if array.tobytes() != found[key].astype(array.dtype).tobytes()
    }
    if not unequal:
        return Comparison(name, True, f"{len(stored)} arrays, {sum(array.size for array in stored.values())} numbers")
    worst = max(unequal, key=lambda key: unequal[key])
    return Comparison(name, False, f"{worst} differs by at most {unequal[worst]:.3g}")


def _compare_rows(kept: "Sequence[Row]", rows: "Sequence[Row]") -> Iterator[Comparison]:
    """Every metric, stored and recomputed."""
    keys = ("image_set", "density", "sample_seed", "metric")
    old = {tuple(map(row.get, keys)): float(row["value"]) for row in kept}
    new = {tuple(map(row.get, keys)): float(row["value"]) for row in rows}
    for key in [*new, *(key for key in old if key not in new)]:
        image_set, density, sample_seed, metric = key
        through = f" through {density}" if density and image_set in IMAGE_SETS else ""
        drawn = f" {sample_seed}" if image_set == "sample" else ""
        name = f"{image_set}{drawn}{through} {metric}"
        if key not in old or key not in new:
            yield Comparison(name, False, "not stored" if key not in old else "stored, but not recomputed")
        elif old[key] == new[key]:
            yield Comparison(name, True, f"{new[key]:.6g}")
        else:
            apart = abs(old[key] - new[key])
            yield Comparison(name, False, f"{old[key]:.9g} stored, {new[key]:.9g} recomputed, {apart:.3g} apart")


def describe_cell(comparisons: list[Comparison]) -> str:
    """A line for each thing recomputed: equal, or by how much not."""
    width = max(len(one.name) for one in comparisons)
    return "\n".join(
        f"{one.name:{width}}  {'equal' if one.is_equal else 'DIFFERS':7}  {one.detail}" for one in comparisons
    )
