"""Networks of dense layers: a linear one for images, and ReLU networks for vectors."""

from torch import nn

from rae_bench.models.layouts.specs import DenseNetwork, LinearNetwork
from rae_bench.models.networks import dense


def linear_features(spec: LinearNetwork) -> tuple[nn.Sequential, int]:
    """No layer but the head's: the image as a vector, and its length."""
    return nn.Sequential(nn.Flatten()), spec.values


def linear_decoder(spec: LinearNetwork) -> nn.Sequential:
    """The layer from codes (B, latent_dim) to images, which may leave [0, 1]."""
    image = nn.Unflatten(1, (spec.channels, spec.size, spec.size))
    return nn.Sequential(nn.Linear(spec.latent_dim, spec.values), image)


def vector_features(spec: DenseNetwork) -> tuple[nn.Sequential, int]:
    """The encoder of vectors without its heads, and the length of the feature vectors it ends in."""
    return nn.Sequential(*dense(spec.input_dim, spec.width, spec.depth)), spec.width


def vector_decoder(spec: DenseNetwork) -> nn.Sequential:
    """The network from codes (B, latent_dim) to vectors (B, input_dim)."""
    return nn.Sequential(*dense(spec.latent_dim, spec.width, spec.depth), nn.Linear(spec.width, spec.input_dim))
