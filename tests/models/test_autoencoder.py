"""Posteriors, draws from them, and initialisation that touches nothing else."""

import numpy as np
import pytest
import small
import torch
from scipy import stats
from torch import distributions

from rae_bench.models import autoencoder, networks
from rae_bench.models.autoencoder import Codes
from rae_bench.models.terms.specs import Gaussian, MaskedInput, NoisyInput, Saturating, Sphere

GAUSSIAN = Gaussian(kind="gaussian", log_sigma_bound=2.0)


def build(posterior, seed=0):
    network = small.vectors(input_dim=5, width=8, depth=1)
    return autoencoder.build(network, small.objective(posterior), seed)


def test_a_fixed_sigma_is_the_same_for_all_inputs():
    codes = build(small.FIXED).encode(torch.randn(4, 5))
    torch.testing.assert_close(codes.log_sigma, torch.full((4, 3), float(np.log(0.7))))


def test_draws_have_the_posteriors_moments():
    mean, log_sigma = torch.tensor([1.0, -2.0]), torch.tensor([-1.0, 0.5])
    n = 40_000
    z = Codes(mean.expand(n, 2), log_sigma.expand(n, 2)).draw(torch.Generator().manual_seed(0)).numpy()
    sigma = np.exp([-1.0, 0.5])
    assert np.all(np.abs(z.mean(axis=0) - [1, -2]) < 4.5 * sigma / np.sqrt(n))
    assert np.all(np.abs(z.std(axis=0) / sigma - 1) < 4.5 / np.sqrt(2 * n))
    assert abs(np.corrcoef(z.T)[0, 1]) < 4.5 / np.sqrt(n)


def test_draws_are_reparametrised():
    mean, log_sigma = torch.zeros(1, 2, requires_grad=True), torch.tensor([[0.3, -0.2]], requires_grad=True)
    z = Codes(mean, log_sigma).draw(torch.Generator().manual_seed(0))
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(1, 2))
    torch.testing.assert_close(log_sigma.grad, z.detach())  # dz/dlog_sigma = sigma · noise = z − mean


@pytest.mark.parametrize("posterior", [small.POINT, GAUSSIAN], ids=["point", "gaussian"])
def test_a_draw_is_the_code_of_the_image_or_one_from_its_posterior(posterior):
    model, x = build(posterior), torch.randn(4, 5)
    codes, z = model.draw(x, torch.Generator().manual_seed(3))
    assert torch.equal(codes.mean, model.encode(x).mean)
    assert torch.equal(z, model.encode(x).draw(torch.Generator().manual_seed(3)))
    assert torch.equal(z, codes.mean) == (posterior is small.POINT)


def test_a_noisy_input_is_that_of_a_clipped_normal_and_its_mean_that_of_the_image():
    model, x = build(NoisyInput(kind="noisy_input", sd=0.5, bound=0.3)), torch.rand(4000, 5)
    seen = []
    model.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    codes, z = model.draw(x, torch.Generator().manual_seed(0))
    assert codes.log_sigma is None
    assert torch.equal(z, codes.mean)
    noise = (seen[0] - x).flatten().double()
    clipped = 2 * distributions.Normal(0.0, 0.5).cdf(torch.tensor(-0.3)).item()
    share = (noise.abs() > 0.3 - 1e-6).double().mean().item()
    assert noise.abs().max().item() == pytest.approx(0.3)
    assert share == pytest.approx(clipped, abs=4.5 * np.sqrt(clipped * (1 - clipped) / 20_000))
    assert noise.mean().item() == pytest.approx(0, abs=4.5 * noise.std().item() / np.sqrt(20_000))
    torch.testing.assert_close(z, model.encode(seen[0]).mean)
    assert not torch.equal(model.encode(x).mean, z)
    assert torch.equal(seen[-1], x)  # no noise where codes are collected
    same, other = (model.draw(x, torch.Generator().manual_seed(seed))[1] for seed in (0, 1))
    assert torch.equal(same, z)
    assert not torch.equal(other, z)


def seen_by(model, x, seed=0):
    """What the features network is given when images x are drawn through the whole model."""
    seen = []
    handle = model.features.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    codes, z = model.draw(x, torch.Generator().manual_seed(seed))
    handle.remove()
    assert codes.log_sigma is None
    assert torch.equal(z, codes.mean)
    return seen[0]


