"""Weights on our scale: the sum forms of the official configurations as published, Pythae's as its source computes."""

import csv
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from checkout import ROOT, environment

from rae_bench import cli
from rae_bench.base.plain import parse, to_plain
from rae_bench.models.specs import Deterministic, FixedGaussian, Network, NoisyInput, NoRegulariser, Objective
from rae_bench.study import conversion, official, protocols, vocabulary
from rae_bench.study.config import CONFIG
from rae_bench.study.conversion import ConversionError, from_official, from_paper, from_pythae

PUBLISHED = list(csv.DictReader((ROOT / "rae_bench/study/official_configs.csv").read_text().splitlines()))
KEYS = list(official.configurations())


def test_there_are_31_configurations_in_the_order_of_their_numbers():
    assert [one.number for one in official.configurations().values()] == list(range(31)) == [*range(len(PUBLISHED))]


@pytest.mark.parametrize(("row", "key"), list(zip(PUBLISHED, KEYS, strict=True)), ids=["-".join(key) for key in KEYS])
def test_every_official_weight_passes_through_its_published_sum_form(row, key):
    data = from_official(*key).data
    for name, column in (("latent", "latent_weight_"), ("regulariser", "reg_weight_")):
        coded, summed = (float(row[column + form] or 0) for form in ("code", "sum_form"))
        if not coded:
            assert data[name] is None
            assert summed == 0
        else:
            assert data[name]["coded"] == coded
            assert data[name]["sum_form"] == pytest.approx(summed, rel=1e-12)
            assert data[name]["ours"] == pytest.approx(summed / 2, rel=1e-12)
            assert data["objective"][name]["weight"] == data[name]["ours"]
    assert (row["second_stage_beta"] == "") == (data["second_stage"] is None)
    assert data["optimisation"]["batch_size"] * data["updates"] <= 162_770 * data["optimisation"]["epochs"]


# paper.md's account of the code, in numbers: the stage's weight, the loss as coded over ours
STAGES = {"mnist": 0.024, "cifar10": 0.128, "celeba": 0.128}
PIXELS = {"mnist": 1024, "cifar10": 3072, "celeba": 12288}


@pytest.mark.parametrize("dataset", STAGES)
def test_the_second_stage_has_the_codes_dimensions_for_pixels(dataset):
    data = from_official(dataset, "two_stage_vae").data
    assert data["second_stage_latent"]["sum_form"] == pytest.approx(STAGES[dataset])
    stage = data["second_stage"]
    assert stage["objective"]["latent"]["weight"] == pytest.approx(STAGES[dataset] / 2)
    z = data["network"]["latent_dim"]
    assert stage["optimisation"]["adam_epsilon"] == pytest.approx(1e-7 * z / 2)
    assert stage["optimisation"]["schedule"]["threshold"] == pytest.approx(1e-4 * z / 2)


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_epsilon_and_threshold_are_divided_by_the_scale(key):
    dataset, model = key
    data = from_official(dataset, model).data
    if "vae" in model:
        scale = 2 / {"mnist": 1, "cifar10": 3, "celeba": 3}[dataset]
    else:
        scale = 0.1 if (model, dataset) == ("wae", "celeba") else 2 / PIXELS[dataset]
    assert data["scale"] == pytest.approx(scale)
    assert data["optimisation"]["adam_epsilon"] == pytest.approx(1e-7 / scale)
    assert data["optimisation"]["schedule"]["threshold"] == pytest.approx(1e-4 / scale)
    assert data["optimisation"]["order"] == ("shuffled" if dataset == "celeba" else "file")


def test_what_is_special_of_single_configurations():
    of = {key: one.objective() for key, one in official.configurations().items()}
    assert of["cifar10", "rae_gp"].regulariser == NoRegulariser("none")
    assert of["celeba", "wae"].posterior == NoisyInput("noisy_input", 0.01, 0.01)
    assert of["mnist", "wae"].posterior == Deterministic("deterministic")
    assert of["mnist", "cv_vae"].posterior == FixedGaussian("fixed_gaussian", 0.7)
    assert [of[data, "rae_l2"].regulariser.scope for data in STAGES] == ["convolutions", "convolutions", "all"]
    networks = {key: one.network() for key, one in official.configurations().items()}
    assert {key for key, network in networks.items() if network.width != 128} == {("celeba", "cv_vae")}
    assert networks["mnist", "vae_2d"].latent_dim == 2


# --- as_released ------------------------------------------------------------------------------------------


def read(name):
    return yaml.safe_load((ROOT / "workflow" / "config" / name).read_text())


TRAINED = [key for key in KEYS if key[1] not in ("vae_2d", "two_stage_vae")]


