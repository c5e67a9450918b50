"""A study, resolved: which data sets, rows, densities, seeds and budget; and each stage's slice of it.

`Study.training(dataset, model)` and its siblings give each stage exactly what it reads. `rae_bench.study.config` makes
studies from YAML.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from rae_bench.base.own import OwnCode
from rae_bench.base.plain import ADDED, ConfigError, Plain, fingerprint, parse
from rae_bench.base.specs import Compute, Count, CountOrZero, Listed, Seed
from rae_bench.data.specs import DatasetSpec
from rae_bench.densities.specs import Density, FitSpec, OwnDensity
from rae_bench.models.layouts.specs import Layout, OwnModel, OwnNetworks, TrainedElsewhere
from rae_bench.models.specs import Optimisation, TrainingSpec
from rae_bench.models.terms.specs import SQUARED_ERROR, Reconstruction
from rae_bench.scoring.specs import (
    EVALUATE_VERSION,
    FLOOR_VERSION,
    PROTOCOL_VERSION,
    REFERENCE_VERSION,
    EvaluationSpec,
    Extractor,
    FloorSpec,
    ImageSets,
    MetricSettings,
    OwnMeasure,
    Protocol,
    ProtocolSpec,
    ReferenceSpec,
)
from rae_bench.study.specs import (
    PAPER_DATASETS,
    SUMMARY_VERSION,
    TRYOUT_VERSION,
    DensityPart,
    MeasurePart,
    Row,
    SummarySpec,
    TrainingPart,
    TryoutSpec,
)

OWN = "own"
"""The study's own protocol in the protocol-sensitivity panel."""


@dataclass(frozen=True)
class DatasetEntry:
    """An entry of `datasets.yaml`: the images, and the network their features are taken from.

    `follows`: the paper's data set whose settings this one takes under a protocol. `is_the_papers`: it is exactly that
    one, and its distances may be held against published ones. `weights`: the data set whose loss weights it takes.
    `reconstruction`: the term of all models that state none of their own.
    """

    data: DatasetSpec
    extractor: Extractor
    follows: Literal["mnist", "cifar10", "celeba"]
    is_the_papers: bool
    weights: str
    reconstruction: Reconstruction = field(default=SQUARED_ERROR, metadata=ADDED)

    @property
    def published(self) -> str:
        """What the paper calls exactly this data set; empty where it has none."""
        return PAPER_DATASETS[self.follows] if self.is_the_papers else ""


@dataclass(frozen=True)
class OwnLayout:
    """Encoder and decoder of a user's own in place of the budget's layout, which then only tells their cost."""

    code: OwnCode
    initialisation: Literal["own", "suite"] = "own"


@dataclass(frozen=True)
class Budget:
    """An entry of `budgets.yaml`: what network, how long and on what trained, the same for all models.

    `layout`: the settings of a network, less those that are of its images and codes.
    """

    layout: dict[str, Plain]
    latent_dim: Count
    optimisation: Optimisation
    validation_split: Literal["validation", "overlapping"]
    leave_out_last: CountOrZero
    network: OwnLayout | None = None

    def laid_out(self, channels: int, size: int, latent_dim: int, where: str) -> Layout:
        """The layout's network of images, with codes of `latent_dim` dimensions.

        Raises:
            ConfigError: no such network, or settings that it cannot have; `where` is the budget's place.
        """
        given = {"channels": channels, "size": size, "latent_dim": latent_dim}
        if stated := sorted(set(given) & set(self.layout)):
            raise ConfigError(f"{where}.layout.{stated[0]}: stands elsewhere, and is the same for every layout")
        network: Layout = parse(Layout, {**self.layout, **given}, f"{where}.layout")
        return network


