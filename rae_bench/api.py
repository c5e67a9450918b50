"""The names that code of a user's own may count on: they stay.

`Model`, `Networks`, `Density`, `Metric` and `Trained` say what such code has to offer (docs/own.md). `PaperNetworks`
are the suite's own encoder and decoder, for a loss of one's own on the paper's networks; `initialise` gives layers
their first weights as the suite does. `exported` and `pythae` read networks
that were trained and saved elsewhere.
"""

from torch import nn

from rae_bench.base.contracts import Density, Metric, Model, Networks, Trained
from rae_bench.base.own import OwnCodeError
from rae_bench.base.plain import parse
from rae_bench.models import networks
from rae_bench.models.elsewhere import exported, pythae
from rae_bench.models.networks import initialise
from rae_bench.models.specs import ConvolutionalNetwork

__all__ = [
    "Density",
    "Metric",
    "Model",
    "Networks",
    "OwnCodeError",
    "PaperNetworks",
    "Trained",
    "exported",
    "initialise",
    "pythae",
]


class PaperNetworks:
    """The paper's encoder and decoder for images (channels, size, size), without the dense layers to the code.

    `encoder`: images (B, channels, size, size) in [0, 1] to features (B, `length`). `decoder()`, built when it is asked
    for, after the layers to the code: codes (B, latent_dim) to images in [0, 1]. Settings as in budgets.yaml.

    >>> made = PaperNetworks(1, 32, 16, width=8, start_width=64, kernel=4, norm_momentum=0.1)
    >>> made.length
    256
    """

    def __init__(self, channels: int, size: int, latent_dim: int, **layout: float) -> None:
        stated = {"kind": "convolutional", "channels": channels, "size": size, "latent_dim": latent_dim, **layout}
        self._spec: ConvolutionalNetwork = parse(ConvolutionalNetwork, stated, "PaperNetworks")
        self.encoder, self.length = networks.features(self._spec)

    def decoder(self) -> nn.Module:
        """A new decoder."""
        return networks.decoder(self._spec)
