"""A trained model, or given images, to numbers: every image set is made once, its features taken once.

Two halves, one set at a time: `made` decodes images and takes their features, with networks; `measured` finds the
metrics of features, in float64 and without any. `evaluate` joins them; apart, each has a process of its own.

Image sets: `reconstruction` of the reference images, `interpolation` between them, `sample` of every density; and
`reference`, the images themselves, whose likelihood is estimated. What a table calls a row is put together later.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rae_bench.base.rng import numpy_generator, torch_generator
from rae_bench.base.storage import MappedRows
from rae_bench.data.faces import LAW
from rae_bench.data.specs import Split
from rae_bench.densities.codes import Posteriors
from rae_bench.densities.density import FittedDensity
from rae_bench.densities.second_stage import FittedSecondStage
from rae_bench.models.autoencoder import Model
from rae_bench.models.specs import at_once
from rae_bench.models.terms.specs import SpectralNorm
from rae_bench.models.training import draw_codes, encode, to_device
from rae_bench.scoring import classifiers, generation, own
from rae_bench.scoring.features import FrozenExtractor
from rae_bench.scoring.generation import Images
from rae_bench.scoring.likelihood import image_likelihoods
from rae_bench.scoring.metrics.attributes import attribute_marginal_error, mode_coverage
from rae_bench.scoring.metrics.frechet import frechet_distance, reference_half_sample_sd
from rae_bench.scoring.metrics.measure import distances, measure
from rae_bench.scoring.metrics.memorisation import Training
from rae_bench.scoring.metrics.reference import Features, Reference
from rae_bench.scoring.specs import STEPS, EvaluationSpec, Extractor, ProtocolSpec, is_fid

SHOWN = 36
"""Images kept of each set, for people to look at."""
STRIPS = 6
"""Interpolations kept for people to look at."""
RECONSTRUCTION, INTERPOLATION = "reconstruction", "interpolation"
"""Image sets that are made of images, not drawn from a density."""
DISTANCES = ("frechet_distance", "frechet_distance_half_sd", "kernel_distance", "kernel_distance_subset_sd")
"""Metrics that `sample` takes of all images it makes."""
LIKELIHOOD = "log_likelihood_images"
COMPARED = 500
"""Images compared with their reconstructions at a time."""
PLOTTED = 500
"""Codes kept of each density, for the two-dimensional view."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """One row per value (the fields of `Origin`, metric, value), and arrays to look at."""

    rows: list[Row]
    sheets: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Origin:
    """What images were made of: the image set, and where there is one the density, which fit of it, which draw."""

    image_set: str
    density: str = ""
    fit_seed: int = 0
    sample_seed: int = 0

    @property
    def name(self) -> str:
        """How messages call it."""
        return " ".join([self.image_set, self.density]).strip()

    @property
    def key(self) -> str:
        """What its pictures are called."""
        return f"{self.image_set}.{self.density}" if self.density else self.image_set


@dataclass(frozen=True)
class Made:
    """An image set as it is measured: `features` (n, d), and a few of its images to look at.

    `values`: metrics that its images tell without features of others, and a user's own. Of samples, the distances are
    of all n images, all else of as many as the reference has; the first draw of the first fit is the one shown.
    """

    origin: Origin
    features: Features
    values: dict[str, float]
    sheets: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """What a run's images are held against, and by which settings.

    `reference` holds the features of the reference images, `prd_reference` of those for precision-recall curves (most
    often the same), `training` of the training images.
    """

    spec: EvaluationSpec
    reference: Reference
    prd_reference: Reference
    training: Training


@dataclass(frozen=True)
class Real:
    """The reference images (n, C, H, W) and their features (n, d), for metrics of a user's own."""

    images: Images
    features: Features


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a run's images come from, and the network their features are taken with.

    `seed` is the training seed, from which samples derive. `real`: what a metric of a user's own holds images against,
    where the study has one.
    """

    spec: EvaluationSpec
    extractor: FrozenExtractor
    seed: int
    real: Real | None = None


@dataclass(frozen=True, kw_only=True)
class Given(Source):
    """Images that stand as samples as they are: sets of them (n, C, H, W), by name."""

    sets: Mapping[str, Images | MappedRows]


@dataclass(frozen=True, kw_only=True)
class Subject(Source):
    """A model and its densities, by name and fit seed.

    `images` has n images (n, C, H, W) of every split that an image set or the likelihood is made of; `labels` (n,) are
    those of the images to reconstruct, where digits have them.
    """

    model: Model
    densities: Mapping[str, Mapping[int, FittedDensity]]
    images: Mapping[Split, Images]
    labels: npt.NDArray[np.int64] | None

    @cached_property
    def posteriors(self) -> dict[Split, Posteriors]:
        """The posteriors of all `images`, by split."""
        encoded = {
            split: encode(self.model, to_device(images, self.spec.compute.device))
            for split, images in self.images.items()
        }
        return {split: Posteriors(codes["mean"], codes.get("log_sigma")) for split, codes in encoded.items()}


def made(subject: Subject | Given, only: str = "") -> Iterator[Made | Evaluated]:
    """Each image set in turn, and what is measured already: pictures of other things, likelihoods.

    With `only`, those of one column: a density, or an image set of no density.
    """
    spec = subject.spec
    if isinstance(subject, Given):
        for name in subject.sets:
            if only in ("", name):
                yield from given(subject, name)
        return
    every = not only or _changes_in_use(spec)
    original = subject.images[spec.image_sets.reconstructed][:SHOWN]
    yield Evaluated([], {"original": original, "codes": subject.posteriors[spec.reference_split].mean[:PLOTTED]})
    for name in ("", *spec.through):
        if every or only == RECONSTRUCTION:
            yield from reconstruction(subject, name)
        if every or only == INTERPOLATION:
            yield from interpolation(subject, name)
    for name in spec.densities:
        if every or only == name:
            yield from sample(subject, name)
    if every or only == RECONSTRUCTION or only in spec.priors:
        yield Evaluated(likelihood(subject, [name for name in spec.priors if every or only == name]), {})


def measured(ruler: Ruler, parts: Iterable[Made | Evaluated]) -> Evaluated:
    """Score each image set as it comes, and join what all of them gave."""
    rows: list[Row] = []
    sheets: dict[str, npt.NDArray[Any]] = {}
    for part in parts:
        rows += part.rows if isinstance(part, Evaluated) else scores(ruler, part)
        sheets |= part.sheets
    return Evaluated(rows, sheets)


def densities_for(spec: EvaluationSpec, only: str) -> tuple[str, ...]:
    """The densities without which `evaluate` cannot score `only`, or, if that is empty, all image sets."""
    if not only or spec.training is None or _changes_in_use(spec):
        return spec.densities
    return spec.through if only in (RECONSTRUCTION, INTERPOLATION) else (only,)


def _changes_in_use(spec: EvaluationSpec) -> bool:
    """Whether a model's passes change it: then only all image sets in their order give each its numbers."""
    regulariser = spec.training and spec.training.regulariser
    return isinstance(regulariser, SpectralNorm) and regulariser.evaluation == "iterates"


