"""Studies from YAML: every name looked up, every value checked, what is impossible refused before any job.

The vocabulary (`workflow/config/*.yaml`) has one entry per thing; a study (`workflow/config/studies/NAME.yaml`, or a
file anywhere) names entries, and its protocol lays settings over them. `load_study` is the only reader of YAML.
"""

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from rae_bench.base import devices
from rae_bench.base.plain import ConfigError, Plain, parse, to_plain
from rae_bench.data.specs import RULER_SIZE, DatasetSpec
from rae_bench.densities.specs import FIT_VERSION, AutoregressiveIndices, Density, FitSpec
from rae_bench.models.layouts.specs import wrong_size
from rae_bench.models.specs import TRAIN_VERSION, TrainingSpec
from rae_bench.models.terms.specs import Capacity, Quantised, VampPrior
from rae_bench.scoring.specs import Extractor, ImageSets, Protocol
from rae_bench.study import vocabulary
from rae_bench.study.protocols import ANY, Changes, Target, changes, laid_over, origin
from rae_bench.study.specs import Row
from rae_bench.study.stated import Stated, is_file, names, read
from rae_bench.study.study import OWN, Budget, Study, StudyFile
from rae_bench.study.vocabulary import POINT, ModelEntry, OwnModelEntry, Vocabulary, Weights, check_name, known

CONFIG = Path(__file__).parent.parent.parent / "workflow" / "config"


def study_names() -> list[str]:
    """The studies of the suite."""
    return names(CONFIG)


def load_study(source: str) -> Study:
    """Read and check a study, by its name or by the path of its file, and the vocabulary it uses.

    Raises:
        ConfigError: one line naming the file, the key, what was found and what would be right.
    """
    found = read(str(source), CONFIG)
    check_name(f"{found.where}.name" if is_file(found.source) else "studies", found.name)
    return _resolved(found, parse(StudyFile, found.settings, found.where))


def resolve_study(name: str, file: StudyFile) -> Study:
    """The study `name` of the suite as if its file said `file`."""
    return _resolved(Stated(name, name, f"studies/{name}.yaml", {}, {}), file)


def _resolved(found: Stated, file: StudyFile) -> Study:
    """Look up every name of `file` in the vocabulary and check what only the combination can show."""
    device = devices.settled(file.compute.device)
    file = replace(file, compute=replace(file.compute, device=device, tf32=file.compute.tf32 and device == "cuda"))
    where, words = found.where, vocabulary.read(CONFIG, found.own, f"{found.where}.own")
    _check_names(where, file, words)
    made = _Making(where, file, words, _settings_in_force(where, file, words))
    rows, points = made.rows()
    made = replace(made, words=replace(words, points=points))
    _check_rows(where, file, made.words, rows)
    fitted = {row.model: made.fitted(row.model, rows) for row in rows.values() if not row.has_no_model}
    image_sets = {dataset: made.image_sets(dataset) for dataset in file.datasets}
    made.check_counts(image_sets)
    as_stated = {
        (dataset, density): made.words.density(density, words.datasets[dataset].weights)
        for dataset in file.datasets
        for density in dict.fromkeys(chain(*fitted.values()))
    }
    turned = [f"{'with' if is_on else 'without'} {name.replace('_', ' ')}" for name, is_on in file.switches.items()]
    return Study(
        name=found.name,
        source=found.source,
        file=file,
        datasets={dataset: words.datasets[dataset] for dataset in file.datasets},
        budgets={dataset: words.budgets[budget] for dataset, budget in file.datasets.items()},
        rows=rows,
        metrics=words.metrics[file.metrics],
        image_sets=image_sets,
        protocol=", ".join([words.protocols[file.protocol].label, *turned]),
        notes={dataset: made.notes(dataset) for dataset in file.datasets},
        trainings={(dataset, model): made.training(dataset, model) for dataset in file.datasets for model in fitted},
        densities_as_stated=as_stated,
        fits={
            (dataset, model, density): made.fit(dataset, model, density, as_stated[dataset, density])
            for dataset in file.datasets
            for model, densities in fitted.items()
            for density in densities
        },
        protocols={dataset: made.protocols(dataset, image_sets[dataset]) for dataset in file.datasets},
    )


