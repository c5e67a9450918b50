"""What every stage is told about the machine, and the numbers that several rooms' settings share.

The settings of every stage are frozen dataclasses, a `specs.py` in each room. A stage is handed one of them as JSON,
which is both its input and what makes Snakemake run it again. No scientific choice has a default: YAML states them all.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, PositiveFloat

from rae_bench.base.plain import ConfigError, shown

MOST = 2**31 - 1
"""The largest count of anything: the libraries below hold many a count in 32 bits."""

Count = Annotated[int, Field(gt=0, le=MOST)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""Tables hold seeds in 64 bits with a sign."""
TwoOrMore = Annotated[int, Field(ge=2, le=MOST)]
PositiveFloats = Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]

T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ConfigError(f"{shown(value)} stands twice")
    return values


Distinct = Annotated[tuple[T, ...], AfterValidator(_distinct)]
"""A list in which nothing stands twice."""
Listed = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(_distinct)]
"""A list of at least one, in which nothing stands twice."""

ByKind: Any = Field(discriminator="kind")
"""Tells the dataclasses of a union apart: `Annotated[Plateau | Cosine, ByKind]`."""

Precision = Literal["float32", "bfloat16"]
"""The precision of a network's layers in training. Weights, losses and all that follows training are in float32."""

MOST_THREADS = 1024
"""More than any machine has; the libraries' own limits are a crash."""


@dataclass(frozen=True)
class Compute:
    """Where, with how many threads and how precisely a stage computes: all change bytes, so all belong to the study.

    A study's `auto` is settled when it is loaded (`rae_bench.base.devices`): no stage is ever told so.
    `tf32`: products of float32 matrices and convolutions on a GPU round their factors to ten bits.
    """

    device: Literal["auto", "cpu", "cuda"]
    threads: Annotated[int, Field(gt=0, le=MOST_THREADS)]
    tf32: bool
    precision: Precision

    def __post_init__(self) -> None:
        if self.tf32 and self.device == "cpu":
            raise ConfigError("tf32: true, but device is 'cpu', which has no TF32; write false")
