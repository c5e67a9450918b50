"""Likelihood of images under models with a KL term: the evidence bound, and an importance-sampled estimate.

A KL weight β and the reconstruction term ½‖x − x̂‖² are, divided by β, the negative evidence bound of the model
p(z) p(x|z) with p(x|z) = N(x̂(z), β I): log p(x|z) = −‖x − x̂‖² / 2β − D/2 log 2πβ, x in [0, 1]^D.
With K codes z_k ~ q(z|x) an image (Burda et al. 2016):
bound      mean_k log p(x|z_k) − KL(q ‖ N(0, I))
estimate   log (1/K) Σ_k p(x|z_k) p(z_k) / q(z_k|x), at most log p(x) in expectation, closer with more codes.
The prior p(z) may be N(0, I) or any density fitted ex post: this holds priors against each other in image space.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch

from rae_bench.base.rng import torch_generator
from rae_bench.models.autoencoder import Autoencoder, Codes
from rae_bench.models.objectives import kl_to_standard_normal
from rae_bench.models.training import as_input

Float64 = npt.NDArray[np.float64]
LogDensity = Callable[[npt.NDArray[np.float32]], Float64 | None]
BATCH = 20
"""Images at once; each decodes K codes."""


def image_likelihoods(
    model: Autoencoder,
    kl_weight: float,
    images: npt.NDArray[np.uint8],
    priors: Mapping[str, LogDensity],
    samples: int,
    seed: int,
) -> dict[str, float]:
    """The bound (key "") and, under each prior, the estimate: means over `images` (n, C, H, W), in nats an image.

    `kl_weight` is the model's β, hence its decoder's variance; `priors` give log p(z) (n,) of codes (n, d); `samples`
    is K. All priors see the same codes.
    """
    device = next(model.parameters()).device
    noise = torch_generator(seed, "likelihood")
    bounds: list[Float64] = []
    estimates: dict[str, list[Float64]] = {name: [] for name in priors}
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            x = as_input(torch.from_numpy(images[start : start + BATCH]).to(device))
            codes = model.encode(x)
            z, log_q = _draw(codes, samples, noise)
            x_hat = model.decode(z.flatten(0, 1).float())
            errors = (x_hat.reshape(len(x), samples, -1) - x.reshape(len(x), 1, -1)).double().square().sum(dim=2)
            dimension = x[0].numel()
            log_x = -errors / (2 * kl_weight) - 0.5 * dimension * np.log(2 * np.pi * kl_weight)
            bounds.append((log_x.mean(dim=1) - kl_to_standard_normal(codes)).cpu().numpy())
            flat = z.flatten(0, 1).float().cpu().numpy()
            for name, log_density in priors.items():
                found = log_density(flat)
                assert found is not None, f"{name} has no log density: it cannot be a prior here"
                log_z = torch.from_numpy(found).reshape(len(x), samples).to(device)
                weights = torch.logsumexp(log_x + log_z - log_q, dim=1) - np.log(samples)
                estimates[name].append(weights.cpu().numpy())
    return {
        "": float(np.concatenate(bounds).mean()),
        **{name: float(np.concatenate(parts).mean()) for name, parts in estimates.items()},
    }


def _draw(codes: Codes, samples: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (B, K, d) from q(z|x), in float64, and their log densities under it (B, K)."""
    assert codes.log_sigma is not None, "a KL term needs a posterior with a density"
    mean, log_sigma = codes.mean.double()[:, None], codes.log_sigma.double()[:, None]
    shape = (len(codes.mean), samples, codes.mean.shape[1])
    unit = torch.randn(shape, generator=generator, dtype=torch.float64).to(mean.device)
    log_q = (-0.5 * unit.square() - log_sigma - 0.5 * np.log(2 * np.pi)).sum(dim=2)
    return mean + log_sigma.exp() * unit, log_q