def reconstruction(subject: Subject, through: str) -> Iterator[Made]:
    """Images through the model; `through` names a second stage whose every fit their codes pass, or is empty."""
    sets = subject.spec.image_sets
    originals, codes = subject.images[sets.reconstructed], subject.posteriors[sets.reconstructed].mean
    if sets.reconstruction_codes == "sample":
        images = to_device(originals, subject.spec.compute.device)
        codes = draw_codes(subject.model, images, torch_generator(subject.seed, "reconstruction"))
    for i, (fit_seed, stage) in enumerate(_second_stages(subject, through).items()):
        origin = Origin(RECONSTRUCTION, through, fit_seed)
        rebuilt, features = _decoded(subject, codes if stage is None else stage.through(codes))
        values = of_images(subject, rebuilt, features) | reconstruction_metrics(originals, rebuilt, subject.labels)
        yield Made(origin, features, values, {} if i else {origin.key: rebuilt[:SHOWN]})


def interpolation(subject: Subject, through: str) -> Iterator[Made]:
    """Mid-points between the codes of random pairs of images, or between those inside every fit of a second stage."""
    sets = subject.spec.image_sets
    codes = subject.posteriors[sets.interpolated].mean
    pairs = generation.interpolation_pairs(len(codes), seed=0)
    for i, (fit_seed, stage) in enumerate(_second_stages(subject, through).items()):
        origin = Origin(INTERPOLATION, through, fit_seed)
        inner = codes if stage is None else stage.to_inner(codes)
        middle = generation.midpoints(inner, pairs, sets.midpoints)
        path = generation.strip(inner, pairs[:STRIPS], STEPS)
        if stage is not None:
            middle, path = stage.from_inner(middle), stage.from_inner(path)
        images, features = _decoded(subject, middle)
        sheets = {} if i else {origin.key: generation.decode(subject.model, path)}
        yield Made(origin, features, of_images(subject, images, features), sheets)


def sample(subject: Subject, density: str) -> Iterator[Made]:
    """Images of codes drawn from every fit of `density`, once for every sample seed; the first draw is shown."""
    seeds = itertools.product(subject.densities[density].items(), subject.spec.sample_seeds)
    for i, ((fit_seed, fitted), sample_seed) in enumerate(seeds):
        origin = Origin("sample", density, fit_seed, sample_seed)
        drawn = draw(subject, origin, fitted)
        images, features = _decoded(subject, drawn)
        shown: dict[str, npt.NDArray[Any]] = {origin.key: images[:SHOWN]}
        shown[Origin("codes", density).key] = drawn[:PLOTTED]
        yield Made(origin, features, _of_samples(subject, origin, images, features), {} if i else shown)


