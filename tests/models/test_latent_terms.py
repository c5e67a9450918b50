"""Latent terms of VAE variants against scipy, brute force, closed forms of linear Gaussian models and 10^6 draws."""

import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest
import small
import torch
from scipy import special, stats
from torch import distributions, nn

from rae_bench.base.plain import ConfigError
from rae_bench.models import autoencoder, objectives, training
from rae_bench.models.autoencoder import Codes
from rae_bench.models.terms import latent
from rae_bench.models.terms.specs import (
    Capacity,
    Disentangled,
    FreeBits,
    GaussianKL,
    ImportanceWeighted,
    InfoVAE,
    InverseMultiquadratic,
    LearntVariance,
    OptimalVariance,
    SquaredExponential,
    TotalCorrelation,
)
from rae_bench.study import config, vocabulary

KL = GaussianKL(kind="kl", weight=1.0)
FREE_BITS = FreeBits(kind="free_bits", weight=1.0, floor=0.5)
CAPACITY = Capacity(kind="capacity", weight=2.0, capacity=4.0, updates=10)
TC = TotalCorrelation(kind="total_correlation", weight=1.0, factor=4.0, estimator="stratified", images=50)
DIP = Disentangled(kind="dip", weight=1.0, covariance="means", off_diagonal=3.0, diagonal=5.0)
INFO = InfoVAE(
    kind="info",
    weight=1.0,
    alpha=0.25,
    strength=10.0,
    kernel=InverseMultiquadratic("inverse_multiquadratic", (0.5, 2.0)),
    diagonal="left_out",
)
IWAE = ImportanceWeighted(kind="importance_weighted", weight=0.3, samples=3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


CODES = Codes(normal(5, 3), 0.5 * normal(5, 3, seed=1))
Z = CODES.at(normal(5, 3, seed=2))
PRIOR = normal(5, 3, seed=3)


def term(spec, codes=CODES, z=Z, updates=None):
    return latent.latent_term(spec, codes, z, {"prior": PRIOR}, torch.zeros(len(z)), updates)


# --- free bits --------------------------------------------------------------------------------------------


def test_free_bits_count_a_dimension_at_its_floor_or_its_mean_kl():
    """Of two images: 0.5 mean² + 0.5 (sigma² − 1) − log sigma; a dimension below, one above in the mean alone."""
    codes = Codes(torch.tensor([[0.0, 0.0], [0.4, 2.0]]), torch.zeros(2, 2))
    assert term(FREE_BITS, codes).item() == pytest.approx(0.5 + 1.0)  # 0.04 and (0 + 2) / 2


@functools.cache
def trained_vectors(latent_spec):
    """A VAE of vectors of which two directions of seven matter, so that one of three dimensions is of no use."""
    signal = torch.randn(600, 2, generator=generator()) @ torch.randn(2, 7, generator=generator(1))
    effort = small.optimisation(epochs=40, batch_size=50, learning_rate=1e-2)
    spec = small.training_spec(small.vectors(width=16), small.objective(small.GAUSSIAN, latent_spec), effort)
    model = training.train(spec, signal[:400], signal[400:], seed=0).model
    encoded = training.encode(model, signal[:400])
    return Codes(*(torch.from_numpy(encoded[name]) for name in ("mean", "log_sigma")))


def test_no_dimension_falls_below_its_floor_in_training_as_one_does_without():
    """Down to the floor it is pushed, and from there on left alone: an Adam's step may take it a little below."""
    plain, kept = (latent.kl_by_dimension(trained_vectors(spec)).mean(dim=0) for spec in (KL, FREE_BITS))
    assert plain.min() < 0.2 * FREE_BITS.floor
    assert kept.min() > 0.9 * FREE_BITS.floor


# --- capacity ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("updates", "capacity"), [(0, 0.0), (5, 2.0), (10, 4.0), (11, 4.0), (None, 4.0)])
def test_the_capacity_rises_with_the_updates_and_is_its_last_in_evaluation(updates, capacity):
    found = term(CAPACITY, updates=None if updates is None else torch.tensor(updates))
    mean_kl = latent.kl_to_standard_normal(CODES).mean().item()
    assert found.item() == pytest.approx(abs(mean_kl - capacity), rel=1e-6)
    assert 0 < mean_kl < 2  # both sides of the bend


def test_every_update_is_counted_and_nothing_else():
    made = small.objective(small.GAUSSIAN, CAPACITY)
    model = autoencoder.build(small.vectors(), made, seed=0)
    x, counts = torch.rand(4, 7), []
    for is_training in (True, True, False, True):
        objectives.loss(model.train(is_training), x, made, generator())
        counts.append(model.state_dict()["updates"].item())
    assert counts == [1, 2, 2, 3]
    assert "updates" not in autoencoder.build(small.vectors(), small.objective(small.GAUSSIAN, KL), 0).state_dict()


def test_a_trained_models_kl_is_its_capacity():
    spec = dataclasses.replace(CAPACITY, weight=100.0, capacity=5.0, updates=200)
    assert latent.kl_to_standard_normal(trained_vectors(spec)).mean().item() == pytest.approx(5.0, rel=0.1)


# --- total correlation ------------------------------------------------------------------------------------


def brute_weights(n, images, estimator):
    """The paper's equations (S3) and (S5), entry by entry; as released, its code's."""
    weights = np.empty((n, n))
    m = n - 1
    for i, j in itertools.product(range(n), repeat=2):
        own, following = (j == i, j == (i + 1) % n) if estimator == "stratified" else (j == 0, j == 1)
        weights[i, j] = 1 / images if own else (images - m) / (images * m) if following else 1 / m
    if estimator == "stratified_as_released":
        weights[m - 1, 0] = (images - m) / (images * m)
    return np.full((n, n), 1 / (n * images)) if estimator == "weighted" else weights


@pytest.mark.parametrize("estimator", ["weighted", "stratified", "stratified_as_released"])
def test_the_decomposition_is_that_of_a_loop_over_pairs_and_its_parts_sum_to_the_kl(estimator):
    mean, sigma, z = CODES.mean.numpy(), CODES.log_sigma.exp().numpy(), Z.numpy()
    weights, expected = brute_weights(5, 50, estimator), np.zeros(3)
    for i in range(5):
        pairs = np.array([[stats.norm.pdf(z[i, k], mean[j, k], sigma[j, k]) for k in range(3)] for j in range(5)])
        log_q = np.log(sum(weights[i, j] * pairs[j].prod() for j in range(5)))
        log_product = sum(np.log(sum(weights[i, j] * pairs[j, k] for j in range(5))) for k in range(3))
        log_own, log_prior = np.log(pairs[i]).sum(), stats.norm.logpdf(z[i]).sum()
        expected += np.array([log_own - log_q, log_q - log_product, log_product - log_prior]) / 5
    found = latent.decomposed(CODES, Z, 50, estimator)
    np.testing.assert_allclose([part.item() for part in found], expected, rtol=1e-9)
    q = distributions.Normal(CODES.mean, CODES.log_sigma.exp())
    kl = (q.log_prob(Z) - distributions.Normal(0.0, 1.0).log_prob(Z)).sum(dim=1).mean()
    assert sum(found).item() == pytest.approx(kl.item(), rel=1e-9)
    value = term(dataclasses.replace(TC, estimator=estimator)).item()
    assert value == pytest.approx(expected[0] + 4 * expected[1] + expected[2], rel=1e-9)


def mean_over_batches(estimator, row, density, n):
    """The mean of Σ_j w_ij q(z|x_j) over all ordered batches of n of the images whose q(z|x) are `density`."""
    weights = latent._log_weights(n, len(density), estimator).exp().numpy()
    batches = itertools.permutations(range(len(density)), n)
    return np.mean([weights[row] @ density[list(batch)] for batch in batches])


def test_stratified_weights_are_unbiased_for_q_of_an_image_of_the_batch_and_the_released_ones_are_not():
    """z comes from the row's own image, the first: given that, other images are drawn from the rest."""
    density = np.array([0.9, 0.1, 0.3, 0.05, 0.4, 0.2])
    given_own = {}
    for estimator in ("stratified", "stratified_as_released"):
        weights = latent._log_weights(4, 6, estimator).exp().numpy()
        row = 2
        others = itertools.permutations(range(1, 6), 3)
        batches = [(*rest[:row], 0, *rest[row:]) for rest in others]
        given_own[estimator] = np.mean([weights[row] @ density[list(batch)] for batch in batches])
        np.testing.assert_allclose(mean_over_batches(estimator, row, density, 4), density.mean(), rtol=1e-12)
    # own / N + (1 − 1/N) · the mean of the others: what q(z) is of an image that is surely in the batch
    assert given_own["stratified"] == pytest.approx(density.mean(), rel=1e-12)
    assert abs(given_own["stratified_as_released"] / density.mean() - 1) > 0.3


def test_a_batch_of_more_images_than_there_are_counts_as_all_of_them():
    assert torch.equal(latent._log_weights(8, 3, "stratified"), latent._log_weights(8, 8, "stratified"))


COVARIANCE, NOISE = np.array([[2.0, 1.2, 0.0], [1.2, 1.6, -0.6], [0.0, -0.6, 1.0]]), 0.4


@functools.cache
def known_gaussian():
    """(MI, TC, dimensions) of x ~ N(0, COVARIANCE) and z ~ N(x, NOISE² I): in closed form, and from 10^6 draws."""
    marginal = COVARIANCE + NOISE**2 * np.eye(3)
    variances = np.diag(marginal)
    closed = np.array(
        [
            0.5 * np.linalg.slogdet(marginal / NOISE**2)[1],
            0.5 * (np.log(variances).sum() - np.linalg.slogdet(marginal)[1]),
            0.5 * (variances - 1 - np.log(variances)).sum(),
        ]
    )
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal(np.zeros(3), COVARIANCE, 1_000_000)
    z = x + NOISE * rng.standard_normal(x.shape)
    log_q = stats.multivariate_normal(np.zeros(3), marginal).logpdf(z)
    log_product = stats.norm.logpdf(z, scale=np.sqrt(variances)).sum(axis=1)
    log_own, log_prior = stats.norm.logpdf(z, x, NOISE).sum(axis=1), stats.norm.logpdf(z).sum(axis=1)
    drawn = np.array([log_own - log_q, log_q - log_product, log_product - log_prior])
    return closed, drawn.mean(axis=1), drawn.std(axis=1) / 1000, (log_own - log_prior).mean()


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_the_decomposition_of_a_known_gaussian_is_that_of_a_million_draws(estimator):
    """Three batches of 3,000 of 10^5 images; weighted, the parts are off by multiples of log N, but not their sum."""
    closed, drawn, error, kl = known_gaussian()
    np.testing.assert_allclose(drawn, closed, atol=5 * error.max())
    assert drawn.sum() == pytest.approx(kl, rel=1e-9)
    images, parts = 100_000, []
    for seed in range(3):
        mean = torch.from_numpy(np.random.default_rng(seed).multivariate_normal(np.zeros(3), COVARIANCE, 3000))
        codes = Codes(mean, torch.full_like(mean, math.log(NOISE)))
        z = codes.at(normal(3000, 3, seed=100 + seed))
        parts.append([part.item() for part in latent.decomposed(codes, z, images, estimator)])
    off = np.log(images) * np.array([1, 2, -3]) if estimator == "weighted" else 0
    # the standard error of three batches is 0.012; the logarithm of a mean of 3,000 densities is biased by up to 0.02
    np.testing.assert_allclose(np.mean(parts, axis=0) - off, drawn, atol=0.04)
    assert drawn.min() > 0.2


@pytest.mark.parametrize("estimator", ["weighted", "stratified", "stratified_as_released"])
def test_the_total_correlation_of_a_known_gaussian_falls_and_under_the_kl_does_not(estimator):
    """A rotation of x ~ N(0, COVARIANCE) is learnt. It moves neither KL nor mutual information, so no code shrinks."""
    factor = torch.from_numpy(np.linalg.cholesky(COVARIANCE))

    def left(weight):
        spec = dataclasses.replace(TC, factor=weight, estimator=estimator, images=10_000)
        turn = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([turn], lr=0.02)
        for step in range(150):
            mean = normal(100, 3, seed=step) @ factor.T @ torch.matrix_exp(turn - turn.T).T
            codes = Codes(mean, torch.full_like(mean, math.log(NOISE)))
            adam.zero_grad()
            term(spec, codes, codes.at(normal(100, 3, seed=1000 + step))).backward()
            adam.step()
        rotation = torch.matrix_exp(turn - turn.T).detach().numpy()
        marginal = rotation @ COVARIANCE @ rotation.T + NOISE**2 * np.eye(3)
        return 0.5 * (np.log(np.diag(marginal)).sum() - np.linalg.slogdet(marginal)[1])

    before = known_gaussian()[0][1]
    assert left(20.0) < 0.1 * before
    assert left(1.0) > 0.5 * before


def test_the_images_are_the_data_sets():
    words = vocabulary.read(config.CONFIG)
    found = {
        name: words.objective("tc_vae", "digits", words.datasets[name]).latent.images
        for name in ("digits", "digits_mini")
    }
    assert found == {"digits": 3000, "digits_mini": 600}


# --- DIP-VAE ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["means", "codes"])
def test_dip_asks_for_codes_without_correlation_of_unit_variance(covariance):
    made = np.cov(CODES.mean.numpy().T, bias=True)
    if covariance == "codes":
        made += np.diag(np.exp(2 * CODES.log_sigma.numpy()).mean(axis=0))
    off = sum(made[i, j] ** 2 for i, j in itertools.permutations(range(3), 2))
    expected = 3 * off + 5 * ((np.diag(made) - 1) ** 2).sum() + latent.kl_to_standard_normal(CODES).mean().item()
    assert term(dataclasses.replace(DIP, covariance=covariance)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("covariance", ["means", "codes"])
def test_dip_takes_correlation_away(covariance):
    """Of vectors with two directions: what a plain VAE of the same KL weight leaves, and what it leaves."""
    spec = Disentangled(kind="dip", weight=0.1, covariance=covariance, off_diagonal=300.0, diagonal=300.0)
    found = {}
    for name, one in {"plain": dataclasses.replace(KL, weight=0.1), "dip": spec}.items():
        codes = trained_vectors(one)
        made = np.cov(codes.mean.numpy().T, bias=True)
        if covariance == "codes":
            made += np.diag(np.exp(2 * codes.log_sigma.numpy()).mean(axis=0))
        found[name] = np.array([np.linalg.norm(made - np.eye(3)), np.linalg.norm(made - np.diag(np.diag(made)))])
    assert (found["dip"] < [0.5, 0.25] * found["plain"]).all()


# --- InfoVAE ----------------------------------------------------------------------------------------------


def kernel_value(kernel, a, b):
    distance, d = ((a - b) ** 2).sum(), len(a)
    if isinstance(kernel, SquaredExponential):
        return np.exp(-np.mean((a - b) ** 2) / d)  # as the authors write it
    return sum(2 * d * s / (2 * d * s + distance) for s in kernel.scales)


@pytest.mark.parametrize("kernel", [INFO.kernel, SquaredExponential("squared_exponential")], ids=lambda one: one.kind)
@pytest.mark.parametrize("diagonal", ["left_out", "kept"])
def test_info_is_the_kl_and_the_mmd_of_a_loop_over_pairs(kernel, diagonal):
    def mean(a, b, is_within):
        is_left_out = is_within and diagonal == "left_out"
        pairs = [(i, j) for i in range(5) for j in range(5) if not (is_left_out and i == j)]
        return np.mean([kernel_value(kernel, a[i], b[j]) for i, j in pairs])

    z, prior = Z.numpy(), PRIOR.numpy()
    divergence = mean(z, z, True) + mean(prior, prior, True) - 2 * mean(z, prior, False)
    expected = 0.75 * latent.kl_to_standard_normal(CODES).mean().item() + 9.25 * divergence
    assert term(dataclasses.replace(INFO, kernel=kernel, diagonal=diagonal)).item() == pytest.approx(expected, rel=1e-9)


def test_mmd_alone_brings_codes_to_the_prior_and_lets_them_keep_what_a_kl_takes():
    """With alpha 1 there is no KL: what codes know of images costs nothing, only their law as a whole does."""
    free, held = (dataclasses.replace(INFO, weight=0.3, alpha=1.0, strength=strength) for strength in (1e-3, 30.0))
    divergences, kls = [], []
    for spec in (free, held, dataclasses.replace(KL, weight=0.3)):
        codes = trained_vectors(spec)
        z, prior = codes.at(torch.randn(400, 3, generator=generator(5))), torch.randn(400, 3, generator=generator(6))
        divergences.append(latent.mmd(z, prior, (0.5, 2.0)).item())
        kls.append(latent.kl_to_standard_normal(codes).mean().item())
    assert divergences[1] < 0.05 * divergences[0]
    assert kls[1] > 1.5 * kls[2]


# --- importance weights -----------------------------------------------------------------------------------

VARIANCE = 0.3
DIRECTIONS = np.linalg.qr(np.random.default_rng(0).standard_normal((7, 3)))[0] * [1.5, 0.8, 0.4]
OFFSET = np.linspace(-0.5, 0.5, 7)
X = np.random.default_rng(1).multivariate_normal(OFFSET, DIRECTIONS @ DIRECTIONS.T + VARIANCE * np.eye(7), 6)


def linear_gaussian(spec, wider=1.0):
    """x ~ N(Wz + b, β I) and its posterior, of SDs `wider` times too large; W's columns are orthogonal."""
    made = small.objective(small.GAUSSIAN, spec)
    model = autoencoder.build(small.vectors(), made, seed=0).double()
    precisions = (DIRECTIONS**2).sum(axis=0) / VARIANCE + 1
    to_mean = (DIRECTIONS / VARIANCE / precisions).T
    model.features = nn.Identity()
    model.mean, model.log_sigma, model.decoder = (nn.Linear(*sizes).double() for sizes in ((7, 3), (7, 3), (3, 7)))
    with torch.no_grad():
        model.mean.weight.copy_(torch.from_numpy(to_mean))
        model.mean.bias.copy_(torch.from_numpy(-to_mean @ OFFSET))
        model.log_sigma.weight.zero_()
        model.log_sigma.bias.copy_(torch.from_numpy(np.arctanh(np.log(wider / np.sqrt(precisions)) / 5)))
        model.decoder.weight.copy_(torch.from_numpy(DIRECTIONS))
        model.decoder.bias.copy_(torch.from_numpy(OFFSET))
    return model.train(), made


def minus_bound(samples, wider, seed=0, x=X):
    """The loss as a bound of −log p(x): divided by β, and with the constant that the squared error leaves out."""
    model, made = linear_gaussian(dataclasses.replace(IWAE, weight=VARIANCE, samples=samples), wider)
    with torch.no_grad():
        total = objectives.loss(model, torch.from_numpy(x), made, generator(seed)).total.item()
    return total / VARIANCE + 7 / 2 * math.log(2 * math.pi * VARIANCE)


MARGINAL = stats.multivariate_normal(OFFSET, DIRECTIONS @ DIRECTIONS.T + VARIANCE * np.eye(7))


@pytest.mark.parametrize("samples", [1, 2, 50])
def test_under_the_exact_posterior_the_bound_is_the_likelihood_with_any_number_of_codes(samples):
    """p(x|z) p(z) / q(z|x) is p(x) whatever z."""
    assert minus_bound(samples, wider=1.0) == pytest.approx(-MARGINAL.logpdf(X).mean(), rel=1e-5)


def test_under_a_wider_posterior_the_bound_rises_to_the_likelihood_with_the_codes():
    """One code: short by KL(q ‖ p(z|x)), of SDs three times too large 3 · (9 − 1 − 2 log 3) / 2."""
    many = np.repeat(X, 500, axis=0)
    found = {samples: minus_bound(samples, wider=3.0, x=many) for samples in (1, 5, 50, 500)}
    exact = -MARGINAL.logpdf(X).mean()
    assert found[1] == pytest.approx(exact + 1.5 * (8 - 2 * math.log(3)), rel=0.02)
    assert found[1] > found[5] + 1 > found[50] + 1 > found[500]
    assert found[500] == pytest.approx(exact, abs=0.05)


def test_the_bounds_gradient_is_that_of_the_likelihood():
    """Under the exact posterior the decoder's is −β times that of log p(x); the encoder has nothing to learn."""
    model, made = linear_gaussian(dataclasses.replace(IWAE, weight=VARIANCE, samples=20_000))
    x = torch.from_numpy(X)
    objectives.loss(model, x, made, generator()).total.backward()
    weight, bias = (torch.from_numpy(part.copy()).requires_grad_() for part in (DIRECTIONS, OFFSET))
    covariance = weight @ weight.T + VARIANCE * torch.eye(7, dtype=torch.float64)
    (-VARIANCE * distributions.MultivariateNormal(bias, covariance).log_prob(x).mean()).backward()
    for found, expected in ((model.decoder.weight.grad, weight.grad), (model.decoder.bias.grad, bias.grad)):
        assert (found - expected).norm() < 0.05 * expected.norm()
    assert model.log_sigma.bias.grad.norm() < 0.05 * bias.grad.norm()


def test_the_gradient_weighs_each_codes_own_by_its_importance():
    """∇ = −β Σ_k w̃_k ∇ log w_k with w̃ held (Burda et al. 2016), by torch.distributions, code by code."""
    model, made = linear_gaussian(dataclasses.replace(IWAE, weight=VARIANCE, samples=4), wider=2.0)
    x = torch.from_numpy(X)
    loss = objectives.loss(model, x, made, generator())
    drawn = objectives.noise(model, x.shape, made, generator(), x.device)
    codes = model.encode(x)
    z = torch.cat([codes.at(drawn["code"])[None], codes.at(drawn["more codes"])])
    q = distributions.Normal(codes.mean, codes.log_sigma.exp())
    log_w = (distributions.Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(dim=2)
    errors = 0.5 * (x - model.decoder(z)).square().sum(dim=2)
    log_w = log_w - errors / VARIANCE
    expected = -VARIANCE * special.logsumexp(log_w.detach().numpy() - math.log(4), axis=0).mean()
    assert loss.total.item() == pytest.approx(expected, rel=1e-9)
    assert loss.reconstruction.item() == pytest.approx(errors.mean().item(), rel=1e-9)
    share = log_w.detach().softmax(dim=0)
    parameters = list(model.parameters())
    wanted = torch.autograd.grad(-VARIANCE * (share * log_w).sum(dim=0).mean(), parameters, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss.total, parameters), wanted, rtol=1e-7, atol=1e-9)


def test_a_loss_of_many_codes_validates_fewer_images_at_once():
    spec = small.objective(small.GAUSSIAN, dataclasses.replace(IWAE, samples=5))
    model = autoencoder.build(small.images(), spec, seed=0)
    assert training.task_of(model, spec, 32**2).validation_batch == 100


def test_its_likelihood_is_that_of_a_decoder_of_its_weights_variance():
    training_of = small.training_spec(small.vectors(), small.objective(small.GAUSSIAN, IWAE), small.optimisation())
    assert training_of.decoder_variance == 0.3
    free = dataclasses.replace(training_of, objective=small.objective(small.GAUSSIAN, FREE_BITS))
    assert free.decoder_variance is None


def test_the_optimal_variance_is_refused_and_a_learnt_one_is_not():
    optimal = OptimalVariance(kind="optimal_variance", least_sigma=0.0)
    with pytest.raises(ConfigError, match="reconstruction: 'optimal_variance' is best for a plain mean of errors"):
        small.objective(small.GAUSSIAN, IWAE, optimal)
    learnt = LearntVariance(kind="learnt_variance", initial_log_sigma=0.0, least_sigma=0.0)
    assert small.objective(small.GAUSSIAN, IWAE, learnt).reconstruction == learnt