@pytest.mark.parametrize(("dataset", "model"), TRAINED, ids=["-".join(key) for key in TRAINED])
def test_the_protocol_as_released_is_the_official_configuration(dataset, model):
    """The paper's budget and the suite's model, with the official weights, as that protocol's settings leave them."""
    one, budget = official.configurations()[dataset, model], read("budgets.yaml")[f"{dataset}_paper"]
    channels, size = official.SHAPES[dataset]
    network = {name: budget[name] for name in ("kernel", "width", "start_width", "latent_dim", "norm_momentum")}
    entry = read("models.yaml")[model]
    objective = {part: entry[part] for part in ("posterior", "latent", "regulariser")}
    for term, weight in (("latent", one.latent), ("regulariser", one.regulariser)):
        if objective[term]["kind"] not in ("none", "spectral_norm"):
            objective[term]["weight"] = weight.ours if weight is not None else 1.0  # a weight of 0 is a setting, too
    stated = {
        "network": {"kind": "convolutional", "channels": channels, "size": size, **network},
        "objective": objective,
        "optimisation": budget["optimisation"],
        "validation_split": budget["validation_split"],
    }
    settings = vocabulary.read(CONFIG).settings
    in_force = tuple(read("protocols.yaml")["as_released"]["settings"])
    left = protocols.apply(stated, protocols.changes(settings, in_force, "training", dataset, model))
    found = [parse(kind, left[name], name) for name, kind in (("network", Network), ("objective", Objective))]
    assert found[0] == one.network()
    assert_close(to_plain(found[1]), to_plain(one.objective()))
    assert_close(left["optimisation"], to_plain(one.optimisation()))


@pytest.mark.parametrize("dataset", STAGES)
def test_the_second_stage_as_released_is_the_official_one(dataset):
    one = official.configurations()[dataset, "two_stage_vae"]
    settings = vocabulary.read(CONFIG).settings
    stated = read("densities.yaml")["second_stage"]
    del stated["weights"]
    stated["objective"]["latent"]["weight"] = one.stage.ours
    in_force = tuple(read("protocols.yaml")["as_released"]["settings"])
    changes = protocols.changes(settings, in_force, "densities", dataset, "vae")
    left = protocols.apply({"second_stage": stated}, changes)
    assert_close(left["second_stage"], to_plain(one.second_stage()))


