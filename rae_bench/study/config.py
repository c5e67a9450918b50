"""Studies from YAML: every name looked up, every value checked, what is impossible refused before any job.

The vocabulary (`workflow/config/*.yaml`) has one entry per thing; a study (`workflow/config/studies/NAME.yaml`)
names entries, and its protocol lays settings over them. `load_study` is the only reader of YAML.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_type_hints

from rae_bench.base import devices
from rae_bench.base.plain import ConfigError, Plain, kinds, parse, to_plain, unknown
from rae_bench.data.specs import DatasetSpec
from rae_bench.densities.specs import FIT_VERSION, Density, FitSpec
from rae_bench.models.specs import (
    NETWORK_SIZES,
    TRAIN_VERSION,
    ConvolutionalNetwork,
    Latent,
    Objective,
    Posterior,
    Regulariser,
    TrainingSpec,
)
from rae_bench.scoring.specs import Extractor, ImageSets, MetricSettings, Protocol
from rae_bench.study.protocols import (
    ANY,
    ProtocolEntry,
    Setting,
    changes,
    laid_over,
    origin,
    parse_settings,
)
from rae_bench.study.specs import Row
from rae_bench.study.study import OWN, Budget, DatasetEntry, Study, StudyFile
from rae_bench.study.yaml_files import read_yaml

CONFIG = Path(__file__).parent.parent.parent / "workflow" / "config"
POINT = "_point"
"""Joins a row's name and the number of a search point."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""What can stand in a path: the same file on every disk, and a log's name, of three of these, below 255 bytes."""
_TAKEN = re.compile("datasets|references|calibrations|logs|tables|figures|con|prn|aux|nul|com[0-9]|lpt[0-9]")
"""Folders of the suite's own beside those named by studies and data sets; and devices of Windows, in any folder."""


@dataclass(frozen=True)
class ModelEntry:
    """An entry of `models.yaml`: which terms. Their weights stand in `weights.yaml`, per data set."""

    posterior: dict[str, Plain]
    latent: dict[str, Plain]
    regulariser: dict[str, Plain]


def study_names() -> list[str]:
    """The studies there are."""
    return sorted(path.stem for path in (CONFIG / "studies").glob("*.yaml"))


def load_study(name: str) -> Study:
    """Read and check the study `name` and the vocabulary it uses.

    Raises:
        ConfigError: one line naming the file, the key, what was found and what would be right.
    """
    if name not in study_names():
        raise ConfigError(unknown("study", "study", str(name), study_names()))
    _check_name("studies", name)
    file = parse(StudyFile, read_yaml(CONFIG, f"studies/{name}.yaml"), f"studies/{name}.yaml")
    return resolve_study(name, file)


def protocol_vocabulary() -> tuple[dict[str, Setting], dict[str, ProtocolEntry]]:
    """Every named setting, and every protocol."""
    models, rows = _vocabulary("models.yaml", ModelEntry), _vocabulary("rows.yaml", Row)
    settings = parse_settings(read_yaml(CONFIG, "settings.yaml"), list(models), list(rows))
    protocols: dict[str, ProtocolEntry] = _vocabulary("protocols.yaml", ProtocolEntry)
    for key, entry in protocols.items():
        for name in entry.settings:
            _known(f"protocols.yaml.{key}.settings", "setting", name, settings)
    return settings, protocols


