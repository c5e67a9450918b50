"""Nearest training neighbours: whether generated images lie nearer to the training images than unseen real ones do.

ratio = median over fakes of the distance to the nearest training image / the same median over reference images.
About 1: as far as fresh data; towards 0: copies. A blurred model may lie above 1. No other metric here sees copying.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rae_bench.base.rng import numpy_generator
from rae_bench.scoring.metrics.pairs import nearest_distances
from rae_bench.scoring.metrics.reference import MetricError

RESAMPLES = 1000


@dataclass(frozen=True)
class Training:
    """Training features (n, d), and how far a reference image lies from the nearest of them, in the median."""

    features: npt.NDArray[np.floating] = field(repr=False)
    typical: float

    @classmethod
    def of(cls, training: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]) -> "Training":
        """Build it once for a reference.

        Raises:
            MetricError: the reference consists of training images.
        """
        typical = float(np.median(nearest_distances(reference, training)))
        if typical == 0:
            raise MetricError("most reference images are training images: their distance to training cannot be a scale")
        return cls(training, typical)

    def ratio(self, fake: npt.NDArray[np.floating]) -> float:
        """The ratio of `fake` (m, d), at least 0."""
        return float(np.median(nearest_distances(fake, self.features))) / self.typical

    def ratio_sd(self, fake: npt.NDArray[np.floating], seed: int) -> float:
        """The SD of the ratio over other samples of as many images, by bootstrap of `fake` (m, d)."""
        from scipy import stats  # half a second that only the floor needs

        found = stats.bootstrap(
            (nearest_distances(fake, self.features),),
            np.median,
            n_resamples=RESAMPLES,
            batch=RESAMPLES // 10,
            method="percentile",
            rng=numpy_generator(seed, "nearest training ratio"),
        )
        return float(found.standard_error) / self.typical
