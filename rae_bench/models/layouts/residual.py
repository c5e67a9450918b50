"""Residual convolutions (He et al. 2016): blocks x + f(x), with group norm (Wu and He 2018) in place of batch norm.

Norm and ReLU stand before each convolution. Maps are halved by a convolution of stride 2, and doubled by repeating each
pixel and convolving. Each map has one block, but for the last of the decoder: at the image's side it would cost as much
as any other, and the convolution to the image is there already.
"""

import itertools

from torch import Tensor, nn

from rae_bench.models.layouts.specs import ResidualNetwork
from rae_bench.models.networks import GroupNorm, Sigmoid, cropped, first_map


class _Block(nn.Module):
    """x + f(x), f two convolutions of 3x3."""

    def __init__(self, filters: int, groups: int) -> None:
        super().__init__()
        self.change = nn.Sequential(*(layer for _ in range(2) for layer in _convolution(filters, filters, groups)))

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = x + self.change(x)
        return changed


def _convolution(inputs: int, outputs: int, groups: int) -> list[nn.Module]:
    return [GroupNorm(groups, inputs, eps=1e-5), nn.ReLU(), nn.Conv2d(inputs, outputs, 3, padding=1)]


def features(spec: ResidualNetwork) -> tuple[nn.Sequential, int]:
    """The encoder without its heads, and the length of the feature vectors it ends in."""
    layers: list[nn.Module] = []
    for (inputs, _), (outputs, _) in itertools.pairwise(spec.encoder_maps):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), _Block(outputs, spec.groups)]
    filters, side = spec.encoder_maps[-1]
    return nn.Sequential(*layers, GroupNorm(spec.groups, filters, eps=1e-5), nn.ReLU(), nn.Flatten()), filters * side**2


def decoder(spec: ResidualNetwork) -> nn.Sequential:
    """The network from codes (B, latent_dim) to images in [0, 1]."""
    maps = spec.decoder_maps
    layers = first_map(spec.latent_dim, *maps[0])
    for (inputs, side), (outputs, wanted) in itertools.pairwise(maps):
        repeated = [nn.Upsample(scale_factor=2, mode="nearest"), *cropped(side, wanted)]
        layers += [_Block(inputs, spec.groups), *repeated, nn.Conv2d(inputs, outputs, 3, padding=1)]
    return nn.Sequential(*layers, *_convolution(maps[-1].filters, spec.channels, spec.groups), Sigmoid())
