"""The paper's layout with Keras' conventions, against a numpy network written from Keras' definitions."""

import numpy as np
import pytest
import torch
from torch import nn

from rae_bench import autoencoder, backbones, specs

DETERMINISTIC = specs.Deterministic("deterministic")
PLAIN = specs.Objective(DETERMINISTIC, specs.NoLatentTerm("none"), specs.NoRegulariser("none"))


def network(channels, size, kernel, width, latent_dim, norm_momentum=0.01):
    return specs.ConvolutionalNetwork("convolutional", channels, size, kernel, width, latent_dim, norm_momentum)


MNIST = network(channels=1, size=32, kernel=4, width=128, latent_dim=16)
CIFAR10 = network(channels=3, size=32, kernel=4, width=128, latent_dim=128)
CELEBA = network(channels=3, size=64, kernel=5, width=128, latent_dim=64)


# --- sizes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "in_encoder", "in_decoder"),
    [(MNIST, 11_087_248, 11_607_809), (CIFAR10, 11_550_208, 18_956_035), (CELEBA, 18_271_040, 21_477_123)],
    ids=["mnist", "cifar10", "celeba"],
)
def test_numbers_of_parameters_at_the_papers_width_are_those_of_the_official_keras_models(spec, in_encoder, in_decoder):
    with torch.device("meta"):
        model = autoencoder.Autoencoder(spec, DETERMINISTIC)
    assert n_keras_parameters(model.features) + n_keras_parameters(model.mean) == in_encoder
    assert n_keras_parameters(model.decoder) == in_decoder


def n_keras_parameters(module):
    """As Keras counts: batch norm's moving mean and variance included, its step counter not."""
    return sum(value.numel() for name, value in module.state_dict().items() if "num_batches" not in name)


@pytest.mark.parametrize("spec", [network(1, 32, 4, 2, 5), network(3, 32, 5, 2, 5), network(3, 64, 5, 2, 5)])
def test_images_go_to_codes_and_back(spec):
    model = autoencoder.build(spec, PLAIN, seed=0).eval()
    x = torch.rand(3, spec.channels, spec.size, spec.size)
    features, length = backbones.features(spec)
    assert features(x).shape == (3, length)
    z = model.encode(x).mean
    assert z.shape == (3, 5)
    x_hat = model.decode(z)
    assert x_hat.shape == x.shape
    assert 0 <= x_hat.min() < x_hat.max() <= 1


def test_vectors_go_to_codes_and_back():
    spec = specs.DenseNetwork("dense", input_dim=7, width=11, depth=2, latent_dim=3)
    model = autoencoder.build(spec, PLAIN, seed=0)
    assert n_keras_parameters(model.features) == 7 * 11 + 11 + 11 * 11 + 11
    assert n_keras_parameters(model.decoder) == 3 * 11 + 11 + 11 * 11 + 11 + 11 * 7 + 7
    z = model.encode(torch.randn(4, 7)).mean
    assert z.shape == (4, 3)
    assert model.decode(z).shape == (4, 7)
    assert model.decode(100 * torch.randn(50, 3)).abs().max() > 1  # unbounded


# --- geometry ---------------------------------------------------------------------------------------------


