"""The settings of models and of their training: what `train` reads."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from rae_bench.base.plain import ConfigError
from rae_bench.base.specs import ByKind, Compute, Count, TwoOrMore
from rae_bench.models.layouts.specs import DenseNetwork, LinearNetwork, Network, OwnModel, TrainedElsewhere
from rae_bench.models.terms.specs import (
    SQUARED_ERROR,
    Bernoulli,
    GaussianKL,
    ImportanceWeighted,
    Latent,
    MaskedInput,
    NoLatentTerm,
    NoRegulariser,
    Objective,
    Posterior,
    Quantised,
    Regulariser,
    Sphere,
    WeightL2,
)

TRAIN_VERSION = 1


def at_once(most: int, pixels: int) -> int:
    """How many images of so many pixels are worked on at a time: `most` of up to 64x64, fewer of larger ones."""
    return max(1, min(most, most * 64**2 // pixels))


@dataclass(frozen=True)
class Plateau:
    """Multiply the learning rate by `factor` after `patience` epochs without improvement by `threshold`, as Keras does.

    `threshold` is a difference of validation losses, all their terms included, in this suite's scale.
    """

    kind: Literal["plateau"]
    factor: Annotated[float, Field(gt=0, lt=1)]
    patience: Count
    threshold: NonNegativeFloat


@dataclass(frozen=True)
class Cosine:
    """Learning rate from its start to 0 along half a cosine, stepped every update."""

    kind: Literal["cosine"]


@dataclass(frozen=True)
class Optimisation:
    """Adam, its schedule and its length.

    `order`: an epoch's batches are drawn anew, or ("file") cut from the training split as it lies in its index, the
    same in every epoch (official code, MNIST and CIFAR-10). Either way what does not fill a batch is left out.
    """

    epochs: Count
    batch_size: TwoOrMore  # batch norm and MMD need pairs
    order: Literal["shuffled", "file"]
    learning_rate: PositiveFloat
    adam_epsilon: PositiveFloat
    schedule: Annotated[Plateau | Cosine, ByKind]


CLOSED_FORM = ("deterministic", "none", "none", "squared_error")
"""The terms of an objective whose optimum is known for a linear network: the squared error alone."""


@dataclass(frozen=True)
class TrainingSpec:
    """Exactly what `train` reads, beside images and seed. Weights are chosen on `validation_split`.

    A linear network and a model trained elsewhere are not optimised: nothing is chosen, `optimisation` is not used.
    `objective` is None for a model of a user's own, which has a loss of its own or none.
    """

    version: int
    network: Network
    objective: Objective | None
    optimisation: Optimisation
    validation_split: Literal["validation", "overlapping"]
    compute: Compute

    def __post_init__(self) -> None:
        if (self.objective is None) != isinstance(self.network, OwnModel | TrainedElsewhere):
            raise ConfigError(f"objective: a network {self.network.kind!r} and {self.objective} do not fit")
        if self.objective is None:
            return
        made = self.objective
        terms = (made.posterior, made.latent, made.regulariser, made.reconstruction)
        if isinstance(self.network, LinearNetwork) and [term.kind for term in terms] != list(CLOSED_FORM):
            raise ConfigError(
                "network: 'linear' is fitted in closed form: posterior, latent, regulariser and reconstruction must be"
                f" {CLOSED_FORM}, not {tuple(term.kind for term in terms)}"
            )
        if isinstance(self.network, DenseNetwork) and isinstance(made.reconstruction, Bernoulli):
            raise ConfigError("objective: 'bernoulli' is of images in [0, 1]; a network 'dense' gives any numbers")
        if said := self._misfit(made.posterior):
            raise ConfigError(f"objective.posterior{said}")
        scope = made.regulariser.scope if isinstance(made.regulariser, WeightL2) else "all"
        if scope == "convolutions" and not self.network.has_convolutions:
            raise ConfigError(
                f"objective.regulariser.scope: 'convolutions', of which a network {self.network.kind!r} has none;"
                " write all"
            )

    def _misfit(self, posterior: Posterior) -> str:
        """Why codes of this network or batches of this size are none of `posterior`; empty if they are."""
        d, batch = self.network.latent_dim, self.optimisation.batch_size
        match posterior:
            case Sphere() if d < 2:
                return ": a 'sphere' of one dimension is two points, without a gradient; take a latent_dim above 1"
            case Quantised(length=length) if d % length:
                return f".length: {length} must divide the {d} dimensions of a code"
            case Quantised(length=length, n_entries=k) if k > batch * (vectors := d // length):
                return (
                    f".n_entries: {k} entries start from the vectors of the first batch, which are {batch * vectors}"
                    f" (batch_size {batch}, {vectors} a code); take fewer entries, or larger batches"
                )
            case MaskedInput(share=share, patch=patch):
                sides = self._sides()
                patches = math.prod(-(-side // patch) for side in sides)
                if not 0 < round(share * patches) < patches:
                    image, hidden = "x".join(map(str, sides)), round(share * patches)
                    told = f"hides {hidden} of the {patches} patches of {patch}; it must hide some and leave some"
                    return f".share: {share} of {image} {told}"
        return ""

    def _sides(self) -> tuple[int, ...]:
        """What is masked of one input: the sides of an image, or the length of a vector."""
        if isinstance(self.network, DenseNetwork):
            return (self.network.input_dim,)
        return (self.network.size, self.network.size)

    @property
    def latent(self) -> Latent:
        """The latent term; of a loss of its own nothing is known."""
        return NoLatentTerm("none") if self.objective is None else self.objective.latent

    @property
    def regulariser(self) -> Regulariser:
        """The decoder's regulariser, likewise."""
        return NoRegulariser("none") if self.objective is None else self.objective.regulariser

    @property
    def decoder_variance(self) -> float | None:
        """The variance β of the decoder N(x̂, β I) whose evidence bound the loss is, divided by β; None if it is not."""
        made = self.objective
        bounds = GaussianKL | ImportanceWeighted
        if made is None or made.reconstruction != SQUARED_ERROR or not isinstance(made.latent, bounds):
            return None
        return made.latent.weight

    @property
    def is_deterministic(self) -> bool:
        """Whether a code is a point, and has no sigma."""
        if isinstance(self.network, OwnModel | TrainedElsewhere):
            return not self.network.has_posterior
        assert self.objective is not None
        return not self.objective.posterior.has_density
