"""Priors that are learnt with an autoencoder: equal mixtures of K Gaussians with diagonal covariances.

    p(z) = 1/K Σ_k N(z; mean_k, diag sigma_k²)

Of a plain mixture means and sigmas are parameters. Of a VampPrior they are the encoder's posteriors of K pseudo-inputs,
images that are parameters (Tomczak and Welling 2018, eqs. 8 and 11).
"""

import torch
from torch import Tensor, nn

from rae_bench.models.layouts.specs import DenseNetwork, Network
from rae_bench.models.terms.specs import Latent, MixturePrior, VampPrior


class Mixture(nn.Module):
    """Means and log sigmas of the components, (K, d) each; at first drawn from N(0, I), and 0."""

    def __init__(self, n_components: int, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(n_components, latent_dim))
        self.log_sigma = nn.Parameter(torch.zeros(n_components, latent_dim))


class PseudoInputs(nn.Module):
    """Images (K, C, H, W), or vectors (K, D), which the encoder sees clipped to [0, 1] if they are images.

    Uniform noise until they are given images to start from (`start`).
    """

    def __init__(self, n_components: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.images = nn.Parameter(torch.rand(n_components, *shape))

    def start(self, images: Tensor) -> None:
        """Start from `images`, as many as there are pseudo-inputs."""
        with torch.no_grad():
            self.images.copy_(images)

    def forward(self) -> Tensor:
        """What the encoder sees."""
        return self.images.clamp(0, 1) if self.images.dim() > 2 else self.images


def of(latent: Latent, network: Network) -> Mixture | PseudoInputs | None:
    """The prior that a latent term learns, with its first parameters; None of a term that learns none."""
    match latent:
        case MixturePrior(n_components=n_components):
            return Mixture(n_components, network.latent_dim)
        case VampPrior(n_components=n_components):
            if isinstance(network, DenseNetwork):
                return PseudoInputs(n_components, (network.input_dim,))
            return PseudoInputs(n_components, (network.channels, network.size, network.size))
        case _:
            return None
