"""The objectives, on one scale: every term summed over pixels or code dimensions, averaged over the batch, in nats.

    loss = ½‖x − x̂‖²  +  weight · latent  +  weight · regulariser                     (Ghosh et al. 2020, eq. 11)

½‖x − x̂‖² is the negative log-likelihood of a unit-variance Gaussian up to a constant, so that a VAE with KL weight 1
maximises the evidence lower bound; a weight b means a decoder variance of b. The weights of the official code belong
to other scales (docs/methods.md).
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, assert_never

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from rae_bench.base import rng
from rae_bench.models import networks
from rae_bench.models.autoencoder import Autoencoder, Codes
from rae_bench.models.specs import (
    MMD,
    GaussianKL,
    GradientPenalty,
    Latent,
    NoLatentTerm,
    NoRegulariser,
    Objective,
    OutputGradient,
    Regulariser,
    SpectralNorm,
    SquaredNorm,
    WeightL2,
)


class Loss(NamedTuple):
    """The terms of one batch, unweighted, and `total`, which applies the weights; scalars."""

    reconstruction: Tensor
    latent: Tensor
    regulariser: Tensor
    total: Tensor


def loss(model: Autoencoder, x: Tensor, objective: Objective, generator: torch.Generator) -> Loss:
    """The loss of the batch x (B, C, H, W) in [0, 1], or vectors (B, D).

    `generator` (CPU) draws the images' noise, codes, MMD's prior sample and the penalty's direction.
    """
    drawn = noise(model, x.shape, objective, generator, x.device)
    codes, z = model.draw_with(x, drawn)
    x_hat, regulariser = decode(model.decoder, z, objective.regulariser, drawn)
    reconstruction = half_squared_error(x, x_hat)
    latent = _latent(objective.latent, codes, z, drawn)
    total = reconstruction + weight(objective.latent) * latent + weight(objective.regulariser) * regulariser
    return Loss(reconstruction, latent, regulariser, total)


def noise(
    model: Autoencoder, shape: torch.Size, objective: Objective, generator: torch.Generator, device: torch.device
) -> dict[str, Tensor]:
    """The standard normal numbers in a loss of images of `shape` (B, ...), in the order in which they are drawn.

    Those of `Autoencoder.noise`, then the penalty's "direction" and MMD's "prior", (B, d) each; on `device`.
    """
    drawn = model.noise(shape, generator, device)
    codes = torch.Size((shape[0], model.mean.out_features))
    if isinstance(objective.regulariser, GradientPenalty):
        drawn["direction"] = rng.normal(codes, generator, device)
    if isinstance(objective.latent, MMD):
        drawn["prior"] = rng.normal(codes, generator, device)
    return drawn


def weight(term: Latent | Regulariser) -> float:
    """The weight of a term in the total; 0 for the terms that add nothing."""
    return 0.0 if isinstance(term, NoLatentTerm | NoRegulariser | SpectralNorm) else term.weight


def half_squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """½‖x − x̂‖² summed over pixels, averaged over the batch."""
    return 0.5 * (x - x_hat).square().flatten(1).sum(dim=1).mean()


def _latent(term: Latent, codes: Codes, z: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
    match term:
        case NoLatentTerm():
            return z.new_zeros(())
        case GaussianKL():
            return kl_to_standard_normal(codes).mean()
        case SquaredNorm():
            return 0.5 * z.square().sum(dim=1).mean()
        case MMD(scales=scales):
            return mmd(z, noise["prior"].to(z.dtype), scales)
        case _:
            assert_never(term)


def kl_to_standard_normal(codes: Codes) -> Tensor:
    """KL(N(mean, sigma²) ‖ N(0, I)) of each image, (B,): ½ Σ (mean² + sigma² − 1 − log sigma²)."""
    if codes.log_sigma is None:
        raise ValueError("a deterministic code has no KL divergence to N(0, I)")
    log_variance = 2 * codes.log_sigma
    return 0.5 * (codes.mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


def mmd(z: Tensor, prior: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Unbiased MMD² between two samples (n, d), kernel Σ_s C/(C + ‖a − b‖²), C = 2·d·s (Tolstikhin et al. 2018).

    Within-set sums leave out the diagonal and divide by n(n − 1); the cross term keeps all n² pairs. May be negative.
    """
    n, d = z.shape

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distance = (a[:, None] - b[None]).square().sum(dim=2)
        return torch.stack([2 * d * s / (2 * d * s + distance) for s in scales]).sum(dim=0)

    def within(a: Tensor) -> Tensor:
        return (kernel(a, a).sum() - n * len(scales)) / (n * (n - 1))  # every diagonal entry is 1 per scale

    return within(z) + within(prior) - 2 * kernel(z, prior).mean()


