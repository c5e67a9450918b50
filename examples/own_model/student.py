"""A VAE whose decoder is a Student t: a loss of one's own on the paper's networks."""

import torch
from torch import nn

from rae_bench import api


class StudentVAE(nn.Module):
    """log p(x|z) = Σ log t(x; x̂(z), scale, nu) over pixels; heavy tails forgive single pixels."""

    def __init__(self, channels, size, latent_dim, nu, scale, **layout):
        super().__init__()
        networks = api.PaperNetworks(channels, size, latent_dim, **layout)
        self.encoder = networks.encoder
        self.mean = nn.Linear(networks.length, latent_dim)
        self.log_sigma = nn.Linear(networks.length, latent_dim)
        self.decoder = networks.decoder()
        api.initialise(self)
        self.nu, self.scale = nu, scale

    def encode(self, x):
        features = self.encoder(x)
        return self.mean(features), 5 * torch.tanh(self.log_sigma(features))

    def decode(self, z):
        return self.decoder(z)

    def loss(self, x, generator):
        mean, log_sigma = self.encode(x)
        noise = torch.randn(mean.shape, generator=generator).to(x.device)
        x_hat = self.decode(mean + log_sigma.exp() * noise)
        likelihood = torch.distributions.StudentT(self.nu, x_hat, self.scale).log_prob(x)
        reconstruction = -likelihood.flatten(1).sum(dim=1).mean()
        latent = 0.5 * (mean.square() + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum(dim=1).mean()
        return {"reconstruction": reconstruction, "latent": latent, "total": reconstruction + latent}
