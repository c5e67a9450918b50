"""Reconstruction terms against torch.distributions, scipy and planted noise."""

import dataclasses
import math

import numpy as np
import pytest
import small
import torch
from scipy import stats
from torch import distributions

from rae_bench.base.plain import ConfigError, parse, to_plain
from rae_bench.models import autoencoder, objectives, training
from rae_bench.models.optimisation import Loop
from rae_bench.models.terms.reconstruction import errors
from rae_bench.models.terms.specs import (
    SQUARED_ERROR,
    Bernoulli,
    GaussianKL,
    Laplace,
    LearntVariance,
    Objective,
    OptimalVariance,
)
from rae_bench.study import config, vocabulary

OPTIMAL = OptimalVariance(kind="optimal_variance", least_sigma=0.0)
LEARNT = LearntVariance(kind="learnt_variance", initial_log_sigma=-1.0, least_sigma=0.0)
BERNOULLI, LAPLACE = Bernoulli(kind="bernoulli"), Laplace(kind="laplace")
KL = GaussianKL(kind="kl", weight=1.0)


def images(seed, n=3):
    return torch.rand(n, 1, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, X_HAT = images(0), images(1)


def summed(log_densities):
    return -log_densities.flatten(1).sum(dim=1)


def test_of_a_learnt_sigma_it_is_minus_the_log_likelihood_of_torch_distributions():
    log_sigma = torch.tensor(-0.7, dtype=torch.float64)
    expected = summed(distributions.Normal(X_HAT, log_sigma.exp()).log_prob(X))
    torch.testing.assert_close(errors(LEARNT, X, X_HAT, log_sigma), expected)
    with_least = dataclasses.replace(LEARNT, least_sigma=0.2)
    expected = summed(distributions.Normal(X_HAT, log_sigma.exp() + 0.2).log_prob(X))
    torch.testing.assert_close(errors(with_least, X, X_HAT, log_sigma), expected)


def test_the_authors_bound_of_log_sigma_is_that_sigma_added():
    """f + softplus(log σ − f) is log(σ + eᶠ)."""
    log_sigma = torch.linspace(-12, 2, 30, dtype=torch.float64)
    theirs = -6 + torch.nn.functional.softplus(log_sigma + 6)
    torch.testing.assert_close((log_sigma.exp() + 0.00247875).log(), theirs, rtol=1e-6, atol=1e-6)


def test_the_optimal_variance_is_the_mean_squared_error_and_no_other_is_likelier():
    found = errors(OPTIMAL, X, X_HAT, None).mean()
    mse = np.mean((X.numpy() - X_HAT.numpy()) ** 2)
    of = {factor: -stats.norm.logpdf(X, X_HAT, math.sqrt(factor * mse)).sum() / 3 for factor in (0.9, 1, 1.1)}
    assert found.item() == pytest.approx(of[1], rel=1e-12)
    assert min(of, key=of.get) == 1
    with_least = dataclasses.replace(OPTIMAL, least_sigma=0.1)
    expected = -stats.norm.logpdf(X, X_HAT, math.sqrt(mse) + 0.1).sum() / 3
    assert errors(with_least, X, X_HAT, None).mean().item() == pytest.approx(expected, rel=1e-12)


def test_the_optimal_variances_gradient_is_that_of_the_variance_held():
    """What the variance does to the loss vanishes where it is best, so that x_hat alone is left: (x̂ − x) / σ² / B."""
    x_hat = X_HAT.clone().requires_grad_()
    (found,) = torch.autograd.grad(errors(OPTIMAL, X, x_hat, None).mean(), x_hat)
    torch.testing.assert_close(found, (X_HAT - X) / (X - X_HAT).square().mean() / 3)


def test_cross_entropy_is_that_of_a_bernoulli_and_of_grey_pixels_its_mean():
    binary = (X > 0.5).double()
    torch.testing.assert_close(
        errors(BERNOULLI, binary, X_HAT, None), summed(distributions.Bernoulli(X_HAT).log_prob(binary))
    )
    expected = -(X * X_HAT.log() + (1 - X) * (1 - X_HAT).log()).flatten(1).sum(dim=1)
    torch.testing.assert_close(errors(BERNOULLI, X, X_HAT, None), expected)


def test_cross_entropy_of_a_saturated_sigmoid_is_finite_and_so_is_its_gradient():
    logits = torch.tensor([[-200.0, 200.0, 200.0, -200.0]], requires_grad=True)
    value = errors(BERNOULLI, torch.tensor([[0.0, 1.0, 0.0, 0.5]]), logits.sigmoid(), None).sum()
    assert value.item() == pytest.approx(150)  # no logarithm below −100
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(gradient).all()


def test_the_absolute_error_is_a_laplace_likelihood_up_to_its_constant():
    expected = summed(distributions.Laplace(X_HAT, torch.ones_like(X_HAT)).log_prob(X)) - 20 * math.log(2)
    torch.testing.assert_close(errors(LAPLACE, X, X_HAT, None), expected)


@pytest.mark.parametrize("term", [OPTIMAL, LEARNT, LAPLACE, BERNOULLI], ids=lambda term: term.kind)
def test_the_total_is_the_weighted_sum_and_every_parameter_learns(term):
    made = small.objective(small.GAUSSIAN, dataclasses.replace(KL, weight=0.3), term)
    model = autoencoder.build(small.images(), made, seed=0).train()
    loss = objectives.loss(model, torch.rand(4, 1, 32, 32), made, torch.Generator().manual_seed(0))
    assert loss.total.item() == pytest.approx((loss.reconstruction + 0.3 * loss.latent).item(), rel=1e-6)
    loss.total.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert [name for name, _ in model.named_parameters() if name == "decoder_log_sigma"] == (
        ["decoder_log_sigma"] if term == LEARNT else []
    )


def test_a_learnt_sigma_rests_where_its_square_is_the_mean_squared_error():
    """From log σ 0, of vectors with two directions and noise of SD 0.3; the optimal variance's loss says the same σ."""
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(400, 2, generator=generator) @ torch.randn(2, 7, generator=generator)
    data = signal + 0.3 * torch.randn(400, 7, generator=generator)
    mse = {}
    for term in (dataclasses.replace(LEARNT, initial_log_sigma=0.0), OPTIMAL):
        effort = small.optimisation(epochs=120, batch_size=40, learning_rate=1e-2)
        spec = small.training_spec(small.vectors(width=16), small.objective(term), effort)
        trained = training.train(spec, data, data, seed=0)
        with torch.no_grad():
            mse[term.kind] = (data - trained.model.decode(trained.model.encode(data).mean)).square().mean().item()
        sigma = trained.model.decoder_log_sigma
        if sigma is not None:
            # of 1 at first
            assert (2 * sigma).exp().item() == pytest.approx(mse[term.kind], rel=0.05)
        per_vector = 7 / 2 * (math.log(2 * math.pi * mse[term.kind]) + 1)
        assert trained.history[trained.best_epoch]["validation_reconstruction"] == pytest.approx(per_vector, abs=0.05)
    assert max(mse.values()) < 0.1  # of 2.4 at first: both have learnt


def test_a_learnt_sigma_survives_the_state_of_a_training():
    model = autoencoder.build(small.vectors(), small.objective(small.GAUSSIAN, KL, LEARNT), seed=0)
    other = autoencoder.build(small.vectors(), small.objective(small.GAUSSIAN, KL, LEARNT), seed=1)
    loops = [Loop.start(one, small.optimisation(), 100, seed=0) for one in (model, other)]
    for _ in range(2):
        loops[0].optimiser.zero_grad()
        errors(LEARNT, torch.rand(5, 7), torch.rand(5, 7), model.decoder_log_sigma).mean().backward()
        loops[0].optimiser.step()
    loops[1].restore(*loops[0].state())
    assert other.decoder_log_sigma.item() == model.decoder_log_sigma.item() != -1.0
    moments = [loop.optimiser.state[one.decoder_log_sigma] for loop, one in zip(loops, (model, other), strict=True)]
    assert moments[0]["exp_avg"].item() == moments[1]["exp_avg"].item() != 0


# --- where it is stated -----------------------------------------------------------------------------------


def test_what_says_nothing_has_the_squared_error_and_the_bytes_of_before():
    plain = to_plain(small.objective(small.GAUSSIAN, KL))
    assert "reconstruction" not in plain
    assert parse(Objective, plain, "x").reconstruction == SQUARED_ERROR


@pytest.fixture
def words():
    return vocabulary.read(config.CONFIG)


def test_a_data_sets_term_is_that_of_every_model_without_its_own(words):
    of = words.datasets["digits_bernoulli"]
    assert words.objective("vae", "digits_bernoulli", of).reconstruction == BERNOULLI
    assert words.objective("sigma_vae", "digits", of).reconstruction == OPTIMAL
    assert words.objective("linear", "", of).reconstruction == SQUARED_ERROR


def test_a_study_of_such_a_data_set_trains_on_it():
    file = dataclasses.replace(config.load_study("digits").file, datasets={"digits_bernoulli": "digits_quick"})
    file = dataclasses.replace(file, rows=("vae", "rae_gp", "linear"))
    found = config.resolve_study("digits", file)
    kinds = {model: spec.objective.reconstruction.kind for (_, model), spec in found.trainings.items()}
    assert kinds == {"vae": "bernoulli", "rae_gp": "bernoulli", "linear": "squared_error"}
    variances = {model: spec.decoder_variance for (_, model), spec in found.trainings.items()}
    assert variances == {"vae": None, "rae_gp": None, "linear": None}  # no Gaussian decoder, so no bound of one
    assert config.load_study("digits").training("digits", "vae").decoder_variance == 0.03


def test_cross_entropy_of_anything_but_images_is_refused():
    spec = small.training_spec(small.vectors(), small.objective(), small.optimisation())
    with pytest.raises(ConfigError, match=r"objective: 'bernoulli' is of images in \[0, 1\]; a network 'dense'"):
        dataclasses.replace(spec, objective=small.objective(BERNOULLI))
    stage = config.load_study("embedded").fits["digits", "vae", "second_stage"].density
    with pytest.raises(ConfigError, match="'bernoulli' is of images"):
        dataclasses.replace(stage, objective=dataclasses.replace(stage.objective, reconstruction=BERNOULLI))
