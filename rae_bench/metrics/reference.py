"""The real side of every metric: features of reference images and what can be computed from them once."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


class MetricError(ValueError):
    """Features a metric cannot be computed from."""


def check_features(side: str, features: npt.NDArray[np.float32]) -> None:
    """Raise MetricError unless `features` is a finite matrix of at least two rows."""
    if features.ndim != 2 or len(features) < 2:
        raise MetricError(
            f"{side} features have shape {features.shape}; expected (n, d) with n at least 2, a row an image"
        )
    if not np.issubdtype(features.dtype, np.floating):
        raise MetricError(f"{side} features are {features.dtype}; expected floating point")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise MetricError(
            f"{side} features hold values that are not finite in {int((~finite).sum())} rows,"
            f" the first is row {int(np.argmin(finite))}"
        )


@dataclass(frozen=True)
class Reference:
    """Reference features (n, d), with their mean (d,) and unbiased covariance (d, d) in float64."""

    features: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float64] = field(repr=False)
    covariance: npt.NDArray[np.float64] = field(repr=False)

    @classmethod
    def of(cls, features: npt.NDArray[np.float32]) -> "Reference":
        """Build the reference of real features (n, d).

        Raises:
            MetricError: not a finite matrix.
        """
        check_features("real", features)
        mean, covariance = moments(features)
        return cls(features, mean, covariance)


def moments(
    features: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean (d,) and unbiased covariance (d, d), accumulated in float64 (torch-fidelity's own function)."""
    from rae_bench.metrics import fidelity

    statistics = fidelity.call("metric_fid", "fid_features_to_statistics")(fidelity.tensor(features))
    return statistics["mu"], statistics["sigma"].reshape(features.shape[1], features.shape[1])
