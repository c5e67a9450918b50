"""Likelihood of images: a linear decoder's is known in closed form; estimates come near it from below."""

import numpy as np
import pytest
import torch
from scipy import stats

from rae_bench.models.autoencoder import Codes
from rae_bench.scoring.likelihood import image_likelihoods

D, LATENT, BETA = 9, 3, 0.05
GENERATOR = np.random.default_rng(0)
WEIGHT, OFFSET = GENERATOR.normal(size=(D, LATENT)), GENERATOR.uniform(0.2, 0.8, D)
IMAGES = np.rint(255 * GENERATOR.uniform(size=(40, 1, 3, 3))).astype(np.uint8)


class Linear(torch.nn.Module):
    """x̂ = W z + b; q(z|x) the diagonal of the exact posterior, or wider by a factor."""

    def __init__(self, wider=1.0, orthogonal=True):
        super().__init__()
        weight = np.linalg.qr(WEIGHT)[0] if orthogonal else WEIGHT
        self.weight = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float32))
        self.offset = torch.tensor(OFFSET, dtype=torch.float32)
        self.wider = wider

    def encode(self, x):
        weight = self.weight.double()
        precision = torch.eye(LATENT, dtype=torch.float64) + weight.T @ weight / BETA
        mean = torch.linalg.solve(precision, weight.T @ (x.flatten(1) - self.offset).double().T / BETA).T
        sigma = (1 / torch.diag(precision)).sqrt() * self.wider
        return Codes(mean, sigma.log().expand_as(mean))

    def decode(self, z):
        return z @ self.weight.T + self.offset


def exact(model, prior_covariance=None, prior_mean=None):
    """log N(x; b + W m, W C Wᵀ + β I), averaged over images."""
    weight = model.weight.detach().numpy().astype(float)
    covariance = np.eye(LATENT) if prior_covariance is None else prior_covariance
    mean = OFFSET + weight @ (np.zeros(LATENT) if prior_mean is None else prior_mean)
    x = IMAGES.reshape(len(IMAGES), -1) / 255
    return stats.multivariate_normal(mean, weight @ covariance @ weight.T + BETA * np.eye(D)).logpdf(x).mean()


def standard(z):
    return stats.multivariate_normal(np.zeros(LATENT), np.eye(LATENT)).logpdf(z)


def test_with_the_exact_posterior_one_code_is_enough():
    """W of orthogonal columns has a diagonal posterior: every weight is then p(x) itself, and the bound is tight."""
    model = Linear()
    found = image_likelihoods(model, BETA, IMAGES, {"prior": standard}, samples=1, seed=0)
    assert found["prior"] == pytest.approx(exact(model), abs=1e-4)
    many = image_likelihoods(model, BETA, IMAGES, {"prior": standard}, samples=4000, seed=0)
    assert many[""] == pytest.approx(exact(model), abs=0.05)


def test_any_other_posterior_comes_near_from_below():
    model = Linear(wider=1.5, orthogonal=False)
    few, many = (image_likelihoods(model, BETA, IMAGES, {"p": standard}, k, 0) for k in (3, 5000))
    assert few[""] < many["p"] - 0.1  # the bound is not tight
    assert many["p"] == pytest.approx(exact(model), abs=0.05)
    assert few["p"] < many["p"]


def test_priors_are_compared_in_image_space():
    model = Linear()
    mean, covariance = np.array([0.5, -0.5, 0.2]), 0.3 * np.eye(LATENT)
    fitted = stats.multivariate_normal(mean, covariance)
    found = image_likelihoods(model, BETA, IMAGES, {"a": standard, "b": fitted.logpdf}, samples=3000, seed=0)
    assert found["a"] == pytest.approx(exact(model), abs=1e-4)
    assert found["b"] == pytest.approx(exact(model, covariance, mean), abs=0.02)
