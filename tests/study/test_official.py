"""The official code's 31 configurations on our scale: weights against the published sum forms, losses against an
independent computation of them as coded, with the settings of the study as released, and the command that prints them.
"""

import csv
import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from checkout import ROOT
from keras import Keras, kl, norm, norm_gradient, official_terms
from torch import nn

from rae_bench import cli
from rae_bench.models import objectives
from rae_bench.models.autoencoder import build
from rae_bench.models.layouts.specs import DenseNetwork
from rae_bench.study import official
from rae_bench.study.config import load_study
from rae_bench.study.official import ConversionError

ROWS = list(csv.DictReader((ROOT / "rae_bench/study/official_configs.csv").read_text().splitlines()))
KEYS = list(official.configurations())
CASES = list(zip(ROWS, KEYS, strict=True))
NAMES = ["-".join(key) for key in KEYS]


# --- weights and settings ---------------------------------------------------------------------------------


def test_there_are_31_configurations_in_the_order_of_their_numbers():
    assert [one.number for one in official.configurations().values()] == list(range(31)) == [*range(len(ROWS))]


@pytest.mark.parametrize(("row", "key"), CASES, ids=NAMES)
def test_every_official_weight_passes_through_its_published_sum_form(row, key):
    data = official.configuration(*key).plain()
    for name, column in (("latent", "latent_weight_"), ("regulariser", "reg_weight_")):
        coded, summed = (float(row[column + form] or 0) for form in ("code", "sum_form"))
        found = {"coded": 0, "sum_form": 0, "ours": 0, **(data[name] or {})}
        assert found["coded"] == coded
        assert [found["sum_form"], found["ours"]] == pytest.approx([summed, summed / 2], rel=1e-12)
        if data["objective"]:  # the settings of the study
            assert data["objective"][name].get("weight", 0) == pytest.approx(summed / 2, rel=1e-9)
    assert (row["second_stage_beta"] == "") == (data["second_stage"] is None)
    assert data["updates"] * int(row["batch_size"]) <= 162_770 * int(row["epochs"])


# --- losses, of the settings of the study as released -----------------------------------------------------

RELEASED = load_study("paper_as_released")


def settings(one):
    """Network and objective of a configuration; of the two-dimensional VAE, which no study has, the other VAE's."""
    training = RELEASED.training(one.dataset, "vae" if one.model in ("two_stage_vae", "vae_2d") else one.model)
    network = dataclasses.replace(training.network, latent_dim=one.latent_dim)
    if one.model != "vae_2d":
        return network, training.objective
    latent = dataclasses.replace(training.objective.latent, weight=one.latent.ours)
    return network, dataclasses.replace(training.objective, latent=latent)


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
@pytest.mark.parametrize(
    "is_full_size", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["small", "full size"]
)
def test_a_loss_is_its_scale_times_ours_in_every_term(row, key, is_full_size):
    """Small networks in float64; those of the released width on 20 images in float32, as they are trained."""
    one = official.configurations()[key]
    network, objective = settings(one)
    network = network if is_full_size else dataclasses.replace(network, width=3, start_width=10)
    n, kind, rel = (20, torch.float32, 1e-4) if is_full_size else (5, torch.float64, 1e-6)
    model = disturbed(build(network, objective, seed=0)).to(kind).train()
    shape = (n, network.channels, network.size, network.size)
    x = torch.rand(shape, generator=torch.Generator().manual_seed(2)).to(kind)
    keras = Keras(model, network.size)
    for seed in (3,) if is_full_size else (3, 4):  # twice: spectral norms go on
        ours = objectives.loss(model, x, objective, torch.Generator().manual_seed(seed))
        draw = drawing(torch.Generator().manual_seed(seed))
        expected = official_terms(row, keras, x.double().numpy().transpose(0, 2, 3, 1), draw)
        weights = [1.0, *(objectives.weight(term) for term in (objective.latent, objective.regulariser))]
        found = [ours.reconstruction, ours.latent, ours.regulariser]
        for term, weight, coded in zip(found, weights, expected, strict=True):
            assert one.scale * weight * term.item() == pytest.approx(coded, rel=rel)
            assert (coded != 0) == (weight != 0)
        assert one.scale * ours.total.item() == pytest.approx(sum(expected), rel=rel)