@dataclass(frozen=True)
class StudyFile:
    """A study as its file states it.

    `protocol` names a list of settings, `switches` turns single ones on or off. `search` lists, for each row, the
    weights to try; else it is empty. `protocols` lists other ways of scoring the same samples, each by what it changes
    of the study's own. `importance_samples` 0: no likelihood of images. `equal_within`: the ratio up to which two
    distances are equal. `measures` are metrics of a user's own, beside the suite's.
    """

    title: str
    protocol: str
    switches: dict[str, bool]
    datasets: Annotated[dict[str, str], Field(min_length=1)]
    rows: Listed[str]
    densities: Listed[str]
    train_seeds: Listed[Seed]
    fit_seeds: Listed[Seed]
    sample_seeds: Listed[Seed]
    reference_split: Literal["test", "validation"]
    floor_split: Literal["train", "validation"]
    n_images: Count
    n_generated: Count
    metrics: str
    image_sets: str
    importance_samples: CountOrZero
    equal_within: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    protocols: dict[str, dict[str, Plain]]
    tables: Listed[
        Literal[
            "table1",
            "published",
            "claims",
            "comparisons",
            "variance",
            "priors",
            "densities",
            "protocols",
            "networks",
            "details",
            "search",
        ]
    ]
    compute: Compute
    search: dict[str, Listed[dict[str, PositiveFloat]]]
    measures: dict[str, OwnMeasure] = field(default_factory=dict, metadata=ADDED)

    def __post_init__(self) -> None:
        if bool(self.protocols) != ("protocols" in self.tables):
            raise ConfigError(
                f"protocols: {sorted(self.protocols)} and tables {list(self.tables)}: protocols and the table"
                " 'protocols' need each other"
            )
        if self.n_generated < self.n_images:
            raise ConfigError(
                f"n_generated: {self.n_generated} is less than n_images, {self.n_images}: most metrics compare as many"
                " generated images as there are reference images"
            )
        if self.floor_split == self.reference_split:
            raise ConfigError(
                f"floor_split: {self.floor_split!r} is the reference split itself; the floor compares two splits"
            )

    @property
    def in_float32(self) -> Compute:
        """How every stage but training computes, whatever training's precision."""
        return replace(self.compute, precision="float32")

    @property
    def on_cpu(self) -> Compute:
        """How `floor` and `fit` compute, which ask for no GPU."""
        return replace(self.in_float32, device="cpu", tf32=False)

    def scoring(self, entry: DatasetEntry, sets: ImageSets) -> Protocol:
        """How the study itself scores samples of a data set."""
        return Protocol(
            reference_split=self.reference_split,
            rounding=sets.rounding,
            extractor=entry.extractor,
            n_images=self.n_images,
            n_generated=self.n_generated,
        )