def draw(subject: Subject, origin: Origin, fitted: FittedDensity) -> npt.NDArray[np.float32]:
    """The codes (n_generated, d) of a draw from `fitted`, which `origin` says: in every call the same."""
    rng = numpy_generator(subject.seed, "sample", origin.density, origin.fit_seed, origin.sample_seed)
    return fitted.sample(subject.spec.n_generated, rng)


def given(subject: Given, name: str) -> Iterator[Made]:
    """The images of a set in a random order for every sample seed, all of them once before any of them again."""
    spec, images = subject.spec, subject.sets[name]
    for i, sample_seed in enumerate(spec.sample_seeds):
        rng = numpy_generator(subject.seed, "sample", name, 0, sample_seed)
        rounds = -(-spec.n_generated // len(images))
        which = np.concatenate([rng.permutation(len(images)) for _ in range(rounds)])[: spec.n_generated]
        drawn, origin = images[which], Origin("sample", name, 0, sample_seed)
        features = subject.extractor(drawn)
        shown = {origin.key: drawn[:SHOWN]}
        yield Made(origin, features, _of_samples(subject, origin, drawn, features), {} if i else shown)


def _of_samples(subject: Source, origin: Origin, images: Images, features: Features) -> dict[str, float]:
    """What the images of each fit's first draw tell, as many as the reference has."""
    n = subject.spec.n_images
    is_first = origin.sample_seed == subject.spec.sample_seeds[0]
    return of_images(subject, images[:n], features[:n]) if is_first else {}


def likelihood(subject: Subject, priors: Sequence[str]) -> list[Row]:
    """The evidence bound of the reference images and their likelihood under the first fit of each of `priors`.

    No rows for models whose loss is no evidence bound, or where no importance samples are asked for.
    """
    samples, training = subject.spec.importance_samples, subject.spec.training
    variance = None if training is None else training.decoder_variance
    if not samples or variance is None:
        return []
    first = {name: next(iter(subject.densities[name].items())) for name in priors}
    log_densities = {name: fitted.log_density for name, (_, fitted) in first.items()}
    images = subject.images[subject.spec.reference_split]
    bound, found = image_likelihoods(subject.model, variance, images, log_densities, samples, subject.seed)
    rows = rows_of(Origin("reference"), len(images), {"evidence_bound": bound})
    for name, estimate in found.items():
        values = {f"{LIKELIHOOD}{'_' if part else ''}{part}": value for part, value in estimate.parts.items()}
        rows += rows_of(Origin("reference", name, first[name][0]), len(images), values)
    return rows


def _second_stages(subject: Subject, name: str) -> Mapping[int, FittedSecondStage | None]:
    """Every fit of a second stage; without one a single None."""
    if not name:
        return {0: None}
    stages: dict[int, FittedSecondStage | None] = {}
    for fit_seed, stage in subject.densities[name].items():
        assert isinstance(stage, FittedSecondStage)
        stages[fit_seed] = stage
    return stages


def _decoded(subject: Subject, codes: npt.NDArray[np.float32]) -> tuple[Images, Features]:
    """The images of codes (n, d), and their features."""
    images = generation.decode(subject.model, codes, subject.spec.image_sets.rounding)
    return images, subject.extractor(images)


def of_images(subject: Source, images: Images, features: Features) -> dict[str, float]:
    """What images tell by themselves: a user's own metrics, and the attributes of faces."""
    values = {}
    if (real := subject.real) is not None:
        values = own.measured(subject.spec.measures, real.features, features, real.images, images)
    return values | attribute_metrics(images) if subject.spec.has_factors else values


def of_features(ruler: Ruler, name: str, features: Features) -> dict[str, float]:
    """Every metric of features (n, d); `name`: how messages call them."""
    spec = ruler.spec
    values = measure(
        *(ruler.reference, features, spec.metrics),
        is_fid=is_fid(spec.extractor),
        prd_real=ruler.prd_reference,
        name=name,
    )
    return {**values, "nearest_training_ratio": ruler.training.ratio(features)}


def scores(ruler: Ruler, one: Made) -> list[Row]:
    """The rows of an image set.

    Of samples the distances are of all n_generated images. All other metrics are of the first draw of each fit, and of
    as many of its images as the reference has: several of them mean another thing at unequal counts.
    """
    spec, origin, features = ruler.spec, one.origin, one.features
    if origin.image_set != "sample":
        return rows_of(origin, len(features), of_features(ruler, origin.name, features) | one.values)
    rows: list[Row] = []
    if origin.sample_seed == spec.sample_seeds[0]:
        values = of_features(ruler, origin.name, features[: spec.n_images]) | one.values
        rows += rows_of(origin, spec.n_images, {name: values[name] for name in values if name not in DISTANCES})
    found = distances(ruler.reference, features, spec.metrics, is_fid=is_fid(spec.extractor), name=origin.name)
    if origin.key in one.sheets:
        found["frechet_distance_reference_sd"] = reference_half_sample_sd(
            ruler.reference, features, spec.metrics.half_samples, spec.metrics.seed
        )
    return rows + rows_of(origin, len(features), found)


def score_protocols(
    spec: ProtocolSpec,
    model: Model,
    densities: Mapping[str, Mapping[int, FittedDensity]],
    references: dict[str, Reference],
    extractors: Mapping[Extractor, FrozenExtractor],
    seed: int,
) -> list[Row]:
    """The Fréchet distance of the same samples under every protocol of the panel; `references` by protocol.

    Of each density's first fit alone: how protocols rank is asked, not how fits differ.
    """
    rows: list[Row] = []
    ways = {key: (protocol.rounding, protocol.extractor) for key, protocol in spec.protocols.items()}
    most = max(protocol.n_generated for protocol in spec.protocols.values())
    for name, sample_seed in itertools.product(spec.densities, spec.sample_seeds):
        fit_seed, fitted = next(iter(densities[name].items()))
        origin = Origin("sample", name, fit_seed, sample_seed)
        drawn = fitted.sample(most, numpy_generator(seed, "sample", name, fit_seed, sample_seed))
        roundings = dict.fromkeys(rounding for rounding, _ in ways.values())
        made = {rounding: generation.decode(model, drawn, rounding) for rounding in roundings}
        features = {way: extractors[way[1]](made[way[0]]) for way in dict.fromkeys(ways.values())}
        for key, protocol in spec.protocols.items():
            n = protocol.n_generated
            distance = frechet_distance(references[key], features[ways[key]][:n])
            rows += [{**row, "protocol": key} for row in rows_of(origin, n, {"frechet_distance": distance})]
    return rows


def attribute_metrics(images: Images) -> dict[str, float]:
    """How far the faces' attributes lie from the law of the renderer, and how many of their combinations occur."""
    read = classifiers.read_classes(classifiers.face_classifier(), images)
    return {**attribute_marginal_error(read, LAW), "mode_coverage": mode_coverage(read, LAW)}


def reconstruction_metrics(images: Images, rebuilt: Images, labels: npt.NDArray[np.int64] | None) -> dict[str, float]:
    """Pixel errors, means over images (n, C, H, W); for digits `label_agreement` too.

    `squared_error`: ‖x − x̂‖² summed over pixels, x in [0, 1]. `psnr`: 10 log₁₀ (1 / mean squared error), in dB, an
    image with no error counted as one with an error of half a grey level in one pixel. `ssim`: structural similarity
    with the Gaussian window of 1.5 pixels of Wang et al. (2004).
    """
    errors, pixels = pixel_errors(images, rebuilt), images[0].size
    least = (0.5 / 255) ** 2 / pixels
    metrics = {
        "squared_error": float(errors.mean()),
        "psnr": float(-10 * np.log10(np.maximum(errors / pixels, least)).mean()),
        "ssim": ssim(images, rebuilt),
    }
    if labels is not None:
        metrics["label_agreement"] = classifiers.accuracy(classifiers.digit_classifier(), rebuilt, labels)
    return metrics


def pixel_errors(images: Images, rebuilt: Images) -> npt.NDArray[np.float64]:
    """‖x − x̂‖² of each image, (n,), as if in [0, 1]; both (n, ...) on the scale 0 to 255.

    A few are in double precision at a time: all of 10,000 faces would take 1 GB.
    """
    errors, few = np.empty(len(images)), at_once(COMPARED, images[0, 0].size)
    for start in range(0, len(images), few):
        some = slice(start, start + few)
        difference = (images[some].astype(np.float64) - rebuilt[some]) / 255
        errors[some] = (difference.reshape(len(difference), -1) ** 2).sum(axis=1)
    return errors


def ssim(images: Images, rebuilt: Images) -> float:
    """Structural similarity, at most 1, the mean over images (n, C, H, W)."""
    from skimage.metrics import structural_similarity

    values = [
        structural_similarity(  # type: ignore[no-untyped-call]
            one, two, channel_axis=0, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for one, two in zip(images, rebuilt, strict=True)
    ]
    return float(np.mean(values))


def rows_of(origin: Origin, n_generated: int, values: Mapping[str, float]) -> list[Row]:
    """A row for each of the values of so many images."""
    about = {**vars(origin), "n_generated": n_generated}
    return [{**about, "metric": metric, "value": float(value)} for metric, value in values.items()]
