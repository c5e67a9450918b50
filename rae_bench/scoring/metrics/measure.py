"""Metrics of two feature matrices: `Reference` first, always; pure functions in float64, no device, file or printing.

`measure` gives every metric by name. Those that need more than two sets of features stand apart: `Training` (is it
copying?), `attributes` (images whose factors are known).
"""

import logging
import math

import numpy as np
import numpy.typing as npt

from rae_bench.scoring.metrics.frechet import fid, frechet_distance, frechet_infinity, half_sample_sd
from rae_bench.scoring.metrics.kernel import kernel_distance
from rae_bench.scoring.metrics.manifold import pair_metrics
from rae_bench.scoring.metrics.prd import prd
from rae_bench.scoring.metrics.reference import MetricError, Reference, check_counts, usable
from rae_bench.scoring.specs import IMAGES_PER_FEATURE, MetricSettings

ROUNDING = 1e-12
"""Kernel distances below this share of the kernel's values have less than three digits that are not its rounding."""

log = logging.getLogger(__name__)


def measure(
    real: Reference,
    fake: npt.NDArray[np.floating],
    settings: MetricSettings,
    *,
    is_fid: bool,
    prd_real: Reference,
    name: str = "fake",
    with_errors: bool = False,
) -> dict[str, float]:
    """Every metric of `fake` (m, d) against `real`, by name; `frechet_infinity` only where counts allow it.

    `is_fid`: the features are official Inception's, so that torch-fidelity's value is the one reported. `prd_real`:
    what precision-recall curves are measured against, `real` itself but for a protocol that says otherwise. `name`: how
    messages call `fake`. `with_errors`: with `frechet_infinity_se`, for people, which results do not keep. Kernel
    distances that float64 cannot hold are left out, and what is left out is logged.

    Raises:
        MetricError: features that cannot be used, of another dimension, or too few for a metric.
    """
    fake = usable(name, fake, settings.least_images)
    for reference in (real, prd_real):
        check_counts(reference.name, reference.features.shape, settings.least_images)
    if fake.shape[1] != real.features.shape[1]:
        raise MetricError(
            f"{name}: features have dimension {fake.shape[1]}, those of {real.name} {real.features.shape[1]};"
            " both must come from the same extractor"
        )
    return {
        "frechet_distance": fid(real, fake) if is_fid else frechet_distance(real, fake),
        "frechet_distance_half_sd": half_sample_sd(real, fake, settings.half_samples, settings.seed),
        **_infinity(real, fake, settings, with_errors),
        **_kernels(real, kernel_distance(real, fake, settings)),
        **_kernels(real, pair_metrics(real, fake, settings)),
        **prd(prd_real, fake, settings),
    }


def distances(
    real: Reference, fake: npt.NDArray[np.floating], settings: MetricSettings, *, is_fid: bool, name: str = "fake"
) -> dict[str, float]:
    """Only the Fréchet and the kernel distance of `fake`, as `measure` has them."""
    fake = usable(name, fake, settings.least_images)
    return {
        "frechet_distance": fid(real, fake) if is_fid else frechet_distance(real, fake),
        **_kernels(real, kernel_distance(real, fake, settings)),
    }


def _infinity(
    real: Reference, fake: npt.NDArray[np.floating], settings: MetricSettings, with_error: bool
) -> dict[str, float]:
    found = frechet_infinity(real.features, real.counted_alike(fake), settings.infinity_sizes, settings.seed)
    if found is None:
        least = 2 * IMAGES_PER_FEATURE * fake.shape[1]
        log.info("frechet_infinity is left out: it needs n at least %d, for %d features", least, fake.shape[1])
        return {}
    if found.value < -3 * found.standard_error:
        log.warning(
            "frechet_infinity is below 0 by more than its error, %.3g ± %.2g: the sets share images, or one repeats"
            " its own",
            *(found.value, found.standard_error),
        )
    is_known = math.isfinite(found.standard_error)  # two sizes leave nothing to tell it from
    error = {"frechet_infinity_se": found.standard_error} if with_error and is_known else {}
    return {"frechet_infinity": found.value, **error}


def _kernels(real: Reference, values: dict[str, float]) -> dict[str, float]:
    """The values that float64 can hold; says which it cannot, and which are mostly rounding."""
    lost = [name for name, value in values.items() if not np.isfinite(value)]
    if lost:
        log.warning(
            "%s left out: float64 holds the kernel (x·y/d + 1)³ up to ‖x‖²/d of about 1e102, its SD up to 1e51;"
            " scale both sets alike",
            ", ".join(lost),
        )
    size = abs(real.pairs.kernel_mean)
    for name in ("kernel_distance", "kernel_mmd2"):
        if name in values and name not in lost and abs(values[name]) < ROUNDING * size:
            log.warning(
                "%s is mostly rounding: %.2g, a difference of kernels (x·y/d + 1)³ of about %.2g, which float64 keeps"
                " 16 digits of; it depends on scale and origin by definition: scale both sets alike, or centre them",
                *(name, values[name], size),
            )
    return {name: value for name, value in values.items() if name not in lost}