def _check_names(where: str, file: StudyFile, words: Vocabulary) -> None:
    """Refuse a study that names something that does not exist, or a data set's images that cannot be trained on."""
    known(f"{where}.datasets", "data set", words.datasets, *file.datasets)
    known(f"{where}.rows", "row", words.rows, *file.rows)
    known(f"{where}.search", "row of this study", file.rows, *file.search)
    known(f"{where}.densities", "density", words.densities, *file.densities)
    known(f"{where}.metrics", "settings of metrics", words.metrics, file.metrics)
    known(f"{where}.image_sets", "image sets", words.image_sets, file.image_sets)
    known(f"{where}.protocol", "protocol", words.protocols, file.protocol)
    known(f"{where}.switches", "setting", words.settings, *file.switches)
    for dataset, budget in file.datasets.items():
        known(f"{where}.datasets.{dataset}", "budget", words.budgets, budget)
        entry, place = words.datasets[dataset], words.place("datasets", dataset)
        if "published" in file.tables and not entry.published:
            raise ConfigError(
                f"{where}.tables: 'published' compares with the paper, which has no data set {dataset!r}"
                f" ({place}.is_the_papers is false)"
            )
        if fault := wrong_size(entry.data.size):
            raise ConfigError(f"{place}.data.size: {fault} pixels, the sizes that networks take")
        _check_extractor(place, entry.extractor, dataset, entry.data)


def _check_rows(where: str, file: StudyFile, words: Vocabulary, rows: dict[str, Row]) -> None:
    """Refuse rows of which none is compared, and a search of rows without weights."""
    if all(row.family == "baseline" or row.has_no_model for row in rows.values()):
        raise ConfigError(
            f"{where}.rows: {list(file.rows)} are all baselines or given images; name a model that is held against them"
        )
    for name, row in rows.items():
        is_own = not row.has_no_model and isinstance(words.models[row.model.split(POINT)[0]], OwnModelEntry)
        if "search" in file.tables and (row.has_no_model or is_own):
            kind = "of given images" if row.has_no_model else "whose loss is its own"
            raise ConfigError(f"{where}.rows: {name!r} is a row {kind}, which has nothing to search for")


