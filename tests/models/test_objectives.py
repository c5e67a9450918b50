"""Every term of the objectives against a closed form, torch.distributions, a double loop or an exact Jacobian."""

import numpy as np
import pytest
import small
import torch
from keras import mmd
from planted import every_training
from torch import distributions, nn

from rae_bench.models import autoencoder, objectives
from rae_bench.models.autoencoder import Codes
from rae_bench.models.terms import latent, reconstruction, regularisers
from rae_bench.models.terms.specs import GaussianKL, GradientPenalty, OutputGradient, SquaredNorm, WeightL2

TRAININGS = every_training()
IMAGES, VECTORS = small.images(), small.vectors()
PENALTY = GradientPenalty(kind="gradient_penalty", weight=0.2)
OUTPUT_GRADIENT = OutputGradient(kind="output_gradient", weight=1.0)
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
MATRIX = torch.tensor([[1.0, 2, 0], [-1, 0, 1], [0, 1, 1], [2, -1, 0], [0, -2, 1], [1, 1, -2]])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def squared_norm(weight):
    return SquaredNorm(kind="squared_norm", weight=weight)


def weight_l2(weight, scope="all"):
    return WeightL2(kind="weight_l2", weight=weight, scope=scope)


def kl(weight):
    return GaussianKL(kind="kl", weight=weight)


def penalty(decoder, z, seed=0):
    """The value of the gradient penalty along one draw of directions."""
    return regularisers.decode(decoder, z, PENALTY, {"direction": torch.randn(z.shape, generator=generator(seed))})[1]


def decoder_mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6))


def linear(matrix):
    decoder = nn.Linear(*reversed(matrix.shape), bias=False)
    decoder.weight.data = matrix
    return decoder


# --- every model of models.yaml ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", TRAININGS)
def test_the_total_is_the_weighted_sum_and_every_parameter_gets_a_finite_gradient(model):
    spec = TRAININGS[model]
    built = autoencoder.build(spec.network, spec.objective, seed=0).train()
    images = torch.rand(20, 1, 32, 32, generator=generator())  # more vectors than a codebook, which starts at them
    loss = objectives.loss(built, images, spec.objective, generator())
    weights = [getattr(term, "weight", 0.0) for term in (spec.objective.latent, spec.objective.regulariser)]
    assert any(weights) == (model not in ("ae", "linear", "masked_ae", "saturating_ae", "sphere_ae"))
    terms = [loss.latent.item(), loss.regulariser.item()]
    assert loss.total.item() == pytest.approx(loss.reconstruction.item() + np.dot(weights, terms), rel=1e-5)
    assert [term != 0 for term in terms] == [weight > 0 for weight in weights]
    loss.total.backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith("bias"):  # batch norm makes the gradient of the bias before it vanish
            assert parameter.grad.any(), name


@pytest.mark.parametrize("name", TRAININGS)
def test_a_loss_stays_on_the_models_device(name):
    """`meta`, where tensors have shapes alone, takes no part of a computation from the CPU: like a GPU."""
    spec = TRAININGS[name]
    model = autoencoder.build(spec.network, spec.objective, 0).to("meta")
    loss = objectives.loss(model, torch.empty((8, 1, 32, 32), device="meta"), spec.objective, generator())
    loss.total.backward()
    assert {part.device.type for part in loss} == {"meta"}
    assert all(weight.grad is None or weight.grad.is_meta for weight in model.parameters())


# --- reconstruction ---------------------------------------------------------------------------------------


def test_half_the_squared_error_is_summed_over_pixels_and_averaged_over_images():
    x, x_hat = torch.zeros(2, 1, 2, 2), torch.tensor([[[[1.0, 2], [3, 4]]], [[[0, 0], [0, 2]]]])
    assert reconstruction.half_squared_error(x, x_hat).item() == 0.5 * (30 + 4) / 2


