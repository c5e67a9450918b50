"""Make a cell of a table again and compare it with what is stored: `verify --cell`.

The stages themselves run once more, in a temporary results folder of links to what the cell is made of: the fit of its
density and the evaluation of its image sets alone. The codes are encoded again from the weights. What comes out is held
against what is stored, array by array and metric by metric.
"""

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rae_bench.base import storage
from rae_bench.base.plain import ConfigError, fingerprint, unknown
from rae_bench.data.specs import Split
from rae_bench.models.specs import TrainingSpec
from rae_bench.run import records, stages
from rae_bench.run.jobs import Job, study_jobs
from rae_bench.run.process import begin
from rae_bench.study import loads
from rae_bench.study.files import RunFiles, StudyFiles
from rae_bench.study.study import Study

if TYPE_CHECKING:
    import pandas as pd

IMAGE_SETS = ("reconstruction", "interpolation")
KEYS = ("image_set", "density", "fit_seed", "sample_seed", "metric")


@dataclass(frozen=True)
class Cell:
    """A cell of a table for one training seed.

    `column` is a density, what given images are called, "reconstruction" or "interpolation".
    """

    dataset: str
    model: str
    column: str
    seed: int

    def holds(self, image_set: str, density: str) -> bool:
        """Whether a value belongs to the cell; the evidence bound goes with reconstructions."""
        if self.column == "reconstruction":
            return image_set == self.column or (image_set == "reference" and not density)
        if self.column == "interpolation":
            return image_set == self.column
        return image_set not in IMAGE_SETS and density == self.column


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
    model = known("model", parts[1], study.scored)
    columns = (
        [*study.given[model].images.values()] if model in study.given else [*study.densities_of(model), *IMAGE_SETS]
    )
    column = known("density or image set", parts[2], columns)
    seed = known("seed", parts[3], [f"seed{seed}" for seed in study.train_seeds])
    return Cell(dataset, model, column, int(seed.removeprefix("seed")))


def recompute(study: Study, results: Path, cell: Cell) -> list[Comparison]:
    """Encode, fit, sample and score `cell` again from its weights and codes; each result against the stored one.

    Raises:
        StorageError, RecordError: a file that is needed is missing, altered or of something else.
    """
    from rae_bench.scoring.evaluation import densities_for

    stored = StudyFiles(results.absolute(), study.name)
    kept = stored.run(cell.dataset, cell.model, cell.seed)
    spec = study.evaluation(cell.dataset, cell.model)
    densities = densities_for(spec, cell.column)
    _check(study, stored, kept, densities)
    name = f"{cell.dataset}/{cell.model}/seed{cell.seed}"
    with tempfile.TemporaryDirectory() as folder:
        files = StudyFiles(Path(folder), study.name)
        run = files.run(cell.dataset, cell.model, cell.seed)
        jobs = {(job.stage, job.name): job for job in study_jobs(study, files.results)}
        links = [stored.results / "datasets", stored.results / "references"]
        links += [kept.model, kept.codes, records.beside(kept.model)] if spec.training else []
        links += [stored.floor(cell.dataset), records.beside(stored.floor(cell.dataset))]
        for path in links:
            link = files.results / path.relative_to(stored.results)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        made = []
        if spec.training:
            stored_codes = storage.read_arrays(kept.codes)[0]
            made.append(_compare_arrays("codes", stored_codes, _encoded(spec.training, kept)))
        for density in densities:
            _do(jobs["fit", f"{name}/{density}"])
            old, new = (storage.read_arrays(one.density(density))[0] for one in (kept, run))
            made.append(_compare_arrays(f"density {density}", old, new))
        job = jobs["evaluate", name]
        whole = {name: value for name, value in job.arguments.items() if name != "decoded"}
        _do(replace(job, stage="score", arguments={**whole, "only": cell.column}))
        return [*made, *_compare_values(*(values(storage.read_frame(one.metrics), cell) for one in (kept, run)))]


def _do(job: Job) -> None:
    getattr(stages, job.stage)(spec=job.spec, **job.arguments)


def _check(study: Study, stored: StudyFiles, kept: RunFiles, densities: Collection[str]) -> None:
    """See that all that is compared and computed from is what its records say, under its own name."""
    dataset, spec = kept.dataset, study.evaluation(kept.dataset, kept.model_name)
    references = {
        "reference": study.reference(dataset),
        "prd_reference": study.prd_reference(dataset),
        "training": study.training_reference(dataset),
    }
    reads = {
        **{"manifest": stored.manifest(dataset), "floor": stored.floor(dataset)},
        **{name: stored.reference(dataset, one.name) for name, one in references.items()},
        **({"model": kept.model, "codes": kept.codes} if spec.training else {}),
        "metrics": kept.metrics,
        **{f"densities/{name}": kept.density(name) for name in densities},
    }
    made_by = {**spec.made_by, "metrics": fingerprint(spec)}
    if spec.training:
        made_by["codes"] = spec.made_by["model"]
    run = {"study": stored.study, "dataset": kept.dataset, "model": kept.model_name, "seed": kept.seed}
    records.check(reads, storage.hashes(reads), made_by, run)


def _encoded(spec: TrainingSpec, run: RunFiles) -> storage.Arrays:
    """The codes of the training and validation images, by the trained model."""
    begin(spec.compute, loads.LEARNING)
    from rae_bench.data import store
    from rae_bench.models import training

    model = stages.load_model(run.model, spec)
    splits: tuple[Split, ...] = ("train", "validation")
    data = run.of.data(run.dataset)
    images = {str(one): training.to_device(store.open_split(data, one), spec.compute.device) for one in splits}
    return training.encode_splits(model, images)


def values(frame: "pd.DataFrame", cell: Cell) -> dict[tuple[Any, ...], float]:
    """The values of a run's metrics that belong to a cell, by image set, density, fit seed, sample seed and metric."""
    rows = frame[[*KEYS, "value"]].itertuples(index=False)
    return {row[:-1]: float(row[-1]) for row in rows if cell.holds(row[0], row[1])}


def _compare_arrays(name: str, stored: storage.Arrays, found: storage.Arrays) -> Comparison:
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


def _compare_values(old: dict[tuple[Any, ...], float], new: dict[tuple[Any, ...], float]) -> Iterator[Comparison]:
    """Every metric, stored and recomputed."""
    for key in {**new, **old}:
        image_set, density, fit_seed, sample_seed, metric = key
        through = f" through {density} {fit_seed}" if density and image_set in IMAGE_SETS else ""
        drawn = f" {fit_seed}.{sample_seed}" if image_set == "sample" else ""
        name = f"{image_set}{drawn}{through} {metric}"
        if key not in old or key not in new:
            yield Comparison(name, False, "not stored" if key not in old else "stored, but not recomputed")
        elif old[key] == new[key]:
            yield Comparison(name, True, f"{new[key]:.6g}")
        else:
            apart = abs(old[key] - new[key])
            yield Comparison(name, False, f"{old[key]:.9g} stored, {new[key]:.9g} recomputed, {apart:.3g} apart")


def describe(comparisons: list[Comparison]) -> str:
    """A line for each thing recomputed: equal, or by how much not."""
    width = max(len(one.name) for one in comparisons)
    return "\n".join(
        f"{one.name:{width}}  {'equal' if one.is_equal else 'DIFFERS':7}  {one.detail}" for one in comparisons
    )
