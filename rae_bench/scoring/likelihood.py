"""Likelihood of images under models with a KL term: the evidence bound, and an importance-sampled estimate.

A KL weight β and the reconstruction term ½‖x − x̂‖² are, divided by β, the negative evidence bound of the model
p(z) p(x|z) with p(x|z) = N(x̂(z), β I): log p(x|z) = −‖x − x̂‖² / 2β − D/2 log 2πβ, x in [0, 1]^D.

    bound      mean_k log p(x|z_k) − KL(q ‖ N(0, I)),            z_k ~ q(z|x), the encoder's
    estimate   log (1/K) Σ_k p(x|z_k) p(z_k) / r(z_k|x),         z_k ~ r(z|x)             (Burda et al. 2016)

The estimate is at most log p(x) in expectation, closer with more codes, and useless where r covers p(z|x) badly: a
constant-variance encoder's q is wider by orders of magnitude. So r is fitted to each image: a Student t around the mode
of p(x|z) N(z; 0, I) with its curvature, after Gauss and Newton. The prior p(z) may be N(0, I) or any density fitted ex
post: this holds priors against each other in image space.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rae_bench.base.rng import torch_generator
from rae_bench.models.autoencoder import Codes, Model
from rae_bench.models.specs import at_once
from rae_bench.models.terms.latent import kl_to_standard_normal
from rae_bench.models.training import as_input

Float64 = npt.NDArray[np.float64]
LogDensity = Callable[[npt.NDArray[np.float32]], Float64 | None]
BATCH = 20
"""Images at once; each decodes K codes."""
BOUND_CODES = 10
"""Codes of each image that the bound averages over."""
STEPS = 4
"""Steps towards the mode, from the encoder's mean: with fewer its curvature is that of another place."""
DIFFERENCE = 1e-2
"""The step in codes by which derivatives are taken: small beside a prior's SD of 1. Exact ones took five times as long,
and a proposal need not be exact."""
FREEDOM = 10.0
"""Degrees of freedom of the proposal: its tails are heavier than those of the posterior it stands for."""