@dataclass(frozen=True)
class Study:
    """A resolved study; every path and every stage's settings follow from it.

    `source` is what it is loaded by: its name, or the path of a user's file.
    `protocol` says which settings are in force, `notes` what they mean for each data set's tables.
    `densities_as_stated` holds each density by data set before settings change it for some models; `fits`, by data
    set, model and density, is what is fitted. `protocols`: by data set, the ways of scoring samples that are compared.
    """

    name: str
    source: str
    file: StudyFile
    datasets: dict[str, DatasetEntry]
    budgets: dict[str, Budget]
    rows: dict[str, Row]
    metrics: MetricSettings
    image_sets: dict[str, ImageSets]
    protocol: str
    notes: dict[str, tuple[str, ...]]
    trainings: dict[tuple[str, str], TrainingSpec]
    densities_as_stated: dict[tuple[str, str], Density]
    fits: dict[tuple[str, str, str], FitSpec]
    protocols: dict[str, dict[str, Protocol]]

    @property
    def models(self) -> list[str]:
        """The models to train: what the rows need, each once."""
        return list(dict.fromkeys(model for _, model in self.trainings))

    @property
    def given(self) -> dict[str, Row]:
        """The rows without a model, by the name of their runs."""
        return {row.model: row for row in self.rows.values() if row.has_no_model}

    @property
    def scored(self) -> list[str]:
        """All that is scored: models, and images that are given."""
        return [*self.models, *self.given]

    @property
    def competing(self) -> list[str]:
        """The models that are compared with each other, and ranked by other protocols: all but baselines."""
        ranked = {row.model for row in self.rows.values() if row.family != "baseline"}
        return [model for model in self.models if model in ranked]

    @property
    def densities(self) -> list[str]:
        """Every density of the study."""
        return list(dict.fromkeys(density for _, _, density in self.fits))

    def densities_of(self, model: str) -> list[str]:
        """Densities fitted for `model`."""
        return list(dict.fromkeys(density for _, of, density in self.fits if of == model))

    def through_of(self, model: str) -> tuple[str, ...]:
        """Densities whose own reconstruction of codes stands in a row of `model`."""
        return tuple(dict.fromkeys(row.through for row in self.rows.values() if row.model == model and row.through))

    def shown_densities(self, model: str) -> tuple[str, ...]:
        """Densities in columns N and GMM of the rows of `model`: those whose rankings the protocol panel holds."""
        rows = [row for row in self.rows.values() if row.model == model]
        return tuple(dict.fromkeys(density for row in rows for density in (row.n, row.gmm) if density))

    @property
    def train_seeds(self) -> tuple[int, ...]:
        """One independent training run each."""
        return self.file.train_seeds

    @property
    def gpus(self) -> int:
        """GPUs a stage with a network asks for: none on a CPU study, or its jobs would take turns."""
        return 1 if self.file.compute.device == "cuda" else 0

    @property
    def decodes_apart(self) -> bool:
        """Whether `decode` makes the image sets, on a GPU, and `evaluate` measures them without one.

        On the CPU `evaluate` does both: a process less, and nothing is stored in between.
        """
        return self.gpus > 0

    def own_protocol(self, dataset: str) -> Protocol:
        """How the study itself scores samples of `dataset`."""
        return self.file.scoring(self.datasets[dataset], self.image_sets[dataset])

    def preparation(self, dataset: str) -> DatasetSpec:
        """What `prepare` reads."""
        return self.datasets[dataset].data

    def reference(self, dataset: str) -> ReferenceSpec:
        """The features everything of `dataset` is held against."""
        metrics = self.metrics
        return self._reference(
            dataset, self.own_protocol(dataset), neighbours=max(metrics.neighbours, metrics.coverage_neighbours)
        )

    def floor_reference(self, dataset: str) -> ReferenceSpec:
        """The real images whose distance from the reference is the floor."""
        return self._reference(dataset, replace(self.own_protocol(dataset), reference_split=self.file.floor_split))

    def prd_reference(self, dataset: str) -> ReferenceSpec:
        """The features precision-recall curves are measured against; most often the reference's own."""
        split = self.image_sets[dataset].prd_reference
        if split == self.file.reference_split:
            return self.reference(dataset)
        return self._reference(dataset, replace(self.own_protocol(dataset), reference_split=split))

    def training_reference(self, dataset: str) -> ReferenceSpec:
        """All training images, among which copies are looked for."""
        everything = self.datasets[dataset].data.n_train
        protocol = replace(self.own_protocol(dataset), reference_split="train", n_images=everything)
        return self._reference(dataset, protocol)

    def protocol_references(self, dataset: str) -> dict[str, ReferenceSpec]:
        """What samples are held against, for each protocol of the panel."""
        own = self.reference(dataset)
        found = {}
        for name, protocol in self.protocols[dataset].items():
            spec = self._reference(dataset, protocol)
            found[name] = own if replace(own, neighbours=spec.neighbours) == spec else spec  # one file serves both
        return found

    def references(self, dataset: str) -> dict[str, ReferenceSpec]:
        """Every set of real features that the study needs of `dataset`, by file name."""
        needed = [
            self.reference(dataset),
            self.floor_reference(dataset),
            self.prd_reference(dataset),
            self.training_reference(dataset),
            *self.protocol_references(dataset).values(),
        ]
        return {spec.name: spec for spec in needed}

    def _reference(self, dataset: str, protocol: Protocol, neighbours: int = 0) -> ReferenceSpec:
        return ReferenceSpec(
            version=REFERENCE_VERSION,
            dataset=self.datasets[dataset].data,
            split=protocol.reference_split,
            n_images=protocol.n_images,
            extractor=protocol.extractor,
            neighbours=neighbours,
            compute=self.file.in_float32,
        )

    def floor(self, dataset: str) -> FloorSpec:
        """What `floor` reads."""
        return FloorSpec(
            version=FLOOR_VERSION,
            metrics=self.metrics,
            floor_split=self.file.floor_split,
            n_images=self.file.n_images,
            has_factors=self.datasets[dataset].data.has_factors,
            extractor=self.datasets[dataset].extractor,
            made_by={
                "manifest": fingerprint(self.preparation(dataset)),
                "reference": fingerprint(self.reference(dataset)),
                "other": fingerprint(self.floor_reference(dataset)),
                "training": fingerprint(self.training_reference(dataset)),
            },
            compute=self.file.on_cpu,
        )

    def tryouts(self, dataset: str) -> dict[str, TryoutSpec]:
        """What `tryout` reads of each part of a user's own, by its name in paths; a study of the suite has none."""
        parts: dict[str, TrainingPart | DensityPart | MeasurePart] = {}
        for model in self.models:
            spec = self.trainings[dataset, model]
            if isinstance(spec.network, OwnModel | OwnNetworks | TrainedElsewhere):
                parts[f"model.{model}"] = TrainingPart("training", spec)
            for name in self.densities_of(model):
                density, dim = self.fits[dataset, model, name].density, spec.network.latent_dim
                if isinstance(density, OwnDensity):
                    parts[self.density_part(dataset, model, name)] = DensityPart("density", density, dim)
        for name, measure in self.file.measures.items():
            parts[f"measure.{name}"] = MeasurePart("measure", measure)
        made_by = {"manifest": fingerprint(self.preparation(dataset))}
        return {name: TryoutSpec(TRYOUT_VERSION, part, made_by, self.file.in_float32) for name, part in parts.items()}

    def own_code(self) -> list[OwnCode]:
        """All code of a user's own that the study names."""
        parts = [*(spec.network for spec in self.trainings.values()), *(fit.density for fit in self.fits.values())]
        own = [part for part in parts if isinstance(part, OwnModel | OwnNetworks | TrainedElsewhere | OwnDensity)]
        return list({part.code.place: part.code for part in (*own, *self.file.measures.values())}.values())

    def density_part(self, dataset: str, model: str, density: str) -> str:
        """What `tryouts` calls a density of a user's own for codes as long as those of `model`."""
        return f"density.{density}.{self.trainings[dataset, model].network.latent_dim}"

    def training(self, dataset: str, model: str) -> TrainingSpec:
        """What `train` reads."""
        return self.trainings[dataset, model]

    def fit(self, dataset: str, model: str, density: str) -> FitSpec:
        """What `fit` reads."""
        return self.fits[dataset, model, density]

    def evaluation(self, dataset: str, model: str) -> EvaluationSpec:
        """What `evaluate` reads, and `decode`, of a model or of given images."""
        row = self.given.get(model)
        return EvaluationSpec(
            version=EVALUATE_VERSION,
            training=self.trainings.get((dataset, model)),
            given={row.images[column]: split for column, split in row.given.items()} if row else {},
            extractor=self.datasets[dataset].extractor,
            metrics=self.metrics,
            reference_split=self.file.reference_split,
            image_sets=self.image_sets[dataset],
            n_images=self.file.n_images,
            n_generated=self.file.n_generated,
            sample_seeds=self.file.sample_seeds,
            densities=tuple(self.densities_of(model)),
            fit_seeds={name: self.fits[dataset, model, name].fit_seeds for name in self.densities_of(model)},
            through=self.through_of(model),
            priors=tuple(
                name for name in self.densities_of(model) if self.fits[dataset, model, name].density.has_formula
            ),
            importance_samples=self.file.importance_samples,
            has_factors=self.datasets[dataset].data.has_factors,
            made_by={
                "manifest": fingerprint(self.preparation(dataset)),
                "reference": fingerprint(self.reference(dataset)),
                "prd_reference": fingerprint(self.prd_reference(dataset)),
                "training": fingerprint(self.training_reference(dataset)),
                "floor": fingerprint(self.floor(dataset)),
                **self._made_model(dataset, model, self.densities_of(model)),
            },
            compute=self.file.in_float32,
            measures=self.file.measures,
            generated={row.images[column]: images for column, images in row.generated.items()} if row else {},
        )

    def _made_model(self, dataset: str, model: str, densities: Sequence[str]) -> dict[str, str]:
        if model in self.given:
            return {}
        fits = {f"densities/{name}": fingerprint(self.fits[dataset, model, name]) for name in densities}
        return {"model": fingerprint(self.trainings[dataset, model]), **fits}

    def protocol_panel(self, dataset: str, model: str) -> ProtocolSpec:
        """What `protocols` reads."""
        references = self.protocol_references(dataset)
        shown = self.shown_densities(model)
        return ProtocolSpec(
            version=PROTOCOL_VERSION,
            training=self.trainings[dataset, model],
            protocols=self.protocols[dataset],
            references={name: spec.name for name, spec in references.items()},
            densities=shown,
            sample_seeds=self.file.sample_seeds,
            made_by={
                **{f"references/{name}": fingerprint(spec) for name, spec in references.items()},
                **self._made_model(dataset, model, shown),
            },
            compute=self.file.in_float32,
        )

    def _changed_fits(self, dataset: str) -> dict[str, dict[str, Density]]:
        """The densities that are not fitted as they are stated, by model and name."""
        changed: dict[str, dict[str, Density]] = {}
        for (of, model, density), fit in self.fits.items():
            if of == dataset and fit.density != self.densities_as_stated[dataset, density]:
                changed.setdefault(model, {})[density] = fit.density
        return changed

    def summary(self) -> SummarySpec:
        """What `collect`, `tables`, `figures` and `report` read."""
        return SummarySpec(
            version=SUMMARY_VERSION,
            study=self.name,
            source=self.source,
            title=self.file.title,
            order=tuple(self.rows),
            rows=self.rows,
            datasets={name: entry.data for name, entry in self.datasets.items()},
            trainings={name: {model: self.trainings[name, model] for model in self.models} for name in self.datasets},
            fits={
                name: {density: self.densities_as_stated[name, density] for density in self.densities}
                for name in self.datasets
            },
            changed_fits={name: self._changed_fits(name) for name in self.datasets},
            image_sets=self.image_sets,
            extractors={name: entry.extractor for name, entry in self.datasets.items()},
            published={name: entry.published for name, entry in self.datasets.items()},
            train_seeds=self.file.train_seeds,
            densities=tuple(name for name in self.file.densities if name in self.densities),
            reference_split=self.file.reference_split,
            floor_split=self.file.floor_split,
            n_images=self.file.n_images,
            n_generated=self.file.n_generated,
            fit_seeds=self.file.fit_seeds,
            sample_seeds=self.file.sample_seeds,
            equal_within=self.file.equal_within,
            tables=self.file.tables,
            protocols=self.protocols,
            protocol=self.protocol,
            notes=self.notes,
            evaluations={
                name: {model: fingerprint(self.evaluation(name, model)) for model in self.scored}
                for name in self.datasets
            },
            panels={
                name: {model: fingerprint(self.protocol_panel(name, model)) for model in self.competing}
                for name in self.datasets
                if self.protocols[name]
            },
            measures=self.file.measures,
        )
