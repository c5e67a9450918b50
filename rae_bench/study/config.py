"""Studies from YAML: every name looked up, every value checked, what is impossible refused before any job.

The vocabulary (`workflow/config/*.yaml`) has one entry per thing; a study (`workflow/config/studies/NAME.yaml`)
names entries, and its protocol lays settings over them. `load_study` is the only reader of YAML.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from rae_bench.base import devices
from rae_bench.base.plain import ConfigError, parse, to_plain, unknown
from rae_bench.data.specs import DatasetSpec
from rae_bench.densities.specs import FIT_VERSION, Density, FitSpec
from rae_bench.models.specs import NETWORK_SIZES, TRAIN_VERSION, TrainingSpec
from rae_bench.scoring.specs import Extractor, ImageSets, Protocol
from rae_bench.study import vocabulary
from rae_bench.study.protocols import ANY, Changes, Target, changes, laid_over, origin
from rae_bench.study.specs import Row
from rae_bench.study.study import OWN, Chosen, Study, StudyFile
from rae_bench.study.vocabulary import POINT, Vocabulary, Weights, check_name, known
from rae_bench.study.yaml_files import read_yaml

CONFIG = Path(__file__).parent.parent.parent / "workflow" / "config"


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
    check_name("studies", name)
    file = parse(StudyFile, read_yaml(CONFIG, f"studies/{name}.yaml"), f"studies/{name}.yaml")
    return resolve_study(name, file)


def resolve_study(name: str, file: StudyFile) -> Study:
    """Look up every name of `file` in the vocabulary and check what only the combination can show."""
    device = devices.settled(file.compute.device)
    file = replace(file, compute=replace(file.compute, device=device, tf32=file.compute.tf32 and device == "cuda"))
    where, words = f"studies/{name}.yaml", vocabulary.read(CONFIG)
    _check_names(where, file, words)
    made = _Making(where, file, words, _settings_in_force(where, file, words))
    rows, points = made.rows()
    chosen = made.chosen(name, rows)
    _check_rows(made, chosen)
    stated = {
        (dataset, density): words.density(density.split(POINT)[0], like, *points.get(density, (None, "")))
        for dataset, like in made.weights.items()
        for density in chosen.densities
    }
    trainings = {
        (dataset, model): made.training(dataset, model, *points.get(model, (None, "")))
        for dataset in file.datasets
        for model in chosen.models
    }
    fits = {
        (dataset, model, density): made.fit(chosen, dataset, model, density, stated[dataset, density])
        for dataset in file.datasets
        for model in chosen.models
        for density in chosen.densities_of(model)
    }
    _check_counts(where, chosen, fits)
    return Study(
        **vars(chosen),
        trainings=trainings,
        densities_as_stated=stated,
        fits=fits,
        protocols={dataset: _protocols(where, chosen, dataset) for dataset in file.datasets},
    )


def _check_names(where: str, file: StudyFile, words: Vocabulary) -> None:
    """Refuse a study that names something that does not exist, or a data set's images that cannot be trained on."""
    for dataset, budget in file.datasets.items():
        known(f"{where}.datasets", "data set", dataset, words.datasets)
        known(f"{where}.datasets.{dataset}", "budget", budget, words.budgets)
        if "published" in file.tables and not words.datasets[dataset].published:
            raise ConfigError(
                f"{where}.tables: 'published' compares with the paper, which has no data set {dataset!r}"
                f" (datasets.yaml.{dataset}.is_the_papers is false)"
            )
        entry = words.datasets[dataset]
        _check_images(dataset, entry.data)
        _check_extractor(f"datasets.yaml.{dataset}", entry.extractor, dataset, entry.data)
    for row in file.rows:
        known(f"{where}.rows", "row", row, words.rows)
    for row in file.search:
        known(f"{where}.search", "row of this study", row, file.rows)
    for density in file.densities:
        known(f"{where}.densities", "density", density, words.densities)
    known(f"{where}.metrics", "settings of metrics", file.metrics, words.metrics)
    known(f"{where}.image_sets", "image sets", file.image_sets, words.image_sets)


