"""Families of networks: each against other code of the same equations, at any size, and whole to every regulariser."""

import itertools

import numpy as np
import pytest
import small
import torch
from scipy.signal import correlate2d
from torch import nn

from rae_bench.base.plain import ConfigError
from rae_bench.models import autoencoder, networks, training
from rae_bench.models.layouts import transformer
from rae_bench.models.layouts.specs import NETWORK_SIZES
from rae_bench.models.terms.specs import GaussianKL, GradientPenalty, WeightL2

NEW = [kind for kind in small.FAMILIES if kind != "convolutional"]
PENALTY = GradientPenalty(kind="gradient_penalty", weight=1e-2)
L2 = WeightL2(kind="weight_l2", weight=1e-3, scope="all")
KL = GaussianKL(kind="kl", weight=0.1)


def built(spec, *parts, seed=0):
    """A model in evaluation mode, with biases and norms that are not 0 and 1, which hide faults."""
    model = autoencoder.build(spec, small.objective(*parts), seed).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


# --- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("size", NETWORK_SIZES)
def test_images_of_every_size_go_to_codes_and_back(kind, size):
    with torch.device("meta"):
        model = autoencoder.Autoencoder(small.FAMILIES[kind](channels=3, size=size), small.objective())
        z = model.encode(torch.empty(2, 3, size, size)).mean
        assert z.shape == (2, 5)
        assert model.decode(z).shape == (2, 3, size, size)


@pytest.mark.parametrize("kind", NEW)
def test_every_weight_is_one_that_regularisers_see(kind):
    """What `fit_for` refuses of a user's decoder the suite's own have not got, and it exchanges nothing in them."""
    model = autoencoder.build(small.FAMILIES[kind](), small.objective(small.GAUSSIAN), seed=0)
    seen = {id(layer.weight) for layer in networks.weighted_layers(model)}
    assert all(id(parameter) in seen for parameter in model.parameters() if parameter.dim() > 1)
    before = [type(module) for module in model.modules()]
    for regulariser in (L2, small.PYTORCHS_NORM, PENALTY):
        networks.fit_for(regulariser, model.decoder, kind)
    assert [type(module) for module in model.modules()] == before


@pytest.mark.parametrize("kind", NEW)
def test_a_code_moves_its_own_image_alone(kind):
    """No norm of these families is one of the batch: what batch norm does to the penalty's Jacobian ends here."""
    model = built(small.FAMILIES[kind](size=16)).train()
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    together = model.decode(z)
    torch.testing.assert_close(together, torch.cat([model.decode(one[None]) for one in z]), rtol=1e-4, atol=1e-6)
    assert together.std(dim=0).max() > 1e-3


LEARNING = {
    "residual": (small.residual(width=8, latent_dim=8), 2e-3),
    "dense_images": (small.dense_images(width=256, depth=1, latent_dim=8), 2e-3),
    "transformer": (small.transformer(width=32, heads=4, patch=4, latent_dim=8), 4e-3),
}