@dataclass(frozen=True)
class Likelihood:
    """An estimate: the mean over images, in nats an image, and whether it can be believed.

    doubling     by how much more than with half as many codes; infinite for a single code
    half_width   of the 95 % interval of the mean over images
    effective    the effective number of codes, a share of all, in the mean over images
    """

    value: float
    doubling: float
    half_width: float
    effective: float

    @property
    def parts(self) -> dict[str, float]:
        """Each number by what is added to the metric's name; the estimate itself by nothing."""
        return {
            **{"": self.value, "doubling": self.doubling},
            **{"half_width": self.half_width, "effective_share": self.effective},
        }

    @classmethod
    def of(cls, log_weights: Float64) -> "Likelihood":
        """The estimate from log p(x|z) p(z) / r(z|x) of every image and code, (n, K)."""
        n, samples = log_weights.shape
        estimates = _log_mean(log_weights)
        halves = [_log_mean(log_weights[:, half : 2 * (samples // 2) : 2]) for half in (0, 1)] if samples > 1 else []
        relative = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        effective = relative.sum(axis=1) ** 2 / (relative**2).sum(axis=1)
        return cls(
            value=float(estimates.mean()),
            doubling=float((estimates - np.mean(halves, axis=0)).mean()) if halves else np.inf,
            half_width=float(1.96 * estimates.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf,
            effective=float(effective.mean()) / samples,
        )


def image_likelihoods(
    model: Model,
    kl_weight: float,
    images: npt.NDArray[np.uint8],
    priors: Mapping[str, LogDensity],
    samples: int,
    seed: int,
) -> tuple[float, dict[str, Likelihood]]:
    """The bound, the mean over `images` (n, C, H, W) in nats an image; and the estimate under each prior.

    `kl_weight` is the model's β, hence its decoder's variance; `priors` give log p(z) (n,) of codes (n, d); `samples`
    is K. All priors see the same codes.
    """
    device, batch = next(model.parameters()).device, at_once(BATCH, images[0, 0].size)
    noise = torch_generator(seed, "likelihood")
    bounds: list[Float64] = []
    log_weights: dict[str, list[Float64]] = {name: [] for name in priors}
    with torch.no_grad():
        for start in range(0, len(images), batch):
            x = as_input(torch.from_numpy(images[start : start + batch]).to(device))
            codes = model.encode(x)
            drawn = torch.stack([codes.draw(noise) for _ in range(BOUND_CODES)], dim=1)
            bound = _log_p(model, x, drawn, kl_weight).mean(dim=1) - kl_to_standard_normal(codes)
            bounds.append(bound.cpu().numpy())
            z, log_r = _draw(*_proposal(model, x, codes, kl_weight), samples, noise)
            log_x = _log_p(model, x, z.float(), kl_weight)
            flat = z.flatten(0, 1).float().cpu().numpy()
            for name, log_density in priors.items():
                densities = log_density(flat)
                assert densities is not None, f"{name} has no log density: it cannot be a prior here"
                log_z = torch.from_numpy(densities).reshape(log_r.shape).to(device)
                log_weights[name].append((log_x + log_z - log_r).cpu().numpy())
    found = {name: Likelihood.of(np.concatenate(parts)) for name, parts in log_weights.items()}
    return float(np.concatenate(bounds).mean()), found


def _log_mean(log_weights: Float64) -> Float64:
    """The logarithm of the mean weight of each row."""
    from scipy import special

    mean: Float64 = special.logsumexp(log_weights, axis=1) - np.log(log_weights.shape[1])
    return mean


def _log_p(model: Model, x: Tensor, z: Tensor, variance: float) -> Tensor:
    """Log p(x|z) of images x (B, C, H, W) and codes z (B, K, d): (B, K), in float64."""
    x_hat = model.decode(z.flatten(0, 1))
    errors = (x_hat.reshape(*z.shape[:2], -1) - x.reshape(len(x), 1, -1)).double().square().sum(dim=2)
    log_p: Tensor = -errors / (2 * variance) - 0.5 * x[0].numel() * np.log(2 * np.pi * variance)
    return log_p


def _proposal(model: Model, x: Tensor, codes: Codes, variance: float) -> tuple[Tensor, Tensor]:
    """Where p(x|z) N(z; 0, I) is largest, near the encoder's mean, (B, d), and its curvature there, (B, d, d): float64.

    Levenberg's and Marquardt's steps for ‖x − x̂‖² / 2β + ½‖z‖²; one that does not lower it is not taken.
    """
    z = codes.mean.double()
    damping = torch.full((len(z), 1, 1), 1e-2, dtype=torch.float64, device=z.device)
    energy, slope, curvature = _expansion(model, x, z, variance)
    for _ in range(STEPS):
        damped = curvature + damping * torch.diag_embed(curvature.diagonal(dim1=1, dim2=2))
        trial = z - torch.linalg.solve(damped, slope)
        tried = _expansion(model, x, trial, variance)
        is_lower = tried[0] < energy
        z = torch.where(is_lower[:, None], trial, z)
        slope = torch.where(is_lower[:, None], tried[1], slope)
        curvature = torch.where(is_lower[:, None, None], tried[2], curvature)
        energy = torch.where(is_lower, tried[0], energy)
        damping = torch.where(is_lower[:, None, None], damping / 10, damping * 10)
    return z, curvature


def _expansion(model: Model, x: Tensor, z: Tensor, variance: float) -> tuple[Tensor, Tensor, Tensor]:
    """‖x − x̂‖² / 2β + ½‖z‖² at codes z (B, d): value (B,), gradient (B, d), Gauss-Newton curvature (B, d, d).

    Derivatives are taken by differences, which is good enough to propose with.
    """
    n, d = z.shape
    steps = torch.cat([torch.zeros(1, d), DIFFERENCE * torch.eye(d)]).to(z.device)
    made = model.decode((z.float()[:, None] + steps).flatten(0, 1)).reshape(n, d + 1, -1).double()
    x_hat, jacobian = made[:, 0], ((made[:, 1:] - made[:, :1]) / DIFFERENCE).transpose(1, 2)
    residual = x_hat - x.flatten(1)
    energy = residual.square().sum(dim=1) / (2 * variance) + 0.5 * z.square().sum(dim=1)
    slope = torch.einsum("bpd,bp->bd", jacobian, residual) / variance + z
    curvature = jacobian.transpose(1, 2) @ jacobian / variance + torch.eye(d, dtype=z.dtype, device=z.device)
    return energy, slope, curvature


def _draw(mode: Tensor, curvature: Tensor, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Codes (B, K, d) from a multivariate t with FREEDOM degrees, in float64, and their log densities (B, K).

    Its matrix is the inverse of the curvature H: with H = L Lᵀ, z = mode + L⁻ᵀ u √(ν / χ²), u standard normal.
    """
    n, d = mode.shape
    unit = torch.randn((n, samples, d), generator=generator, dtype=torch.float64)
    chi = torch.randn((n, samples, int(FREEDOM)), generator=generator, dtype=torch.float64).square().sum(dim=2)
    unit, chi = unit.to(mode.device), chi.to(mode.device)
    factor = torch.linalg.cholesky(curvature)
    white = unit * (FREEDOM / chi).sqrt()[:, :, None]
    z = mode[:, None] + torch.linalg.solve_triangular(factor.transpose(1, 2), white.transpose(1, 2), upper=True).mT
    half = torch.tensor(FREEDOM / 2, dtype=torch.float64)
    constant = torch.lgamma(half + d / 2) - torch.lgamma(half) - 0.5 * d * np.log(FREEDOM * np.pi)
    log_determinant = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)[:, None]
    return z, constant + log_determinant - (half + d / 2) * torch.log1p(white.square().sum(dim=2) / FREEDOM)
