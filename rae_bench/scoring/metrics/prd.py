"""Precision and recall for distributions (Sajjadi et al. 2018): F_8 (recall) and F_1/8 (precision), as in the paper.

Features of both sets, equally many, are clustered together; q and p are the shares of fake and real images in each
cluster. For slope λ: precision α(λ) = Σ min(q, λ p), recall β = α/λ. The curve is averaged over runs of the
clustering, and F_b = max over the curve of (1 + b²) α β / (b² α + β).
"""

import numpy as np
import numpy.typing as npt

from rae_bench.base.rng import derive, numpy_generator
from rae_bench.scoring.metrics.pairs import Float64
from rae_bench.scoring.metrics.reference import Reference, exponent
from rae_bench.scoring.specs import MetricSettings

STARTS = 10
"""k-means starts of a run, as in the official code; the best is kept."""
EDGE = 1e-10
"""The first angle, above 0, where recall would be 0/0; the official code's."""


def prd(real: Reference, fake: npt.NDArray[np.floating], settings: MetricSettings) -> dict[str, float]:
    """`prd_f8`, `prd_f1_8` in [0, 1], and their SDs over runs (the clustering's noise, not the samples').

    The larger set is cut to the smaller one's count by a seeded choice. Clustering is in float32, of features counted
    in a unit (a power of two: no digit changes) in which the largest is about 1.
    """
    from sklearn.cluster import MiniBatchKMeans

    fake = real.counted_alike(fake)
    n = min(len(real.features), len(fake))
    rng = numpy_generator(settings.seed, "prd")
    chosen = [
        features if len(features) == n else features[np.sort(rng.permutation(len(features))[:n])]
        for features in (real.features, fake)
    ]
    union = np.concatenate(chosen)
    union = np.ldexp(union, -exponent(union)).astype(np.float32, copy=False)
    curves = []
    for run in range(settings.prd_runs):
        means = MiniBatchKMeans(
            settings.prd_clusters, n_init=STARTS, random_state=derive(settings.seed, "prd", run) % 2**32
        )
        labels = means.fit(union).labels_
        shares = [np.bincount(part, minlength=settings.prd_clusters) / n for part in (labels[:n], labels[n:])]
        curves.append(curve(shares[0], shares[1], settings.prd_angles))
    mean: Float64 = np.mean(curves, axis=0)
    found = {}
    for name, b in (("prd_f8", 8.0), ("prd_f1_8", 1 / 8)):
        runs = [f_score(one[0], one[1], b) for one in curves]
        found[name] = f_score(mean[0], mean[1], b)
        found[f"{name}_sd"] = float(np.std(runs, ddof=1)) if len(runs) > 1 else 0.0
    return found


def curve(real: Float64, fake: Float64, angles: int) -> Float64:
    """Precision and recall (2, angles) of the histograms p (`real`) and q (`fake`), slopes tan θ, θ from 0 to π/2."""
    slopes = np.tan(np.linspace(EDGE, np.pi / 2 - EDGE, angles))
    precision = np.minimum(fake, slopes[:, None] * real).sum(axis=1)
    found: Float64 = np.clip(np.stack([precision, precision / slopes]), 0, 1)
    return found


def f_score(precision: Float64, recall: Float64, b: float) -> float:
    """The best F_b on a curve; 0 where both are 0."""
    below = b**2 * precision + recall
    scores = np.divide((1 + b**2) * precision * recall, below, out=np.zeros_like(below), where=below > 0)
    return float(scores.max())