def assert_close(found, expected):
    """Nested plain data, numbers but for rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9)
    else:
        assert found == expected


# --- the gradient penalty ---------------------------------------------------------------------------------


def test_the_official_penalty_becomes_the_jacobians_by_rule_only():
    with pytest.raises(ConversionError, match="its weight belongs to another quantity"):
        from_official("mnist", "rae_gp", "gradient_penalty")
    found = from_official("mnist", "rae_gp", "gradient_penalty", 0.1)
    assert found.data["gradient_penalty_by_rule"] == pytest.approx(4 * 0.1 * 1.6e-6)
    assert "by rule" in found.text()
    assert found.data["objective"]["regulariser"] == {"kind": "output_gradient", "weight": pytest.approx(1.6e-6)}


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
        (("mnist", "rae_gp", "jacobian"), "--as: unknown regulariser 'jacobian'"),
        (("mnist", "rae", "gradient_penalty"), "--as: rae has no gradient penalty; only rae_gp has"),
        (
            ("cifar10", "rae_gp", "gradient_penalty", 0.1),
            "--as: the gradient penalty of rae_gp on cifar10 has weight 0",
        ),
        (("mnist", "rae_gp", "gradient_penalty", 2.0), "--rule: 2 must lie in (0, 1]"),
        (("mnist", "rae_gp", "gradient_penalty", math.nan), "--rule: nan must lie in (0, 1]"),
    ],
)
def test_what_cannot_be_converted_is_said(arguments, message):
    with pytest.raises(ConversionError, match=re.escape(message)):
        from_official(*arguments)


# --- paper and Pythae -------------------------------------------------------------------------------------


def test_the_papers_weights_are_twice_ours():
    data = from_paper("rae_l2", 0.1, 1e-3).data
    assert data["latent"] == {"printed": 0.1, "sum_form": 0.1, "ours": 0.05}
    assert data["regulariser"]["ours"] == 5e-4
    assert from_paper("rae_gp", 0.1, 1e-3).data["regulariser"]["ours"] == 5e-4
    assert from_paper("ae", None, None).data["scale"] == 2


def pythae_losses(x, x_hat, z, mean, log_var, weights):
    """The losses of Pythae 0.1.2, written from its source, gradients of its weight decay as a loss."""
    error = torch.nn.functional.mse_loss(x_hat, x, reduction="none").sum(dim=-1)
    embedding = 0.5 * torch.linalg.norm(z, dim=-1) ** 2
    divergence = -0.5 * torch.sum(1 + log_var - mean**2 - log_var.exp(), dim=-1)
    decay = sum(0.5 * weight.square().sum() for weight in weights)
    return {
        "vae": (0.5 * error, divergence, None),
        "rae": (error, embedding, None),
        "rae_l2": (error, embedding, decay),
        "ae_l2": (error, None, decay),
        "ae": (error, None, None),
    }


@pytest.mark.parametrize("model", ["vae", "rae", "rae_l2", "ae_l2", "ae"])
def test_a_loss_of_pythae_is_its_scale_times_ours(model):
    draws = torch.Generator().manual_seed(0)
    x, x_hat, z, mean, log_var = (torch.randn(6, 4, generator=draws).double() for _ in range(5))
    weights = [torch.randn(3, 2, generator=draws).double()]
    error, latent, regulariser = pythae_losses(x, x_hat, z, mean, log_var, weights)[model]
    given = {"latent": 0.3 if latent is not None else None, "regulariser": 0.02 if regulariser is not None else None}
    data = from_pythae(model, **given).data
    theirs = error.mean() + sum(
        given[name] * term.mean()
        for name, term in (("latent", latent), ("regulariser", regulariser))
        if term is not None
    )
    normal = torch.distributions.Normal(mean, (0.5 * log_var).exp())
    divergence = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(dim=1).mean()
    ours = 0.5 * (x - x_hat).square().sum(dim=1).mean()
    if latent is not None:
        ours = ours + data["latent"]["ours"] * (divergence if model == "vae" else 0.5 * z.square().sum(dim=1).mean())
    if regulariser is not None:
        ours = ours + data["regulariser"]["ours"] * weights[0].square().sum()
    assert theirs.item() == pytest.approx(data["scale"] * ours.item(), rel=1e-6)
    assert data["adam_epsilon"]["ours"] == pytest.approx(1e-8 / data["scale"])


def test_pythaes_wae_has_the_whole_squared_error():
    assert from_pythae("wae", 0.03, None).data["latent"]["ours"] == 0.015


@pytest.mark.parametrize(
    ("convert", "arguments", "message"),
    [
        (from_pythae, ("rae_gp", 0.1, 0.1), "--model: Pythae's RAE_GP penalises the gradient of the summed"),
        (from_pythae, ("cv_vae", 0.1, None), "--model: unknown model of Pythae 'cv_vae'"),
        (from_paper, ("rea", 0.1, None), "--model: unknown model 'rea'; did you mean 'rae'?"),
        (from_paper, ("rae", 0.1, 0.2), "--regulariser: 0.2 has no term to weigh in rae"),
        (from_paper, ("rae_l2", 0.1, None), "--regulariser: missing, the weight of Σw² in rae_l2"),
        (from_paper, ("rae", -1.0, None), "--latent: -1 must be a number, not negative"),
        (from_paper, ("rae", math.inf, None), "--latent: inf must be a number"),
        (from_paper, ("rae", math.nan, None), "--latent: nan must be a number"),
    ],
)
def test_weights_that_fit_no_term_are_said(convert, arguments, message):
    with pytest.raises(ConversionError, match=re.escape(message)):
        convert(*arguments)


# --- the command ------------------------------------------------------------------------------------------


def run(*arguments):
    command = [sys.executable, "-m", "rae_bench", "convert", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True)


def test_the_command_prints_the_chain(capsys):
    cli.main(["convert", "--from", "official", "--dataset", "mnist", "--model", "rae_l2"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:])
    assert lines["ours"] == "x ½: ½‖x − x̂‖²  +  0.0064 · ½‖z‖²  +  5.12e-05 · Σw²"
    assert lines["Adam"].endswith("= 5.12e-05")
    assert lines["plateau"].endswith("= 0.0512")
    cli.main(["convert", "--from", "official", "--dataset", "mnist", "--model", "rae_l2", "--json"])
    assert json.loads(capsys.readouterr().out) == from_official("mnist", "rae_l2").data


def test_a_mistake_is_one_line():
    for arguments, message in (
        (["--from", "offical"], "--from: unknown source 'offical'; did you mean 'official'?"),
        (["--from", "official", "--latent", "1"], "--latent: the official code's weights are known; name a model"),
        (["--from", "paper", "--model", "vae"], "--latent: missing, the weight of KL in vae"),
    ):
        ended = run(*arguments)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith(f"rae_bench convert: {message}")
        assert ended.stderr.count("\n") == 1


def test_the_documented_table_is_what_the_command_prints():
    text = (ROOT / "docs" / "methods.md").read_text()
    (pasted,) = re.findall(r"<!-- python -m rae_bench convert --table -->\n\n(.*?)\n\n<!-- end -->", text, re.DOTALL)
    assert pasted == conversion.table()
