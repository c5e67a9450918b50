"""A small transformer on patches of images (Vaswani et al. 2017; Dosovitskiy et al. 2021).

The encoder takes a vector of each patch, adds sines and cosines of its row and column, and makes features of all: the
code's layer sees each patch at its place. The decoder's first layer makes a vector of each patch from the code, with a
bias of its own that tells the place; its last makes the pixels. In each block the norm stands before attention and
before the hidden layer (GELU).
"""

import math

import torch
from torch import Tensor, nn

from rae_bench.models.layouts.specs import PatchTransformer
from rae_bench.models.networks import LayerNorm, Sigmoid, softmax, widened


class _Attention(nn.Module):
    """Every vector of x (B, T, width) becomes, in each head, a mean of all, weighted by softmax(query · key / √n).

    Query, key and value have layers of their own, each normalised by itself under a spectral norm.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        weights = softmax(query @ key.mT / math.sqrt(query.shape[-1]))  # (B, heads, T, T)
        mixed: Tensor = self.out((weights @ value).transpose(1, 2).flatten(2))
        return mixed

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, heads, T, width / heads)


class _Block(nn.Module):
    """Attention, then a hidden layer for each vector, both scaled and added to what they are given, in float32.

    The scales are learnt, one a dimension, from 0.1 (Touvron et al. 2021, LayerScale): without them the first means of
    attention drown what the code says of each patch, and the decoder hardly learns.
    """

    def __init__(self, spec: PatchTransformer) -> None:
        super().__init__()
        hidden = spec.expansion * spec.width
        self.attend = nn.Sequential(LayerNorm(spec.width, eps=1e-5), _Attention(spec.width, spec.heads))
        wide = [nn.Linear(spec.width, hidden), nn.GELU(), nn.Linear(hidden, spec.width)]
        self.change = nn.Sequential(LayerNorm(spec.width, eps=1e-5), *wide)
        self.attend_scale, self.change_scale = (nn.Parameter(torch.full((spec.width,), 0.1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = widened(x)
        x = x + self.attend_scale * self.attend(x)
        changed: Tensor = x + self.change_scale * self.change(x)
        return changed


class _Patches(nn.Module):
    """Images (B, C, H, W) to the values of their patches, row by row: (B, T, C · patch²)."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.cut = nn.PixelUnshuffle(patch)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.cut(x).flatten(2).mT
        return patches


class _Join(nn.Module):
    """Values of patches to images: the inverse of `_Patches`."""

    def __init__(self, patch: int, side: int) -> None:
        super().__init__()
        self.side, self.join = side, nn.PixelShuffle(patch)

    def forward(self, patches: Tensor) -> Tensor:
        images: Tensor = self.join(patches.mT.reshape(len(patches), -1, self.side, self.side))
        return images


class _Places(nn.Module):
    """Adds to each patch's vector where it is: sines and cosines of its row in one half, of its column in the other.

    Wavelengths are those of Vaswani et al. (2017), section 3.5: 2π to 10,000 · 2π patches. Nothing is learnt.
    """

    places: Tensor

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        frequencies = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
        angles = torch.arange(side)[:, None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, width / 2)
        rows, columns = waves.repeat_interleave(side, 0), waves.repeat(side, 1)
        self.register_buffer("places", torch.cat([rows, columns], dim=1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.places


def features(spec: PatchTransformer) -> tuple[nn.Sequential, int]:
    """The encoder without its heads, and the length of the feature vectors it ends in."""
    cut = [_Patches(spec.patch), nn.Linear(spec.patch_values, spec.width), _Places(spec.side, spec.width)]
    blocks = [_Block(spec) for _ in range(spec.depth)]
    return nn.Sequential(*cut, *blocks, LayerNorm(spec.width, eps=1e-5), nn.Flatten()), spec.tokens * spec.width


def decoder(spec: PatchTransformer) -> nn.Sequential:
    """The network from codes (B, latent_dim) to images in [0, 1]."""
    vectors = [nn.Linear(spec.latent_dim, spec.tokens * spec.width), nn.Unflatten(1, (spec.tokens, spec.width))]
    blocks = [_Block(spec) for _ in range(spec.depth)]
    pixels = [LayerNorm(spec.width, eps=1e-5), nn.Linear(spec.width, spec.patch_values)]
    return nn.Sequential(*vectors, *blocks, *pixels, _Join(spec.patch, spec.side), Sigmoid())
