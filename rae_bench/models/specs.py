"""The settings of models and of their training: what `train` reads."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat

from rae_bench.base.own import OwnCode
from rae_bench.base.plain import ConfigError
from rae_bench.base.specs import ByKind, Compute, Count, TwoOrMore
from rae_bench.models.terms.specs import (
    SQUARED_ERROR,
    Bernoulli,
    Deterministic,
    GaussianKL,
    ImportanceWeighted,
    Latent,
    NoLatentTerm,
    NoRegulariser,
    Objective,
    Regulariser,
)

TRAIN_VERSION = 1

NETWORK_SIZES = range(16, 257, 8)
"""Sides of the images that networks take, in pixels; the paper's are 32 and 64."""


def wrong_size(size: int) -> str:
    """What is wrong with a side of images that no network takes; nothing of any other."""
    least, most, step = NETWORK_SIZES[0], NETWORK_SIZES[-1], NETWORK_SIZES.step
    return "" if size in NETWORK_SIZES else f"{size} is not a multiple of {step} from {least} to {most}"


def _checked(size: int) -> int:
    if fault := wrong_size(size):
        raise ConfigError(fault)
    return size


ImageSize = Annotated[int, AfterValidator(_checked)]
Kernel = Literal[4, 5]
Momentum = Annotated[float, Field(gt=0, le=1)]
"""The newest batch's share in a running mean."""


class Maps(NamedTuple):
    """Feature maps of one layer: how many, and their side."""

    filters: int
    side: int


class OfImages:
    """What every network of images says of them; `size` is a field of its own."""

    size: ImageSize

    @property
    def pixels(self) -> int:
        """How many pixels an image has, each of all channels."""
        return self.size**2


@dataclass(frozen=True)
class ConvolutionalNetwork(OfImages):
    """The paper's layout at any of NETWORK_SIZES: stride-2 convolutions to the code, dense, stride-2 transposed back.

    `width` is the number of filters of the first convolution (the paper: 128); no layer has fewer. `start_width`:
    channels of the map the decoder starts from (official code: 1024, at half the width, too).
    `norm_momentum` is the weight of the newest batch in batch norm's running moments (PyTorch's sense; Keras: 0.01).
    """

    kind: Literal["convolutional"]
    channels: Count
    size: ImageSize
    kernel: Kernel
    width: Count
    start_width: Count
    latent_dim: Count
    norm_momentum: Momentum

    is_optimised: ClassVar[bool] = True

    @property
    def encoder_maps(self) -> list[Maps]:
        """The image, then what each convolution makes of it: half the side, rounded up.

        Four of them, as in the paper (32 pixels end at 2x2, 64 at 4x4), and more until maps are no larger than 4x4.
        Filters: 1, 2, 4 and 8 times `width`, and 8 times from there on.
        """
        maps = [Maps(self.channels, self.size)]
        while len(maps) <= 4 or maps[-1].side > 4:
            maps.append(Maps(self.width * min(2 ** (len(maps) - 1), 8), (maps[-1].side + 1) // 2))
        return maps

    @property
    def decoder_maps(self) -> list[Maps]:
        """The map that the decoder starts from, then what each transposed convolution makes of it: twice the side.

        As many as leave a start of at least 8x8, the paper's for 32 and 64 pixels, elsewhere up to 16x16. A start that
        is no whole number (136 / 16) is rounded up; the first doubling then gives a row and a column less.
        Filters: 4, 2 and 1 times `width`, and `width` from there on. The layer that makes the image of the last map,
        at the same side, is not among them.
        """
        n = (self.size // 8).bit_length() - 1
        made = [Maps(self.width * max(4 // 2**i, 1), -(-self.size // 2 ** (n - 1 - i))) for i in range(n)]
        return [Maps(self.start_width, -(-self.size // 2**n)), *made]


@dataclass(frozen=True)
class DenseNetwork:
    """`depth` hidden ReLU layers of `width` units each way, linear output: vectors, not images."""

    kind: Literal["dense"]
    input_dim: Count
    width: Count
    depth: Count
    latent_dim: Count

    pixels: ClassVar[int] = 1
    is_optimised: ClassVar[bool] = True


@dataclass(frozen=True)
class LinearNetwork(OfImages):
    """One dense layer each way, fitted in closed form: principal components, the best a linear autoencoder can do.

    Codes have zero mean and unit variance over the training images, without correlation. The scale of a linear code is
    arbitrary; on this one N(0, I) is a density of codes as fair as a fitted Gaussian.
    """

    kind: Literal["linear"]
    channels: Count
    size: ImageSize
    latent_dim: Count

    is_optimised: ClassVar[bool] = False

    @property
    def values(self) -> int:
        """How many values an image has."""
        return self.channels * self.pixels


@dataclass(frozen=True)
class OwnNetworks(OfImages):
    """Encoder and decoder of a user's own (`rae_bench.base.contracts.Networks`), under the suite's objectives.

    `initialisation`: of its layers as the class leaves them, or as the suite's ("suite").
    """

    kind: Literal["own"]
    code: OwnCode
    initialisation: Literal["own", "suite"]
    channels: Count
    size: ImageSize
    latent_dim: Count

    is_optimised: ClassVar[bool] = True


@dataclass(frozen=True)
class OwnModel(OfImages):
    """A model of a user's own (`rae_bench.base.contracts.Model`), with its own loss.

    `has_posterior`: whether it encodes to a mean and a log sigma.
    """

    kind: Literal["own_model"]
    code: OwnCode
    has_posterior: bool
    channels: Count
    size: ImageSize
    latent_dim: Count

    is_optimised: ClassVar[bool] = True


@dataclass(frozen=True)
class TrainedElsewhere(OfImages):
    """A model that was trained elsewhere (`rae_bench.base.contracts.Trained`), loaded from `file`, perhaps a folder.

    `sha256` is of the file's bytes, or of all in the folder.
    """

    kind: Literal["trained"]
    code: OwnCode
    file: str
    sha256: str
    has_posterior: bool
    channels: Count
    size: ImageSize
    latent_dim: Count

    is_optimised: ClassVar[bool] = False


CLOSED_FORM = ("deterministic", "none", "none", "squared_error")
"""The terms of an objective whose optimum is known for a linear network: the squared error alone."""

Network = Annotated[
    ConvolutionalNetwork | LinearNetwork | DenseNetwork | OwnNetworks | OwnModel | TrainedElsewhere, ByKind
]
"""Each says whether it is trained in epochs (`is_optimised`)."""


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
        return isinstance(self.objective.posterior, Deterministic)