def resolve_study(name: str, file: StudyFile) -> Study:
    """Look up every name of `file` in the vocabulary and check what only the combination can show."""
    where = f"studies/{name}.yaml"
    device = devices.settled(file.compute.device)
    file = replace(file, compute=replace(file.compute, device=device, tf32=file.compute.tf32 and device == "cuda"))
    datasets = _vocabulary("datasets.yaml", DatasetEntry)
    budgets = _vocabulary("budgets.yaml", Budget)
    rows = _vocabulary("rows.yaml", Row)
    models = _vocabulary("models.yaml", ModelEntry)
    densities = _vocabulary("densities.yaml", dict[str, Plain])
    metrics = _vocabulary("metrics.yaml", MetricSettings)
    image_sets = _vocabulary("image_sets.yaml", ImageSets)
    settings, protocol_entries = protocol_vocabulary()
    weights = parse(dict[str, dict[str, dict[str, float]]], read_yaml(CONFIG, "weights.yaml"), "weights.yaml")

    _check_densities_of_settings(settings, densities)
    second_stages = [key for key, entry in densities.items() if entry.get("kind") == "second_stage"]
    for data_name, by_name in weights.items():
        _known("weights.yaml", "data set", data_name, datasets)
        for key in by_name:
            _known(f"weights.yaml.{data_name}", "model or second stage", key, [*models, *second_stages])
    for data_name, budget_name in file.datasets.items():
        _known(f"{where}.datasets", "data set", data_name, datasets)
        _known(f"{where}.datasets.{data_name}", "budget", budget_name, budgets)
        if "published" in file.tables and not datasets[data_name].published:
            raise ConfigError(
                f"{where}.tables: 'published' compares with the paper, which has no data set {data_name!r}"
                f" (datasets.yaml.{data_name}.is_the_papers is false)"
            )
    for row_name in file.rows:
        _known(f"{where}.rows", "row", row_name, rows)
    for row_name in file.search:
        _known(f"{where}.search", "row of this study", row_name, file.rows)
    for density in file.densities:
        _known(f"{where}.densities", "density", density, densities)
    _known(f"{where}.metrics", "settings of metrics", file.metrics, metrics)
    _known(f"{where}.image_sets", "image sets", file.image_sets, image_sets)
    in_force = _settings_in_force(where, file, protocol_entries, settings)

    laid_rows = {key: tuple(changes(settings, in_force, "rows", ANY, key)) for key in file.rows}
    chosen_rows = {
        key: laid_over(Row, to_plain(rows[key]), laid, f"rows.yaml.{key}") for key, laid in laid_rows.items()
    }
    expanded, points = _expand_rows(where, file, chosen_rows)
    needing = [kind for kind, spec in kinds(Density).items() if spec.needs_posterior]
    posterior_only = tuple(key for key, entry in densities.items() if entry.get("kind") in needing)
    deterministic = tuple(
        dict.fromkeys(row.model for row in expanded.values() if _is_deterministic(models, row.model.split(POINT)[0]))
    )
    for key, row in expanded.items():
        base, named = row.n.split(POINT)[0], key.split(POINT)[0]
        at = {
            part: origin(laid_rows[named], (part,), f"rows.yaml.{named}.{part}")
            for part in ("model", "n", "gmm", "through")
        }
        _known(at["model"], "model", row.model.split(POINT)[0], models)
        _known(at["n"], "density", base, densities)
        if row.gmm:
            _known(at["gmm"], "density", row.gmm, densities)
        if row.through:
            _known(at["through"], "density", row.through.split(POINT)[0], densities)
        if row.through not in ("", row.n) or (row.through and base not in second_stages):
            raise ConfigError(f"{at['through']}: {row.through!r} must be empty or the second stage in column N")
        for column, density in (("n", base), ("gmm", row.gmm)):
            if density in posterior_only and row.model in deterministic:
                raise ConfigError(f"{at[column]}: {density!r} needs a posterior; {row.model!r} has none")
            if density and density not in file.densities and density not in second_stages:
                raise ConfigError(
                    f"{where}.densities: {density!r} is missing; row {key!r} shows it in column {column.upper()}"
                )

    study = Study(
        name=name,
        file=file,
        datasets={key: datasets[key] for key in file.datasets},
        budgets={key: budgets[budget] for key, budget in file.datasets.items()},
        rows=expanded,
        trainings={},
        densities_as_stated={},
        fits={},
        image_sets={},
        protocol=_protocol_label(protocol_entries[file.protocol], file.switches),
        notes={},
        protocols={},
        metrics=metrics[file.metrics],
        deterministic=deterministic,
        posterior_only=posterior_only,
    )
    for dataset in file.datasets:
        like = datasets[dataset].follows
        _check_images(dataset, datasets[dataset].data)
        _check_extractor(f"datasets.yaml.{dataset}", datasets[dataset].extractor, dataset, datasets[dataset].data)
        for model in study.models:
            chosen, place = points.get(model) or _weights(weights, dataset, model)
            stated = _training(study, dataset, model, models, chosen, place)
            laid = tuple(changes(settings, in_force, "training", like, model.split(POINT)[0]))
            study.trainings[dataset, model] = laid_over(
                TrainingSpec, to_plain(stated), laid, f"{where}: {model!r} on {dataset!r}"
            )
            _check_batch(where, study, dataset, model, laid)
        for density in study.densities:
            chosen, place = points.get(density) or _weights(weights, dataset, density)
            study.densities_as_stated[dataset, density] = _density(density, densities, chosen, place)
        for model in study.models:
            for density in study.densities_of(model):
                study.fits[dataset, model, density] = _fit(study, dataset, model, density, settings, in_force)
        stated_sets = to_plain(image_sets[file.image_sets])
        laid = tuple(changes(settings, in_force, "image_sets", like, ANY))
        study.image_sets[dataset] = laid_over(ImageSets, stated_sets, laid, f"image_sets.yaml.{file.image_sets}")
        touching = [settings[key] for key in in_force if settings[key].touches(like)]
        study.notes[dataset] = tuple(setting.note for setting in touching if setting.note)
    _check_counts(where, study)
    for dataset in file.datasets:
        study.protocols[dataset] = _protocols(where, study, dataset)
    return study