def _settings_in_force(where: str, file: StudyFile, words: Vocabulary) -> tuple[str, ...]:
    """The names of the protocol's settings, less those switched off, then those switched on."""
    known(f"{where}.protocol", "protocol", file.protocol, words.protocols)
    own = words.protocols[file.protocol].settings
    for name, is_on in file.switches.items():
        known(f"{where}.switches", "setting", name, words.settings)
        if is_on == (name in own):
            state = "has it already" if is_on else "has not got it"
            raise ConfigError(f"{where}.switches.{name}: {is_on} changes nothing: {file.protocol!r} {state}")
    kept = [name for name in own if file.switches.get(name, True)]
    return (*kept, *(name for name, is_on in file.switches.items() if is_on))


@dataclass(frozen=True)
class _Making:
    """A study's file, what its names mean, and the settings in force, from which the parts of a study are made."""

    where: str
    file: StudyFile
    words: Vocabulary
    in_force: tuple[str, ...]

    @property
    def weights(self) -> dict[str, str]:
        """The data set whose loss weights each data set takes."""
        return {dataset: self.words.datasets[dataset].weights for dataset in self.file.datasets}

    def laid(self, target: Target, dataset: str, of: str) -> Changes:
        """What the settings in force change of `target`, for a data set (or any) and a model or row, or its points."""
        like = ANY if dataset == ANY else self.words.datasets[dataset].follows
        return tuple(changes(self.words.settings, self.in_force, target, like, of.split(POINT)[0]))

    def rows(self) -> tuple[dict[str, Row], dict[str, tuple[Weights, str]]]:
        """Every row, those searched once per point; and each point's weights, and their place, by model or density."""
        expanded: dict[str, Row] = {}
        points: dict[str, tuple[Weights, str]] = {}
        for name in self.file.rows:
            stated, place = to_plain(self.words.rows[name]), self.words.row_place(name)
            row: Row = laid_over(Row, stated, self.laid("rows", ANY, name), place)
            if name not in self.file.search:
                expanded[name] = row
            for number, point in enumerate(self.file.search.get(name, ())):
                mark = f"{POINT}{number}"
                if row.through:  # what a two-stage row tunes is its second stage
                    expanded[name + mark] = replace(row, n=row.n + mark, through=row.through + mark)
                else:
                    expanded[name + mark] = replace(row, model=row.model + mark)
                points[(row.n if row.through else row.model) + mark] = point, f"{self.where}.search.{name}[{number}]"
        return expanded, points

    def chosen(self, name: str, rows: dict[str, Row]) -> Chosen:
        """What the names mean."""
        file, words = self.file, self.words
        stated, place = to_plain(words.image_sets[file.image_sets]), f"image_sets.yaml.{file.image_sets}"
        models = dict.fromkeys(row.model for row in rows.values())
        bases = {model: words.models.get(model.split(POINT)[0]) for model in models}
        return Chosen(
            name=name,
            file=file,
            datasets={dataset: words.datasets[dataset] for dataset in file.datasets},
            budgets={dataset: words.budgets[budget] for dataset, budget in file.datasets.items()},
            rows=rows,
            metrics=words.metrics[file.metrics],
            image_sets={
                dataset: laid_over(ImageSets, stated, self.laid("image_sets", dataset, ANY), place)
                for dataset in file.datasets
            },
            protocol=_protocol_label(words.protocols[file.protocol].label, file.switches),
            notes={dataset: self._notes(dataset) for dataset in file.datasets},
            deterministic=tuple(model for model, entry in bases.items() if entry and not entry.posterior.has_density),
            posterior_only=tuple(
                density for density in words.densities if getattr(words.density_kind(density), "needs_posterior", False)
            ),
        )

    def _notes(self, dataset: str) -> tuple[str, ...]:
        settings = [self.words.settings[key] for key in self.in_force]
        like = self.words.datasets[dataset].follows
        return tuple(setting.note for setting in settings if setting.note and setting.touches(like))

    def training(self, dataset: str, model: str, point: Weights | None, point_where: str) -> TrainingSpec:
        """What `train` reads: the data set's budget and the model's terms with their weights, changed by settings."""
        data, budget_name = self.words.datasets[dataset].data, self.file.datasets[dataset]
        budget, like = self.words.budgets[budget_name], self.words.datasets[dataset].weights
        shared = ("kernel", "width", "start_width", "latent_dim", "norm_momentum")
        stated = {
            "version": TRAIN_VERSION,
            "network": {
                "kind": "convolutional",
                "channels": data.channels,
                "size": data.size,
                **{key: getattr(budget, key) for key in shared},
            },
            "objective": to_plain(self.words.objective(model.split(POINT)[0], like, point, point_where)),
            "optimisation": to_plain(budget.optimisation),
            "validation_split": budget.validation_split,
            "compute": to_plain(self.file.compute),
        }
        laid = self.laid("training", dataset, model)
        spec: TrainingSpec = laid_over(TrainingSpec, stated, laid, f"{self.where}: {model!r} on {dataset!r}")
        if (batch := spec.optimisation.batch_size) > data.n_train:
            keys = ("optimisation", "batch_size")
            place = origin(laid, keys, ".".join(("budgets.yaml", budget_name, *keys)))
            raise ConfigError(
                f"{place}: {batch}, of {model!r} in {self.where}, is more than the {data.n_train} training images of"
                f" {dataset!r}"
            )
        return spec

    def fit(self, chosen: Chosen, dataset: str, model: str, density: str, stated: Density) -> FitSpec:
        """What `fit` reads: the density as stated, changed by the settings in force."""
        base, budget_name = density.split(POINT)[0], self.file.datasets[dataset]
        where = f"{self.where}: {density!r} of {model!r} on {dataset!r}"
        laid = tuple(
            (f"{at}.{base}", change[base]) for at, change in self.laid("densities", dataset, model) if base in change
        )
        data = {
            "version": FIT_VERSION,
            "density": to_plain(laid_over(Density, to_plain(stated), laid, where)),
            "leave_out_last": chosen.budgets[dataset].leave_out_last,
            "compute": to_plain(chosen.on_cpu),
        }
        laid = self.laid("fit", dataset, model)
        spec: FitSpec = laid_over(FitSpec, data, laid, where)
        if (n_train := chosen.datasets[dataset].data.n_train) <= spec.leave_out_last:
            place = origin(laid, ("leave_out_last",), f"budgets.yaml.{budget_name}.leave_out_last")
            raise ConfigError(
                f"{place}: {spec.leave_out_last} leaves none of the {n_train} training codes of {dataset!r}"
            )
        return spec


