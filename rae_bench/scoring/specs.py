"""The settings of scoring: what `reference`, `floor`, `evaluate` and `protocols` read."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from rae_bench.base.own import OwnCode
from rae_bench.base.plain import ADDED, fingerprint
from rae_bench.base.specs import Compute, Count, TwoOrMore
from rae_bench.data.specs import DatasetSpec, Split
from rae_bench.densities.specs import CodeKind
from rae_bench.models.specs import TrainingSpec

REFERENCE_VERSION = 2

FLOOR_VERSION = 3

EVALUATE_VERSION = 4

PROTOCOL_VERSION = 2

Extractor = Literal[
    "digit_classifier",
    "face_features",
    "efficientnet_lite0",
    "efficientnet_lite0_bicubic",
    "efficientnet_lite0_nearest",
    "efficientnet_lite0_128",
    "pixels",
    "inception_v3_compat",
    "dinov2_vit_l_14",
]

DEFAULT_EXTRACTOR: Extractor = "efficientnet_lite0"
DEFAULT_ID = "efficientnet_lite0@96/bilinear-antialias-channels-last/pooled1280/57934424"
"""The network for images that are of no data set: its weights come with the packages; and its id, for `--help`."""

INCEPTION_LABEL = "Inception"
"""The label of the official Inception network with verified weights, whose distances alone are FID and KID."""

STEPS = 8
"""Images of an interpolation strip, both ends included."""

IMAGES_PER_FEATURE = 2
"""The least: with fewer, a covariance is too poor to extrapolate from, and Fréchet distances are mostly bias."""


def is_fid(extractor: Extractor) -> bool:
    """Whether distances are computed as FID is, by torch-fidelity; named so only with the official weights."""
    return extractor == "inception_v3_compat"


@dataclass(frozen=True)
class MetricSettings:
    """Settings of the feature-level metrics; `seed` is that of their own random choices, the same for all sets."""

    kernel_subsets: Count
    kernel_subset_size: TwoOrMore
    neighbours: Count
    coverage_neighbours: Count
    prd_clusters: Count
    prd_angles: TwoOrMore
    prd_runs: Count
    infinity_sizes: TwoOrMore
    half_samples: TwoOrMore
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]  # of numpy's RandomState, as torch-fidelity takes it

    @property
    def least_images(self) -> dict[str, int]:
        """How many images each set needs at least, by the setting that needs them."""
        return {
            "neighbours": self.neighbours + 1,
            "coverage_neighbours": self.coverage_neighbours + 1,
            "kernel_subset_size": self.kernel_subset_size,
            "prd_clusters": -(-self.prd_clusters // 2),  # of both sets together
            "half_samples": 4,  # two in each half
        }

    def has_overlapping_subsets(self, n_real: int, n_fake: int) -> bool:
        """Whether the kernel's subsets hold each pair of images more than once, on average.

        Then the kernel of all pairs, found once, costs less (`kernel_distance`).
        """
        return self.kernel_subsets * self.kernel_subset_size**2 > n_real * n_fake


@dataclass(frozen=True)
class ImageSets:
    """What the image sets of a table's columns are made of; each is the first n_images of its split.

    rounding               decoded floats to 8 bits: to the nearest level, or downwards
    reconstructed          split whose images are reconstructed
    reconstruction_codes   from the posterior's mean, or one draw from it
    interpolated           split between whose codes mid-points lie
    midpoints              (a + b)/2; the same, rescaled to the mean of both norms; or half-way on the great circle
    prd_reference          split that the precision-recall curve is measured against; all else: the reference split
    """

    rounding: Literal["round", "truncate"]
    reconstructed: Split
    reconstruction_codes: CodeKind
    interpolated: Split
    midpoints: Literal["linear", "rescaled", "spherical"]
    prd_reference: Split


@dataclass(frozen=True)
class ReferenceSpec:
    """Exactly what `reference` reads, beside images: the first `n_images` of a split, through one extractor.

    `neighbours`: to how many nearest neighbours distances are kept; 0 for a set that balls are not drawn around.
    """

    version: int
    dataset: DatasetSpec
    split: Split
    n_images: int
    extractor: Extractor
    neighbours: int
    compute: Compute

    @property
    def name(self) -> str:
        """What its file is called: readable, and different wherever its bytes can be."""
        return f"{self.split}.{self.n_images}.{self.extractor}.{fingerprint(self)}"


@dataclass(frozen=True)
class FloorSpec:
    """Exactly what `floor` reads, beside references and, where they have factors, images.

    `made_by`, here and below: the fingerprints of the settings that made the files a stage reads.
    """

    version: int
    metrics: MetricSettings
    floor_split: Split
    n_images: int
    has_factors: bool
    extractor: Extractor
    made_by: dict[str, str]
    compute: Compute


@dataclass(frozen=True)
class OwnMeasure:
    """A metric of a user's own (`rae_bench.base.contracts.Metric`), which way is better, and its printed name."""

    code: OwnCode
    better: Literal["lower", "higher"]
    label: str


@dataclass(frozen=True)
class GeneratedImages:
    """Images that a user's generator made: a folder, a zip file, or an array; `sha256` is of all their bytes."""

    file: str
    sha256: str


@dataclass(frozen=True)
class EvaluationSpec:
    """Exactly what `evaluate` reads, beside model, codes, densities, references, images and seed.

    Of each of `densities` there is a fit for every one of its `fit_seeds`, and of that a draw of `n_generated` images
    for every sample seed. A run without `training` has neither model nor densities: `given` names each set of
    its samples, and the split whose images they are, `generated` those of a user's.

    `importance_samples` codes an image estimate its likelihood, of models with a KL term, under each of `priors`;
    `has_factors`: the images' factors are known, and samples are held against their law.
    """

    version: int
    training: TrainingSpec | None
    given: dict[str, Split]
    extractor: Extractor
    metrics: MetricSettings
    reference_split: Split
    image_sets: ImageSets
    n_images: int
    n_generated: int
    sample_seeds: tuple[int, ...]
    densities: tuple[str, ...]
    fit_seeds: dict[str, tuple[int, ...]]
    through: tuple[str, ...]
    priors: tuple[str, ...]
    importance_samples: int
    has_factors: bool
    made_by: dict[str, str]
    compute: Compute
    measures: dict[str, OwnMeasure] = field(default_factory=dict, metadata=ADDED)
    generated: dict[str, GeneratedImages] = field(default_factory=dict, metadata=ADDED)


@dataclass(frozen=True)
class Protocol:
    """How samples are scored: the study's own way, or one changed for the protocol-sensitivity panel."""

    reference_split: Split
    rounding: Literal["round", "truncate"]
    extractor: Extractor
    n_images: Count
    n_generated: Count


@dataclass(frozen=True)
class ProtocolSpec:
    """Exactly what `protocols` reads, beside model, densities and references: the same samples scored in many ways."""

    version: int
    training: TrainingSpec
    protocols: dict[str, Protocol]
    references: dict[str, str]
    densities: tuple[str, ...]
    sample_seeds: tuple[int, ...]
    made_by: dict[str, str]
    compute: Compute