@pytest.mark.parametrize("key", [key for key in KEYS if key[1] == "two_stage_vae"], ids="-".join)
def test_the_second_stages_loss_is_its_scale_times_ours(key):
    """The mean over Z of (z − ẑ)² + β₂ · KL, networks of two hidden ReLU layers."""
    row = ROWS[official.configurations()[key].number]
    stage = RELEASED.fit(key[0], "vae", "second_stage").density
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
    network, objective = settings(one)
    network = dataclasses.replace(network, width=3, start_width=10)
    keras = Keras(disturbed(build(network, objective, seed=0)), 32)
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


# --- the gradient penalty ---------------------------------------------------------------------------------


def test_the_official_penalty_becomes_the_jacobians_by_rule():
    one = official.configuration("mnist", "rae_gp")
    assert one.plain(0.1)["gradient_penalty_by_rule"] == pytest.approx(4 * 0.1 * 1.6e-6)
    assert one.plain()["objective"]["regulariser"] == {"kind": "output_gradient", "weight": pytest.approx(1.6e-6)}


def test_the_rule_holds_where_images_and_jacobian_have_nothing_to_do_with_each_other():
    rng = np.random.default_rng(0)
    jacobian = rng.standard_normal((300, 5))
    images = rng.standard_normal((20_000, 300)) * 0.4
    penalties = np.square(2 * images @ jacobian).sum(axis=1)
    expected = 4 * np.square(images).mean() * np.square(jacobian).sum()
    assert penalties.mean() == pytest.approx(expected, abs=4.5 * penalties.std() / np.sqrt(20_000))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnst", "rae"), "--dataset: unknown data set 'mnst'; did you mean 'mnist'?"),
        (("mnist", "rae_l3"), "--model: unknown model of mnist 'rae_l3'; did you mean 'rae_l2'?"),
        (("celeba", "vae_2d"), "--model: unknown model of celeba 'vae_2d'"),
        (("mnist", "rae", 0.1), "--rule: rae has no gradient penalty; only rae_gp has"),
        (
            ("cifar10", "rae_gp", 0.1),
            "--rule: the gradient penalty of rae_gp on cifar10 has weight 0; regulariser none is right",
        ),
        (("mnist", "rae_gp", 2.0), "--rule: 2 must lie in (0, 1]"),
        (("mnist", "rae_gp", math.nan), "--rule: nan must lie in (0, 1]"),
    ],
)
def test_what_cannot_be_converted_is_said(arguments, message):
    with pytest.raises(ConversionError, match=re.escape(message)):
        official.configuration(*arguments[:2]).text(*arguments[2:])


# --- the command ------------------------------------------------------------------------------------------


def test_the_command_prints_the_chain(capsys):
    cli.main(["convert", "--dataset", "mnist", "--model", "rae_l2"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])
    assert lines["ours"] == "x ½: ½‖x − x̂‖²  +  0.0064 · ½‖z‖²  +  5.12e-05 · Σw²"
    assert lines["Adam"].endswith("= 5.12e-05")
    assert lines["plateau"].endswith("= 0.0512")
    cli.main(["convert", "--dataset", "mnist", "--model", "rae_gp", "--rule", "0.1", "--json"])
    assert json.loads(capsys.readouterr().out) == official.configuration("mnist", "rae_gp").plain(0.1)


def test_the_documented_table_is_what_the_command_prints(capsys):
    cli.main(["convert", "--table"])
    text = (ROOT / "docs" / "official_code.md").read_text()
    (pasted,) = re.findall(r"<!-- python -m rae_bench convert --table -->\n\n(.*?)\n\n<!-- end -->", text, re.DOTALL)
    assert pasted == capsys.readouterr().out.rstrip()