def keras_conv(x, weight, bias, stride):
    """Keras' "same" convolution of x (B, in, H, W) by weight (out, in, k, k), H and W divisible by the stride."""
    k, (height, width) = weight.shape[-1], x.shape[2:]
    total = max(k - stride, 0)
    edge = (total // 2, total - total // 2)
    padded = np.pad(x, ((0, 0), (0, 0), edge, edge))
    out = np.zeros((len(x), len(weight), height // stride, width // stride))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = padded[:, :, i * stride : i * stride + k, j * stride : j * stride + k]
            out[:, :, i, j] = np.einsum("bcyx,ocyx->bo", window, weight)
    return out + bias[:, None, None]


def keras_transposed_conv(x, weight, bias, stride):
    """The gradient of that convolution: x (B, in, H, W), weight (in, out, k, k), result (B, out, H·s, W·s)."""
    k, before = weight.shape[-1], max(weight.shape[-1] - stride, 0) // 2
    height, width = x.shape[2] * stride, x.shape[3] * stride
    padded = np.zeros((len(x), weight.shape[1], height + k, width + k))
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            spread = np.einsum("bc,coyx->boyx", x[:, :, i, j], weight)
            padded[:, :, i * stride : i * stride + k, j * stride : j * stride + k] += spread
    return padded[:, :, before : before + height, before : before + width] + bias[:, None, None]


def keras_norm_relu(x):
    return np.maximum(x, 0) / np.sqrt(1 + 1e-3)  # moving mean 0 and variance 1, epsilon 1e-3


def weights_of(module):
    return [(w.weight.detach().numpy(), w.bias.detach().numpy()) for w in backbones.weighted_layers(module)]


def model_with_biases(spec):
    model = autoencoder.build(spec, PLAIN, seed=3).eval()
    for layer in backbones.weighted_layers(model):
        nn.init.normal_(layer.bias, generator=torch.Generator().manual_seed(0))
    return model


GEOMETRIES = [network(1, 32, 4, 2, 5), network(3, 32, 5, 2, 5), network(3, 64, 5, 2, 5), network(3, 64, 4, 2, 5)]


@pytest.mark.parametrize("spec", GEOMETRIES, ids=lambda spec: f"{spec.size}px_{spec.kernel}x{spec.kernel}")
def test_the_encoder_is_kerass(spec):
    model = model_with_biases(spec)
    images = np.random.default_rng(0).uniform(size=(2, spec.channels, spec.size, spec.size)).astype(np.float32)
    x = 2 * images - 1 if spec.size == 32 else images  # as the official 32x32 encoder does
    *convolutions, (dense, dense_bias) = [*weights_of(model.features), *weights_of(model.mean)]
    for weight, bias in convolutions:
        x = keras_norm_relu(keras_conv(x, weight, bias, stride=2))
    expected = x.reshape(2, -1) @ dense.T + dense_bias
    found = model.encode(torch.from_numpy(images)).mean.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # float32 against float64


@pytest.mark.parametrize("spec", GEOMETRIES, ids=lambda spec: f"{spec.size}px_{spec.kernel}x{spec.kernel}")
def test_the_decoder_is_kerass(spec):
    model = model_with_biases(spec)
    z = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    (dense, dense_bias), *transposed, (last, last_bias) = weights_of(model.decoder)
    x = (z @ dense.T + dense_bias).reshape(2, -1, 8, 8)  # linear: no activation
    for weight, bias in transposed:
        x = keras_norm_relu(keras_transposed_conv(x, weight, bias, stride=2))
    expected = 1 / (1 + np.exp(-keras_transposed_conv(x, last, last_bias, stride=1)))
    np.testing.assert_allclose(model.decode(torch.from_numpy(z)).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "lit"),
    # the rows an impulse in row 3 reaches: 3·stride − pad_before onwards, pad_before = (kernel − stride) // 2
    [(4, 2, range(5, 9)), (5, 2, range(5, 10)), (4, 1, range(2, 6)), (5, 1, range(1, 6))],
)
def test_an_impulse_lands_where_keras_puts_it(kernel, stride, lit):
    block = transposed_blocks(network(1, 32, kernel, 2, 5))[stride]
    for parameter, value in ((block[0].weight, 1.0), (block[0].bias, 0.0)):
        nn.init.constant_(parameter, value)
    impulse = torch.zeros(1, block[0].in_channels, 8, 8)
    impulse[0, 0, 3, 3] = 1
    out = block(impulse)
    assert out.shape[2:] == (8 * stride, 8 * stride)
    assert torch.nonzero(out[0, 0].sum(dim=1)).flatten().tolist() == list(lit)
    assert torch.nonzero(out[0, 0].sum(dim=0)).flatten().tolist() == list(lit)


def transposed_blocks(spec):
    """By stride, one transposed convolution of the decoder with what belongs to it, up to its norm or sigmoid."""
    layers = list(backbones.decoder(spec))
    starts = [i for i, layer in enumerate(layers) if isinstance(layer, nn.ConvTranspose2d)]
    ends = [i for i, layer in enumerate(layers) if isinstance(layer, (nn.BatchNorm2d, nn.Sigmoid))]
    return {layers[i].stride[0]: nn.Sequential(*layers[i:j]) for i, j in zip(starts, ends, strict=True)}


# --- initialisation and norms -----------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [network(3, 64, 5, 8, 16), network(1, 32, 4, 8, 16)])
def test_weights_are_glorot_uniform_and_biases_zero(spec):
    model = autoencoder.build(spec, PLAIN, seed=0)
    for layer in backbones.weighted_layers(model):
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
    features, _ = backbones.features(network(1, 32, 4, 2, 5, norm_momentum=momentum))
    x = torch.rand(6, 1, 32, 32)
    scale, convolution, norm = list(features)[:3]
    before = convolution(scale(x))
    features.train()(x)
    torch.testing.assert_close(norm.running_mean, momentum * before.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 1 - momentum + momentum * before.var(dim=(0, 2, 3), correction=1))


# --- spectral norm ----------------------------------------------------------------------------------------

SPECTRAL = specs.Objective(DETERMINISTIC, specs.NoLatentTerm("none"), specs.SpectralNorm("spectral_norm", 1))


def largest_singular_value(layer):
    """Of the weight as a matrix with the output channels as rows."""
    weight = layer.weight.detach()
    rows = weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight
    return torch.linalg.svdvals(rows.flatten(1))[0].item()


@pytest.mark.parametrize("spec", [network(1, 32, 4, 4, 6), network(3, 64, 5, 4, 6)])
def test_spectral_norm_gives_every_decoder_weight_the_largest_singular_value_one(spec):
    model = autoencoder.build(spec, SPECTRAL, seed=0).train()
    plain = autoencoder.build(spec, PLAIN, seed=0)
    for _ in range(100):
        model.decode(torch.randn(2, 6))
    # power iteration approaches from below, slowly where two singular values are close: 1 %
    for layer, before in zip(
        backbones.weighted_layers(model.decoder), backbones.weighted_layers(plain.decoder), strict=True
    ):
        assert largest_singular_value(layer) == pytest.approx(1, abs=0.01)
        assert abs(largest_singular_value(before) - 1) > 0.05  # so that the line above says something
    codes = torch.randn(2, 6)
    torch.testing.assert_close(model.eval().decode(codes), model.decode(codes))


def test_spectral_norm_leaves_the_encoder_alone():
    spec = network(1, 32, 4, 4, 6)
    model, plain = (autoencoder.build(spec, objective, seed=0) for objective in (SPECTRAL, PLAIN))
    for part in ("features", "mean"):
        ours, theirs = getattr(model, part).state_dict(), getattr(plain, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    x = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(model.encode(x).mean, plain.encode(x).mean)
