"""How metrics, densities and numbers are printed."""

import re

import numpy as np

from rae_bench.report.verdicts import Better
from rae_bench.scoring.specs import INCEPTION_LABEL
from rae_bench.study.specs import SummarySpec

METRICS: dict[str, tuple[str, str, Better]] = {
    "frechet_distance": ("Fréchet distance", "FD", "lower"),
    "frechet_infinity": ("Fréchet distance extrapolated to infinitely many images", "FD∞", "lower"),
    "kernel_distance": ("Kernel distance x 1000 (mean over subsets)", "KD", "lower"),
    "kernel_mmd2": ("Kernel MMD² x 1000 (all images)", "MMD²", "lower"),
    "precision": ("Precision", "Precision", "higher"),
    "recall": ("Recall", "Recall", "higher"),
    "density": ("Density", "Density", "higher"),
    "coverage": ("Coverage", "Coverage", "higher"),
    "prd_f1_8": ("PRD F_1/8 (precision)", "F_1/8", "higher"),
    "prd_f8": ("PRD F_8 (recall)", "F_8", "higher"),
    "nearest_training_ratio": (
        "Distance to the nearest training image, over a fresh real image's",
        "NN ratio",
        "higher",
    ),
    "attribute_error": ("Attribute-marginal error (total variation)", "Attribute error", "lower"),
    "mode_coverage": ("Mode coverage", "Mode coverage", "higher"),
}
"""Metric: title, short name, which direction is better (for the ratio: further from copying)."""
DISTANCES = {"FD": "FID", "FD∞": "FID∞", "KD": "KID", "MMD²": "MMD²-Inception"}
"""Short names of distances, and what they are called in official Inception features."""
SHARES = ("precision", "recall", "density", "coverage", "prd_f1_8", "prd_f8", "nearest_training_ratio", "mode_coverage")
"""Metrics of order one, shown with three decimals."""
DENSITIES = {
    "standard_normal": "N(0,I)",
    "gaussian": "Gaussian",
    "gaussian_diagonal": "Gaussian, diagonal",
    "second_stage_dai_wipf": "second stage (Dai and Wipf)",
    "kde": "KDE",
    "gmm_selected": "GMM, selected K",
}
"""Densities whose printed name is not their own with spaces."""


def words(spec: SummarySpec) -> dict[str, tuple[str, str, Better]]:
    """METRICS, and the study's own beside them."""
    own = {name: (one.label, one.label, one.better) for name, one in spec.measures.items()}
    return {**METRICS, **own}


SCALE = {"kernel_distance": 1000.0, "kernel_mmd2": 1000.0}


def distance_name(short: str, label: str) -> str:
    """What one of DISTANCES in an extractor's features is called: FID and KID in official Inception's alone.

    Heusel et al. (2017) and Bińkowski et al. (2018) define them by that network; any other gives another distance.
    """
    return DISTANCES[short] if label == INCEPTION_LABEL else f"{short}-{label}"


def density_label(name: str) -> str:
    """A density's printed name."""
    match re.split(r"(?=\d+$)|(?=_sampled$)", name, maxsplit=1):
        case [plain, "_sampled"]:
            return f"{density_label(plain)} of draws"
        case ["gmm" | "dp" as kind, number]:
            return f"{kind.upper()}-{number}"
        case _:
            return DENSITIES.get(name, name.replace("_", " "))


def model_labels(spec: SummarySpec) -> dict[str, str]:
    """The printed name of each trained model: that of its row which is not a second stage's."""
    rows = [row for row in spec.ordered_rows.values() if not row.has_no_model]
    labels = {row.model: row.label for row in reversed(rows) if not row.through}
    return {model: labels.get(model, model) for model in dict.fromkeys(row.model for row in rows)}


def mean_sd(mean: float, sd: float, metric: str, digits: int | None = None) -> str:
    """Mean ± SD with so many decimals, else the mean to three digits; the mean alone where the SD is NaN."""
    if digits is None:
        magnitude = 0 if metric in SHARES or mean == 0 else int(np.floor(np.log10(abs(mean))))
        digits = 3 if metric in SHARES else max(0, 2 - magnitude)  # three significant ones
    return f"{mean:.{digits}f}" if np.isnan(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"