@pytest.mark.parametrize("posterior", [small.GAUSSIAN, small.FIXED])
def test_with_a_kl_weight_of_one_the_loss_is_minus_the_evidence_lower_bound_up_to_a_constant(posterior):
    spec = small.objective(posterior, kl(1.0))
    model = autoencoder.build(VECTORS, spec, seed=0)
    x = torch.randn(6, 7, generator=generator())
    codes = model.encode(x)
    z = codes.draw(generator(1))
    q = distributions.Independent(distributions.Normal(codes.mean, codes.log_sigma.exp()), 1)
    prior = distributions.Independent(distributions.Normal(torch.zeros(3), torch.ones(3)), 1)
    likelihood = distributions.Independent(distributions.Normal(model.decode(z), torch.ones(7)), 1)
    bound = (likelihood.log_prob(x) - distributions.kl_divergence(q, prior)).mean()
    total = objectives.loss(model, x, spec, generator(1)).total
    torch.testing.assert_close(total, -bound - 0.5 * 7 * np.log(2 * np.pi))


# --- latent terms -----------------------------------------------------------------------------------------


def test_kl_is_that_of_torch_distributions_and_a_point_has_none():
    mean, log_sigma = torch.randn(5, 3, generator=generator()), torch.randn(5, 3, generator=generator(1))
    normal = distributions.Normal(mean, log_sigma.exp())
    expected = distributions.kl_divergence(normal, distributions.Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(latent.kl_to_standard_normal(Codes(mean, log_sigma)), expected)
    with pytest.raises(ValueError, match="deterministic"):
        latent.kl_to_standard_normal(Codes(mean, None))


def test_the_squared_norm_is_half_the_sum_over_dimensions_averaged_over_images():
    spec = small.objective(squared_norm(1.0))
    model = autoencoder.build(VECTORS, spec, seed=0)
    x = torch.randn(4, 7)
    expected = 0.5 * np.mean([np.dot(row, row) for row in model.encode(x).mean.detach().numpy()])
    assert objectives.loss(model, x, spec, generator()).latent.item() == pytest.approx(expected, rel=1e-5)


def test_mmd_of_two_pairs_of_points():
    z, prior = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    # C = 2·1·½ = 1: k = 1/(1 + distance²). Within: 1/2 and 1/5. Across: 1, 1/5, 1/2, 1/2, all four kept.
    assert latent.mmd(z, prior, (0.5,)).item() == pytest.approx(1 / 2 + 1 / 5 - 2 * (1 + 1 / 5 + 1 / 2 + 1 / 2) / 4)


def test_mmd_is_that_of_keras_over_pairs_and_scales():
    z, prior = (torch.randn(6, 4, generator=generator(seed)).double() for seed in (0, 1))
    assert latent.mmd(z, prior, SCALES).item() == pytest.approx(mmd(z.numpy(), prior.numpy()), rel=1e-9)


# --- weight L2 --------------------------------------------------------------------------------------------


# how many weights count: no bias, no parameter of a norm or scale, and not the dense layer's
@pytest.mark.parametrize(
    ("family", "scope", "n_counted"),
    [
        ("convolutional", "all", 4),
        ("convolutional", "convolutions", 3),
        ("residual", "all", 8),
        ("residual", "convolutions", 7),
        ("dense_images", "all", 3),
        ("transformer", "all", 14),
    ],
)
def test_l2_is_the_sum_of_squares_of_the_weights_in_its_scope(family, scope, n_counted):
    spec = small.objective(weight_l2(1.0, scope))
    model = autoencoder.build(small.FAMILIES[family](), spec, seed=0)
    least = {"all": 2, "convolutions": 4}[scope]
    counted = {name: value for name, value in model.decoder.named_parameters() if value.ndim >= least}
    for name, value in model.decoder.named_parameters():
        if name in counted:
            nn.init.normal_(value, generator=generator(len(name)))
        else:
            nn.init.constant_(value, 100.0)
    assert list(regularisers.regularised_weights(model.decoder, scope)) == list(counted)
    assert len(counted) == n_counted
    found = objectives.loss(model, torch.rand(2, 1, 32, 32), spec, generator()).regulariser
    expected = sum((value.detach().double() ** 2).sum().item() for value in counted.values())
    assert found.item() == pytest.approx(expected, rel=1e-5)


# --- gradient penalty -------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", [MATRIX, torch.tensor([[1.0], [-1.0]])], ids=["linear", "outputs that cancel"])
def test_the_penalty_of_a_linear_decoder_is_its_squared_frobenius_norm(matrix):
    found = penalty(linear(matrix), torch.randn(20_000, matrix.shape[1]), seed=1)
    frobenius = matrix.square().sum().item()
    # ‖Au‖² has variance 2·tr (AᵀA)²; 4.5 standard errors of the mean of 20,000 draws
    error = np.sqrt(2 * (matrix.T @ matrix).square().sum().item() / 20_000)
    assert found.item() == pytest.approx(frobenius, abs=4.5 * error)
    of_summed_output = matrix.sum(dim=0).square().sum().item()
    assert abs(of_summed_output - frobenius) > 50 * error


def test_a_decoder_that_ignores_its_code_has_no_penalty():
    class Constant(nn.Module):
        def forward(self, z):
            return torch.ones(len(z), 6)

    assert penalty(Constant(), torch.randn(4, 3)).item() == 0


@pytest.fixture(params=[False, True], ids=["evaluation", "training"])
def trained_decoder(request, family):
    """An image decoder: an untrained batch norm in evaluation mode would pass almost nothing."""
    decoder = autoencoder.build(small.FAMILIES[family](size=16), small.objective(PENALTY), seed=0).decoder.double()
    for _ in range(50):
        decoder(torch.randn(8, 5, generator=generator()).double())
    return decoder.train(request.param)


@pytest.mark.parametrize("family", small.FAMILIES)
def test_a_derivative_through_the_whole_image_decoder_is_that_of_its_exact_jacobian(trained_decoder, family):
    z, u = (torch.randn(3, 5, generator=generator(seed)).double() for seed in (0, 1))
    jacobian = torch.autograd.functional.jacobian(trained_decoder, z)  # of the batch's map: (3, 1, 16, 16, 3, 5)
    expected = torch.einsum("bcyxke,ke->bcyx", jacobian, u).square().sum() / 3
    x_hat, found = regularisers.decode(trained_decoder, z, PENALTY, {"direction": u})
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    assert expected > 0.01
    torch.testing.assert_close(x_hat, trained_decoder(z))

    x_hat, found = regularisers.decode(trained_decoder, z, OUTPUT_GRADIENT, {})
    torch.testing.assert_close(x_hat, trained_decoder(z))
    g = 2 * torch.einsum("bcyx,bcyxke->ke", x_hat, jacobian)
    torch.testing.assert_close(found, g.square().sum() / 3, rtol=1e-9, atol=0)
    own = 2 * torch.einsum("bcyx,bcyxbe->be", x_hat, jacobian)
    couples_images = family == "convolutional" and trained_decoder.training  # batch norm
    assert torch.allclose(own, g, rtol=1e-3) != couples_images


@pytest.mark.parametrize("family", small.FAMILIES)
def test_the_penaltys_gradient_through_the_whole_image_decoder_is_that_of_reverse_derivatives(trained_decoder):
    """Row by row of the Jacobian, by torch's own rules; those for the derivative of such a row are right."""
    z, u = (torch.randn(3, 5, generator=generator(seed)).double() for seed in (0, 1))
    tensors = [z.requires_grad_(), *trained_decoder.parameters()]
    rows = (torch.autograd.grad(one, z, create_graph=True)[0] for one in trained_decoder(z).flatten())
    expected = sum((row * u).sum().square() for row in rows) / 3
    expected = torch.autograd.grad(expected, tensors, allow_unused=True, materialize_grads=True)
    _, found = regularisers.decode(trained_decoder, z, PENALTY, {"direction": u})
    gradients = torch.autograd.grad(found, tensors, allow_unused=True, materialize_grads=True)
    largest = max(one.abs().max().item() for one in expected)
    for gradient, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, right, rtol=1e-8, atol=1e-10 * largest)