@pytest.mark.parametrize(("patch", "share", "hidden"), [(1, 0.25, 256), (8, 0.75, 12 * 64), (5, 0.5, None)])
def test_a_masked_input_hides_the_same_number_of_patches_everywhere_alike_and_its_mean_is_that_of_the_image(
    patch, share, hidden
):
    posterior = MaskedInput(kind="masked_input", share=share, patch=patch)
    model = autoencoder.build(small.images(channels=3), small.objective(posterior), seed=0).eval()
    n = 600
    x = 0.5 + 0.5 * torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    shown = seen_by(model, x)
    kept = shown != 0
    assert torch.equal(shown[kept], x[kept])
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert torch.equal(kept[:, 0], kept[:, 2])
    assert torch.equal(model.encode(x).mean, model.encode(x.clone()).mean)
    mask = ~kept[:, 0]
    # 32 is no multiple of 5: the last patches are cut, and each stands for one of 7 x 7
    corners = mask[:, ::patch, ::patch]
    assert torch.equal(mask, corners.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, :32, :32])
    count = corners.flatten(1).sum(dim=1)
    assert count.unique().tolist() == [round(share * corners[0].numel())]
    assert hidden is None or (mask.flatten(1).sum(dim=1) == hidden).all()
    frequency = corners.double().mean(dim=0)
    assert (frequency - count[0] / corners[0].numel()).abs().max() < 4.5 * np.sqrt(share * (1 - share) / n)
    assert not torch.equal(seen_by(model, x, seed=1) != 0, kept)


def test_a_masked_vector_hides_neighbouring_values():
    model = build(MaskedInput(kind="masked_input", share=0.5, patch=2))
    hidden = seen_by(model, 1 + torch.rand(200, 5)) == 0
    patches = hidden[:, ::2]  # of 2, 2 and 1 values, two of three hidden
    assert torch.equal(hidden, patches.repeat_interleave(2, 1)[:, :5])
    assert patches.sum(dim=1).unique().tolist() == [2]
    assert patches.any(dim=0).all()


# --- codes that are bounded --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spherical():
    """A model of images on the sphere, the moments of its batch norm those of a few passes."""
    posterior = Sphere(kind="sphere")
    model = autoencoder.build(small.images(latent_dim=4), small.objective(posterior), seed=0)
    for seed in range(30):
        x = torch.rand(16, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
        model.decode(model.draw(x, torch.Generator())[1])
    return model.eval()


def test_saturating_codes_are_the_hyperbolic_tangent_of_the_encoders():
    saturating, plain, x = build(Saturating(kind="saturating")), build(small.POINT), 9 * torch.randn(50, 5)
    z = saturating.draw(x, torch.Generator())[1].detach().numpy()
    np.testing.assert_allclose(z, np.tanh(plain.encode(x).mean.detach().numpy()), rtol=1e-5)
    assert np.abs(z).max() <= 1
    assert (np.abs(z) > 0.9).any()


def test_codes_on_the_sphere_are_directions_and_only_directions_are_decoded(spherical):
    x = torch.rand(50, 1, 32, 32, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        codes, z = spherical.draw(x, torch.Generator())
        raw = spherical.mean(spherical.features(x)).double().numpy()
        np.testing.assert_allclose(z, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
        assert codes.log_sigma is None
        images = spherical.decode(z)
        torch.testing.assert_close(spherical.decode(7.5 * z), images)
        assert not torch.allclose(spherical.decode(-z), images, atol=1e-2)


def test_a_standard_normal_is_decoded_as_the_spheres_own_prior_is(spherical):
    """Directions of N(0, I) are uniform: each coordinate's square is Beta(1/2, (d − 1)/2), without correlation."""
    z = torch.randn(4000, 4, generator=torch.Generator().manual_seed(2))
    seen = []
    handle = networks.weighted_layers(spherical.decoder)[0].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].double().numpy())
    )
    with torch.no_grad():
        spherical.decode(z)
    handle.remove()
    for column in seen[0].T:
        assert stats.kstest(column**2, stats.beta(0.5, 1.5).cdf).pvalue > 1e-3
    assert np.abs(seen[0].T @ seen[0] / 4000 - np.eye(4) / 4).max() < 4.5 * np.sqrt(2 / 16 / 4000)
