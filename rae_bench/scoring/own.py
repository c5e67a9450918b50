"""Metrics of a user's own (`rae_bench.base.contracts.Metric`), beside the suite's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rae_bench.base.own import OwnCodeError, explained, load
from rae_bench.scoring.generation import Images
from rae_bench.scoring.metrics.reference import Features
from rae_bench.scoring.specs import OwnMeasure


def measured(
    measures: Mapping[str, OwnMeasure], real: Features, fake: Features, real_images: Images, fake_images: Images
) -> dict[str, float]:
    """Each measure of as many generated images as there are reference images, and of their features (n, d).

    Raises:
        OwnCodeError: it fails, or gives no finite number.
    """
    found = {}
    arrays: list[npt.NDArray[Any]] = [np.asarray(part, dtype=np.float64) for part in (real, fake)]
    arrays = [_read_only(array) for array in (*arrays, real_images, fake_images)]
    for name, measure in measures.items():
        function = load(measure.code)
        with explained(measure.code, measure.code.name):
            value = function(*arrays, **measure.code.settings)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
            raise OwnCodeError(f"{measure.code.place}: gives {value!r}; expected a finite number")
        found[name] = float(value)
    return found


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view that cannot be written to: what follows reads the same array."""
    view = array.view()
    view.flags.writeable = False
    return view
