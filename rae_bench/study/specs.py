"""The settings of a study's summary: what `collect`, `tables`, `figures` and `report` read."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from rae_bench.base.plain import ADDED
from rae_bench.base.specs import ByKind, Compute
from rae_bench.data.specs import DatasetSpec, Split
from rae_bench.densities.specs import Density, OwnDensity
from rae_bench.models.specs import TrainingSpec
from rae_bench.scoring.specs import Extractor, GeneratedImages, ImageSets, OwnMeasure, Protocol

SUMMARY_VERSION = 8
TRYOUT_VERSION = 1
PAPER_DATASETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "celeba": "CelebA"}
"""The paper's data sets, as the suite names them and as the published files do; every other is like one of them."""


@dataclass(frozen=True)
class TrainingPart:
    """A model or networks of a user's own, as they are to be trained."""

    kind: Literal["training"]
    training: TrainingSpec


@dataclass(frozen=True)
class DensityPart:
    """A density of a user's own, for codes of so many dimensions."""

    kind: Literal["density"]
    density: OwnDensity
    latent_dim: int


Family = Literal["variational", "regularized", "plain", "baseline", "own"]
"""What the paper's claims speak of; of a user's own model they say nothing."""


@dataclass(frozen=True)
class Row:
    """A table row: a trained model and which density stands in each column; not a trained model of its own.

    `through` names a density whose own reconstruction of codes stands between encoder and decoder
    (the second stage of 2sVAE), or is empty. `gmm` is empty where the paper has no such cell.

    A row of images that no model of the study makes has them `given`, by its columns: the split whose images stand
    there as samples; or `generated`, the same of a user's. Its `model` is its own name, for its results lie where a
    model's would.
    """

    label: str
    family: Family
    model: str = ""
    n: str = ""
    gmm: str = ""
    through: str = ""
    given: dict[Literal["n", "gmm"], Split] = field(default_factory=dict)
    generated: dict[Literal["n", "gmm"], GeneratedImages] = field(default_factory=dict, metadata=ADDED)

    @property
    def has_no_model(self) -> bool:
        """Whether its images are there already."""
        return bool(self.given or self.generated)

    @property
    def images(self) -> dict[str, str]:
        """What its images are called where they stand as samples, by column."""
        splits = {str(column): given_name(split) for column, split in self.given.items()}
        return {**splits, **{str(column): f"generated_{column}" for column in self.generated}}

    def shown(self, column: str) -> str:
        """What is sampled for one of columns N and GMM: a density, or given images; empty where nothing is."""
        return self.images.get(column) or {"n": self.n, "gmm": self.gmm}[column]


def given_name(split: Split) -> str:
    """What the images of a split are called where they stand as samples, in place of a density."""
    return f"{split}_images"


@dataclass(frozen=True)
class MeasurePart:
    """A metric of a user's own."""

    kind: Literal["measure"]
    measure: OwnMeasure


@dataclass(frozen=True)
class TryoutSpec:
    """What `tryout` reads: a part of a user's own, and what it is tried on."""

    version: int
    part: Annotated[TrainingPart | DensityPart | MeasurePart, ByKind]
    made_by: dict[str, str]
    compute: Compute


@dataclass(frozen=True)
class SummarySpec:
    """What tables, figures and report read, beside the metrics. `order` lists the rows as the study does.

    `source` is what the study is loaded by: its name, or the path of a user's file.
    `fits` has each density as the study states it, `changed_fits` those that settings change for some models.
    `equal_within`: the ratio up to which two distances are equal. `published` is what the paper calls each data set, or
    empty. `protocol` is the label of the protocol in force, `notes` what it means for each data set's tables.
    `evaluations` and `panels`: by data set and model, the fingerprints of the settings that runs were scored with.
    `measures` are metrics of a user's own.
    """

    version: int
    study: str
    source: str
    title: str
    order: tuple[str, ...]
    rows: dict[str, Row]
    datasets: dict[str, DatasetSpec]
    trainings: dict[str, dict[str, TrainingSpec]]
    fits: dict[str, dict[str, Density]]
    changed_fits: dict[str, dict[str, dict[str, Density]]]
    image_sets: dict[str, ImageSets]
    extractors: dict[str, Extractor]
    published: dict[str, str]
    train_seeds: tuple[int, ...]
    densities: tuple[str, ...]
    reference_split: Split
    floor_split: Split
    n_images: int
    n_generated: int
    fit_seeds: tuple[int, ...]
    sample_seeds: tuple[int, ...]
    equal_within: float
    tables: tuple[str, ...]
    protocols: dict[str, dict[str, Protocol]]
    protocol: str
    notes: dict[str, tuple[str, ...]]
    evaluations: dict[str, dict[str, str]]
    panels: dict[str, dict[str, str]]
    measures: dict[str, OwnMeasure] = field(default_factory=dict, metadata=ADDED)

    @property
    def ordered_rows(self) -> dict[str, Row]:
        """The rows in the study's order, which JSON does not keep."""
        return {name: self.rows[name] for name in self.order}

    @property
    def competing(self) -> dict[str, Row]:
        """The rows that are compared with each other, in order: all but `baselines`."""
        return {name: row for name, row in self.ordered_rows.items() if name not in self.baselines}

    @property
    def baselines(self) -> dict[str, Row]:
        """The rows that all others are held against, in order; those without a model, too, which no seed changes."""
        return {name: row for name, row in self.ordered_rows.items() if row.family == "baseline" or row.has_no_model}

    def density(self, dataset: str, model: str, name: str) -> Density:
        """The density `name` as it is fitted to the codes of `model`."""
        return self.changed_fits[dataset].get(model, {}).get(name) or self.fits[dataset][name]
