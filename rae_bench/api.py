"""The names that code of a user's own may count on: they stay.

`Model`, `Networks`, `Density`, `Metric` and `Trained` say what such code has to offer (docs/own.md). `PaperNetworks`
are the suite's own encoder and decoder, for a loss of one's own on the paper's networks; `initialise` gives layers
their first weights as the suite does. `exported` and `pythae` read networks that were trained and saved elsewhere.

The functions are what a study's stages do, on arrays: `images` of a data set, `encode`, `fit`, `decode`, `features`,
`measure`.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn

from rae_bench.base.contracts import Density, Images, Metric, Model, Networks, Trained
from rae_bench.base.own import OwnCodeError
from rae_bench.base.plain import parse
from rae_bench.models.elsewhere import exported, pythae
from rae_bench.models.layouts import catalogue as layouts
from rae_bench.models.layouts.specs import ConvolutionalNetwork
from rae_bench.models.networks import initialise

__all__ = [
    "Density",
    "Metric",
    "Model",
    "Networks",
    "OwnCodeError",
    "PaperNetworks",
    "Trained",
    "decode",
    "encode",
    "exported",
    "features",
    "fit",
    "images",
    "initialise",
    "measure",
    "pythae",
]

Array = npt.NDArray[np.floating]


if TYPE_CHECKING:
    from rae_bench.densities.density import FittedDensity

BATCH = 250
"""Images that are encoded or decoded at a time."""


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
        self.encoder, self.length = layouts.features(self._spec)

    def decoder(self) -> nn.Module:
        """A new decoder."""
        return layouts.decoder(self._spec)


def images(dataset: str) -> dict[str, Images]:
    """The images of a data set's splits, train, validation and test, uint8 (n, C, H, W), as studies prepare them.

    Raises:
        ConfigError: there is no such data set. DataError: its files are not there.
    """
    from rae_bench.data import catalogue
    from rae_bench.data.prepared import SPLITS, ImageFiles
    from rae_bench.study import config, vocabulary

    known = vocabulary.read(config.CONFIG).datasets
    vocabulary.known("images", "data set", known, dataset)
    prepared = catalogue.prepare(known[dataset].data)
    found = prepared.images
    if isinstance(found, ImageFiles):
        found = np.concatenate([block for block, _ in found.blocks()])
    return {split: found[prepared.splits[split]] for split in SPLITS}


def encode(model: nn.Module, images: Images) -> npt.NDArray[np.float32]:
    """The codes (n, d) of images (n, C, H, W), uint8, of a model with `encode`; of a posterior the means."""
    import torch

    from rae_bench.models.training import as_input

    model.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            found = model.encode(as_input(torch.from_numpy(images[start : start + BATCH])))  # type: ignore[operator]
            parts.append((found[0] if isinstance(found, tuple) else found).cpu().numpy())
    return np.concatenate(parts).astype(np.float32)


def decode(model: nn.Module, codes: Array) -> Images:
    """The images (n, C, H, W) of codes (n, d) of a model with `decode`, uint8 as a saved file would hold them."""
    import torch

    from rae_bench.scoring.generation import to_uint8

    model.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(codes), BATCH):
            batch = torch.from_numpy(np.asarray(codes[start : start + BATCH], dtype=np.float32))
            parts.append(to_uint8(model.decode(batch).cpu().numpy()))  # type: ignore[operator]
    return np.concatenate(parts)


def fit(density: str, codes: Array, validation: Array, seed: int = 0) -> "FittedDensity":
    """A density of workflow/config/densities.yaml, fitted to the codes (n, d) of training images.

    Those (m, d) of validation images only choose. `.sample(n, rng)` draws codes, `.log_density(codes)` gives (n,) in
    nats, or None where there is no formula.

    Raises:
        ConfigError: there is no such density, or it has loss weights that belong to a data set. DensityError: codes
            that it cannot be fitted to.
    """
    from rae_bench.densities import catalogue
    from rae_bench.densities.codes import Posteriors
    from rae_bench.study import config, vocabulary

    words = vocabulary.read(config.CONFIG)
    vocabulary.known("fit", "density", words.densities, density)
    train, other = (Posteriors(np.asarray(part, dtype=np.float32), None) for part in (codes, validation))
    return catalogue.fit(words.density(density, ""), train, other, seed)


def features(images: Images, network: str = "efficientnet_lite0") -> Array:
    """The features (n, d) of images (n, C, H, W), uint8, in a network of the suite's.

    Raises:
        ConfigError: there is no such network. FeatureError: its weights are not there, or it cannot read these images.
    """
    from rae_bench.scoring.catalogue import EXTRACTORS, load_extractor
    from rae_bench.study import vocabulary

    vocabulary.known("features", "feature network", list(EXTRACTORS), network)
    return load_extractor(network)(images)  # type: ignore[arg-type]


def measure(real: Array, fake: Array, settings: str = "standard") -> dict[str, float]:
    """Every metric of fake features (m, d) against real ones (n, d), with the settings of that name.

    Settings are entries of workflow/config/metrics.yaml. Distances, and shares between 0 and 1; of another network than
    official Inception's they are no FID and no KID.

    Raises:
        ConfigError: there are no such settings. MetricError: too few images, or features that are not finite.
    """
    from rae_bench.scoring.metrics import measure as metrics
    from rae_bench.scoring.metrics.reference import Reference
    from rae_bench.study import config, vocabulary

    known = vocabulary.read(config.CONFIG).metrics
    vocabulary.known("measure", "settings of metrics", known, settings)
    chosen = known[settings]
    reference = Reference.of(real, max(chosen.neighbours, chosen.coverage_neighbours), "real")
    return metrics.measure(reference, fake, chosen, is_fid=False, prd_real=reference, name="fake")
