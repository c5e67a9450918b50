"""The paper's layout with Keras' conventions, against a numpy network written from Keras' definitions."""

import copy
import dataclasses
import functools
import hashlib

import numpy as np
import pytest
import small
import torch
from keras import Keras
from torch import nn
from torch.autograd import forward_ad

from rae_bench.base.own import OwnCodeError
from rae_bench.base.plain import ConfigError
from rae_bench.models import autoencoder, networks, training
from rae_bench.models.layouts import catalogue as layouts
from rae_bench.models.layouts import convolutional
from rae_bench.models.layouts.specs import NETWORK_SIZES
from rae_bench.models.terms import regularisers
from rae_bench.models.terms.specs import GradientPenalty, OrthogonalFirstLayer

PLAIN = small.objective()
network = functools.partial(small.images, norm_momentum=0.01)
MNIST = network(channels=1, width=128, latent_dim=16)
CIFAR10 = network(channels=3, width=128, latent_dim=128)
CELEBA = network(channels=3, size=64, kernel=5, width=128, latent_dim=64)
CELEBA_CV_VAE = network(channels=3, size=64, kernel=5, width=64, latent_dim=64, start_width=1024)


# --- sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "in_encoder", "in_decoder"),
    [
        (MNIST, 11_087_248, 11_607_809),
        (CIFAR10, 11_550_208, 18_956_035),
        (CELEBA, 18_271_040, 21_477_123),
        # two hidden layers each way
        (small.vectors(7, 11, 2), (7 + 1 + 11 + 1) * 11 + 12 * 3, (3 + 1 + 11 + 1) * 11 + 12 * 7),
        # convolutions and norms, then the code; dense, then transposed convolutions and norms
        (
            CELEBA_CV_VAE,
            (75 * 64 + 5 * 64) + 5 * (128 + 256 + 512) + 25 * (64 * 128 + 128 * 256 + 256 * 512) + 64 * (16 * 512 + 1),
            65 * 65_536 + 5 * (256 + 128 + 64) + 25 * (1024 * 256 + 256 * 128 + 128 * 64) + 25 * 64 * 3 + 3,
        ),
    ],
    ids=["mnist", "cifar10", "celeba", "dense", "celeba_cv_vae"],
)
def test_numbers_of_parameters_are_those_of_kerass_layers_and_of_the_official_models(spec, in_encoder, in_decoder):
    with torch.device("meta"):
        model = autoencoder.Autoencoder(spec, small.objective())
    assert n_keras_parameters(model.features) + n_keras_parameters(model.mean) == in_encoder
    assert n_keras_parameters(model.decoder) == in_decoder


def n_keras_parameters(module):
    """As Keras counts: batch norm's moving mean and variance included, its step counter not."""
    return sum(value.numel() for name, value in module.state_dict().items() if "num_batches" not in name)


def test_vectors_go_to_codes_and_back():
    spec = small.vectors(input_dim=7, width=11, depth=2)
    model = autoencoder.build(spec, PLAIN, seed=0)
    z = model.encode(torch.randn(4, 7)).mean
    assert z.shape == (4, 3)
    assert model.decode(z).shape == (4, 7)
    assert model.decode(100 * torch.randn(50, 3)).abs().max() > 1  # unbounded


# --- geometry ---------------------------------------------------------------------------------------------


GEOMETRIES = [
    *[(1, 32, 4), (3, 32, 5), (3, 64, 5), (3, 64, 4)],
    *[(1, 16, 4), (3, 24, 5), (1, 24, 4), (3, 40, 4), (1, 40, 5), (3, 128, 4), (1, 136, 4), (1, 136, 5)],
]
"""Among them sides that are odd on the way down (24, 40, 136) and a start that is cropped on the way up (136)."""