def test_the_penalty_is_unbiased_for_the_exact_jacobian():
    """What one direction gives is ‖J‖²_F in the mean, so that the direction has unit variance in every dimension."""
    decoder, z = decoder_mlp(), torch.randn(4, 3, generator=generator())
    jacobian = torch.func.vmap(torch.func.jacrev(decoder))(z)  # (4, 6, 3)
    draws = [penalty(decoder, z, i).item() for i in range(2000)]
    expected = jacobian.square().sum(dim=(1, 2)).mean().item()
    assert np.mean(draws) == pytest.approx(expected, abs=4.5 * np.std(draws) / np.sqrt(2000))


def test_one_backward_pass_gives_the_gradient_of_the_formula_once():
    # Pythae's encoder gradients come out 2.0 times these.
    spec = small.objective(squared_norm(0.3), PENALTY)
    model = autoencoder.build(VECTORS, spec, seed=0)
    model.decoder = decoder_mlp()
    x = torch.randn(4, 6, generator=generator())
    model.features[0] = nn.Linear(6, 9)
    objectives.loss(model, x, spec, generator(1)).total.backward()

    z = model.encode(x).mean
    u = torch.randn(4, 3, generator=generator(1))
    jacobian = torch.func.vmap(torch.func.jacrev(model.decoder))(z)
    directional = torch.einsum("bij,bj->bi", jacobian, u).square().sum(dim=1)
    squares = (x - model.decoder(z)).square().sum(dim=1) / 2 + 0.3 * z.square().sum(dim=1) / 2
    parameters = [p for name, p in model.named_parameters() if name != "decoder.2.bias"]
    gradients = torch.autograd.grad((squares + 0.2 * directional).mean(), parameters)
    for parameter, expected in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


