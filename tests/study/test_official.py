"""The losses of the official code's 31 configurations, ours against an independent computation of them as coded."""

import csv
import dataclasses

import numpy as np
import pytest
import torch
from checkout import ROOT
from keras import Keras, kl, norm, norm_gradient, official_terms
from torch import nn

from rae_bench.models import objectives
from rae_bench.models.autoencoder import build
from rae_bench.models.specs import DenseNetwork
from rae_bench.study import official

ROWS = list(csv.DictReader((ROOT / "rae_bench/study/official_configs.csv").read_text().splitlines()))
KEYS = list(official.configurations())
CASES = list(zip(ROWS, KEYS, strict=True))
NAMES = ["-".join(key) for key in KEYS]


def disturbed(model):
    """`model` with biases and parameters of batch norm that are not what they begin with."""
    draws = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=draws)
        for name, value in module.named_parameters(recurse=False):
            if name == "bias":
                nn.init.normal_(value, std=0.3, generator=draws)
    return model


def drawing(generator):
    """Standard normal numbers as ours draws them; images transposed to Keras' layout."""

    def draw(shape):
        if len(shape) == 4:
            noise = torch.randn(shape[0], shape[3], *shape[1:3], generator=generator).permute(0, 2, 3, 1)
        else:
            noise = torch.randn(shape, generator=generator)
        return noise.double().numpy()

    return draw


@pytest.mark.parametrize(("row", "key"), CASES, ids=NAMES)
def test_a_loss_is_its_scale_times_ours_in_every_term(row, key):
    one = official.configurations()[key]
    network = dataclasses.replace(one.network(), width=3, start_width=10)
    model = disturbed(build(network, one.objective(), seed=0)).double().train()
    x = torch.rand(5, network.channels, network.size, network.size, generator=torch.Generator().manual_seed(2)).double()
    keras = Keras(model, network.size)
    for seed in (3, 4):  # twice: spectral norms go on
        ours = objectives.loss(model, x, one.objective(), torch.Generator().manual_seed(seed))
        draw = drawing(torch.Generator().manual_seed(seed))
        expected = official_terms(row, keras, x.numpy().transpose(0, 2, 3, 1), draw)
        weights = [1.0, *(objectives.weight(term) for term in (one.objective().latent, one.objective().regulariser))]
        found = [ours.reconstruction, ours.latent, ours.regulariser]
        for term, weight, coded in zip(found, weights, expected, strict=True):
            assert one.scale * weight * term.item() == pytest.approx(coded, rel=1e-6)
            assert (coded != 0) == (weight != 0)
        assert one.scale * ours.total.item() == pytest.approx(sum(expected), rel=1e-6)


@pytest.mark.parametrize("key", [key for key in KEYS if key[1] == "two_stage_vae"], ids="-".join)
def test_the_second_stages_loss_is_its_scale_times_ours(key):
    """The mean over Z of (z − ẑ)² + β₂ · KL, networks of two hidden ReLU layers."""
    row = ROWS[official.configurations()[key].number]
    stage = official.configurations()[key].second_stage()
    d = int(row["latent_dim"])
    network = DenseNetwork("dense", input_dim=d, width=9, depth=stage.depth, latent_dim=d)
    model = disturbed(build(network, stage.objective, seed=0)).double().train()
    codes = torch.randn(6, d, generator=torch.Generator().manual_seed(2)).double()
    ours = objectives.loss(model, codes, stage.objective, torch.Generator().manual_seed(3))

    def dense(layer, h):
        return h @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()

    def hidden(module, h):
        for layer in (part for part in module if isinstance(part, nn.Linear)):
            h = np.maximum(dense(layer, h), 0)
        return h

    h = hidden(model.features, codes.numpy())
    mean, log_sigma = dense(model.mean, h), 5 * np.tanh(dense(model.log_sigma, h))
    z = mean + np.exp(log_sigma) * drawing(torch.Generator().manual_seed(3))(mean.shape)
    rebuilt = dense(model.decoder[-1], hidden(model.decoder[:-1], z))
    expected = ((codes.numpy() - rebuilt) ** 2).mean(axis=1) + float(row["second_stage_beta"]) * kl(mean, log_sigma)
    assert 2 / d * ours.total.item() == pytest.approx(expected.mean(), rel=1e-6)


def test_the_independent_gradient_is_that_of_differences():
    """Of Σ x̂² along random directions of z, through batch norm's moments."""
    one = official.configurations()["mnist", "rae_gp"]
    network = dataclasses.replace(one.network(), width=3, start_width=10)
    keras = Keras(disturbed(build(network, one.objective(), seed=0)), 32)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4, 16))
    x_hat, gradient = keras.decode(z)
    g = gradient(2 * x_hat)
    for direction in rng.standard_normal((3, 4, 16)):
        energies = [(keras.decode(z + step * direction)[0] ** 2).sum() for step in (1e-6, -1e-6)]
        assert (g * direction).sum() == pytest.approx((energies[0] - energies[1]) / 2e-6, rel=1e-5)


def test_the_independent_gradient_of_batch_norm_sees_its_moments():
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 3, 3, 4, 2))
    gamma, beta = rng.standard_normal((2, 2))
    _, saved = norm(x, gamma, beta)
    direction = rng.standard_normal(x.shape)
    values = [(norm(x + step * direction, gamma, beta)[0] * dy).sum() for step in (1e-6, -1e-6)]
    found = (norm_gradient(dy, saved) * direction).sum()
    assert found == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)
