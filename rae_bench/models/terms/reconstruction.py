"""Reconstruction terms: minus the log-likelihood of an image under the decoder, in nats, summed over its pixels."""

import math
from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional

from rae_bench.models.terms.specs import (
    Bernoulli,
    Laplace,
    LearntVariance,
    OptimalVariance,
    Reconstruction,
    SquaredError,
)


def errors(term: Reconstruction, x: Tensor, x_hat: Tensor, log_sigma: Tensor | None) -> Tensor:
    """The value of `term` of each image, (B,): x and x_hat (B, ...), of the cross-entropy in [0, 1].

    `log_sigma` is the model's parameter, a scalar, where the term learns one.
    """
    match term:
        case SquaredError():
            return _half_squares(x, x_hat)
        case OptimalVariance(least_sigma=least):
            return _gaussian(x, x_hat, (x - x_hat).square().mean().sqrt() + least)
        case LearntVariance(least_sigma=least):
            assert log_sigma is not None
            return _gaussian(x, x_hat, log_sigma.exp() + least)
        case Bernoulli():
            # torch's takes no logarithm below −100; under autocast, which images are wide enough for, it is refused
            with torch.autocast(x.device.type, enabled=False):
                return functional.binary_cross_entropy(x_hat, x, reduction="none").flatten(1).sum(dim=1)
        case Laplace():
            return (x - x_hat).abs().flatten(1).sum(dim=1)
        case _:
            assert_never(term)


def half_squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """½‖x − x̂‖² summed over pixels, averaged over the batch."""
    return _half_squares(x, x_hat).mean()


def _half_squares(x: Tensor, x_hat: Tensor) -> Tensor:
    return 0.5 * (x - x_hat).square().flatten(1).sum(dim=1)


def _gaussian(x: Tensor, x_hat: Tensor, sigma: Tensor) -> Tensor:
    """−log N(x; x̂, σ² I) of each image, (B,), of one σ for all pixels."""
    return x[0].numel() * (sigma.log() + 0.5 * math.log(2 * math.pi)) + _half_squares(x, x_hat) / sigma.square()