def _check_rows(made: _Making, chosen: Chosen) -> None:
    """Refuse a row whose model or density does not exist, or that shows what its model cannot have."""
    words, file = made.words, chosen.file
    second_stages = [name for name in words.densities if getattr(words.density_kind(name), "reconstructs", False)]
    for key, row in chosen.rows.items():
        named = key.split(POINT)[0]
        place, laid = words.row_place(named), made.laid("rows", ANY, named)
        at = {part: origin(laid, (part,), f"{place}.{part}") for part in ("model", "n", "gmm", "through")}
        base = row.n.split(POINT)[0]
        known(at["model"], "model", row.model.split(POINT)[0], words.models)
        for part, density in (("n", base), ("gmm", row.gmm), ("through", row.through.split(POINT)[0])):
            if density or part == "n":
                known(at[part], "density", density, words.densities)
        if row.through not in ("", row.n) or (row.through and base not in second_stages):
            raise ConfigError(f"{at['through']}: {row.through!r} must be empty or the second stage in column N")
        for column, density in (("n", base), ("gmm", row.gmm)):
            if density in chosen.posterior_only and row.model in chosen.deterministic:
                raise ConfigError(f"{at[column]}: {density!r} needs a posterior; {row.model!r} has none")
            if density and density not in file.densities and density not in second_stages:
                raise ConfigError(
                    f"{made.where}.densities: {density!r} is missing; row {key!r} shows it in column {column.upper()}"
                )


def _protocol_label(label: str, switches: dict[str, bool]) -> str:
    """How the tables call what is in force: the protocol, and every switch turned."""
    turned = [f"{'with' if is_on else 'without'} {name.replace('_', ' ')}" for name, is_on in switches.items()]
    return ", ".join([label, *turned])


def _protocols(where: str, study: Chosen, dataset: str) -> dict[str, Protocol]:
    """The study's own protocol with each of its changes; a panel of none is empty."""
    own = study.own_protocol(dataset)
    made: dict[str, Protocol] = {}
    for name, laid in study.file.protocols.items():
        at = f"{where}.protocols.{name}"
        check_name(f"{where}.protocols", name)
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


def _check_counts(where: str, study: Chosen, fits: dict[tuple[str, str, str], FitSpec]) -> None:
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
        for (dataset, _, density), fit in fits.items():
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
