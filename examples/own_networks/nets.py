"""Residual networks with group norm in place of the paper's, under every objective of the suite."""

from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x))))))."""

    def __init__(self, filters):
        super().__init__()
        layers = [(nn.GroupNorm(4, filters), nn.ReLU(), nn.Conv2d(filters, filters, 3, padding=1)) for _ in range(2)]
        self.block = nn.Sequential(*(layer for part in layers for layer in part))

    def forward(self, x):
        return x + self.block(x)


class Upsample(nn.Module):
    """Every pixel four times."""

    def forward(self, x):
        return functional.interpolate(x, scale_factor=2)


class ResidualNetworks:
    """Halved three times on the way to the code, doubled three times back: images of any multiple of 8."""

    def __init__(self, channels, size, latent_dim, width):
        side = size // 8
        down, up = [], []
        for inputs, outputs in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
            down += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), Residual(outputs)]
            up = [Residual(outputs), Upsample(), nn.Conv2d(outputs, inputs, 3, padding=1), *up]
        self.encoder = nn.Sequential(*down, nn.ReLU(), nn.Flatten())
        start = [nn.Linear(latent_dim, 4 * width * side**2), nn.Unflatten(1, (4 * width, side, side))]
        self.decoder = nn.Sequential(*start, *up, nn.Sigmoid())