@pytest.mark.parametrize(("channels", "size", "kernel"), GEOMETRIES)
def test_encoder_and_decoder_are_kerass(channels, size, kernel):
    model = autoencoder.build(network(channels, size, kernel), PLAIN, seed=3).train()
    for layer in networks.weighted_layers(model):
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(0))
    x = torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(1))
    z = model.encode(x).mean.detach()
    theirs = Keras(model, size)
    # float32 against float64, in channels-last order
    expected = theirs.encode(x.permute(0, 2, 3, 1).double().numpy())["mean"]
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-4)
    x_hat, _ = theirs.decode(z.double().numpy())
    assert x_hat.shape == (3, size, size, channels)
    np.testing.assert_allclose(model.decode(z).detach().permute(0, 2, 3, 1), x_hat, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("size", NETWORK_SIZES)
def test_images_of_every_size_go_to_small_maps_and_back(size, kernel):
    spec = network(channels=3, size=size, kernel=kernel)
    with torch.device("meta"):
        model = autoencoder.Autoencoder(spec, small.objective())
        x = torch.empty(2, 3, size, size)
    *convolutions, _ = model.features
    sides = [x.shape[2]]
    for layer in convolutions:
        x = layer(x)
        sides += [x.shape[2]] if isinstance(layer, nn.Conv2d) else []
    # halved, rounded up, at least four times
    assert sides == [-(-size // 2**i) for i in range(len(sides))]
    assert len(sides) == 5 or sides[-2] > 4
    assert sides[-1] <= 4
    assert x.shape[1:] == (16, sides[-1], sides[-1])  # 8 times the width
    x_hat = model.decode(model.encode(torch.empty(2, 3, size, size, device="meta")).mean)
    assert x_hat.shape == (2, 3, size, size)
    start = model.decoder[1].unflattened_size
    assert start[0] == spec.start_width
    assert 8 <= start[1] == start[2] <= 16


PAPERS = {
    # images' size and kernel: names, shapes and weights before there were others
    (32, 4): "60ec0afa0fbf9c78",
    (32, 5): "84df4e1e711c075e",
    (64, 4): "00f71ecfa0a76170",
    (64, 5): "26d8c24214d5e813",
}


@pytest.mark.parametrize(("size", "kernel"), PAPERS)
def test_networks_of_the_papers_sizes_are_the_same_to_the_byte_as_before_there_were_others(size, kernel):
    model = autoencoder.build(network(3, size, kernel, width=4), small.objective(small.GAUSSIAN), seed=7)
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(f"{name} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    assert found.hexdigest()[:16] == PAPERS[size, kernel]


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (4, 1), (5, 2), (5, 1)])
def test_a_bias_added_after_the_convolution_is_torchs_and_so_are_its_derivatives(kernel, stride):
    ours = convolutional.up(kernel, 6, 3, stride)[0].double()
    torchs = nn.ConvTranspose2d(6, 3, kernel, stride, ours.padding).double()
    torchs.load_state_dict(ours.state_dict())
    x, direction = torch.randn(2, 2, 6, 4, 4, dtype=torch.double)
    for layer in (ours, torchs):
        (layer(x) ** 3).sum().backward()
    for mine, theirs in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(*(torch.func.jvp(layer, (x,), (direction,)) for layer in (ours, torchs)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


# --- initialisation and norms -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        network(channels=3, size=64, kernel=5, width=8, latent_dim=16),
        network(channels=1, size=32, kernel=4, width=8, latent_dim=16),
    ],
)
def test_weights_are_glorot_uniform_and_biases_zero(spec):
    model = autoencoder.build(spec, PLAIN, seed=0)
    for layer in networks.weighted_layers(model):
        field = 1 if isinstance(layer, nn.Linear) else spec.kernel**2
        bound = np.sqrt(6 / (field * (layer.weight.shape[0] + layer.weight.shape[1])))
        weight = layer.weight.detach().numpy()
        assert np.abs(weight).max() <= bound * (1 + 1e-6)
        # sd of a sample of n uniform numbers varies by about 0.45/√n of itself; 4.5 of those
        np.testing.assert_allclose(weight.std(), bound / np.sqrt(3), rtol=4.5 * 0.45 / np.sqrt(weight.size))
        assert abs(weight.mean()) < 4.5 * bound / np.sqrt(3 * weight.size)
        assert not layer.bias.any()


@pytest.mark.parametrize("momentum", [0.01, 0.1])
def test_norm_momentum_is_the_weight_of_the_newest_batch(momentum):
    features, _ = layouts.features(
        network(channels=1, size=32, kernel=4, width=2, latent_dim=5, norm_momentum=momentum)
    )
    x = torch.rand(6, 1, 32, 32)
    scale, convolution, norm = list(features)[:3]
    before = convolution(scale(x))
    features.train()(x)
    torch.testing.assert_close(norm.running_mean, momentum * before.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 1 - momentum + momentum * before.var(dim=(0, 2, 3), correction=1))


# --- spectral norm ----------------------------------------------------------------------------------------


def spectral(**changes):
    return small.objective(dataclasses.replace(small.PYTORCHS_NORM, **changes))


SMALL = network(channels=3, size=64, kernel=5, width=4, latent_dim=6)


def normalised(layer, spec):
    """A copy of `layer` under our parametrization, whether or not PyTorch's would do; vectors from seed 0."""
    layer = copy.deepcopy(layer)
    torch.manual_seed(0)
    made = networks._SpectralNorm(layer, spec)
    nn.utils.parametrize.register_parametrization(layer, "weight", made, unsafe=True)
    return layer, made


LAYERS = [nn.Linear(7, 5), nn.Conv2d(3, 4, 5), nn.ConvTranspose2d(4, 3, 4)]
KINDS = ["dense", "convolution", "transposed"]


@pytest.mark.parametrize("layer", LAYERS, ids=KINDS)
def test_told_to_do_as_pytorch_our_parametrization_gives_its_bytes(layer):
    ours, _ = normalised(layer, small.PYTORCHS_NORM)
    theirs = copy.deepcopy(layer)
    torch.manual_seed(0)
    nn.utils.parametrizations.spectral_norm(theirs)
    ours.weight  # noqa: B018  PyTorch's check is a pass, hence an iteration
    for _ in range(3):
        weights = ours.weight, theirs.weight
        for part, weight in zip((ours, theirs), weights, strict=True):
            weight.pow(3).sum().backward()
            part.train(not part.training)
        assert torch.equal(*(weight.detach() for weight in weights))
        assert torch.equal(*(part.parametrizations.weight.original.grad for part in (ours, theirs)))


def keras_kernel(layer, weight):
    """A weight in Keras' layout: (in, out), (k, k, in, out), of transposed convolutions (k, k, out, in)."""
    return weight.T if isinstance(layer, nn.Linear) else weight.transpose(2, 3, 1, 0)


@pytest.mark.parametrize("layer", LAYERS, ids=KINDS)
def test_the_official_spectral_norm_is_the_power_method_on_keras_flattened_kernel(layer):
    ours, made = normalised(layer, small.OFFICIAL_NORM)
    kernel = keras_kernel(layer, layer.weight.detach().double().numpy())
    matrix = kernel.reshape(-1, kernel.shape[-1])
    last = made.v.numpy().astype(float)  # starts as a direction of N(0, I) over the last axis
    assert last.shape == kernel.shape[-1:]
    ours.eval()
    for _ in range(3):  # one iteration a pass, in evaluation mode too
        rest = matrix @ last
        rest /= np.linalg.norm(rest)
        last = rest @ matrix
        last /= np.linalg.norm(last)
        sigma = rest @ matrix @ last
        found = keras_kernel(layer, ours.weight.detach().numpy())
        np.testing.assert_allclose(found, kernel / sigma, rtol=1e-5)
    assert sigma < np.linalg.svd(matrix)[1][0]


def states(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(("evaluation", "moves"), [("fixed", False), ("iterates", True)])
def test_evaluation_iterates_only_where_it_should(evaluation, moves):
    model = autoencoder.build(SMALL, spectral(evaluation=evaluation), seed=0).eval()
    before, codes = states(model), torch.randn(2, 6)
    with torch.no_grad():
        first, second = model.decode(codes), model.decode(codes)
    after = states(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if moves and name.endswith((".u", ".v"))}
    assert bool(changed) == moves
    assert torch.equal(first, second) != moves
    again = autoencoder.build(SMALL, spectral(evaluation=evaluation), seed=0).eval()
    with torch.no_grad():
        assert torch.equal(again.decode(codes), first)  # the same passes, the same bytes
        assert torch.equal(again.decode(codes), second)


@pytest.mark.parametrize(
    ("scope", "matrix"), [("decoder", "output_channels"), ("decoder", "keras"), ("autoencoder", "keras")]
)
@pytest.mark.parametrize("family", small.FAMILIES)
def test_the_weights_in_scope_of_a_spectral_norm_have_the_largest_singular_value_one(family, scope, matrix):
    """Power iteration approaches it from below, slowly where two singular values are close: to 1 %."""
    spec = SMALL if family == "convolutional" else small.FAMILIES[family](channels=3, size=16)
    model = autoencoder.build(spec, spectral(scope=scope, matrix=matrix), seed=0).train()
    for _ in range(100):
        model.decode(model.encode(torch.rand(2, 3, spec.size, spec.size)).mean)
    decoder, plain = set(networks.weighted_layers(model.decoder)), autoencoder.build(spec, PLAIN, seed=0)
    weights = {value.data_ptr() for value in plain.decoder.parameters() if value.ndim > 1}
    assert {layer.weight.data_ptr() for layer in networks.weighted_layers(plain.decoder)} == weights
    for layer, before in zip(networks.weighted_layers(model), networks.weighted_layers(plain), strict=True):
        if scope == "autoencoder" or layer in decoder:
            by_output = isinstance(layer, nn.ConvTranspose2d) and matrix == "output_channels"
            weight = layer.weight.detach().transpose(0, 1) if by_output else layer.weight.detach()
            assert torch.linalg.svdvals(weight.flatten(1))[0].item() == pytest.approx(1, abs=0.01)
        else:
            assert torch.equal(layer.weight, before.weight)


# --- a user's decoder under the gradient penalty ----------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
def test_the_penalty_through_a_users_layer_norm_and_its_gradient_are_those_of_the_jacobian(affine):
    """The Jacobian by reverse derivatives of torch's own layer norm, which are right, and the gradient of ‖J u‖²."""
    torch.manual_seed(0)
    norm = nn.LayerNorm(6, elementwise_affine=affine)
    layers = [nn.Linear(3, 6), norm, nn.Tanh(), nn.Linear(6, 5)]
    theirs = nn.Sequential(*layers).double()
    ours = copy.deepcopy(theirs)
    term = GradientPenalty(kind="gradient_penalty", weight=1.0)
    networks.fit_for(term, ours, "mine.py:Mine")
    assert type(ours[1]) is not type(theirs[1])
    z, u = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    x_hat, penalty = regularisers.decode(ours, z, term, {"direction": u})
    jacobian = torch.autograd.functional.jacobian(lambda codes: theirs(codes).sum(dim=0), z, create_graph=True)
    expected = torch.einsum("obd,bd->bo", jacobian, u).square().sum(dim=1).mean()
    torch.testing.assert_close(x_hat, theirs(z))
    torch.testing.assert_close(penalty, expected)
    for one, other in zip(
        torch.autograd.grad(penalty, list(ours.parameters()), allow_unused=True),
        torch.autograd.grad(expected, list(theirs.parameters()), allow_unused=True),
        strict=True,
    ):
        zero = torch.zeros((), dtype=torch.float64)  # the last bias moves no derivative
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other)


def test_the_penalty_through_the_softmax_and_its_gradient_are_those_of_the_jacobian():
    """The Jacobian by reverse derivatives of torch's own softmax, which are right."""
    torch.manual_seed(0)
    before, after = nn.Linear(3, 6).double(), nn.Linear(6, 5).double()
    term = GradientPenalty(kind="gradient_penalty", weight=1.0)
    z, u = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    x_hat, penalty = regularisers.decode(lambda z: after(networks.softmax(before(z))), z, term, {"direction": u})

    def theirs(z):
        return after(before(z).softmax(dim=-1))

    jacobian = torch.autograd.functional.jacobian(lambda codes: theirs(codes).sum(dim=0), z, create_graph=True)
    expected = torch.einsum("obd,bd->bo", jacobian, u).square().sum(dim=1).mean()
    torch.testing.assert_close(x_hat, theirs(z))
    torch.testing.assert_close(penalty, expected)
    parameters = [*before.parameters(), after.weight]
    torch.testing.assert_close(torch.autograd.grad(penalty, parameters), torch.autograd.grad(expected, parameters))


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_the_softmax_is_torchs_however_large_its_values(far):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) + far
    with forward_ad.dual_level():
        found, _ = forward_ad.unpack_dual(networks.softmax(forward_ad.make_dual(x, torch.ones_like(x))))
    torch.testing.assert_close(found, x.softmax(dim=-1))
    assert networks.softmax(x.bfloat16()).dtype == torch.float32


def test_torchs_own_softmax_still_cannot_be_penalised():
    """If this fails torch is mended, and the suite's can go."""
    layer, z = nn.Linear(3, 6), torch.randn(4, 3)
    term = GradientPenalty(kind="gradient_penalty", weight=1.0)
    _, penalty = regularisers.decode(lambda z: layer(z).softmax(dim=-1), z, term, {"direction": torch.ones_like(z)})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        penalty.backward()


@pytest.mark.parametrize("layer", [nn.LayerNorm(6), nn.BatchNorm1d(6)])
def test_torchs_own_norms_are_still_wrong_under_the_penalty(layer):
    """If this fails torch is mended: the suite's norms, and the refusal of others, can go."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 6), layer, nn.Tanh(), nn.Linear(6, 5)).double()
    z, u = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    weight = decoder[0].weight

    def penalty():
        return regularisers.decode(decoder, z, GradientPenalty("gradient_penalty", 1.0), {"direction": u})[1]

    (gradient,) = torch.autograd.grad(penalty(), [weight])
    along, values = gradient / gradient.norm(), []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * 1e-6 * along
        values.append(penalty().item())
        with torch.no_grad():
            weight -= sign * 1e-6 * along
    slope = (values[0] - values[1]) / 2e-6
    assert abs(slope - (gradient * along).sum().item()) > 1e-3 * abs(slope)


# --- order of memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_images_and_layers_lie_in_the_order_of_their_device(order, monkeypatch):
    """The CPU's is channels-last; another, set in the one place for it, reaches both."""
    assert networks.MEMORY_ORDER["cpu"] == torch.channels_last
    monkeypatch.setitem(networks.MEMORY_ORDER, "cpu", order)
    images = training.to_device(np.zeros((4, 3, 32, 32), np.uint8), "cpu")
    model = autoencoder.build(network(channels=3, width=4, latent_dim=5), PLAIN, 0)
    for tensor in (images, *(weight for weight in model.parameters() if weight.dim() == 4)):
        assert tensor.is_contiguous(memory_format=order)
        assert tensor.is_contiguous() == (order == torch.contiguous_format)


# --- an orthogonal first layer ----------------------------------------------------------------------------


def test_the_first_layers_columns_are_orthonormal_before_and_after_training():
    orthogonal, plain = (
        small.training_spec(small.images(size=16), small.objective(*term), small.optimisation(epochs=3, batch_size=16))
        for term in ((OrthogonalFirstLayer(kind="orthogonal_first_layer"),), ())
    )

    def first(model):
        return networks.weighted_layers(model.decoder)[0].weight.detach().double().numpy()

    built, other = (autoencoder.build(spec.network, spec.objective, seed=0) for spec in (orthogonal, plain))
    # Gram and Schmidt's columns, by numpy and up to signs
    factor = np.linalg.qr(first(other))[0]
    np.testing.assert_allclose(np.abs((first(built) * factor).sum(axis=0)), 1, atol=1e-5)
    data = training.to_device(np.random.default_rng(0).integers(0, 256, (64, 1, 16, 16)).astype(np.uint8), "cpu")
    trained = training.train(orthogonal, data, data, seed=0).model
    assert not np.allclose(first(trained), first(built), atol=1e-2)
    for model in (built, trained):
        np.testing.assert_allclose(first(model).T @ first(model), np.eye(5), atol=1e-5)
    # nothing as large as the outputs squared is held beside the weight
    assert max(value.numel() for value in trained.state_dict().values()) <= max(
        value.numel() for value in training.train(plain, data, data, seed=0).model.state_dict().values()
    )
    without = first(training.train(plain, data, data, seed=0).model)
    assert np.abs(without.T @ without - np.eye(5)).max() > 0.1


def test_a_first_layer_narrower_than_a_code_cannot_have_orthonormal_columns():
    term = OrthogonalFirstLayer(kind="orthogonal_first_layer")
    with pytest.raises(ConfigError, match=r"'orthogonal_first_layer' needs .* dimensions; found 4 for 5$"):
        autoencoder.build(small.dense_images(size=16, width=4, latent_dim=5), small.objective(term), seed=0)


@pytest.mark.parametrize(
    ("first", "found"),
    [(nn.Linear(5, 4), r"Linear \(4, 5\)"), (nn.ConvTranspose2d(5, 9, 4), "ConvTranspose2d"), (nn.Identity(), "none")],
)
def test_a_decoder_of_ones_own_that_begins_otherwise_has_no_orthogonal_first_layer(first, found):
    term = OrthogonalFirstLayer(kind="orthogonal_first_layer")
    with pytest.raises(OwnCodeError, match=rf"^nets.py: 'orthogonal_first_layer' needs a dense first layer .*{found}"):
        networks.fit_for(term, nn.Sequential(first, nn.ReLU()), "nets.py")
    networks.fit_for(term, nn.Sequential(nn.Linear(4, 5)), "nets.py")
