"""The objectives, on one scale: every term summed over pixels or code dimensions, averaged over the batch, in nats.

    loss = reconstruction  +  weight · latent  +  weight · regulariser                 (Ghosh et al. 2020, eq. 11)

The paper's reconstruction term, ½‖x − x̂‖², is the negative log-likelihood of a unit-variance Gaussian up to a constant,
so that a VAE with KL weight 1 maximises the evidence lower bound; a weight b means a decoder variance of b. The weights
of the official code belong to other scales (docs/methods.md).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rae_bench.base import rng
from rae_bench.models.autoencoder import Autoencoder
from rae_bench.models.terms import reconstruction as reconstructions
from rae_bench.models.terms.encoding import encode
from rae_bench.models.terms.latent import latent_term
from rae_bench.models.terms.regularisers import decode
from rae_bench.models.terms.specs import (
    MMD,
    Contractive,
    GradientPenalty,
    InfoVAE,
    Latent,
    NoLatentTerm,
    NoRegulariser,
    Objective,
    OfEncoding,
    OrthogonalFirstLayer,
    Regulariser,
    SIGReg,
    SpectralNorm,
    codes_per_image,
)


class Loss(NamedTuple):
    """The terms of one batch, unweighted, and `total`, which applies the weights; scalars."""

    reconstruction: Tensor
    latent: Tensor
    regulariser: Tensor
    total: Tensor


def loss(model: Autoencoder, x: Tensor, objective: Objective, generator: torch.Generator) -> Loss:
    """The loss of the batch x (B, C, H, W) in [0, 1], or vectors (B, D).

    `generator` (CPU) draws the images' noise, codes, MMD's prior sample and the penalties' directions. In training mode
    a term that is annealed counts this as an update.
    """
    drawn = noise(model, x.shape, objective, generator, x.device)
    codes, z, latent = encode(model, x, objective.latent, drawn)
    if "more codes" in drawn:
        z = torch.cat(
            [z, codes.at(drawn["more codes"]).flatten(0, 1)]
        )  # (K·B, d): all images' first codes, then others
        x = x.expand(len(z) // len(x), *x.shape).flatten(0, 1)
    x_hat, regulariser = decode(model.decoder, z, objective.regulariser, drawn)
    errors = reconstructions.errors(objective.reconstruction, x, x_hat, model.decoder_log_sigma)
    reconstruction = errors.mean()
    if latent is None:
        assert not isinstance(objective.latent, OfEncoding)
        latent = latent_term(objective.latent, codes, z, drawn, errors, model.updates if model.training else None)
    if model.updates is not None and model.training:
        model.updates.add_(1)
    total = reconstruction + weight(objective.latent) * latent + weight(objective.regulariser) * regulariser
    return Loss(reconstruction, latent, regulariser, total)


def noise(
    model: Autoencoder, shape: torch.Size, objective: Objective, generator: torch.Generator, device: torch.device
) -> dict[str, Tensor]:
    """The standard normal numbers in a loss of images of `shape` (B, ...), in the order in which they are drawn.

    Those of `Autoencoder.noise`, "more codes" (K − 1, B, d) of importance weights, then the penalty's "direction"
    (K·B, d), the "prior" (B, d) of MMD and InfoVAE, SIGReg's "slices" (m, d), and the "contraction" (B, d) that the
    encoder's derivative is taken along; on `device`.
    """
    drawn = model.noise(shape, generator, device)
    codes = torch.Size((shape[0], model.mean.out_features))
    k = codes_per_image(objective.latent)
    if k > 1:
        drawn["more codes"] = rng.normal(torch.Size((k - 1, *codes)), generator, device)
    if isinstance(objective.regulariser, GradientPenalty):
        drawn["direction"] = rng.normal(torch.Size((k * codes[0], codes[1])), generator, device)
    if isinstance(objective.latent, MMD | InfoVAE):
        drawn["prior"] = rng.normal(codes, generator, device)
    if isinstance(objective.latent, SIGReg):
        drawn["slices"] = rng.normal(torch.Size((objective.latent.slices, codes[1])), generator, device)
    if isinstance(objective.latent, Contractive):
        drawn["contraction"] = rng.normal(codes, generator, device)
    return drawn


def weight(term: Latent | Regulariser) -> float:
    """The weight of a term in the total; 0 for the terms that add nothing."""
    return 0.0 if isinstance(term, NoLatentTerm | NoRegulariser | SpectralNorm | OrthogonalFirstLayer) else term.weight
