"""The paper's convolutional layout.

Official code, models/rae: stride-2 convolutions, each with batch norm and ReLU, flattened; a dense layer from the code
to the map the decoder starts from, linear; stride-2 transposed convolutions, each with batch norm and ReLU, up to the
image's size; a stride-1 transposed convolution and a sigmoid. How many, with how many filters, says
`ConvolutionalNetwork`. Keras' conventions: "same" padding, batch norm with epsilon 1e-3.
"""

import itertools

from torch import Tensor, nn
from torch.nn import functional

from rae_bench.models.layouts.specs import ConvolutionalNetwork
from rae_bench.models.networks import BatchNorm, CropLast, Sigmoid, cropped, derives_forward, first_map


class Up(nn.ConvTranspose2d):
    """A transposed convolution that adds its bias afterwards: oneDNN takes long over its gradient, a sum does not.

    See docs/speed.md.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: ARG002  torch's signature
        up = functional.conv_transpose2d(x, self.weight, stride=self.stride, padding=self.padding)  # type: ignore[arg-type]
        bias = self.bias.to(up.dtype)[:, None, None]  # type: ignore[union-attr]
        # in place it needs no second tensor, but a forward derivative would lose its layout
        return up + bias if derives_forward() else up.add_(bias)


class _Scale(nn.Module):
    """The map of [0, 1] to [-1, 1] that the official 32x32 encoder begins with."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x - 1


def _norm(filters: int, momentum: float) -> list[nn.Module]:
    return [BatchNorm(filters, eps=1e-3, momentum=momentum), nn.ReLU()]


def _down(kernel: int, inputs: int, outputs: int, side: int) -> list[nn.Module]:
    """A Keras "same" convolution of stride 2: a map's side to half of it, rounded up."""
    padding = kernel - 2 + side % 2
    if padding % 2 == 0:
        return [nn.Conv2d(inputs, outputs, kernel, 2, padding // 2)]
    near, far = padding // 2, padding // 2 + 1  # Keras pads one row and column more at the far side
    return [nn.ZeroPad2d((near, far, near, far)), nn.Conv2d(inputs, outputs, kernel, 2)]


def up(kernel: int, inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """A Keras "same" transposed convolution."""
    layer = Up(inputs, outputs, kernel, stride, padding=2 if (kernel, stride) == (5, 1) else 1)
    return [layer] if (kernel, stride) in ((4, 2), (5, 1)) else [layer, CropLast()]


def features(spec: ConvolutionalNetwork) -> tuple[nn.Sequential, int]:
    """The encoder without its heads, and the length of the feature vectors it ends in."""
    layers: list[nn.Module] = [_Scale()] if spec.size == 32 else []
    for (inputs, side), (outputs, _) in itertools.pairwise(spec.encoder_maps):
        layers += [*_down(spec.kernel, inputs, outputs, side), *_norm(outputs, spec.norm_momentum)]
    filters, side = spec.encoder_maps[-1]
    return nn.Sequential(*layers, nn.Flatten()), filters * side * side


def decoder(spec: ConvolutionalNetwork) -> nn.Sequential:
    """The network from codes (B, latent_dim) to images in [0, 1]."""
    maps = spec.decoder_maps
    layers = first_map(spec.latent_dim, *maps[0])
    for (inputs, side), (outputs, wanted) in itertools.pairwise(maps):
        layers += [
            *up(spec.kernel, inputs, outputs, stride=2),
            *cropped(side, wanted),
            *_norm(outputs, spec.norm_momentum),
        ]
    return nn.Sequential(*layers, *up(spec.kernel, maps[-1].filters, spec.channels, stride=1), Sigmoid())
