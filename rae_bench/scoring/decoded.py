"""Image sets on their way from `decode`, which needs networks, to `evaluate`, which needs none: one file a run.

It holds every set's features in float32, as the network gives them, and nothing of its images but the few to look at.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rae_bench.base import storage
from rae_bench.scoring.evaluation import Evaluated, Made, Origin

Parts = Iterable[Made | Evaluated]


def write(path: Path, parts: Parts, about: dict[str, Any]) -> None:
    """Write what `evaluation.made` gives, and `about`, plain data."""
    arrays: storage.Arrays = {}
    told: list[dict[str, Any]] = []
    for i, part in enumerate(parts):
        # copies: a few images would keep the array of all
        arrays |= {f"{i}/sheets/{key}": np.array(sheet) for key, sheet in part.sheets.items()}
        if isinstance(part, Made):
            arrays[f"{i}/features"] = part.features
            told.append({"origin": vars(part.origin), "values": list(part.values.items())})  # their order is the rows'
        else:
            told.append({"rows": part.rows})
    storage.write_arrays(path, arrays, {**about, "parts": told})


def read(path: Path) -> tuple[Iterator[Made | Evaluated], dict[str, Any]]:
    """The parts, of which one at a time is in memory, and what `write` was told about them.

    Raises:
        StorageError: no such file, or not a whole one of this kind.
    """
    about = storage.read_about(path)
    with storage.reading(path, "file of decoded image sets"):
        told = about.pop("parts")
        origins = [Origin(**one["origin"]) if "origin" in one else None for one in told]

    def parts() -> Iterator[Made | Evaluated]:
        for i, (one, origin) in enumerate(zip(told, origins, strict=True)):
            arrays = storage.read_arrays(path, under=f"{i}/")[0]
            sheets = {name.rpartition("/")[2]: array for name, array in arrays.items() if "/sheets/" in name}
            if origin is None:
                yield Evaluated(one["rows"], sheets)
            else:
                yield Made(origin, arrays[f"{i}/features"], dict(one["values"]), sheets)

    return parts(), about