def _settings_in_force(
    where: str, file: StudyFile, protocols: dict[str, ProtocolEntry], settings: dict[str, Setting]
) -> tuple[str, ...]:
    """The names of the protocol's settings, less those switched off, then those switched on."""
    _known(f"{where}.protocol", "protocol", file.protocol, protocols)
    own = protocols[file.protocol].settings
    for name, is_on in file.switches.items():
        _known(f"{where}.switches", "setting", name, settings)
        if is_on == (name in own):
            state = "has it already" if is_on else "has not got it"
            raise ConfigError(f"{where}.switches.{name}: {is_on} changes nothing: {file.protocol!r} {state}")
    kept = [name for name in own if file.switches.get(name, True)]
    return (*kept, *(name for name, is_on in file.switches.items() if is_on))


def _protocol_label(entry: ProtocolEntry, switches: dict[str, bool]) -> str:
    """How the tables call what is in force: the protocol, and every switch turned."""
    turned = [f"{'with' if is_on else 'without'} {name.replace('_', ' ')}" for name, is_on in switches.items()]
    return ", ".join([entry.label, *turned])


def _is_deterministic(models: dict[str, ModelEntry], model: str) -> bool:
    without = [kind for kind, spec in kinds(Posterior).items() if not spec.has_density]
    return model in models and models[model].posterior.get("kind") in without


def _weights(weights: dict[str, dict[str, dict[str, float]]], dataset: str, name: str) -> tuple[dict[str, float], str]:
    """The weights of a model's or a density's terms, and where they stand."""
    return weights.get(dataset, {}).get(name, {}), f"weights.yaml.{dataset}.{name}"


def _expand_rows(
    where: str, file: StudyFile, rows: dict[str, Row]
) -> tuple[dict[str, Row], dict[str, tuple[dict[str, float], str]]]:
    """Every searched row once per point; and of each model or density so named the weights, and where they stand."""
    expanded: dict[str, Row] = {}
    points: dict[str, tuple[dict[str, float], str]] = {}
    for name, row in rows.items():
        if name not in file.search:
            expanded[name] = row
            continue
        for number, point in enumerate(file.search[name]):
            mark, place = f"{POINT}{number}", f"{where}.search.{name}[{number}]"
            if row.through:  # what a two-stage row tunes is its second stage
                points[row.n + mark] = point, place
                expanded[name + mark] = replace(row, n=row.n + mark, through=row.through + mark)
            else:
                points[row.model + mark] = point, place
                expanded[name + mark] = replace(row, model=row.model + mark)
    return expanded, points


def _training(
    study: Study, dataset: str, model: str, models: dict[str, ModelEntry], weights: dict[str, float], weights_where: str
) -> TrainingSpec:
    budget, data, base = study.budgets[dataset], study.datasets[dataset].data, model.split(POINT)[0]
    return TrainingSpec(
        version=TRAIN_VERSION,
        network=parse(
            ConvolutionalNetwork,
            {
                "kind": "convolutional",
                "channels": data.channels,
                "size": data.size,
                "kernel": budget.kernel,
                "width": budget.width,
                "start_width": budget.start_width,
                "latent_dim": budget.latent_dim,
                "norm_momentum": budget.norm_momentum,
            },
            f"budgets.yaml.{study.file.datasets[dataset]}",
        ),
        objective=_objective(to_plain(models[base]), weights, f"models.yaml.{base}", weights_where),
        optimisation=budget.optimisation,
        validation_split=budget.validation_split,
        compute=study.file.compute,
    )


def _density(density: str, densities: dict[str, Plain], weights: dict[str, float], weights_where: str) -> Density:
    base = density.split(POINT)[0]
    entry = dict(densities[base])
    where = f"densities.yaml.{base}"
    if entry.get("kind") == "second_stage":
        if "objective" not in entry:
            raise ConfigError(f"{where}: missing objective")
        plain = parse(dict[str, dict[str, Plain]], entry["objective"], f"{where}.objective")
        objective = _objective(plain, weights, f"{where}.objective", weights_where)
        entry["objective"] = to_plain(objective)
    spec: Density = parse(Density, entry, where)
    return spec


