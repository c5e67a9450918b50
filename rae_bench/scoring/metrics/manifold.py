"""Metrics of the balls that reach from each image to its k-th neighbour, and the kernel's MMD of all pairs; real first.

precision: share of fake images inside a ball around a real one that reaches its k-th real neighbour; recall: the same
with the parts exchanged (Kynkäänniemi et al. 2019; balls are closed). density: balls of real images that hold a fake
one, over k times the fakes; coverage: share of real balls that hold any (Naeem et al. 2020).
kernel_mmd2: the unbiased MMD² of all images (Gretton et al. 2012, eq. 3), no subsets. One pass over pairs serves all.
"""

import numpy as np
import numpy.typing as npt

from rae_bench.scoring.metrics.pairs import NEAR, Float64, blocks, own_pairs
from rae_bench.scoring.metrics.reference import MetricError, Reference
from rae_bench.scoring.specs import MetricSettings

ROUNDING = 2.0**-45
"""How much rounding may add to a squared distance, as a share of its terms: above √d · 2^-53 for d to 10,000."""


@np.errstate(over="ignore", invalid="ignore")
def pair_metrics(real: Reference, fake: npt.NDArray[np.floating], settings: MetricSettings) -> dict[str, float]:
    """`precision`, `recall`, `density`, `coverage` and `kernel_mmd2` of `fake` (m, d).

    Raises:
        MetricError: a reference that keeps fewer neighbours.
    """
    k, wide = settings.neighbours, settings.coverage_neighbours
    if max(k, wide) > real.pairs.squared_radii.shape[1]:
        kept = real.pairs.squared_radii.shape[1]
        raise MetricError(f"the reference keeps {kept} neighbours, {max(k, wide)} needed; build it with as many")
    fake = real.counted_alike(fake)
    n, m, d = len(real.features), len(fake), fake.shape[1]
    own = own_pairs(fake, k, real.origin)
    real_edges, wide_edges = (_edges(real.pairs.squared_radii[:, reach - 1], real.features) for reach in (k, wide))
    fake_edges = _edges(own.squared_radii[:, k - 1], fake)
    precise, inside, recalled, covered, total = np.zeros(m, dtype=bool), 0, 0, 0, 0.0
    for rows, gram, squares in blocks(real.features, fake, real.origin):
        precise |= (squares <= real_edges[rows, None]).any(axis=0)
        recalled += int((squares <= fake_edges).any(axis=1).sum())
        held = squares <= wide_edges[rows, None]
        inside += int(held.sum())
        covered += int(held.any(axis=1).sum())
        total += float(((gram / d + 1) ** 3).sum())
    return {
        "precision": float(precise.mean()),
        "recall": recalled / n,
        "density": inside / (wide * m),
        "coverage": covered / n,
        "kernel_mmd2": real.pairs.kernel_mean + own.kernel_mean - 2 * total / (n * m),
    }


def _edges(squared_radii: Float64, features: npt.NDArray[np.floating]) -> Float64:
    """Squared radii (n,) of balls around features (n, d), and what rounding may add to the distance of their edges.

    The same two points may be as far apart as their bits in one pass and a last digit farther in the next: without
    it a copy of the very image that a ball reaches to would lie in it or not by chance.
    """
    lengths = (features.astype(np.float64) ** 2).sum(axis=1)
    terms = lengths + (np.sqrt(lengths) + np.sqrt(squared_radii)) ** 2  # ‖x‖² + ‖y‖², y at the edge, at most
    return squared_radii + ROUNDING * np.where(squared_radii < NEAR * terms, squared_radii, terms)
