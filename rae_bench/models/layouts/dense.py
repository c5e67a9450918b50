"""Networks of dense layers: a linear one and a ReLU network for images, and ReLU networks for vectors."""

from torch import nn

from rae_bench.models.layouts.specs import DenseImageNetwork, DenseNetwork, LinearNetwork
from rae_bench.models.networks import Sigmoid, dense


def linear_features(spec: LinearNetwork) -> tuple[nn.Sequential, int]:
    """No layer but the head's: the image as a vector, and its length."""
    return nn.Sequential(nn.Flatten()), spec.values


def linear_decoder(spec: LinearNetwork) -> nn.Sequential:
    """The layer from codes (B, latent_dim) to images, which may leave [0, 1]."""
    image = nn.Unflatten(1, (spec.channels, spec.size, spec.size))
    return nn.Sequential(nn.Linear(spec.latent_dim, spec.values), image)


def image_features(spec: DenseImageNetwork) -> tuple[nn.Sequential, int]:
    """The encoder of images as vectors without its heads, and the length of the feature vectors it ends in."""
    return nn.Sequential(nn.Flatten(), *dense(spec.values, spec.width, spec.depth)), spec.width


def image_decoder(spec: DenseImageNetwork) -> nn.Sequential:
    """The network from codes (B, latent_dim) to images in [0, 1]."""
    hidden = dense(spec.latent_dim, spec.width, spec.depth)
    image = nn.Unflatten(1, spec.sample_shape)
    return nn.Sequential(*hidden, nn.Linear(spec.width, spec.values), image, Sigmoid())


def vector_features(spec: DenseNetwork) -> tuple[nn.Sequential, int]:
    """The encoder of vectors without its heads, and the length of the feature vectors it ends in."""
    return nn.Sequential(*dense(spec.input_dim, spec.width, spec.depth)), spec.width


def vector_decoder(spec: DenseNetwork) -> nn.Sequential:
    """The network from codes (B, latent_dim) to vectors (B, input_dim)."""
    return nn.Sequential(*dense(spec.latent_dim, spec.width, spec.depth), nn.Linear(spec.width, spec.input_dim))