def _fit(
    study: Study, dataset: str, model: str, density: str, settings: dict[str, Setting], in_force: tuple[str, ...]
) -> FitSpec:
    """What `fit` reads: the density as stated, changed by the settings in force."""
    like, of = study.datasets[dataset].follows, model.split(POINT)[0]
    base = density.split(POINT)[0]
    where = f"studies/{study.name}.yaml: {density!r} of {model!r} on {dataset!r}"
    laid = [
        (f"{at}.{base}", change[base])
        for at, change in changes(settings, in_force, "densities", like, of)
        if base in change
    ]
    stated = to_plain(study.densities_as_stated[dataset, density])
    changed: Density = laid_over(Density, stated, laid, where)
    data = {
        "version": FIT_VERSION,
        "density": to_plain(changed),
        "leave_out_last": study.budgets[dataset].leave_out_last,
        "compute": to_plain(study.on_cpu),
    }
    laid = list(changes(settings, in_force, "fit", like, of))
    spec: FitSpec = laid_over(FitSpec, data, laid, where)
    left = study.datasets[dataset].data.n_train - spec.leave_out_last
    if left < 1:
        stated_at = f"budgets.yaml.{study.file.datasets[dataset]}.leave_out_last"
        raise ConfigError(
            f"{origin(laid, ('leave_out_last',), stated_at)}: {spec.leave_out_last} leaves none of the"
            f" {study.datasets[dataset].data.n_train} training codes of {dataset!r}"
        )
    return spec


def _objective(entry: Plain, weights: dict[str, float], where: str, weights_where: str) -> Objective:
    """Join the terms of `entry` and their weights; both or neither must name a term."""
    parts = {key: dict(value) for key, value in entry.items()}
    for term, union in (("latent", Latent), ("regulariser", Regulariser)):
        if "weight" in parts.get(term, {}):
            raise ConfigError(f"{where}.{term}.weight: weights stand in weights.yaml, per data set")
        terms = kinds(union)
        if term in parts and parts[term].get("kind") not in list(terms):
            parse(union, parts[term], f"{where}.{term}")
        weighted = term in parts and "weight" in get_type_hints(terms[parts[term]["kind"]])
        if weighted and term not in weights:
            raise ConfigError(f"{weights_where}: missing the weight of its term {term!r}")
        if not weighted and term in weights:
            raise ConfigError(f"{weights_where}.{term}: {weights[term]} has no term to weigh in {where}")
        if weighted and weights[term] <= 0:
            raise ConfigError(f"{weights_where}.{term}: {weights[term]} must be above 0")
        if weighted:
            parts[term]["weight"] = weights[term]
    for term in weights:
        if term not in ("latent", "regulariser"):
            raise ConfigError(unknown(f"{weights_where}.{term}", "term", term, ["latent", "regulariser"]))
    objective: Objective = parse(Objective, parts, where)
    return objective


def _protocols(where: str, study: Study, dataset: str) -> dict[str, Protocol]:
    """The study's own protocol with each of its changes; a panel of none is empty."""
    own = study.own_protocol(dataset)
    made: dict[str, Protocol] = {}
    for name, laid in study.file.protocols.items():
        at = f"{where}.protocols.{name}"
        _check_name(f"{where}.protocols", name)
        if name == OWN:
            raise ConfigError(f"{at}: {OWN!r} is the study's own protocol; give its changes another name")
        made[name] = parse(Protocol, {**to_plain(own), **laid}, at)
        if made[name] == own:
            raise ConfigError(f"{at}: {laid} changes nothing of the study's own protocol on {dataset!r}")
        for other, panel in made.items():
            if other != name and panel == made[name]:
                raise ConfigError(f"{at}: {laid} is {other!r} once more")
        data = study.datasets[dataset].data
        _check_extractor(at, made[name].extractor, dataset, data)
        split, count = made[name].reference_split, made[name].n_images
        available = data.count(split)
        if not 2 <= count <= (most := min(available, study.file.n_images)):
            found = f"n_images: {count}"
            if "n_images" not in laid:
                found = f"reference_split: {split!r} with n_images {count}, which"
            raise ConfigError(
                f"{at}.{found} must lie between 2 and {most}: the samples are the study's own, and {dataset!r} has"
                f" {available} {split} images"
            )
    return {OWN: own, **made} if made else {}


