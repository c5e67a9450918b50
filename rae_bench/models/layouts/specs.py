"""The settings of networks, a class for each family of them."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field

from rae_bench.base.own import OwnCode
from rae_bench.base.plain import ConfigError
from rae_bench.base.specs import ByKind, Count

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


@dataclass(frozen=True)
class Counts:
    """What a network takes: operations to encode and to decode a sample, floats that both leave, weights.

    Operations are those of matrix products and convolutions, two a multiply-add. The floats are those that a step
    keeps for its gradients. Weights are those of all layers, with both heads of a VAE, without biases and norms.
    """

    encoder: float
    decoder: float
    floats: float
    parameters: float

    @property
    def arithmetic(self) -> float:
        """The arithmetic of a pass forward."""
        return self.encoder + self.decoder


class OfImages:
    """What every network of images says of itself; `channels` and `size` are fields of its own.

    `has_convolutions`: whether its decoder has any, or, of a user's own, may have.
    """

    channels: Count
    size: ImageSize

    has_convolutions: ClassVar[bool] = True

    @property
    def pixels(self) -> int:
        """How many pixels an image has, each of all channels."""
        return self.size**2

    @property
    def values(self) -> int:
        """How many values an image has."""
        return self.channels * self.pixels

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of what is encoded."""
        return (self.channels, self.size, self.size)