def decode(decoder: nn.Module, z: Tensor, term: Regulariser, noise: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """x_hat, and the value of the regulariser `term`, unweighted: a scalar, of the same pass where it is a derivative.

    `noise` holds the penalty's "direction".
    """
    match term:
        case NoRegulariser() | SpectralNorm():
            return decoder(z), z.new_zeros(())
        case WeightL2(scope=scope):
            weights = regularised_weights(decoder, scope).values()
            return decoder(z), torch.stack([weight.square().sum() for weight in weights]).sum()
        case GradientPenalty():
            return _with_gradient_penalty(decoder, z, noise["direction"].to(z.dtype))
        case OutputGradient():
            return _with_output_gradient(decoder, z)
        case _:
            assert_never(term)


def regularised_weights(decoder: nn.Module, scope: Literal["all", "convolutions"]) -> dict[str, Tensor]:
    """The weights L2 regularises, by name: every dense (scope "all") and transposed convolutional layer's."""
    kinds = nn.ConvTranspose2d if scope == "convolutions" else nn.Module
    layers = [layer for layer in networks.weighted_layers(decoder) if isinstance(layer, kinds)]
    names = {id(layer): name for name, layer in decoder.named_modules()}
    return {f"{names[id(layer)]}.weight": layer.weight for layer in layers}


def _with_gradient_penalty(decoder: nn.Module, z: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """x_hat and an unbiased estimate of the batch mean of ‖J‖²_F, with J = ∂D(z)/∂z the Jacobian at the code.

    For u ~ N(0, I), E‖J u‖² = ‖J‖²_F; J u comes forward, with x_hat, in one pass. The gradient reaches the
    encoder through z, as the objective says. In training mode batch norm makes D a map of the whole batch: J is
    then the Jacobian of that map, its off-diagonal blocks (how one code moves another's image, of order 1/B)
    included. A decoder that ignores its code has no tangent, and a penalty of 0.
    """
    with forward_ad.dual_level():
        x_hat, tangent = forward_ad.unpack_dual(decoder(forward_ad.make_dual(z, u)))  # type: ignore[no-untyped-call]
        penalty = z.new_zeros(()) if tangent is None else _mean_squared_norm(networks.widened(tangent))
        return networks.widened(x_hat), penalty


def _with_output_gradient(decoder: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
    """x_hat and the batch mean of ‖g‖², with g = ∂/∂z Σ x̂², x̂² summed over the batch and its pixels.

    The official code's penalty. For a decoder that maps each code by itself g = 2 Jᵀx̂, J the Jacobian at the code:
    only what moves the images' energy ‖x̂‖² is penalised, where ‖J‖²_F penalises all that moves an image. Batch norm in
    training mode couples the batch: g then holds how a code moves the other images, too. The gradient reaches decoder
    and, through z, encoder.
    """
    is_differentiable = torch.is_grad_enabled()
    with torch.enable_grad():  # validation needs g as well, but nothing of it
        z = z if z.requires_grad else z.detach().requires_grad_()
        x_hat = networks.widened(decoder(z))
        (g,) = torch.autograd.grad(x_hat.square().sum(), z, create_graph=is_differentiable)
    return x_hat, _mean_squared_norm(g)


def _mean_squared_norm(derivative: Tensor) -> Tensor:
    """‖derivative‖² summed over all but the batch and averaged over it."""
    return derivative.square().flatten(1).sum(dim=1).mean()