def _settings_in_force(where: str, file: StudyFile, words: Vocabulary) -> tuple[str, ...]:
    """The names of the protocol's settings, less those switched off, then those switched on."""
    own = words.protocols[file.protocol].settings
    for name, is_on in file.switches.items():
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

    def laid(self, target: Target, dataset: str, of: str) -> Changes:
        """What the settings in force change of `target`, for a data set (or any) and a model or row, or its points."""
        like = ANY if dataset == ANY else self.words.datasets[dataset].follows
        return tuple(changes(self.words.settings, self.in_force, target, like, of.split(POINT)[0]))

    def rows(self) -> tuple[dict[str, Row], dict[str, tuple[Weights, str]]]:
        """Every row, those searched once per point; and each point's weights, and their place, by model or density."""
        expanded: dict[str, Row] = {}
        points: dict[str, tuple[Weights, str]] = {}
        for name in self.file.rows:
            row: Row = laid_over(
                Row, to_plain(self.words.rows[name]), self.laid("rows", ANY, name), self.words.row_place(name)
            )
            self._check_row(name, row)
            if name not in self.file.search:
                expanded[name] = row
            elif row.has_no_model:
                raise ConfigError(f"{self.where}.search.{name}: a row of given images has no weights to search")
            elif isinstance(self.words.models[row.model], OwnModelEntry) and not row.through:
                raise ConfigError(f"{self.where}.search.{name}: a loss of one's own has no weights to search")
            for number, point in enumerate(self.file.search.get(name, ())):
                mark = f"{POINT}{number}"
                if row.through:  # what a two-stage row tunes is its second stage
                    expanded[name + mark] = replace(row, n=row.n + mark, through=row.through + mark)
                else:
                    expanded[name + mark] = replace(row, model=row.model + mark)
                points[(row.n if row.through else row.model) + mark] = point, f"{self.where}.search.{name}[{number}]"
        return expanded, points

    def _check_row(self, name: str, row: Row) -> None:
        """Refuse a row whose model or density does not exist, or that shows what its model cannot have."""
        if row.has_no_model:
            return
        words, place, laid = self.words, self.words.row_place(name), self.laid("rows", ANY, name)
        at = {part: origin(laid, (part,), f"{place}.{part}") for part in ("model", "n", "gmm", "through")}
        known(at["model"], "model", words.models, row.model)
        shown = {"n": row.n, **{part: name for part, name in (("gmm", row.gmm), ("through", row.through)) if name}}
        for part, density in shown.items():
            known(at[part], "density", words.densities, density)
        if row.through not in ("", row.n) or (row.through and not words.density_says(row.n, "reconstructs")):
            raise ConfigError(f"{at['through']}: {row.through!r} must be empty or the second stage in column N")
        for part, density in shown.items():
            for need in sorted(words.density_needs(density) - words.models[row.model].offers):
                raise ConfigError(f"{at[part]}: {density!r} needs {need}; {row.model!r} has none")
            if density not in self.file.densities and not words.density_says(density, "reconstructs"):
                raise ConfigError(
                    f"{self.where}.densities: {density!r} is missing; row {name!r} shows it in column {part.upper()}"
                )

    def fitted(self, model: str, rows: dict[str, Row]) -> list[str]:
        """Densities fitted for `model`: the study's own, and the second stages of its rows.

        A density is left out for a model that has not got what it needs, as one of posteriors for a deterministic one.
        """
        own = dict.fromkeys(row.n for row in rows.values() if row.model == model and row.n not in self.file.densities)
        offers = self.words.models[model.split(POINT)[0]].offers
        return [name for name in (*self.file.densities, *own) if self.words.density_needs(name) <= offers]

    def image_sets(self, dataset: str) -> ImageSets:
        """The study's image sets, changed by the settings in force."""
        name = self.file.image_sets
        stated, laid = to_plain(self.words.image_sets[name]), self.laid("image_sets", dataset, ANY)
        sets: ImageSets = laid_over(ImageSets, stated, laid, self.words.place("image_sets", name))
        return sets

    def check_counts(self, image_sets: dict[str, ImageSets]) -> None:
        """Refuse fewer images than metrics need, or more than a split has."""
        metrics, n_images = self.words.metrics[self.file.metrics], self.file.n_images
        for key, least in metrics.least_images.items():
            if n_images < least:
                place = self.words.place("metrics", self.file.metrics)
                raise ConfigError(
                    f"{place}.{key}: {getattr(metrics, key)} needs at least {least} images; n_images of {self.where} is"
                    f" {n_images}"
                )
        for dataset, sets in image_sets.items():
            shown = (sets.reconstructed, sets.interpolated, sets.prd_reference)
            for split in (self.file.reference_split, self.file.floor_split, *shown):
                if n_images > (available := self.words.datasets[dataset].data.count(split)):
                    raise ConfigError(
                        f"{self.where}.n_images: {n_images} is more than the {available} {split} images of {dataset!r}"
                    )

    def notes(self, dataset: str) -> tuple[str, ...]:
        """What the settings in force mean for the tables of a data set."""
        settings = [self.words.settings[key] for key in self.in_force]
        like = self.words.datasets[dataset].follows
        return tuple(setting.note for setting in settings if setting.note and setting.touches(like))

    def training(self, dataset: str, model: str) -> TrainingSpec:
        """What `train` reads: the data set's budget and the model's terms with their weights, changed by settings."""
        entry, budget_name = self.words.datasets[dataset], self.file.datasets[dataset]
        budget, of = self.words.budgets[budget_name], self.words.models[model.split(POINT)[0]]
        stated = {
            "version": TRAIN_VERSION,
            "network": {"channels": entry.data.channels, "size": entry.data.size, **self._network(of, budget)},
            "objective": None
            if isinstance(of, OwnModelEntry)
            else to_plain(self.words.objective(model, entry.weights, entry)),
            "optimisation": to_plain(budget.optimisation),
            "validation_split": budget.validation_split,
            "compute": to_plain(self.file.compute),
        }
        laid = _for_own(of, budget, self.laid("training", dataset, model))
        spec: TrainingSpec = laid_over(TrainingSpec, stated, laid, f"{self.where}: {model!r} on {dataset!r}")
        if (batch := spec.optimisation.batch_size) > entry.data.n_train:
            keys = ("optimisation", "batch_size")
            place = origin(laid, keys, ".".join((self.words.place("budgets", budget_name), *keys)))
            raise ConfigError(
                f"{place}: {batch}, of {model!r} in {self.where}, is more than the {entry.data.n_train} training images"
                f" of {dataset!r}"
            )
        if said := _beyond(spec, entry.data.n_train):
            raise ConfigError(f"{self.where}: {model!r} on {dataset!r}.objective.latent.{said}")
        return spec

    def _network(self, of: ModelEntry | OwnModelEntry, budget: Budget) -> dict[str, Plain]:
        """The settings of a model's network, but for its images."""
        if isinstance(of, OwnModelEntry):
            trained = {"kind": "trained", "file": of.file, "sha256": of.sha256}
            return {
                **({"kind": "own_model"} if of.file is None else trained),
                "code": to_plain(of.code),
                "has_posterior": of.has_posterior,
                "latent_dim": of.latent_dim or budget.latent_dim,
            }
        if of.network == "linear":
            return {"kind": "linear", "latent_dim": budget.latent_dim}
        own = budget.network
        layout = budget.layout if own is None else {"kind": "own", **to_plain(own)}
        return {**layout, "latent_dim": budget.latent_dim}

    def fit(self, dataset: str, model: str, density: str, stated: Density) -> FitSpec:
        """What `fit` reads: the density as stated, changed by the settings in force."""
        base, budget_name = density.split(POINT)[0], self.file.datasets[dataset]
        budget, n_train = self.words.budgets[budget_name], self.words.datasets[dataset].data.n_train
        where = f"{self.where}: {density!r} of {model!r} on {dataset!r}"
        laid = tuple(
            (f"{at}.{base}", change[base]) for at, change in self.laid("densities", dataset, model) if base in change
        )
        data = {
            "version": FIT_VERSION,
            "density": to_plain(made := laid_over(Density, to_plain(stated), laid, where)),
            "fit_seeds": self.file.fit_seeds if made.is_random else self.file.fit_seeds[:1],
            "leave_out_last": budget.leave_out_last,
            "compute": to_plain(self.file.on_cpu),
        }
        laid = self.laid("fit", dataset, model)
        spec: FitSpec = laid_over(FitSpec, data, laid, where)
        if (available := n_train - spec.leave_out_last) <= 0:
            place = origin(laid, ("leave_out_last",), f"{self.words.place('budgets', budget_name)}.leave_out_last")
            raise ConfigError(
                f"{place}: {spec.leave_out_last} leaves none of the {n_train} training codes of {dataset!r}"
            )
        training = self.training(dataset, model)
        if said := _too_short(spec.density, training):
            raise ConfigError(f"{where}: {said}")
        least, why = spec.density.least_codes(training.network.latent_dim)
        if available < least:
            raise ConfigError(
                f"{self.where}: {density!r} needs at least {least} training codes of {dataset!r} ({why}); there are"
                f" {available}"
            )
        return spec

    def protocols(self, dataset: str, image_sets: ImageSets) -> dict[str, Protocol]:
        """The study's own protocol with each of its changes; a panel of none is empty."""
        entry = self.words.datasets[dataset]
        own = self.file.scoring(entry, image_sets)
        made = {OWN: own}
        for name, laid in self.file.protocols.items():
            at = f"{self.where}.protocols.{name}"
            check_name(f"{self.where}.protocols", name)
            if name == OWN:
                raise ConfigError(f"{at}: {OWN!r} is the study's own protocol; give its changes another name")
            protocol: Protocol = parse(Protocol, {**to_plain(own), **laid}, at)
            for other, panel in made.items():
                if panel == protocol:
                    same = f"changes nothing of the study's own protocol on {dataset!r}"
                    raise ConfigError(f"{at}: {laid} {same if other == OWN else f'is {other!r} once more'}")
            made[name] = protocol
            _check_extractor(at, protocol.extractor, dataset, entry.data)
            split, count = protocol.reference_split, protocol.n_images
            available = entry.data.count(split)
            if not 2 <= count <= (most := min(available, self.file.n_images)):
                found = f"n_images: {count}"
                if "n_images" not in laid:
                    found = f"reference_split: {split!r} with n_images {count}, which"
                raise ConfigError(
                    f"{at}.{found} must lie between 2 and {most}: the reference is the study's own, and {dataset!r} has"
                    f" {available} {split} images"
                )
            if not 2 <= protocol.n_generated <= self.file.n_generated:
                raise ConfigError(
                    f"{at}.n_generated: {protocol.n_generated} must lie between 2 and {self.file.n_generated}: the"
                    " samples are the study's own"
                )
        return made if self.file.protocols else {}


