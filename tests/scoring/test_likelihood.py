"""Likelihood of images: a linear decoder's is known in closed form; estimates come near it from below."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from small import GAUSSIAN, images, objective

from rae_bench.models import autoencoder
from rae_bench.models.autoencoder import Codes
from rae_bench.models.terms.specs import GaussianKL
from rae_bench.scoring import likelihood
from rae_bench.scoring.likelihood import Likelihood, image_likelihoods

D, LATENT, BETA = 9, 3, 0.05
GENERATOR = np.random.default_rng(0)
WEIGHT, OFFSET = GENERATOR.normal(size=(D, LATENT)), GENERATOR.uniform(0.2, 0.8, D)
IMAGES = np.rint(255 * GENERATOR.uniform(size=(40, 1, 3, 3))).astype(np.uint8)


class Linear(torch.nn.Module):
    """x̂ = W z + b; q(z|x) the diagonal of the exact posterior, or wider by a factor, its mean off by some."""

    def __init__(self, wider=1.0, orthogonal=True, off=0.0):
        super().__init__()
        weight = np.linalg.qr(WEIGHT)[0] if orthogonal else WEIGHT
        self.weight = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float32))
        self.offset = torch.tensor(OFFSET, dtype=torch.float32)
        self.wider, self.off = wider, off

    def encode(self, x):
        weight = self.weight.double()
        precision = torch.eye(LATENT, dtype=torch.float64) + weight.T @ weight / BETA
        mean = torch.linalg.solve(precision, weight.T @ (x.flatten(1) - self.offset).double().T / BETA).T
        sigma = (1 / torch.diag(precision)).sqrt() * self.wider
        return Codes((mean + self.off).float(), sigma.log().expand_as(mean).float())

    def decode(self, z):
        return (z @ self.weight.T + self.offset).reshape(-1, 1, 3, 3)


def exact(model, prior_covariance=None, prior_mean=None):
    """log N(x; b + W m, W C Wᵀ + β I), averaged over images."""
    weight = model.weight.detach().numpy().astype(float)
    covariance = np.eye(LATENT) if prior_covariance is None else prior_covariance
    mean = OFFSET + weight @ (np.zeros(LATENT) if prior_mean is None else prior_mean)
    x = IMAGES.reshape(len(IMAGES), -1) / 255
    return stats.multivariate_normal(mean, weight @ covariance @ weight.T + BETA * np.eye(D)).logpdf(x).mean()


def standard(z):
    return stats.multivariate_normal(np.zeros(z.shape[1]), np.eye(z.shape[1])).logpdf(z)


def estimated(model, prior=standard, samples=400):
    bound, found = image_likelihoods(model, BETA, IMAGES, {"prior": prior}, samples, seed=0)
    return bound, found["prior"]


@pytest.mark.parametrize(("wider", "off"), [(1.0, 0.0), (1.5, 0.0), (100.0, 0.0), (1.0, 0.5)])
def test_estimates_come_near_whatever_the_encoder_says(wider, off):
    """A posterior a hundred times too wide, as a constant-variance encoder's may be, or half a prior's SD away."""
    model = Linear(wider, orthogonal=False, off=off)
    _, found = estimated(model)
    assert found.value == pytest.approx(exact(model), abs=0.02)
    assert found.effective > 0.4  # a t for a normal
    assert abs(found.doubling) < 0.02


def test_the_bound_is_tight_for_the_exact_posterior_and_loose_for_another():
    """W of orthogonal columns has a diagonal posterior."""
    model = Linear()
    assert estimated(model)[0] == pytest.approx(exact(model), abs=0.3)
    wide = Linear(wider=1.5, orthogonal=False)
    bound, found = estimated(wide)
    assert bound < found.value - 0.1


def test_priors_are_compared_in_image_space():
    model = Linear()
    mean, covariance = np.array([0.5, -0.5, 0.2]), 0.3 * np.eye(LATENT)
    fitted = stats.multivariate_normal(mean, covariance)
    assert estimated(model)[1].value == pytest.approx(exact(model), abs=0.02)
    assert estimated(model, fitted.logpdf)[1].value == pytest.approx(exact(model, covariance, mean), abs=0.05)


def test_a_prior_that_few_codes_reach_is_seen_not_to_converge():
    """One image forty times over, a prior far narrower than its posterior: doubling says that more codes are needed."""
    model, x = Linear(orthogonal=False), np.repeat(IMAGES[:1], 40, axis=0)
    narrow = stats.multivariate_normal(np.zeros(LATENT), 1e-5 * np.eye(LATENT))
    few, many = (image_likelihoods(model, BETA, x, {"p": narrow.logpdf}, k, 0)[1]["p"] for k in (20, 400))
    assert few.doubling > few.half_width
    assert few.effective < 0.2
    assert many.value > few.value + few.half_width


def test_a_nonlinear_decoders_likelihood_is_its_integral(device):
    """One code dimension, integrated on a grid: the mode, where the curvature is taken, is found from afar."""
    network = images(latent_dim=1)
    model = autoencoder.build(network, objective(GAUSSIAN, GaussianKL(kind="kl", weight=1.0)), seed=0).eval()
    with torch.no_grad():
        for layer in model.decoder:
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(20)
        grid = torch.linspace(-6, 6, 4001)
        made = model.decode(grid[:, None])
        x = np.rint(255 * model.decode(torch.tensor([[0.4], [-1.1]])).numpy()).astype(np.uint8)
        variance = 0.5
        errors = (made[None] - torch.from_numpy(x / 255.0)[:, None]).double().flatten(2).square().sum(dim=2)
    log_joint = -errors.numpy() / (2 * variance) - 512 * np.log(2 * np.pi * variance) + stats.norm.logpdf(grid.numpy())
    top = log_joint.max(axis=1, keepdims=True)
    expected = np.log(integrate.trapezoid(np.exp(log_joint - top), grid.numpy(), axis=1)) + top[:, 0]
    _, found = image_likelihoods(model.to(device), variance, x, {"prior": standard}, samples=2000, seed=0)
    assert found["prior"].value == pytest.approx(expected.mean(), abs=0.05)


def test_draws_are_of_the_t_they_say():
    """Against scipy's: moments, and densities."""
    root = np.array([[2.0, 0, 0], [0.5, 1.0, 0], [-0.3, 0.2, 3.0]])
    mode, curvature = np.array([1.0, -2.0, 0.5]), root @ root.T
    args = (torch.tensor(mode)[None], torch.tensor(curvature)[None])
    z, log_density = likelihood._draw(*args, 20_000, torch.Generator().manual_seed(0))
    theirs = stats.multivariate_t(mode, np.linalg.inv(curvature), df=likelihood.FREEDOM)
    np.testing.assert_allclose(log_density[0, :100], theirs.logpdf(z[0, :100].numpy()), atol=1e-9)
    expected = np.linalg.inv(curvature) * likelihood.FREEDOM / (likelihood.FREEDOM - 2)
    np.testing.assert_allclose(np.cov(z[0].numpy().T), expected, atol=0.04)
    np.testing.assert_allclose(z[0].numpy().mean(axis=0), mode, atol=0.02)


def test_what_is_said_of_weights_by_hand():
    """Two images, four codes: the estimate, its change from the two halves, codes 0 and 2, and 1 and 3."""
    weights = np.log([[1.0, 2.0, 3.0, 2.0], [4.0, 4.0, 4.0, 4.0]])
    found = Likelihood.of(weights)
    assert found.value == pytest.approx(np.log([2, 4]).mean())
    assert found.doubling == pytest.approx(0)
    assert found.half_width == pytest.approx(1.96 * np.std(np.log([2, 4]), ddof=1) / np.sqrt(2))
    assert found.effective == pytest.approx((64 / 18 + 4) / 2 / 4)
    uneven = Likelihood.of(np.log([[1.0, 5.0]]))
    assert uneven.doubling == pytest.approx(np.log(3) - np.log([1, 5]).mean())
    assert Likelihood.of(np.log([[2.0], [3.0]])).doubling == np.inf  # nothing is known of one code
    odd = Likelihood.of(np.log([[1.0, 5.0, 9.0]]))
    assert odd.doubling == pytest.approx(np.log(5) - np.log([1, 5]).mean())  # halves of one code each
