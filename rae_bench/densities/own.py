"""A density of a user's own (`rae_bench.base.contracts.Density`), as one of the suite's."""

from typing import Self

import numpy as np

from rae_bench.base import contracts
from rae_bench.base.own import OwnCodeError, explained
from rae_bench.base.rng import numpy_generator
from rae_bench.densities.codes import CodeArray, Float64, Observed
from rae_bench.densities.density import FittedDensity, State, check_samples
from rae_bench.densities.specs import OwnDensity


class FittedOwn(FittedDensity):
    """What the user's class has learnt, and every answer of it checked."""

    def __init__(self, spec: OwnDensity, dim: int) -> None:
        self.spec, self.dim = spec, dim
        self.density = spec.code.make()
        if not isinstance(self.density, contracts.Density):
            raise OwnCodeError(f"{spec.code.place}: a density has the methods fit and sample; see docs/own.md")

    @classmethod
    def fit(cls, spec: OwnDensity, observed: Observed, seed: int) -> Self:
        """The user's density, fitted to a copy of the codes."""
        made = cls(spec, observed.train.shape[1])
        with explained(spec.code, "fit"):
            made.density.fit(observed.train.copy(), observed.validation.copy(), numpy_generator(seed, "own"))
        if not made.state():
            raise OwnCodeError(
                f"{spec.code.place}: fit has left nothing to save: no array or number in an attribute that ends in _"
            )
        return made

    def sample(self, n: int, rng: np.random.Generator) -> CodeArray:
        """The user's samples, if they are n finite codes."""
        with explained(self.spec.code, "sample"):
            codes = np.asarray(self.density.sample(n, rng))
        if codes.shape != (n, self.dim) or not np.issubdtype(codes.dtype, np.floating):
            found = f"{codes.dtype} {codes.shape}"
            raise OwnCodeError(
                f"{self.spec.code.place}: sample({n}, rng) gives {found}; expected {(n, self.dim)} floats"
            )
        return check_samples(codes.astype(np.float32))

    def log_density(self, codes: CodeArray) -> Float64 | None:
        """The user's log densities; None where the class has no such method."""
        if not hasattr(self.density, "log_density"):
            return None
        with explained(self.spec.code, "log_density"):
            found = np.asarray(self.density.log_density(codes.copy()), dtype=np.float64)
        if found.shape != (len(codes),):
            told = f"log_density of codes {codes.shape} gives {found.shape}"
            raise OwnCodeError(f"{self.spec.code.place}: {told}; expected {(len(codes),)}")
        return found

    def state(self) -> State:
        """Every array or number in an attribute that ends in one underscore, and the codes' dimension."""
        learnt = {
            name: np.asarray(value)
            for name, value in vars(self.density).items()
            if name.endswith("_")
            and not name.endswith("__")
            and isinstance(value, np.ndarray | np.generic | int | float)
        }
        return {**learnt, "dim": np.asarray(float(self.dim))} if learnt else {}

    @classmethod
    def restore(cls, spec: OwnDensity, state: State) -> Self:
        """The user's density with these attributes; numbers come back as arrays of no dimension."""
        made = cls(spec, int(state["dim"]))
        for name, value in state.items():
            if name != "dim":
                setattr(made.density, name, value)
        return made