def _too_short(density: Density, training: TrainingSpec) -> str:
    """Why an autoregressive density is none of the codes of a model; empty if it is, or another one."""
    if not isinstance(density, AutoregressiveIndices) or training.objective is None:
        return ""
    posterior = training.objective.posterior
    assert isinstance(posterior, Quantised)
    return density.misfit(training.network.latent_dim // posterior.length)


def _beyond(spec: TrainingSpec, n_train: int) -> str:
    """Why so many images, in so many epochs, are too few for a latent term; empty if they are enough."""
    latent, optimisation = spec.latent, spec.optimisation
    if isinstance(latent, VampPrior) and latent.n_components > n_train:
        return f"n_components: {latent.n_components} pseudo-inputs start from training images; take at most {n_train}"
    updates = optimisation.epochs * (n_train // optimisation.batch_size)
    if isinstance(latent, Capacity) and latent.updates > updates:
        return (
            f"updates: {latent.updates} must be at most {updates}, the training's: else the capacity that validation"
            " judges by is never reached"
        )
    return ""


def _for_own(of: ModelEntry | OwnModelEntry, budget: Budget, laid: Changes) -> Changes:
    """The changes of a training without those of parts that a user's own code stands for."""
    own = {"network", "objective"} if isinstance(of, OwnModelEntry) else {"network"} if budget.network else set()
    kept = ((at, {key: value for key, value in change.items() if key not in own}) for at, change in laid)
    return tuple((at, change) for at, change in kept if change)


def _check_extractor(where: str, extractor: Extractor, name: str, data: DatasetSpec) -> None:
    """Refuse the suite's own networks for images they cannot read; the others read all that the networks take."""
    read = {"digit_classifier": (1, "grey"), "face_features": (3, "colour")}.get(extractor)
    if read and (data.channels, data.size) != (read[0], RULER_SIZE):
        raise ConfigError(
            f"{where}.extractor: {extractor!r} reads {read[1]} images of {RULER_SIZE}x{RULER_SIZE} pixels; those of"
            f" {name!r} have {data.channels} channels of {data.size}x{data.size}"
        )
