"""Latent terms: what an objective asks of the codes, unweighted, in nats, averaged over the batch."""

from collections.abc import Mapping
from typing import assert_never

import torch
from torch import Tensor

from rae_bench.models.autoencoder import Codes
from rae_bench.models.terms.specs import MMD, GaussianKL, Latent, NoLatentTerm, SquaredNorm


def latent_term(term: Latent, codes: Codes, z: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
    """The value of `term` of posteriors `codes` and codes z (B, d) drawn from them: a scalar.

    `noise` holds MMD's "prior".
    """
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
