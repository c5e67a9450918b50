"""Decoder regularisers: what an objective asks of the decoder, unweighted, in the pass that makes x_hat."""

from collections.abc import Mapping
from typing import Literal, assert_never

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from rae_bench.models import networks
from rae_bench.models.terms.specs import (
    GradientPenalty,
    NoRegulariser,
    OrthogonalFirstLayer,
    OutputGradient,
    Regulariser,
    SpectralNorm,
    WeightL2,
)


def decode(decoder: nn.Module, z: Tensor, term: Regulariser, noise: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """x_hat, and the value of the regulariser `term`, unweighted: a scalar, of the same pass where it is a derivative.

    `noise` holds the penalty's "direction".
    """
    match term:
        case NoRegulariser() | SpectralNorm() | OrthogonalFirstLayer():
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
    """The weights L2 regularises, by name: every dense (scope "all") and convolutional layer's, transposed or not."""
    kinds = nn.Conv2d | nn.ConvTranspose2d if scope == "convolutions" else nn.Module
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