@pytest.mark.parametrize("kind", LEARNING)
def test_each_learns_eight_images(kind, digit_images):
    """In 150 updates a third of the error of the mean image is left, or less; seen: 6 to 28 %."""
    network, learning_rate = LEARNING[kind]
    images = training.to_device(digit_images[:8], "cpu")
    optimisation = small.optimisation(epochs=150, batch_size=8, learning_rate=learning_rate)
    last = training.train(small.training_spec(network, small.objective(), optimisation), images, images, 0).history[-1]
    x = digit_images[:8].reshape(8, -1) / 255
    half_variance = 0.5 * ((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert last["validation_reconstruction"] < half_variance / 3


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (small.residual, {"width": 6, "groups": 4}, "^groups: 4 does not divide width, 6$"),
        (small.transformer, {"width": 8, "heads": 3}, "^heads: 3 do not divide width, 8$"),
        (small.transformer, {"width": 6}, "^width: 6 is not a multiple of 4: sines and cosines of row and of column$"),
    ],
)
def test_what_a_family_cannot_be_is_refused(make, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(**settings)


# --- a dense network on images ----------------------------------------------------------------------------


def test_a_dense_network_on_images_is_matrices_and_relus():
    model = built(small.dense_images(channels=3, size=16))
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def through(module, h):
        layers = networks.weighted_layers(module)
        for i, layer in enumerate(layers):
            h = h @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
            h = np.maximum(h, 0) if module is model.features or i < len(layers) - 1 else h
        return h

    z = through(model.mean, through(model.features, x.reshape(4, -1).double().numpy()))
    np.testing.assert_allclose(model.encode(x).mean.detach(), z, rtol=1e-4, atol=1e-5)
    x_hat = 1 / (1 + np.exp(-through(model.decoder, z)))
    found = model.decode(torch.from_numpy(z).float()).detach()
    np.testing.assert_allclose(found, x_hat.reshape(4, 3, 16, 16), rtol=1e-4, atol=1e-5)


# --- residual convolutions ---------------------------------------------------------------------------------


class Residual:
    """The residual network in numpy and scipy, from the definitions; weights in torch's order of modules."""

    def __init__(self, module, groups):
        kinds = (nn.Conv2d, nn.Linear, nn.GroupNorm)
        self.layers = iter([layer for layer in module.modules() if isinstance(layer, kinds)])
        self.groups = groups

    def parameters(self):
        layer = next(self.layers)
        return layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()

    def convolved(self, x, stride=1):
        weight, bias = self.parameters()
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        made = [sum(correlate2d(plane, one, "valid") for plane, one in zip(padded, w, strict=True)) for w in weight]
        return (np.stack(made) + bias[:, None, None])[:, ::stride, ::stride]

    def rectified(self, x):
        weight, bias = self.parameters()
        parts = np.stack([(g - g.mean()) / np.sqrt(g.var() + 1e-5) for g in np.split(x, self.groups)])
        return np.maximum(parts.reshape(x.shape) * weight[:, None, None] + bias[:, None, None], 0)

    def block(self, x):
        return x + self.convolved(self.rectified(self.convolved(self.rectified(x))))

    def dense(self, x):
        weight, bias = self.parameters()
        return weight @ x + bias


@pytest.mark.parametrize("size", [16, 24, 136])
def test_a_residual_network_is_its_definition(size):
    """24 and 136 halve to odd sides; the first doubling of 136 is cropped."""
    spec = small.residual(channels=3, size=size, width=2, groups=2)
    model = built(spec)
    x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    down, up = Residual(model.features, 2), Residual(model.decoder, 2)
    h = x[0].double().numpy()
    for _ in spec.encoder_maps[1:]:
        h = down.block(down.convolved(h, stride=2))
    z = Residual(model.mean, 2).dense(down.rectified(h).ravel())
    np.testing.assert_allclose(model.encode(x).mean[0].detach(), z, rtol=1e-3, atol=1e-4)
    start = spec.decoder_maps[0]
    h = up.dense(z).reshape(start.filters, start.side, start.side)
    for made in spec.decoder_maps[1:]:
        h = up.convolved(up.block(h).repeat(2, 1).repeat(2, 2)[:, : made.side, : made.side])
    x_hat = 1 / (1 + np.exp(-up.convolved(up.rectified(h))))
    assert (next(down.layers, None), next(up.layers, None)) == (None, None)
    np.testing.assert_allclose(model.decode(torch.from_numpy(z).float()[None])[0].detach(), x_hat, rtol=1e-3, atol=1e-4)


def test_maps_of_a_residual_network_are_the_papers_sides_with_fewer_filters_as_they_grow():
    spec = small.residual(channels=1, size=32, width=2)
    assert spec.encoder_maps == [(1, 32), (2, 16), (4, 8), (8, 4), (16, 2)]
    assert spec.decoder_maps == [(8, 8), (4, 16), (2, 32)]
    assert [maps.filters for maps in small.residual(size=256, width=2).decoder_maps] == [16, 16, 16, 8, 4, 2]


# --- a transformer on patches ------------------------------------------------------------------------------


def test_a_block_is_torchs_transformer_layer():
    """`nn.TransformerEncoderLayer` with the norm first, GELU and no dropout, given the same weights."""
    spec = small.transformer(width=8, heads=2, expansion=3)
    torch.manual_seed(0)
    ours = transformer._Block(spec)
    theirs = nn.TransformerEncoderLayer(
        8, 2, 24, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, layer_norm_eps=1e-5
    )
    (norm1, attention), (norm2, wide, _, narrow) = ours.attend, ours.change
    projections = (attention.query, attention.key, attention.value)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(parameter.shape))
        ours.attend_scale.fill_(1.0)  # torch's has none
        ours.change_scale.fill_(1.0)
        theirs.self_attn.in_proj_weight.copy_(torch.cat([layer.weight for layer in projections]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([layer.bias for layer in projections]))
    same = [(theirs.norm1, norm1), (theirs.norm2, norm2), (theirs.self_attn.out_proj, attention.out)]
    for one, other in (*same, (theirs.linear1, wide), (theirs.linear2, narrow)):
        one.load_state_dict(other.state_dict())
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(ours(x), theirs.train()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("patch", [4, 8])
def test_patches_are_cut_and_joined_row_by_row(patch):
    x = torch.rand(2, 3, 16, 16)
    side = 16 // patch
    cut, join = transformer._Patches(patch), transformer._Join(patch, side)
    places = itertools.product(range(side), range(side))
    expected = [x[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].flatten(1) for i, j in places]
    assert torch.equal(cut(x), torch.stack(expected, dim=1))
    assert torch.equal(join(cut(x)), x)


def test_places_are_sines_and_cosines_of_row_and_column():
    found = transformer._Places(3, 8).places
    for (row, column), i in itertools.product(itertools.product(range(3), range(3)), range(2)):
        one = found[3 * row + column].double()
        for angle, at in ((row / 100.0**i, 0), (column / 100.0**i, 4)):  # 10,000^(i / 2)
            assert one[at + i].item() == pytest.approx(np.sin(angle), abs=1e-6)
            assert one[at + 2 + i].item() == pytest.approx(np.cos(angle), abs=1e-6)


def test_a_transformer_sees_where_a_patch_is():
    """Without places, equal patches elsewhere would give the same vectors; the code's layer would still tell them."""
    features = built(small.transformer(size=16)).features
    x = torch.zeros(1, 1, 16, 16)
    x[..., :8, :8] = 1
    vectors = features[:-1](x)[0]
    assert (vectors[1] - vectors[2]).abs().max() > 1e-3  # two black patches