# --- output gradient --------------------------------------------------------------------------------------


def test_the_output_gradient_of_a_linear_decoder_is_known():
    """X̂ = A z: g = 2 AᵀA z."""
    z = torch.randn(5, 3, generator=generator())
    _, found = regularisers.decode(linear(MATRIX), z, OUTPUT_GRADIENT, {})
    torch.testing.assert_close(found, (2 * z @ MATRIX.T @ MATRIX).square().sum(dim=1).mean())


def test_a_decoder_that_only_turns_has_no_output_gradient_but_a_jacobian():
    """Images on a circle: their energy is constant."""

    class Circle(nn.Module):
        def forward(self, z):
            return torch.cat([z.cos(), z.sin()], dim=1)

    z = torch.randn(20_000, 1, generator=generator())
    assert regularisers.decode(Circle(), z, OUTPUT_GRADIENT, {})[1].item() == pytest.approx(0, abs=1e-10)
    # ‖J‖² = 1, its estimate u²: variance 2
    assert penalty(Circle(), z, seed=1).item() == pytest.approx(1, abs=4.5 * np.sqrt(2 / 20_000))


def test_the_output_gradient_is_the_same_where_no_gradient_is_kept():
    decoder, z = autoencoder.build(IMAGES, small.objective(), seed=0).train().decoder, torch.randn(3, 5)
    kept = regularisers.decode(decoder, z, OUTPUT_GRADIENT, {})
    with torch.no_grad():
        free = regularisers.decode(decoder, z, OUTPUT_GRADIENT, {})
    assert (kept[0].requires_grad, kept[1].requires_grad, free[1].requires_grad) == (True, True, False)
    torch.testing.assert_close(free, kept)


# --- weights ----------------------------------------------------------------------------------------------
