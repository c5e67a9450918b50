"""Fréchet distance of the Gaussians with two sets' moments: ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½.

Called FID only through the official Inception network (Heusel et al. 2017); through any other, FD-<extractor>.
It is biased upwards by about 1/n: compare only at equal counts, and with the floor at those counts, or
extrapolate to n = ∞ (Chong and Forsyth 2020). Never bootstrap it: drawing with replacement adds a bias of its own.

tr (Σ₁Σ₂)^½ is the sum of the singular values of F₁ᵀF₂ for any factors F Fᵀ = Σ: real arithmetic, no matrix root of a
product, and no error from empty directions where there are fewer images than features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rae_bench.base.rng import numpy_generator
from rae_bench.scoring.metrics.pairs import Float64
from rae_bench.scoring.metrics.reference import Features, MetricError, Reference, exponent, factor_of, moments
from rae_bench.scoring.specs import IMAGES_PER_FEATURE

AGREEMENT = 1e-3
"""How near torch-fidelity's FID must come to ours, relative above 1: it takes eigenvalues of a general matrix."""


def frechet_distance(real: Reference, fake: Features) -> float:
    """The distance of `fake` (m, d) from `real`; 0 for equal moments, no upper bound."""
    return _distance(real.mean, real.covariance, real.factor, real.counted_alike(fake))


def fid(real: Reference, fake: Features) -> float:
    """The same distance as torch-fidelity computes it: the number to publish as FID, through official Inception.

    Raises:
        MetricError: it differs from ours by more than AGREEMENT.
    """
    from torch_fidelity.metric_fid import fid_statistics_to_metric  # brings torchvision and the compiler along

    mean, covariance = moments(real.counted_alike(fake))
    result = fid_statistics_to_metric(
        {"mu": mean, "sigma": covariance}, {"mu": real.mean, "sigma": real.covariance}, False
    )
    theirs, ours = float(result["frechet_inception_distance"]), frechet_distance(real, fake)
    if abs(theirs - ours) > AGREEMENT * max(1, ours):
        raise MetricError(
            f"torch-fidelity gives a FID of {theirs:.6g}, our own formula {ours:.6g}; neither is reported"
        )
    return theirs


def half_sample_sd(real: Reference, fake: Features, repeats: int, seed: int) -> float:
    """SD of the distance over random halves of `fake` without replacement, as an estimate of its sampling SD.

    A half of m has √(m/2 / m) / √(1 − 1/2) = 1 times the SD of a fresh set of m: no further factor.
    """
    return _over_halves(fake, lambda half: frechet_distance(real, half), repeats, seed)


def reference_half_sample_sd(real: Reference, fake: Features, repeats: int, seed: int) -> float:
    """The same over random halves of `real`: how far another reference of its size would move the distance."""
    alike = real.counted_alike(fake)
    mean, covariance, factor = *moments(alike), factor_of(alike)
    return _over_halves(real.features, lambda half: _distance(mean, covariance, factor, half), repeats, seed)


def _over_halves(features: Features, distance: Callable[[Features], float], repeats: int, seed: int) -> float:
    rng = numpy_generator(seed, "half samples")
    halves = (rng.permutation(len(features))[: len(features) // 2] for _ in range(repeats))
    distances = np.array([distance(features[np.sort(half)]) for half in halves])
    unit = exponent(distances)  # their squares might leave float64
    return float(np.ldexp(np.std(np.ldexp(distances, -unit), ddof=1), unit))


@dataclass(frozen=True)
class Extrapolated:
    """A distance at infinitely many images, and the standard error of the line it lies on (NaN of two counts).

    The error is that of cutting the sets at random. That of drawing them comes on top: all cuts share it.
    """

    value: float
    standard_error: float


def frechet_infinity(real: Features, fake: Features, sizes: int, seed: int) -> Extrapolated | None:
    """The distance extrapolated to infinitely many images on both sides; None where there are too few images for it.

    Both sets are cut, at random, to each of `sizes` equal counts, evenly spaced in 1/n between the smallest that
    carries a covariance (specs.IMAGES_PER_FEATURE, and at least a tenth) and all; disjoint cuts of one count
    are averaged. The intercept at 1/n = 0 of the least-squares line through them is the value. It supposes that the
    sets were drawn apart: of sets that share images, the distance of all lies below the line, and the value below 0.
    """
    n = min(len(real), len(fake))
    counts = infinity_counts(n, real.shape[1], sizes)
    if counts is None:
        return None
    rng = numpy_generator(seed, "infinity")
    values = []
    for count in counts:
        order = rng.permutation(len(real)), rng.permutation(len(fake))
        cuts = [[part[i * count : (i + 1) * count] for part in order] for i in range(n // count)]
        values.append(np.mean([between(real[np.sort(one)], fake[np.sort(two)]) for one, two in cuts]))
    unit = exponent(np.array(values))  # as above
    scaled = np.ldexp(values, -unit)
    if sizes == 2:
        return Extrapolated(float(np.ldexp(np.polyfit(1 / counts, scaled, 1)[1], unit)), float("nan"))
    line, covariance = np.polyfit(1 / counts, scaled, 1, cov=True)
    return Extrapolated(*(float(np.ldexp(value, unit)) for value in (line[1], np.sqrt(covariance[1, 1]))))


def infinity_counts(n: int, d: int, sizes: int) -> npt.NDArray[np.int64] | None:
    """The counts that n images of d features are cut to for it, ascending; None where they are too few."""
    least = max(IMAGES_PER_FEATURE * d, n // 10)
    return None if n < 2 * least else np.rint(1 / np.linspace(1 / least, 1 / n, sizes)).astype(np.int64)


def between(real: Features, fake: Features) -> float:
    """The distance of two feature sets (n, d), (m, d), nothing of either kept."""
    return _distance(*moments(real), factor_of(real), fake)


def _distance(mean: Float64, covariance: Float64, factor: Float64, fake: Features) -> float:
    m, d = fake.shape
    if m < d or factor.shape[1] < d:
        fake_mean = fake.astype(np.float64).mean(axis=0)
        other = factor_of(fake)
        fake_trace = float((other**2).sum())
        cross = float(np.linalg.svd(factor.T @ other, compute_uv=False).sum())
    else:
        fake_mean, fake_covariance = moments(fake)
        fake_trace = float(np.trace(fake_covariance))
        # in units in which entries are about 1: the product of four features might leave float64
        one, two = exponent(factor), exponent(fake_covariance) // 2
        unit = np.ldexp(factor, -one)
        values = np.linalg.eigvalsh(unit @ np.ldexp(fake_covariance, -2 * two) @ unit)
        cross = float(np.ldexp(np.sqrt(np.clip(values, 0, None)).sum(), one + two))
    shift = mean - fake_mean
    return float(shift @ shift + np.trace(covariance) + fake_trace - 2 * cross)


def between_factors(mean: Float64, factor: Float64, other_mean: Float64, other_factor: Float64) -> float:
    """The distance of two Gaussians with means (d,) and covariances F Fᵀ, of factors F (d, r) and (d, s)."""
    cross = float(np.linalg.svd(factor.T @ other_factor, compute_uv=False).sum())
    shift = mean - other_mean
    return float(shift @ shift + (factor**2).sum() + (other_factor**2).sum() - 2 * cross)
