"""What every stage is told about the machine, and the checks that several rooms' settings share.

The settings of every stage are frozen dataclasses, a `specs.py` in each room. A stage is handed one of them as JSON,
which is both its input and what makes Snakemake run it again. No scientific choice has a default: YAML states them all.
"""

from dataclasses import dataclass
from typing import Literal

from rae_bench.base.plain import ConfigError

MOST = 2**31 - 1
"""The largest count of anything: the libraries below hold many a count in 32 bits."""


def _positive(spec: object, *names: str) -> None:
    for name in names:
        if getattr(spec, name) <= 0:
            raise ConfigError(f"{name}: {getattr(spec, name)!r} must be above 0")
        check_most(name, getattr(spec, name))


def check_most(name: str, value: float) -> None:
    """Raise ConfigError if a whole number is beyond MOST."""
    if isinstance(value, int) and value > MOST:
        raise ConfigError(f"{name}: {value} must be at most {MOST}")


def check_seed(name: str, seed: int, end: int = 2**63) -> None:
    """Raise ConfigError unless 0 <= seed < end; tables hold seeds in 64 bits with a sign."""
    if not 0 <= seed < end:
        found = "is negative" if seed < 0 else f"is not below 2**{end.bit_length() - 1}"
        raise ConfigError(f"{name}: {seed} {found}; seeds are whole numbers from 0 to {end - 1}")


def _not_negative(spec: object, *names: str) -> None:
    for name in names:
        if getattr(spec, name) < 0:
            raise ConfigError(f"{name}: {getattr(spec, name)!r} must not be negative")


Precision = Literal["float32", "bfloat16"]
"""Of the layers of a network in training. Weights, losses, and everything after training are in float32 always."""

MOST_THREADS = 1024
"""More than any machine has; the libraries' own limits are a crash."""


@dataclass(frozen=True)
class Compute:
    """Where, with how many threads and how precisely a stage computes: all change bytes, so all belong to the study.

    A study's `auto` is settled when it is loaded (`rae_bench.base.devices`): no stage is ever told so.
    `tf32`: products of float32 matrices and convolutions on a GPU round their factors to ten bits.
    """

    device: Literal["auto", "cpu", "cuda"]
    threads: int
    tf32: bool
    precision: Precision

    def __post_init__(self) -> None:
        _positive(self, "threads")
        if self.threads > MOST_THREADS:
            raise ConfigError(f"threads: {self.threads} must be at most {MOST_THREADS}")
        if self.tf32 and self.device == "cpu":
            raise ConfigError("tf32: true, but device is 'cpu', which has no TF32; write false")
