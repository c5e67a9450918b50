"""Learnt priors: their KL against torch.distributions and quadrature, pseudo-inputs, and what training leaves."""

import numpy as np
import pytest
import small
import torch
from scipy import integrate, stats
from torch import distributions, nn

from rae_bench.densities import catalogue
from rae_bench.densities.codes import Posteriors
from rae_bench.densities.specs import LearntPriorDensity
from rae_bench.models import autoencoder, objectives, training
from rae_bench.models.autoencoder import Codes
from rae_bench.models.optimisation import TrainingError
from rae_bench.models.terms.encoding import encode, log_mixture
from rae_bench.models.terms.latent import kl_to_standard_normal, log_density
from rae_bench.models.terms.specs import MixturePrior, VampPrior

MIXTURE = MixturePrior(kind="mixture_prior", weight=0.5, n_components=4)
VAMP = VampPrior(kind="vampprior", weight=0.5, n_components=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def components(k, d, seed=0):
    drawn = torch.randn(2, k, d, generator=generator(seed), dtype=torch.float64)
    return Codes(drawn[0], 0.4 * drawn[1])


def build(term, posterior=small.GAUSSIAN, network=None):
    return autoencoder.build(network or small.images(), small.objective(posterior, term), seed=0)


# --- the KL -----------------------------------------------------------------------------------------------


def test_log_densities_are_those_of_torch_distributions():
    prior, q = components(5, 3), components(7, 3, seed=1)
    z = torch.randn(7, 3, generator=generator(2), dtype=torch.float64)
    parts = distributions.Independent(distributions.Normal(prior.mean, prior.log_sigma.exp()), 1)
    mixture = distributions.MixtureSameFamily(distributions.Categorical(torch.ones(5, dtype=torch.float64)), parts)
    torch.testing.assert_close(log_mixture(z, prior), mixture.log_prob(z))
    normal = distributions.Normal(q.mean, q.log_sigma.exp())
    torch.testing.assert_close(log_density(z, q), normal.log_prob(z).sum(dim=1))


@pytest.mark.parametrize("posterior", [small.GAUSSIAN, small.FIXED], ids=["gaussian", "fixed"])
def test_to_one_component_that_is_standard_normal_the_terms_mean_is_the_closed_kl(posterior):
    """Over many codes of the same images, each the one that its pass decodes."""
    term = MixturePrior(kind="mixture_prior", weight=1.0, n_components=1)
    model = build(term, posterior, small.vectors()).double()
    nn.init.zeros_(model.prior.mean)
    x = torch.randn(1, 7, generator=generator(), dtype=torch.float64).expand(40_000, 7)
    objective = small.objective(posterior, term)
    codes, z, found = encode(model, x, term, objectives.noise(model, x.shape, objective, generator(1), x.device))
    expected = kl_to_standard_normal(codes)[0].item()
    each = log_density(z, codes) - log_density(z, Codes(torch.zeros(3), torch.zeros(3)))
    assert found.item() == pytest.approx(each.mean().item(), rel=1e-9)
    assert found.item() == pytest.approx(expected, abs=4.5 * each.std().item() / 200)


def test_the_terms_mean_is_the_kl_to_a_mixture_by_quadrature():
    prior, q = components(3, 1), Codes(torch.tensor([[0.3]]).double(), torch.tensor([[-0.4]]).double())
    means, sigmas = prior.mean[:, 0].numpy(), prior.log_sigma.exp()[:, 0].numpy()
    normal = stats.norm(0.3, np.exp(-0.4))

    def integrand(z):
        return normal.pdf(z) * (normal.logpdf(z) - np.log(stats.norm(means, sigmas).pdf(z).mean()))

    z = q.mean + q.log_sigma.exp() * torch.randn(40_000, 1, generator=generator(3), dtype=torch.float64)
    each = log_density(z, q) - log_mixture(z, prior)
    expected = integrate.quad(integrand, -8, 8)[0]
    assert each.mean().item() == pytest.approx(expected, abs=4.5 * each.std().item() / 200)


# --- pseudo-inputs ----------------------------------------------------------------------------------------


def test_a_vampprior_is_the_encoders_posteriors_of_clipped_pseudo_inputs_as_in_evaluation():
    model = build(VAMP).train()
    for seed in range(5):
        model.encode(torch.rand(8, 1, 32, 32, generator=generator(seed)))
    with torch.no_grad():
        model.prior.images.copy_(3 * torch.rand(4, 1, 32, 32, generator=generator(9)) - 1)
    before = {name: value.clone() for name, value in model.named_buffers()}
    found = model.prior_components()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert all(module.training for module in model.modules())
    model.eval()
    expected = model.encode(torch.from_numpy(np.clip(model.prior.images.detach().numpy(), 0, 1)))
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.log_sigma, expected.log_sigma)
    assert not torch.allclose(found.mean[0], found.mean[1])


