"""Two sets of images, or of their features, to every metric between them, and to the floor: the metrics' own noise.

All values are a study's: `measure` of the features of all images. The floor is the same metrics between two random
halves of the real set. It is what a generator without fault would get at half the count; a Fréchet distance, biased
upwards by about 1/n, would fall below it at the full one.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rae_bench.base.rng import numpy_generator
from rae_bench.data.prepared import ImageFiles, Images
from rae_bench.data.store import TELL_EVERY
from rae_bench.scoring.feature_files import FeatureFileError, Moments
from rae_bench.scoring.features import FrozenExtractor
from rae_bench.scoring.metrics.measure import measure
from rae_bench.scoring.metrics.reference import Features, MetricError, Reference
from rae_bench.scoring.pretrained import FeatureError
from rae_bench.scoring.sides import ImageSet, Side
from rae_bench.scoring.specs import MetricSettings

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 1000
"""Images taken at a time: a multiple of every extractor's batch, so that features are the same bytes as of all."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """Every metric by name, of so many images; the floor likewise, of two sets of `n_floor`.

    `no_floor` says why there is none. Of moments nobody knows the counts: they are 0.
    """

    values: dict[str, float]
    n_real: int = 0
    n_fake: int = 0
    floor: dict[str, float] = field(default_factory=dict)
    n_floor: int = 0
    no_floor: str = ""

    def table(self) -> str:
        """A line for each metric: its name, its value and, where there is one, its floor."""
        lines = [f"{'metric':28} {'value':>12} {'floor' if self.floor else '':>12}"]
        for name, value in self.values.items():
            floor = f"{self.floor[name]:12.6g}" if name in self.floor else ""
            lines.append(f"{name:28} {value:12.6g} {floor}")
        return "\n".join(line.rstrip() for line in lines)

    def frame(self) -> "pd.DataFrame":
        """A row for each metric: metric, value, floor."""
        import pandas as pd

        rows = [{"metric": name, "value": value, "floor": self.floor.get(name)} for name, value in self.values.items()]
        return pd.DataFrame(rows)

    def notes(self, real: Side, fake: Side) -> list[str]:
        """What was compared with what, a sentence a line."""
        if not self.n_real:
            moments = " and ".join(dict.fromkeys(side.name for side in (real, fake) if side.kind == "moments"))
            return [
                f"{moments}: moments (mu, sigma) allow the Fréchet distance alone; all other metrics need the features"
            ]
        floor = f"{self.n_floor} images of {real.name}, drawn at random, against {self.n_floor} others of it"
        return [
            f"value: {self.n_fake} images of {fake.name} against {self.n_real} of {real.name}",
            f"floor: {floor if self.floor else f'left out: {self.no_floor}'}",
        ]


def score(
    real: Side, fake: Side, extractor: FrozenExtractor | None, settings: MetricSettings, is_fid: bool
) -> Comparison:
    """Every metric of `fake` against `real`, through `extractor` where they are images; of moments the one there is.

    `is_fid`: as of `measure`.

    Raises:
        FeatureFileError: sides that cannot be compared. FeatureError, DataError: as `features_of`.
        MetricError: too few images, features that cannot be used, or of another dimension.
    """
    check_alike(real, fake)
    fewer = min(real, fake, key=lambda side: side.n)
    if fewer.n and (reason := too_few(fewer.name, fewer.n, settings)):
        raise MetricError(reason)
    one, other = (_features(side, extractor) for side in (real, fake))
    if isinstance(one, Moments) or isinstance(other, Moments):
        first, second = (side if isinstance(side, Moments) else Moments.of(side) for side in (one, other))
        return Comparison({"frechet_distance": first.frechet_distance(second)})
    return compare(one, other, settings, is_fid=is_fid, names=(real.name, fake.name))


def check_alike(real: Side, fake: Side) -> None:
    """Raise FeatureFileError unless the two sides can be compared: images of one shape, or no images on either side.

    Images and moments can.
    """
    if {real.kind, fake.kind} == {"images", "features"}:
        raise FeatureFileError(
            f"{fake.name}: {fake.kind}, but {real.name}: {real.kind}; give images of both, or features of both"
        )
    if real.images is not None and fake.images is not None and real.images.shape[1:] != fake.images.shape[1:]:
        told, expected = ("x".join(map(str, images.shape[1:])) for images in (fake.images, real.images))
        raise FeatureFileError(
            f"{fake.name}: images are {told} (channels, height, width), expected {expected} as those of {real.name}:"
            " make both alike, by the same resizing"
        )


def too_few(name: str, n: int, settings: MetricSettings) -> str:
    """One line that says how many images are missing, and which options would do with `n`; empty if none are."""
    least = settings.least_images
    if n >= max(least.values()):
        return ""
    most = {"neighbours": n - 1, "coverage_neighbours": n - 1, "kernel_subset_size": n, "prd_clusters": 2 * n}
    options = " ".join(f"--{key.replace('_', '-')} {most[key]}" for key in most if least[key] > n)
    remedy = f"give more, or {options}" if n >= least["half_samples"] else "give more"
    return f"{name}: {n} images; expected at least {max(least.values())}: {remedy}"


def _features(side: Side, extractor: FrozenExtractor | None) -> Features | Moments:
    """What a side has, or the features of its images."""
    if side.features is not None:
        return side.features
    assert extractor is not None
    return features_of(side, extractor)


def features_of(side: Side, extractor: FrozenExtractor) -> Features:
    """The features (n, d) of the images of `side`; a line of progress every TELL_EVERY seconds.

    Raises:
        FeatureError: images that the extractor cannot read. DataError: an image that cannot be decoded.
    """
    assert side.images is not None
    log.info("%s: %d images through %s", side.name, side.n, extractor.id)
    started = told = time.monotonic()
    parts: list[Features] = []
    done = 0
    for images in _blocks(side.images):
        try:
            parts.append(extractor(np.ascontiguousarray(images)))
        except FeatureError as error:
            raise FeatureError(f"{side.name}: {error}") from None
        done, now = done + len(images), time.monotonic()
        if now - told >= TELL_EVERY:
            told = now
            log.info(
                "%s: %d of %d images, %.0f s left", side.name, done, side.n, (now - started) / done * (side.n - done)
            )
    return np.concatenate(parts)


def _blocks(images: ImageSet) -> Iterator[Images]:
    """The images, some at a time."""
    if isinstance(images, ImageFiles):
        yield from (block for block, _ in images.blocks())
    else:
        yield from (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))


def compare(
    real: Features, fake: Features, settings: MetricSettings, *, is_fid: bool, names: tuple[str, str]
) -> Comparison:
    """Every metric of `fake` (m, d) against `real` (n, d), and the floor where halves of `real` are large enough.

    `names`: how messages call the two. `is_fid`: as of `measure`.

    Raises:
        MetricError: features that cannot be used, of another dimension, or too few for a metric.
    """

    def measured(one: Features, other: Features, called: tuple[str, str]) -> dict[str, float]:
        log.info("metrics of %d images (%s) against %d (%s)", len(other), called[1], len(one), called[0])
        reference = Reference.of(one, max(settings.neighbours, settings.coverage_neighbours), called[0])
        values = measure(
            *(reference, other, settings), is_fid=is_fid, prd_real=reference, name=called[1], with_errors=True
        )
        if settings.kernel_subset_size == len(one) == len(other):
            values.pop("kernel_distance_subset_sd", None)  # every subset is the whole set: no noise is seen
        return values

    values, half = measured(real, fake, names), len(real) // 2
    if reason := too_few(f"half of {names[0]}", half, settings):
        return Comparison(values, len(real), len(fake), no_floor=reason)
    order = numpy_generator(settings.seed, "floor").permutation(len(real))
    halves = [real[np.sort(order[start : start + half])] for start in (0, half)]
    floor = measured(halves[0], halves[1], (f"one half of {names[0]}", f"the other half of {names[0]}"))
    return Comparison(values, len(real), len(fake), floor, half)