def _narrowing(channels: int, size: int, width: int) -> list[Maps]:
    """The image, then maps of half the side each, rounded up.

    Four of them, as in the paper (32 pixels end at 2x2, 64 at 4x4), and more until maps are no larger than 4x4.
    Filters: 1, 2, 4 and 8 times `width`, and 8 times from there on.
    """
    maps = [Maps(channels, size)]
    while len(maps) <= 4 or maps[-1].side > 4:
        maps.append(Maps(width * min(2 ** (len(maps) - 1), 8), (maps[-1].side + 1) // 2))
    return maps


def _doublings(size: int) -> list[int]:
    """The side of the map that a decoder starts from, then twice the side each, up to the image's.

    As many as leave a start of at least 8x8, the paper's for 32 and 64 pixels, elsewhere up to 16x16. A start that is
    no whole number (136 / 16) is rounded up; the first doubling then gives a row and a column less.
    """
    n = (size // 8).bit_length() - 1
    return [-(-size // 2 ** (n - i)) for i in range(n + 1)]


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
        """The image, then what each convolution makes of it."""
        return _narrowing(self.channels, self.size, self.width)

    @property
    def decoder_maps(self) -> list[Maps]:
        """The map that the decoder starts from, then what each transposed convolution makes of it.

        Filters: 4, 2 and 1 times `width`, and `width` from there on. The layer that makes the image of the last map,
        at the same side, is not among them.
        """
        start, *sides = _doublings(self.size)
        made = [Maps(self.width * max(4 // 2**i, 1), side) for i, side in enumerate(sides)]
        return [Maps(self.start_width, start), *made]

    @property
    def counts(self) -> Counts:
        """What it takes, layer by layer."""
        last, start, image = self.encoder_maps[-1], self.decoder_maps[0], Maps(self.channels, self.size)
        down, up = (list(pairwise(maps)) for maps in (self.encoder_maps, self.decoder_maps))
        up.append((self.decoder_maps[-1], image))
        heads, first = (self.latent_dim * maps.filters * maps.side**2 for maps in (last, start))
        heads *= 2

        def weights(layers: list[tuple[Maps, Maps]]) -> list[int]:
            return [self.kernel**2 * one.filters * other.filters for one, other in layers]

        # a convolution takes its weights once for each place of its result, a transposed one of what it is given
        encoder = sum(n * made.side**2 for n, (_, made) in zip(weights(down), down, strict=True))
        decoder = sum(n * given.side**2 for n, (given, _) in zip(weights(up), up, strict=True))
        # before and after batch norm, and after the ReLU
        floats = start.filters * start.side**2 + sum(3 * made.filters * made.side**2 for _, made in (*down, *up))
        parameters = sum(weights(down)) + sum(weights(up)) + heads + first
        return Counts(2.0 * (encoder + heads), 2.0 * (decoder + first), float(floats), float(parameters))


@dataclass(frozen=True)
class ResidualNetwork(OfImages):
    """Residual convolutions of 3x3 with group norm; the decoder doubles its maps by repeating pixels.

    `width` is the number of filters of the largest maps; `groups` of channels are normed together, and divide it.
    """

    kind: Literal["residual"]
    channels: Count
    size: ImageSize
    width: Count
    groups: Count
    latent_dim: Count

    is_optimised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.width % self.groups:
            raise ConfigError(f"groups: {self.groups} does not divide width, {self.width}")

    @property
    def encoder_maps(self) -> list[Maps]:
        """The image, then what each stride makes of it."""
        return _narrowing(self.channels, self.size, self.width)

    @property
    def decoder_maps(self) -> list[Maps]:
        """The map that the decoder starts from, then each doubled one, with half the filters: 8 times `width` at most.

        The image is made of the last, at the same side.
        """
        sides = _doublings(self.size)
        return [Maps(self.width * min(2 ** (len(sides) - 1 - i), 8), side) for i, side in enumerate(sides)]

    @property
    def counts(self) -> Counts:
        """What it takes, layer by layer: of each the maps that it is given, and those that it makes."""
        down, up, image = self.encoder_maps, self.decoder_maps, Maps(self.channels, self.size)
        encoder = [*pairwise(down), *(2 * [(maps, maps) for maps in down[1:]])]
        decoder = [*pairwise([*up, image]), *(2 * [(maps, maps) for maps in up[:-1]])]

        def weights(layers: list[tuple[Maps, Maps]]) -> list[int]:
            return [9 * given.filters * made.filters for given, made in layers]

        def products(layers: list[tuple[Maps, Maps]]) -> int:
            return sum(n * made.side**2 for n, (_, made) in zip(weights(layers), layers, strict=True))

        first = self.latent_dim * up[0].filters * up[0].side ** 2
        heads = 2 * self.latent_dim * down[-1].filters * down[-1].side ** 2
        # what a layer is given, before its norm and after the ReLU
        floats = sum(2 * given.filters * made.side**2 for given, made in (*encoder, *decoder))
        parameters = sum(weights(encoder)) + sum(weights(decoder)) + heads + first
        return Counts(
            2.0 * (products(encoder) + heads), 2.0 * (products(decoder) + first), float(floats), float(parameters)
        )


def _dense_counts(values: int, width: int, depth: int, latent_dim: int) -> Counts:
    """What `depth` hidden layers of `width` units each way take, between samples of so many `values` and codes."""
    hidden = (depth - 1) * width**2
    down, up = values * width + hidden + 2 * width * latent_dim, latent_dim * width + hidden + width * values
    # before and after each activation
    return Counts(2.0 * down, 2.0 * up, float(4 * depth * width + 2 * values), float(down + up))


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
    has_convolutions: ClassVar[bool] = False

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of what is encoded."""
        return (self.input_dim,)

    @property
    def counts(self) -> Counts:
        """What it takes."""
        return _dense_counts(self.input_dim, self.width, self.depth, self.latent_dim)


@dataclass(frozen=True)
class DenseImageNetwork(OfImages):
    """`depth` hidden ReLU layers of `width` units each way, without norms, on images as vectors; a sigmoid at the end.

    The first variational autoencoders were such networks (Kingma and Welling 2014, one hidden layer).
    """

    kind: Literal["dense_images"]
    channels: Count
    size: ImageSize
    width: Count
    depth: Count
    latent_dim: Count

    is_optimised: ClassVar[bool] = True
    has_convolutions: ClassVar[bool] = False

    @property
    def counts(self) -> Counts:
        """What it takes."""
        return _dense_counts(self.values, self.width, self.depth, self.latent_dim)


@dataclass(frozen=True)
class PatchTransformer(OfImages):
    """A transformer on square patches of `patch` pixels a side: `depth` blocks each way, on vectors of `width`.

    A block has attention of `heads` heads, which share `width`, and one hidden layer of `expansion` times `width`.
    """

    kind: Literal["transformer"]
    channels: Count
    size: ImageSize
    patch: Literal[4, 8]
    width: Count
    depth: Count
    heads: Count
    expansion: Count
    latent_dim: Count

    is_optimised: ClassVar[bool] = True
    has_convolutions: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"heads: {self.heads} do not divide width, {self.width}")
        if self.width % 4:
            raise ConfigError(f"width: {self.width} is not a multiple of 4: sines and cosines of row and of column")

    @property
    def side(self) -> int:
        """How many patches a row has, and a column; every size is a multiple of `patch`."""
        return self.size // self.patch

    @property
    def tokens(self) -> int:
        """How many patches an image has."""
        return self.side**2

    @property
    def patch_values(self) -> int:
        """How many values a patch has."""
        return self.channels * self.patch**2

    @property
    def counts(self) -> Counts:
        """What it takes: each way `depth` blocks, a layer to or from patches, and one to or from the code."""
        tokens, width = self.tokens, self.width
        block = (4 + 2 * self.expansion) * width**2  # query, key, value, and what they give; the hidden layer
        mixing = 2 * tokens**2 * width  # scores of pairs, and sums over them
        code = self.latent_dim * tokens * width
        oneway = self.depth * (tokens * block + mixing) + self.values * width
        # of a block: two norms and sums, three projections and their mixture; the hidden layer; scores
        held = tokens * width * (9 + 2 * self.expansion) + self.heads * tokens**2
        weights = 2 * (self.depth * block + self.patch_values * width) + 3 * code
        floats = 2 * (self.depth * held + 3 * tokens * width + self.values)
        return Counts(2.0 * (oneway + 2 * code), 2.0 * (oneway + code), float(floats), float(weights))


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
    has_convolutions: ClassVar[bool] = False

    @property
    def counts(self) -> Counts:
        """What it takes."""
        products = float(self.values * self.latent_dim)
        return Counts(2 * products, 2 * products, float(self.values), 2 * products)


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


Layout = Annotated[ConvolutionalNetwork | ResidualNetwork | DenseImageNetwork | PatchTransformer, ByKind]
"""What a budget can name: networks of images that are trained, of the suite's own."""

Network = Annotated[
    ConvolutionalNetwork
    | ResidualNetwork
    | DenseImageNetwork
    | PatchTransformer
    | LinearNetwork
    | DenseNetwork
    | OwnNetworks
    | OwnModel
    | TrainedElsewhere,
    ByKind,
]
"""Each says whether it is trained in epochs (`is_optimised`)."""