@pytest.mark.parametrize("term", [MIXTURE, VAMP], ids=["mixture", "vampprior"])
def test_the_prior_learns_by_its_own_gradient(term):
    """Once: of the formula with the components as they were before the images moved the encoder's moments."""
    model = build(term).double().train()
    x = torch.rand(4, 1, 32, 32, generator=generator(), dtype=torch.float64)
    objective = small.objective(small.GAUSSIAN, term)
    prior = model.prior_components()
    mean, log_sigma = (part.detach().requires_grad_() for part in (prior.mean, prior.log_sigma))
    noise = objectives.noise(model, x.shape, objective, generator(1), x.device)
    with torch.no_grad():
        _, z = model.draw_with(x, noise)
    parts = distributions.Independent(distributions.Normal(mean, log_sigma.exp()), 1)
    mixture = distributions.MixtureSameFamily(distributions.Categorical(torch.ones(4, dtype=torch.float64)), parts)
    chained = torch.autograd.grad((-0.5 * mixture.log_prob(z)).mean(), (mean, log_sigma))
    parameters = list(model.prior.parameters())
    expected = torch.autograd.grad((prior.mean, prior.log_sigma), parameters, chained)
    model = build(term).double().train()
    objectives.loss(model, x, objective, generator(1)).total.backward()
    for parameter, gradient in zip(model.prior.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_pseudo_inputs_start_as_different_training_images_that_the_seed_draws(monkeypatch):
    images = torch.randint(0, 256, (30, 1, 16, 16), generator=generator(), dtype=torch.uint8)
    started = {}
    monkeypatch.setattr(training, "optimise", lambda task, *_: started.setdefault(len(started), task.model))
    spec = small.training_spec(small.images(size=16), small.objective(small.GAUSSIAN, VAMP), small.optimisation())
    for seed in (0, 1):
        training.train(spec, images, images, seed)
    rows = [
        [int((images / 255 - one).abs().flatten(1).sum(dim=1).argmin()) for one in model.prior.images]
        for model in started.values()
    ]
    for chosen, model in zip(rows, started.values(), strict=True):
        torch.testing.assert_close(model.prior.images.detach(), images[chosen] / 255)
        assert len(set(chosen)) == 4
    assert rows[0] != rows[1]
    with pytest.raises(TrainingError, match=r"3 training samples are fewer than 4 pseudo-inputs"):
        training.train(spec, images[:3], images, 0)


# --- after training ---------------------------------------------------------------------------------------


def clusters(n, seed):
    rng = np.random.default_rng(seed)
    centres = 3.0 * np.array([[1, 1, 0, 0, -1, 0, 0], [-1, 0, 1, 0, 0, 1, 0], [0, -1, 0, 1, 0, 0, -1]])
    return torch.tensor(centres[rng.integers(3, size=n)] + 0.3 * rng.standard_normal((n, 7)), dtype=torch.float32)


@pytest.mark.parametrize("term", [MIXTURE, VAMP], ids=["mixture", "vampprior"])
def test_a_learnt_prior_comes_with_the_codes_and_is_likelier_than_the_best_gaussian(term):
    """Three clusters: draws from held-out posteriors, under the density that column N samples."""
    optimisation = small.optimisation(epochs=40, batch_size=64, learning_rate=5e-3)
    spec = small.training_spec(small.vectors(width=32), small.objective(small.GAUSSIAN, term), optimisation)
    data, held_out = clusters(640, 0), clusters(300, 1)
    model = training.train(spec, data, held_out, seed=0).model
    arrays = training.encode_splits(model, {"train": data, "validation": held_out})
    assert {name: array.shape for name, array in arrays.items() if name.startswith("prior")} == {
        "prior.mean": (4, 3),
        "prior.log_sigma": (4, 3),
    }
    splits = ("train", "validation", "prior")
    parts = [Posteriors(arrays[f"{split}.mean"], arrays[f"{split}.log_sigma"]) for split in splits]
    density = LearntPriorDensity(kind="learnt_prior", codes="sample")
    fitted = catalogue.fit(density, *parts[:2], seed=0, prior=parts[2])
    z = parts[1].codes("sample", 0, "validation")
    with torch.no_grad():
        own = log_mixture(torch.from_numpy(z), model.prior_components()).numpy()
    np.testing.assert_allclose(fitted.log_density(z), own, rtol=1e-4, atol=1e-4)
    best = stats.multivariate_normal(z.mean(axis=0), np.cov(z.T))  # fitted to these very codes
    assert own.mean() > best.logpdf(z).mean() + 0.2


def test_other_models_codes_hold_no_prior():
    model = build(small.NO_LATENT, network=small.vectors())
    assert training.encode_splits(model, {"train": clusters(5, 0)}).keys() == {"train.mean", "train.log_sigma"}
