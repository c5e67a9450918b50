"""What code of a user's own has to offer: nothing to inherit from, a few methods each.

A study names a class, `code: FILE.py:NAME`, and its `settings`. Arrays are NumPy's for densities and metrics, tensors
for models and networks. Randomness comes from the generator that is handed over and from nowhere else.
"""

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor, nn

Codes = npt.NDArray[np.float32]
"""Codes (n, d)."""
Features = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]


@runtime_checkable
class Density(Protocol):
    """A density p(z) of codes, made as `NAME(**settings)`.

    What `fit` learns are arrays or numbers in attributes that end in one underscore, as in scikit-learn: they are all
    that is saved, and all that `sample` may need. `log_density(codes)`, (n,) in nats, is optional.

    >>> class Uniform:
    ...     '''Uniform on the box that holds all codes.'''
    ...
    ...     def fit(self, codes, validation, rng):
    ...         self.low_, self.high_ = codes.min(axis=0), codes.max(axis=0)
    ...
    ...     def sample(self, n, rng):
    ...         return rng.uniform(self.low_, self.high_, (n, len(self.low_)))
    >>> isinstance(Uniform(), Density)
    True
    """

    def fit(self, codes: Codes, validation: Codes, rng: np.random.Generator) -> object:
        """Learn from the codes (n, d) of training images; those (m, d) of validation images only choose."""

    def sample(self, n: int, rng: np.random.Generator) -> npt.NDArray[np.floating]:
        """Independent codes (n, d), in random order."""


class Metric(Protocol):
    """A number of an image set held against the reference, a function `NAME(real, fake, ..., **settings)`.

    Features are (n, d) in double precision, of the data set's network; images uint8 (n, C, H, W), as many.

    >>> def mean_distance(real, fake, real_images, fake_images):
    ...     '''The distance of the means of the features.'''
    ...     return float(((real.mean(axis=0) - fake.mean(axis=0)) ** 2).sum() ** 0.5)
    >>> mean_distance(np.zeros((3, 2)), np.ones((3, 2)), None, None)
    1.4142135623730951
    """

    def __call__(
        self, real: Features, fake: Features, real_images: Images, fake_images: Images, **settings: object
    ) -> float:
        """The number; which way is better, the study says."""


@runtime_checkable
class Networks(Protocol):
    """Encoder and decoder under every objective of the suite, made as `NAME(channels, size, latent_dim, **settings)`.

    Images are (B, channels, size, size) in [0, 1]. The suite puts its own dense layers on the encoder's features:
    the code's mean and, if its posterior has one, log sigma.

    >>> from torch import nn
    >>> class Dense:
    ...     '''One hidden layer each way.'''
    ...
    ...     def __init__(self, channels, size, latent_dim, width):
    ...         image = (channels, size, size)
    ...         pixels = channels * size * size
    ...         self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU())
    ...         up = [nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, pixels), nn.Sigmoid()]
    ...         self.decoder = nn.Sequential(*up, nn.Unflatten(1, image))
    >>> isinstance(Dense(1, 32, 16, 64), Networks)
    True
    """

    encoder: "nn.Module"
    """(B, channels, size, size) to features (B, n)."""
    decoder: "nn.Module"
    """Codes (B, latent_dim) to images (B, channels, size, size) in [0, 1]."""


@runtime_checkable
class Model(Protocol):
    """An autoencoder with a loss of its own: a module, made as `NAME(channels, size, latent_dim, **settings)`.

    It initialises its layers itself: torch's global generator is seeded while it is made, and at no other time.

    >>> import torch
    >>> from torch import nn
    >>> class Plain(nn.Module):
    ...     '''A linear autoencoder and the absolute error.'''
    ...
    ...     def __init__(self, channels, size, latent_dim):
    ...         super().__init__()
    ...         self.to_code = nn.Linear(channels * size * size, latent_dim)
    ...         self.to_image = nn.Linear(latent_dim, channels * size * size)
    ...         self.image = (channels, size, size)
    ...
    ...     def encode(self, x):
    ...         return self.to_code(x.flatten(1))
    ...
    ...     def decode(self, z):
    ...         return self.to_image(z).sigmoid().unflatten(1, self.image)
    ...
    ...     def loss(self, x, generator):
    ...         return {"total": (x - self.decode(self.encode(x))).abs().flatten(1).sum(1).mean()}
    >>> isinstance(Plain(1, 32, 16), Model)
    True
    """

    def encode(self, x: "Tensor") -> "Tensor | tuple[Tensor, Tensor]":
        """The codes (B, d) of images; of a model with a posterior, its mean and log sigma, (B, d) each."""

    def decode(self, z: "Tensor") -> "Tensor":
        """Images (B, channels, size, size) in [0, 1] of codes (B, d)."""

    def loss(self, x: "Tensor", generator: "torch.Generator") -> "Mapping[str, Tensor]":
        """The terms of a batch, scalars by name, in every call the same; "total" is minimised."""


@runtime_checkable
class Trained(Protocol):
    """An autoencoder that was trained elsewhere, what `NAME(file, **settings)` returns; only fitted and scored."""

    def encode(self, x: "Tensor") -> "Tensor | tuple[Tensor, Tensor]":
        """The codes (B, d) of images (B, channels, size, size) in [0, 1]; or a posterior's mean and log sigma."""

    def decode(self, z: "Tensor") -> "Tensor":
        """Images (B, channels, size, size) in [0, 1] of codes (B, d)."""
