"""A network's settings to its encoder and its decoder: where families of networks meet their code."""

from typing import assert_never

from torch import nn

from rae_bench.models.layouts import convolutional, dense, residual, transformer
from rae_bench.models.layouts.specs import (
    ConvolutionalNetwork,
    DenseImageNetwork,
    DenseNetwork,
    LinearNetwork,
    Network,
    OwnModel,
    OwnNetworks,
    PatchTransformer,
    ResidualNetwork,
    TrainedElsewhere,
)


def features(spec: Network) -> tuple[nn.Sequential, int]:
    """The encoder without its heads, and the length of the feature vectors it ends in."""
    match spec:
        case ConvolutionalNetwork():
            return convolutional.features(spec)
        case ResidualNetwork():
            return residual.features(spec)
        case DenseImageNetwork():
            return dense.image_features(spec)
        case PatchTransformer():
            return transformer.features(spec)
        case LinearNetwork():
            return dense.linear_features(spec)
        case DenseNetwork():
            return dense.vector_features(spec)
        case OwnNetworks() | OwnModel() | TrainedElsewhere():
            raise AssertionError("a user's own is made by its own code")
        case _:
            assert_never(spec)


def decoder(spec: Network) -> nn.Sequential:
    """The network from codes (B, latent_dim) to x_hat: images in [0, 1] (a linear one's may leave it), or vectors."""
    match spec:
        case ConvolutionalNetwork():
            return convolutional.decoder(spec)
        case ResidualNetwork():
            return residual.decoder(spec)
        case DenseImageNetwork():
            return dense.image_decoder(spec)
        case PatchTransformer():
            return transformer.decoder(spec)
        case LinearNetwork():
            return dense.linear_decoder(spec)
        case DenseNetwork():
            return dense.vector_decoder(spec)
        case OwnNetworks() | OwnModel() | TrainedElsewhere():
            raise AssertionError("a user's own is made by its own code")
        case _:
            assert_never(spec)
