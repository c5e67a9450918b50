"""The files that labs keep: where they lie is a fact of the machine, not of a study, so the environment says it."""

import os
from pathlib import Path

from rae_bench.datasets.prepared import DataError

DATA_VARIABLE = "RAE_BENCH_DATA"


def root() -> Path:
    """The folder of all data that labs keep: RAE_BENCH_DATA, else `data`."""
    return Path(os.environ.get(DATA_VARIABLE) or "data")


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