def _check_counts(where: str, study: Study) -> None:
    metrics, n_images = study.metrics, study.file.n_images
    for key, least in metrics.least_images.items():
        if n_images < least:
            raise ConfigError(
                f"metrics.yaml.{study.file.metrics}.{key}: {getattr(metrics, key)} needs at least {least} images;"
                f" n_images of {where} is {n_images}"
            )
    for name, entry in study.datasets.items():
        sets = study.image_sets[name]
        shown = (sets.reconstructed, sets.interpolated, sets.prd_reference)
        for split in dict.fromkeys((study.file.reference_split, study.file.floor_split, *shown)):
            if study.file.n_images > entry.data.count(split):
                raise ConfigError(
                    f"{where}.n_images: {study.file.n_images} is more than the {entry.data.count(split)}"
                    f" {split} images of {name!r}"
                )
        for (dataset, _, density), fit in study.fits.items():
            available = entry.data.n_train - fit.leave_out_last
            least, why = fit.density.least_codes(study.budgets[name].latent_dim)
            if dataset == name and available < least:
                raise ConfigError(
                    f"{where}: {density!r} needs at least {least} training codes of {name!r} ({why});"
                    f" there are {available}"
                )


def _check_images(name: str, data: DatasetSpec) -> None:
    """Refuse images that the networks cannot take, or that the source has not got."""
    where, source = f"datasets.yaml.{name}.data", data.source
    if data.size not in NETWORK_SIZES:
        raise ConfigError(f"{where}.size: {data.size} is not one of {list(NETWORK_SIZES)}, the paper's image sizes")
    if data.channels not in (possible := source.channels):
        raise ConfigError(f"{where}.channels: {data.channels} is not one of {list(possible)}, those of {source.kind!r}")
    if data.size != (size := source.size or data.size):
        padded = f" (28 and twice the padding of {(size - 28) // 2})" if hasattr(source, "padding") else ""
        raise ConfigError(f"{where}.size: {data.size} is not the {size} pixels of {source.kind!r}{padded}")
    if 0 < (crop := getattr(source, "crop", 0)) < data.size:
        raise ConfigError(f"{where}.source.crop: {crop} is less than the size it is resized to, {data.size}")


def _check_extractor(where: str, extractor: Extractor, name: str, data: DatasetSpec) -> None:
    """Refuse the digit classifier for images it cannot read; the others read all that the networks take."""
    if extractor == "digit_classifier" and (data.channels, data.size) != (1, 32):
        raise ConfigError(
            f"{where}.extractor: {extractor!r} reads grey images of 32x32 pixels; those of {name!r} have"
            f" {data.channels} channels of {data.size}x{data.size}"
        )


def _check_batch(where: str, study: Study, dataset: str, model: str, laid: Sequence[tuple[str, Plain]]) -> None:
    """Refuse a batch larger than the data set, where the batch is set."""
    batch, n_train = study.trainings[dataset, model].optimisation.batch_size, study.datasets[dataset].data.n_train
    if batch > n_train:
        keys = ("optimisation", "batch_size")
        place = origin(laid, keys, ".".join(("budgets.yaml", study.file.datasets[dataset], *keys)))
        raise ConfigError(
            f"{place}: {batch}, of {model!r} in {where}, is more than the {n_train} training images of {dataset!r}"
        )


def _check_densities_of_settings(settings: dict[str, Setting], densities: dict[str, Plain]) -> None:
    for name, setting in settings.items():
        for i, patch in enumerate(setting.patches):
            for density in patch.set if patch.target == "densities" else ():
                _known(f"settings.yaml.{name}.patches[{i}].set", "density", density, densities)


def _known(where: str, noun: str, name: str, known: object) -> None:
    names = list(known)  # type: ignore[call-overload]
    if name not in names:
        raise ConfigError(unknown(where, noun, name, names))


def _check_name(where: str, name: str) -> None:
    """Refuse a name that cannot stand in a path: shown in ASCII, so that a letter that only looks like one is seen."""
    if not _NAME.fullmatch(name):
        found = ascii(name if len(name) <= 60 else f"{name[:60]}...")
        raise ConfigError(
            f"{where}: {found} is not a name: at most 40 lower-case letters a to z, digits and _, a letter first"
        )
    if _TAKEN.fullmatch(name):
        raise ConfigError(f"{where}: {name!r} cannot name results: a folder or a device is called so; rename it")


def _vocabulary(file: str, kind: type) -> dict[str, Plain]:
    entries: dict[str, Plain] = parse(dict[str, kind], read_yaml(CONFIG, file), file)  # type: ignore[valid-type]
    for name in entries:
        _check_name(file, name)
        if POINT in name:
            raise ConfigError(f"{file}: {name!r} holds {POINT!r}, which marks the points of a search")
    return entries
