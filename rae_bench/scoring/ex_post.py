"""Densities fitted ex post to the codes of one trained model, whatever trained it: sampled, decoded and scored.

All is a study's own: `densities.catalogue.fit`, `evaluation.reconstruction` and `evaluation.sample`, each with the
first of a study's seeds. A study of the same model, images and settings gives the same numbers.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rae_bench.base.rng import derive
from rae_bench.base.storage import MappedRows
from rae_bench.densities import catalogue
from rae_bench.densities.codes import Posteriors
from rae_bench.densities.density import FittedDensity
from rae_bench.densities.specs import Density
from rae_bench.models.autoencoder import Model
from rae_bench.models.training import encode, to_device
from rae_bench.scoring import evaluation, generation
from rae_bench.scoring.evaluation import RECONSTRUCTION, Origin, Row, Ruler, Subject
from rae_bench.scoring.features import FrozenExtractor
from rae_bench.scoring.generation import Images
from rae_bench.scoring.metrics.memorisation import Training
from rae_bench.scoring.metrics.reference import Reference
from rae_bench.scoring.sides import Side
from rae_bench.scoring.specs import EvaluationSpec
from rae_bench.scoring.two_sets import features_of, too_few

SEED = 0
"""The seed of training, of fits and of samples: the first of a study's."""
FLOOR = "floor"
"""Validation images as if they were samples: what a model without fault would get."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scored:
    """An image set: "floor", "reconstruction" or a density's samples; a row per value, and `images` to look at."""

    name: str
    rows: list[Row]
    images: Images


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model, and images (n, C, H, W) of the splits train, validation and test.

    `posteriors` are those of training and validation images. A model that does not encode has codes from elsewhere.
    `labels` (n,) are those of test images, where they are digits.
    """

    model: Model
    images: Mapping[str, Images | MappedRows]
    posteriors: Mapping[str, Posteriors]
    labels: npt.NDArray[np.int64] | None
    encodes: bool


def codes(model: Model, images: Mapping[str, Images | MappedRows], device: str) -> dict[str, Posteriors]:
    """The posteriors of training and validation images."""
    found: dict[str, Posteriors] = {}
    for split in ("train", "validation"):
        log.info("encoding: %d images of %s", len(images[split]), split)
        encoded = encode(model, to_device(images[split], device))
        found[split] = Posteriors(encoded["mean"], encoded.get("log_sigma"))
    return found


def score(
    trained: Trained, densities: Mapping[str, Density], spec: EvaluationSpec, extractor: FrozenExtractor
) -> Iterator[Scored]:
    """The floor, reconstructions of test images if the model encodes, and samples of each of `densities`, in turn.

    Of too few validation images the floor has no rows. A density's begin with the mean log-likelihoods of training and
    validation codes, where it has them.
    """
    subject, ruler, floor = _subject(trained, spec, extractor)
    yield floor
    if trained.encodes:
        log.info("reconstruction: of %d images", len(subject.images["test"]))
        rebuilt = evaluation.measured(ruler, evaluation.reconstruction(subject, ""))
        yield Scored(RECONSTRUCTION, rebuilt.rows, rebuilt.sheets[RECONSTRUCTION])
    for i, (name, density) in enumerate(densities.items(), start=1):
        log.info("%s, %d of %d: fitting", name, i, len(densities))
        seed = derive(SEED, "fit", SEED)
        fitted = catalogue.fit(density, trained.posteriors["train"], trained.posteriors["validation"], seed)
        likelihoods = catalogue.log_likelihoods(fitted, density, trained.posteriors, seed)
        values = {f"log_likelihood_{split}": value for split, value in likelihoods.items() if value is not None}
        rows = evaluation.rows_of(Origin("codes", name), 0, values)
        log.info("%s, %d of %d: sampling and scoring %d images", name, i, len(densities), spec.n_generated)
        yield _sampled(replace(subject, densities={name: {SEED: fitted}}), ruler, name, fitted, rows)


def _sampled(subject: Subject, ruler: Ruler, name: str, fitted: FittedDensity, rows: list[Row]) -> Scored:
    drawn = evaluation.draw(subject, Origin("sample", name), fitted)
    images = generation.decode(subject.model, drawn, subject.spec.image_sets.rounding)
    scored = evaluation.measured(ruler, evaluation.sample(subject, name))
    return Scored(name, [*rows, *scored.rows], images)


def _subject(trained: Trained, spec: EvaluationSpec, extractor: FrozenExtractor) -> tuple[Subject, Ruler, Scored]:
    """The model and what its images are held against: test images; and how validation images fare there."""
    features = {split: features_of(Side(split, trained.images[split]), extractor) for split in trained.images}
    neighbours = max(spec.metrics.neighbours, spec.metrics.coverage_neighbours)
    reference = Reference.of(features["test"], neighbours, "test images")
    copies = Training.of(features["train"], reference.raw)
    ruler = Ruler(spec=spec, reference=reference, prd_reference=reference, training=copies)
    subject = Subject(
        spec=spec,
        extractor=extractor,
        seed=SEED,
        model=trained.model,
        densities={},
        images={"test": trained.images["test"][:]},
        labels=trained.labels,
    )
    n = min(spec.n_images, len(features["validation"]))
    held_out, origin = trained.images["validation"][:n], Origin(FLOOR)
    if reason := too_few("validation", n, spec.metrics):
        log.info("the floor is left out: %s", reason.partition(": give")[0])
        return subject, ruler, Scored(FLOOR, [], held_out)
    validation = features["validation"][:n]
    values = evaluation.of_features(ruler, origin.name, validation)
    values |= evaluation.of_images(subject, held_out, validation)
    return subject, ruler, Scored(FLOOR, evaluation.rows_of(origin, n, values), held_out)
