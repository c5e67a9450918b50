"""Latent terms: what an objective asks of the codes, unweighted, averaged over the batch; divergences are in nats."""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, assert_never

import torch
from torch import Tensor
from torch.nn import functional

from rae_bench.models.autoencoder import Codes
from rae_bench.models.terms.specs import (
    MMD,
    Capacity,
    Commitment,
    Disentangled,
    FreeBits,
    GaussianKL,
    ImportanceWeighted,
    InfoVAE,
    InverseMultiquadratic,
    Kernel,
    NoLatentTerm,
    OfCodes,
    SIGReg,
    SquaredExponential,
    SquaredNorm,
    TotalCorrelation,
)


def latent_term(
    term: OfCodes, codes: Codes, z: Tensor, noise: Mapping[str, Tensor], errors: Tensor, updates: Tensor | None
) -> Tensor:
    """The value of `term` of posteriors `codes` (B, d) and codes z (K·B, d) drawn from them: a scalar.

    K is 1 but for importance weights, whose codes are all images' first, then all images' second ones, and so on.
    `noise` holds MMD's "prior" and SIGReg's "slices"; `errors` (K·B,) are those of the reconstructions. `updates`: how
    many have been made; None in evaluation, where what is annealed is at its end.
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
        case SIGReg(points=points, reach=reach, window=window):
            return sigreg(z, noise["slices"].to(z.dtype), points, reach, window)
        case Commitment():
            assert codes.distance is not None
            return codes.distance.mean()
        case FreeBits(floor=floor):
            return kl_by_dimension(codes).mean(dim=0).clamp_min(floor).sum()
        case Capacity(capacity=capacity, updates=over):
            share = 1.0 if updates is None else (updates / over).clamp(max=1)
            return (kl_to_standard_normal(codes).mean() - capacity * share).abs()
        case TotalCorrelation(factor=factor, estimator=estimator, images=images):
            parts = decomposed(codes, z, images, estimator)
            return parts.mutual_information + factor * parts.total_correlation + parts.dimensions
        case Disentangled():
            return kl_to_standard_normal(codes).mean() + _correlated(codes, term)
        case InfoVAE(alpha=alpha, strength=strength, kernel=kernel, diagonal=diagonal):
            divergence = _mmd(z, noise["prior"].to(z.dtype), kernel, diagonal)
            return (1 - alpha) * kl_to_standard_normal(codes).mean() + (alpha + strength - 1) * divergence
        case ImportanceWeighted(weight=weight, samples=samples):
            return importance_weighted(codes, z, errors / weight, samples).mean()
        case _:
            assert_never(term)


def kl_to_standard_normal(codes: Codes) -> Tensor:
    """KL(N(mean, sigma²) ‖ N(0, I)) of each image, (B,): ½ Σ (mean² + sigma² − 1 − log sigma²)."""
    return kl_by_dimension(codes).sum(dim=1)


def kl_by_dimension(codes: Codes) -> Tensor:
    """The summands of `kl_to_standard_normal`, (B, d)."""
    if codes.log_sigma is None:
        raise ValueError("a deterministic code has no KL divergence to N(0, I)")
    log_variance = 2 * codes.log_sigma
    return 0.5 * (codes.mean.square() + log_variance.exp() - 1 - log_variance)


def mmd(z: Tensor, prior: Tensor, scales: tuple[float, ...]) -> Tensor:
    """Unbiased MMD² between two samples (n, d), kernel Σ_s C/(C + ‖a − b‖²), C = 2·d·s (Tolstikhin et al. 2018).

    Within-set sums leave out the diagonal and divide by n(n − 1); the cross term keeps all n² pairs. May be negative.
    """
    return _mmd(z, prior, InverseMultiquadratic("inverse_multiquadratic", scales), "left_out")


def _mmd(z: Tensor, prior: Tensor, kernel: Kernel, diagonal: Literal["left_out", "kept"]) -> Tensor:
    n, d = z.shape
    of_distance, at_zero = _kernel(kernel, d)

    def between(a: Tensor, b: Tensor) -> Tensor:
        return of_distance((a[:, None] - b[None]).square().sum(dim=2))

    def within(a: Tensor) -> Tensor:
        if diagonal == "kept":
            return between(a, a).mean()
        return (between(a, a).sum() - n * at_zero) / (n * (n - 1))

    return within(z) + within(prior) - 2 * between(z, prior).mean()


def _kernel(kernel: Kernel, d: int) -> tuple[Callable[[Tensor], Tensor], float]:
    """A kernel of squared distances in d dimensions, and its value at 0."""
    match kernel:
        case InverseMultiquadratic(scales=scales):
            return lambda of: torch.stack([2 * d * s / (2 * d * s + of) for s in scales]).sum(dim=0), len(scales)
        case SquaredExponential():
            return lambda of: (-of / d**2).exp(), 1.0
        case _:
            assert_never(kernel)


def sigreg(z: Tensor, slices: Tensor, points: int, reach: float, window: float) -> Tensor:
    """∫ |φ(t) − exp(−t²/2)|² exp(−t²/2s²) dt of codes z (n, d) along each of `slices` (m, d), their mean.

    φ(t) = 1/n Σ exp(i t a·z), with a the direction of a slice and s the `window` (Epps and Pulley 1983). Each code is
    paired with itself, too, so that the mean over n codes of N(0, I) is not 0 but 1/n of what one code comes to.
    """
    along = functional.normalize(slices, dim=1)
    t = torch.linspace(-reach, reach, points, dtype=z.dtype, device=z.device)
    angles = (z @ along.T)[:, :, None] * t
    distance = (angles.cos().mean(dim=0) - (-0.5 * t.square()).exp()).square() + angles.sin().mean(dim=0).square()
    return torch.trapezoid(distance * (-0.5 * (t / window).square()).exp(), t, dim=1).mean()


class Decomposition(NamedTuple):
    """What the mean KL(q(z|x) ‖ N(0, I)) is made of: scalars whose sum is its estimate from the same codes."""

    mutual_information: Tensor
    total_correlation: Tensor
    dimensions: Tensor


def decomposed(codes: Codes, z: Tensor, images: int, estimator: str) -> Decomposition:
    """KL(q(z, x) ‖ q(z) p(x)), KL(q(z) ‖ Π q(z_j)) and Σ_j KL(q(z_j) ‖ N(0, 1)) (Chen et al. 2018).

    `codes` (B, d) are a batch's posteriors, z (B, d) one draw from each, q(z) = 1/N Σ_n q(z|x_n) over N `images`. With
    the weights of `estimator`, log q(z_i) = log Σ_j w_ij q(z_i|x_j), and likewise of each dimension. "weighted" ones
    leave out the images that are not in the batch: log q(z) is too small by log N where posteriors lie on each other,
    by log n where they lie apart, and so is each dimension's. The first part is too large by that, the second by d − 1
    times it, and the third too small by d times it, whose sum is right.
    """
    assert codes.log_sigma is not None
    n, _ = z.shape
    pairs = log_normal(z[:, None], codes.mean[None], codes.log_sigma[None])  # (B, B, d): code i under posterior j
    log_weights = _log_weights(n, images, estimator).to(z)
    log_q = (log_weights + pairs.sum(dim=2)).logsumexp(dim=1)
    log_product = (log_weights[:, :, None] + pairs).logsumexp(dim=1).sum(dim=1)
    parts = (log_density(z, codes) - log_q, log_q - log_product, log_product - _log_prior(z))
    return Decomposition(*(part.mean() for part in parts))


def _log_weights(n: int, images: int, estimator: str) -> Tensor:
    """The logarithms of the weights of posteriors j in the estimate of q(z_i), (n, n), float64.

    Stratified, M = n − 1 of N: 1/N an image's own, (N − M)/(N M) the next one's, 1/M all others'; rows sum to 1. A
    batch of more images than N, as validation may have, is all there is: N is n there.
    """
    if estimator == "weighted":
        return torch.full((n, n), -math.log(n * images), dtype=torch.float64)
    images, m = max(images, n), n - 1
    next_one = (images - m) / (images * m)
    weights = torch.full((n, n), 1 / m, dtype=torch.float64)
    rows = torch.arange(n)
    if estimator == "stratified":
        weights[rows, rows], weights[rows, (rows + 1) % n] = 1 / images, next_one
    else:
        weights[:, 0], weights[:, 1], weights[m - 1, 0] = 1 / images, next_one, next_one
    return weights.log()


def _correlated(codes: Codes, term: Disentangled) -> Tensor:
    """What the covariance of codes differs by from I, by the weights of `term`."""
    assert codes.log_sigma is not None
    centred = codes.mean - codes.mean.mean(dim=0)
    covariance = centred.T @ centred / len(centred)
    variances = covariance.diagonal()
    off_diagonal = covariance.square().sum() - variances.square().sum()
    if term.covariance == "codes":
        variances = variances + (2 * codes.log_sigma).exp().mean(dim=0)
    return term.off_diagonal * off_diagonal + term.diagonal * (variances - 1).square().sum()


def importance_weighted(codes: Codes, z: Tensor, errors: Tensor, samples: int) -> Tensor:
    """−log 1/K Σ_k exp(−(e_k − ē)) p(z_k) / q(z_k|x) of each image, (B,): its bound beside ē, the mean of its errors.

    `codes` (B, d), z (K·B, d), `errors` e (K·B,) = −log p(x|z), K `samples` (Burda et al. 2016).
    """
    n, d = codes.mean.shape
    drawn, e = z.reshape(samples, n, d), errors.reshape(samples, n)
    log_ratio = _log_prior(drawn) - log_density(drawn, codes)
    return math.log(samples) - (e.mean(dim=0) - e + log_ratio).logsumexp(dim=0)


def log_density(z: Tensor, codes: Codes) -> Tensor:
    """Log N(z; mean, diag sigma²), (...,), of codes z (..., d) and means and log sigmas of shapes that meet theirs."""
    assert codes.log_sigma is not None
    return log_normal(z, codes.mean, codes.log_sigma).sum(dim=-1)


def _log_prior(z: Tensor) -> Tensor:
    """Log N(z; 0, I), (...,), of codes z (..., d)."""
    return log_normal(z, torch.zeros_like(z), torch.zeros_like(z)).sum(dim=-1)


def log_normal(z: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Log N(z; mean, sigma²) of every entry."""
    return -0.5 * ((z - mean) * (-log_sigma).exp()).square() - log_sigma - 0.5 * math.log(2 * math.pi)
