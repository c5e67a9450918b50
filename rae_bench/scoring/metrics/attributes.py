"""Attributes of generated images against the law that drew the real ones: true errors, for synthetic data only.

A classifier reads each factor's class from the images (`face_classifier`); `predicted` holds the indices it read,
`law` each class's probability, both by factor. Factors are independent under the law.
"""

from collections.abc import Mapping
from functools import reduce

import numpy as np
import numpy.typing as npt

from rae_bench.scoring.metrics.reference import MetricError

Classes = Mapping[str, npt.NDArray[np.int64]]
Law = Mapping[str, npt.NDArray[np.float64]]

LEAST_SHARE = 0.1
"""A cell is covered from this share of its probability on: some images, but more than a misread neighbour lends it."""
LEAST_EXPECTED = 5.0
"""Images that the law itself would put in the rarest cell: with fewer, real images miss cells by chance."""


def attribute_marginal_error(predicted: Classes, law: Law) -> dict[str, float]:
    """`attribute_error_<factor>`, total variation ½ Σ |p_model − p_true| over classes; `attribute_error`, their mean.

    0 for equal shares, 1 − p for a generator of one class of probability p. Real images score about
    ½ Σ √(2p(1 − p)/(πn)), not 0: compare only at equal counts.
    """
    errors = {
        factor: 0.5 * float(np.abs(np.bincount(predicted[factor], minlength=len(p)) / len(predicted[factor]) - p).sum())
        for factor, p in law.items()
    }
    named = {f"attribute_error_{factor}": error for factor, error in errors.items()}
    return {"attribute_error": float(np.mean(list(errors.values()))), **named}


def mode_coverage(predicted: Classes, law: Law) -> float:
    """The true probability of those cells, joint classes of all factors of `law`, that the images reach, in [0, 1].

    A cell of probability p is reached when at least p/10 of the images lie in it. To count a cell from one image on,
    as is usual (modes captured; Metz et al. 2017), would count every misread image as a mode; weighing by p makes
    the value mean "this share of the data has a counterpart".

    Raises:
        MetricError: too few images for the rarest cell.
    """
    n = len(next(iter(predicted.values())))
    p = reduce(np.multiply.outer, law.values())
    if n * p.min() < LEAST_EXPECTED:
        raise MetricError(
            f"{n} images for {p.size} cells, the rarest of probability {p.min():.2g}: at least"
            f" {int(np.ceil(LEAST_EXPECTED / p.min()))} images are needed, or fewer factors"
        )
    cells = np.ravel_multi_index(tuple(predicted[factor] for factor in law), p.shape)
    reached = np.bincount(cells, minlength=p.size) >= LEAST_SHARE * n * p.ravel()
    return float(p.ravel()[reached].sum() / p.ravel().sum())
