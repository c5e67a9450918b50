"""Every term of the objectives against a closed form, torch.distributions, a double loop or an exact Jacobian."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import distributions, nn

from rae_bench.models import autoencoder, objectives
from rae_bench.models.autoencoder import Codes
from rae_bench.models.specs import (
    ConvolutionalNetwork,
    DenseNetwork,
    Deterministic,
    FixedGaussian,
    Gaussian,
    GaussianKL,
    GradientPenalty,
    NoLatentTerm,
    NoRegulariser,
    Objective,
    SpectralNorm,
    SquaredNorm,
    WeightL2,
)
from rae_bench.study.config import load_study

TRAININGS = {model: spec for (_, model), spec in load_study("digits").trainings.items()}
IMAGES = ConvolutionalNetwork("convolutional", 1, 32, 4, width=2, start_width=16, latent_dim=5, norm_momentum=0.1)
VECTORS = DenseNetwork("dense", input_dim=7, width=9, depth=2, latent_dim=3)

POINT = Deterministic("deterministic")
GAUSSIAN = Gaussian("gaussian", log_sigma_bound=5.0)
FIXED = FixedGaussian("fixed_gaussian", sigma=0.7)
NO_LATENT, NO_REGULARISER = NoLatentTerm("none"), NoRegulariser("none")
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def objective(posterior=POINT, latent=NO_LATENT, regulariser=NO_REGULARISER):
    return Objective(posterior, latent, regulariser)


def decoder_mlp(activation=nn.Tanh):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), activation(), nn.Linear(8, 6))


# --- every model of models.yaml ---------------------------------------------------------------------------


def test_the_study_trains_nine_models():
    assert sorted(TRAININGS) == ["ae", "ae_l2", "cv_vae", "rae", "rae_gp", "rae_l2", "rae_sn", "vae", "wae"]


@pytest.mark.parametrize("model", TRAININGS)
def test_every_parameter_gets_a_finite_gradient(model):
    spec = TRAININGS[model]
    built = autoencoder.build(spec.network, spec.objective, seed=0).train()
    x = torch.rand(4, 1, 32, 32, generator=generator())
    objectives.loss(built, x, spec.objective, generator()).total.backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith("bias"):  # batch norm makes the gradient of the bias before it vanish
            assert parameter.grad.any(), name


@pytest.mark.parametrize("model", TRAININGS)
def test_the_total_is_the_reconstruction_and_the_weighted_terms(model):
    spec = TRAININGS[model]
    weights = [getattr(term, "weight", 0.0) for term in (spec.objective.latent, spec.objective.regulariser)]
    assert any(weights) == (model != "ae")
    built = autoencoder.build(spec.network, spec.objective, seed=0).train()
    loss = objectives.loss(built, torch.rand(4, 1, 32, 32), spec.objective, generator())
    latent, regulariser = loss.latent.item(), loss.regulariser.item()
    expected = loss.reconstruction.item() + weights[0] * latent + weights[1] * regulariser
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert [latent != 0, regulariser != 0] == [weight > 0 for weight in weights]


# --- reconstruction ---------------------------------------------------------------------------------------


def test_half_the_squared_error_is_summed_over_pixels_and_averaged_over_images():
    x, x_hat = torch.zeros(2, 1, 2, 2), torch.tensor([[[[1.0, 2], [3, 4]]], [[[0, 0], [0, 2]]]])
    assert objectives.half_squared_error(x, x_hat).item() == 0.5 * (30 + 4) / 2


@pytest.mark.parametrize("posterior", [GAUSSIAN, FIXED])
def test_with_a_kl_weight_of_one_the_loss_is_minus_the_evidence_lower_bound_up_to_a_constant(posterior):
    spec = objective(posterior, GaussianKL("kl", weight=1.0))
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


LINEAR_TERMS = [
    objective(latent=SquaredNorm("squared_norm", 0.3)),
    objective(FIXED, GaussianKL("kl", 0.3)),
    objective(regulariser=WeightL2("weight_l2", 0.3, "all")),
]


@pytest.mark.parametrize("spec", LINEAR_TERMS, ids=["squared_norm", "kl", "weight_l2"])
@pytest.mark.parametrize("network", [VECTORS, IMAGES], ids=["vectors", "images"])
def test_a_batch_twice_over_has_the_same_loss(spec, network):
    model = autoencoder.build(network, spec, seed=0).train()
    x = torch.rand(5, 7) if network is VECTORS else torch.rand(5, 1, 32, 32)
    once, twice = (objectives.loss(model, batch, spec, generator()) for batch in (x, torch.cat([x, x])))
    torch.testing.assert_close(twice.latent, once.latent)
    torch.testing.assert_close(twice.regulariser, once.regulariser)
    if spec.posterior is POINT:  # a draw makes the reconstruction random
        torch.testing.assert_close(twice.total, once.total)


# --- latent terms -----------------------------------------------------------------------------------------


def test_kl_is_that_of_torch_distributions():
    mean, log_sigma = torch.randn(5, 3, generator=generator()), torch.randn(5, 3, generator=generator(1))
    normal = distributions.Normal(mean, log_sigma.exp())
    expected = distributions.kl_divergence(normal, distributions.Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(objectives.kl_to_standard_normal(Codes(mean, log_sigma)), expected)


def test_a_point_has_no_kl():
    with pytest.raises(ValueError, match="deterministic"):
        objectives.kl_to_standard_normal(Codes(torch.zeros(2, 3), None))


def test_the_squared_norm_is_half_the_sum_over_dimensions_averaged_over_images():
    spec = objective(latent=SquaredNorm("squared_norm", 1.0))
    model = autoencoder.build(VECTORS, spec, seed=0)
    x = torch.randn(4, 7)
    z = model.encode(x).mean.detach().numpy()
    expected = 0.5 * np.mean([np.dot(row, row) for row in z])
    assert objectives.loss(model, x, spec, generator()).latent.item() == pytest.approx(expected, rel=1e-5)


def test_mmd_of_two_pairs_of_points():
    z, prior = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    # C = 2·1·½ = 1: k = 1/(1 + distance²). Within: 1/2 and 1/5. Across: 1, 1/5, 1/2, 1/2, all four kept.
    assert objectives.mmd(z, prior, (0.5,)).item() == pytest.approx(1 / 2 + 1 / 5 - 2 * (1 + 1 / 5 + 1 / 2 + 1 / 2) / 4)


def test_mmd_is_the_double_loop_over_pairs_and_scales():
    z, prior = torch.randn(6, 4, generator=generator()).numpy(), torch.randn(6, 4, generator=generator(1)).numpy()

    def kernel(a, b):
        distance = float(np.sum((a.astype(float) - b) ** 2))
        return sum(2 * 4 * s / (2 * 4 * s + distance) for s in SCALES)

    expected = 0.0
    for i in range(6):
        for j in range(6):
            if i != j:
                expected += (kernel(z[i], z[j]) + kernel(prior[i], prior[j])) / (6 * 5)
            expected -= 2 * kernel(z[i], prior[j]) / 36
    found = objectives.mmd(torch.from_numpy(z), torch.from_numpy(prior), SCALES)
    assert found.item() == pytest.approx(expected, abs=1e-5)
    singles = sum(objectives.mmd(torch.from_numpy(z), torch.from_numpy(prior), (s,)).item() for s in SCALES)
    assert found.item() == pytest.approx(singles, abs=1e-5)


def test_mmd_of_equal_distributions_is_unbiased_about_zero_and_of_others_positive():
    draws = generator()
    same, shifted = [], []
    for _ in range(300):
        z, prior = torch.randn(20, 3, generator=draws), torch.randn(20, 3, generator=draws)
        same.append(objectives.mmd(z, prior, SCALES).item())
        shifted.append(objectives.mmd(z + 1, prior, SCALES).item())
    assert abs(np.mean(same)) < 4.5 * np.std(same) / np.sqrt(300)
    assert np.mean(np.array(same) < 0) > 0.3
    assert np.mean(shifted) > 10 * np.std(same) / np.sqrt(300)


def test_the_scales_of_wae_are_the_seven_of_the_official_code():
    assert TRAININGS["wae"].objective.latent.scales == SCALES


# --- weight L2 --------------------------------------------------------------------------------------------


def test_l2_regularises_the_dense_and_transposed_layers_and_no_bias_or_batch_norm():
    decoder = autoencoder.build(IMAGES, objective(), seed=0).decoder
    matrices = {name: value for name, value in decoder.named_parameters() if value.ndim >= 2}
    found = objectives.regularised_weights(decoder, "all")
    assert list(found) == list(matrices) == ["0.weight", "2.weight", "5.weight", "8.weight"]
    assert all(found[name] is value for name, value in matrices.items())


def test_l2_of_the_convolutions_leaves_out_the_dense_layer():
    decoder = autoencoder.build(IMAGES, objective(), seed=0).decoder
    assert list(objectives.regularised_weights(decoder, "convolutions")) == ["2.weight", "5.weight", "8.weight"]


@pytest.mark.parametrize(("scope", "least"), [("all", 2), ("convolutions", 4)])  # dimensions of a weight that counts
def test_l2_is_the_sum_of_squares_of_those_weights(scope, least):
    spec = objective(regulariser=WeightL2("weight_l2", 1.0, scope))
    model = autoencoder.build(IMAGES, spec, seed=0)
    for name, value in model.decoder.named_parameters():
        if value.ndim < least:
            nn.init.constant_(value, 100.0)  # what must not count
        else:
            nn.init.normal_(value, generator=generator(len(name)))
    expected = sum((v.detach().double() ** 2).sum().item() for v in model.decoder.parameters() if v.ndim >= least)
    found = objectives.loss(model, torch.rand(2, 1, 32, 32), spec, generator()).regulariser
    assert found.item() == pytest.approx(expected, rel=1e-5)


# --- gradient penalty -------------------------------------------------------------------------------------


def test_the_penalty_of_a_linear_decoder_is_its_squared_frobenius_norm():
    decoder = nn.Linear(3, 6)
    a = torch.tensor([[1.0, 2, 0], [-1, 0, 1], [0, 1, 1], [2, -1, 0], [0, -2, 1], [1, 1, -2]])
    decoder.weight.data = a
    _, penalty = objectives.decode_with_gradient_penalty(decoder, torch.randn(20_000, 3), generator(1))
    frobenius = a.square().sum().item()
    # ‖Au‖² has variance 2·tr (AᵀA)²; 4.5 standard errors of the mean of 20,000 draws
    error = np.sqrt(2 * (a.T @ a).square().sum().item() / 20_000)
    assert penalty.item() == pytest.approx(frobenius, abs=4.5 * error)
    of_summed_output = a.sum(dim=0).square().sum().item()
    assert abs(of_summed_output - frobenius) > 50 * error


def test_a_decoder_whose_outputs_cancel_is_penalised():
    decoder = nn.Linear(1, 2, bias=False)
    decoder.weight.data = torch.tensor([[1.0], [-1.0]])
    _, penalty = objectives.decode_with_gradient_penalty(decoder, torch.randn(20_000, 1), generator())
    assert penalty.item() == pytest.approx(2, abs=4.5 * np.sqrt(8 / 20_000))


def test_the_penalty_is_unbiased_for_the_exact_jacobian():
    decoder = decoder_mlp()
    z = torch.randn(4, 3, generator=generator())
    jacobian = torch.func.vmap(torch.func.jacrev(decoder))(z)  # (4, 6, 3)
    expected = jacobian.square().sum(dim=(1, 2)).mean().item()
    draws = [objectives.decode_with_gradient_penalty(decoder, z, generator(i))[1].item() for i in range(2000)]
    assert np.mean(draws) == pytest.approx(expected, abs=4.5 * np.std(draws) / np.sqrt(2000))


def test_the_penalty_decodes_what_the_decoder_decodes():
    decoder, z = decoder_mlp(), torch.randn(4, 3)
    x_hat, _ = objectives.decode_with_gradient_penalty(decoder, z, generator())
    torch.testing.assert_close(x_hat, decoder(z))


def test_a_decoder_that_ignores_its_code_has_no_penalty():
    class Constant(nn.Module):
        def forward(self, z):
            return torch.ones(len(z), 6)

    assert objectives.decode_with_gradient_penalty(Constant(), torch.randn(4, 3), generator())[1].item() == 0


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_the_penalty_through_the_whole_image_decoder_is_that_of_its_exact_jacobian(training):
    decoder = autoencoder.build(IMAGES, objective(), seed=0).decoder
    for _ in range(50):  # an untrained batch norm in evaluation mode passes almost nothing
        decoder(torch.randn(8, 5, generator=generator()))
    decoder.train(training)
    z = torch.randn(3, 5, generator=generator())
    jacobian = torch.autograd.functional.jacobian(decoder, z)  # of the map of the whole batch: (3, 1, 32, 32, 3, 5)
    u = torch.randn(3, 5, generator=generator(1))
    expected = torch.einsum("bcyxke,ke->bcyx", jacobian, u).square().sum() / 3
    _, penalty = objectives.decode_with_gradient_penalty(decoder, z, generator(1))
    torch.testing.assert_close(penalty, expected, rtol=1e-4, atol=0)
    assert expected > 1


def test_one_backward_pass_gives_the_gradient_of_the_formula_once():
    # Pythae's encoder gradients come out 2.0 times these.
    spec = objective(latent=SquaredNorm("squared_norm", 0.3), regulariser=GradientPenalty("gradient_penalty", 0.2))
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
    for parameter, expected in zip(
        parameters, torch.autograd.grad((squares + 0.2 * directional).mean(), parameters), strict=True
    ):
        torch.testing.assert_close(parameter.grad, expected)


def test_the_penalty_reaches_encoder_and_decoder():
    plain = objective()
    penalised = objective(regulariser=GradientPenalty("gradient_penalty", 1.0))
    x = torch.rand(4, 1, 32, 32, generator=generator())
    gradients = {}
    for spec in (plain, penalised):
        model = autoencoder.build(IMAGES, spec, seed=0).train()
        objectives.loss(model, x, spec, generator()).total.backward()
        gradients[spec] = model.mean.weight.grad, model.decoder[0].weight.grad
    for without, with_penalty in zip(gradients[plain], gradients[penalised], strict=True):
        assert (with_penalty - without).norm() > 0.1 * without.norm()


# --- output gradient --------------------------------------------------------------------------------------


def test_the_output_gradient_of_a_linear_decoder_is_known():
    """X̂ = A z: g = 2 AᵀA z."""
    decoder = nn.Linear(3, 6, bias=False)
    a = torch.tensor([[1.0, 2, 0], [-1, 0, 1], [0, 1, 1], [2, -1, 0], [0, -2, 1], [1, 1, -2]])
    decoder.weight.data = a
    z = torch.randn(5, 3, generator=generator())
    x_hat, penalty = objectives.decode_with_output_gradient(decoder, z)
    torch.testing.assert_close(x_hat, z @ a.T)
    torch.testing.assert_close(penalty, (2 * z @ a.T @ a).square().sum(dim=1).mean())


def test_a_decoder_that_only_turns_has_no_output_gradient_but_a_jacobian():
    """Images on a circle: their energy is constant."""

    class Circle(nn.Module):
        def forward(self, z):
            return torch.cat([z.cos(), z.sin()], dim=1)

    z = torch.randn(20_000, 1, generator=generator())
    assert objectives.decode_with_output_gradient(Circle(), z)[1].item() == pytest.approx(0, abs=1e-10)
    # ‖J‖² = 1, its estimate u²: variance 2
    _, penalty = objectives.decode_with_gradient_penalty(Circle(), z, generator(1))
    assert penalty.item() == pytest.approx(1, abs=4.5 * np.sqrt(2 / 20_000))


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_the_output_gradient_is_that_of_the_jacobian_of_the_batch(training):
    decoder = autoencoder.build(IMAGES, objective(), seed=0).decoder
    for _ in range(50):  # an untrained batch norm in evaluation mode passes almost nothing
        decoder(torch.randn(8, 5, generator=generator()))
    decoder.train(training)
    z = torch.randn(3, 5, generator=generator())
    x_hat, penalty = objectives.decode_with_output_gradient(decoder, z)
    jacobian = torch.autograd.functional.jacobian(decoder, z)  # (3, 1, 32, 32, 3, 5)
    g = 2 * torch.einsum("bcyx,bcyxke->ke", x_hat, jacobian)
    torch.testing.assert_close(penalty, g.square().sum() / 3, rtol=1e-4, atol=0)
    own = 2 * torch.einsum("bcyx,bcyxbe->be", x_hat, jacobian)
    assert torch.allclose(own, g, rtol=1e-3) != training  # batch norm couples the batch


def test_the_output_gradient_is_the_same_where_no_gradient_is_kept():
    model = autoencoder.build(IMAGES, objective(), seed=0).train()
    z = torch.randn(3, 5)
    x_hat, penalty = objectives.decode_with_output_gradient(model.decoder, z)
    with torch.no_grad():
        again, value = objectives.decode_with_output_gradient(model.decoder, z)
    assert (x_hat.requires_grad, penalty.requires_grad, value.requires_grad) == (True, True, False)
    torch.testing.assert_close(again, x_hat)
    torch.testing.assert_close(value, penalty)


# --- weights ----------------------------------------------------------------------------------------------


def test_terms_that_add_nothing_weigh_nothing():
    assert objectives.weight(NO_LATENT) == objectives.weight(NO_REGULARISER) == 0
    assert (
        objectives.weight(SpectralNorm("spectral_norm", 1, "decoder", "output_channels", 15, "constant", "fixed")) == 0
    )
    assert objectives.weight(GaussianKL("kl", 0.25)) == 0.25


def test_doubling_a_weight_doubles_what_the_term_adds():
    single = objective(latent=SquaredNorm("squared_norm", 0.5))
    double = dataclasses.replace(single, latent=SquaredNorm("squared_norm", 1.0))
    model = autoencoder.build(VECTORS, single, seed=0)
    x = torch.randn(4, 7)
    one, two = (objectives.loss(model, x, spec, generator()) for spec in (single, double))
    torch.testing.assert_close(two.total - two.reconstruction, 2 * (one.total - one.reconstruction))


@pytest.mark.parametrize("name", TRAININGS)
def test_a_loss_stays_on_the_models_device(name):
    """`meta`, where tensors have shapes alone, takes no part of a computation from the CPU: like a GPU."""
    spec = TRAININGS[name]
    model = autoencoder.build(spec.network, spec.objective, 0).to("meta")
    shape = (8, spec.network.channels, spec.network.size, spec.network.size)
    loss = objectives.loss(model, torch.empty(shape, device="meta"), spec.objective, generator())
    loss.total.backward()
    assert {part.device.type for part in vars(loss).values()} == {"meta"}
    assert all(weight.grad is None or weight.grad.is_meta for weight in model.parameters())
