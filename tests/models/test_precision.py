"""bfloat16: layers compute in it, losses and weights stay float32, and they differ by no more than its roundings."""

import dataclasses
import itertools
import math
import subprocess
import sys

import pytest
import small
import torch
from checkout import ROOT, environment

from rae_bench.base.plain import ConfigError
from rae_bench.base.rng import torch_generator
from rae_bench.base.specs import Compute
from rae_bench.models import networks, objectives, training
from rae_bench.models.autoencoder import build
from rae_bench.models.optimisation import validate
from rae_bench.models.terms.specs import MMD
from rae_bench.run import process
from rae_bench.study.config import load_study, resolve_study

STUDY = load_study("digits")
UNIT = 2.0**-9
"""Relative error of one rounding to bfloat16, whose significand has eight bits, one of them implicit."""


def compute(device="cpu", tf32=False, precision="float32"):
    return Compute(device=device, threads=1, tf32=tf32, precision=precision)


@pytest.fixture(scope="module")
def images(digits):
    return training.to_device(digits.images[digits.splits["train"][:320]], "cpu")


def _loss(model, x, objective, precision):
    with training.computing_in(precision, model, "cpu"):
        return objectives.loss(model, x, objective, torch_generator(0, "noise"))


def _fresh(name):
    spec = STUDY.training("digits", name)
    return build(spec.network, spec.objective, 0), spec.objective


def _trained(name, images, precision, network=None):
    spec = STUDY.training("digits", name)
    two_epochs = dataclasses.replace(spec.optimisation, epochs=2)
    made = small.training_spec(network or spec.network, spec.objective, two_epochs, precision)
    return training.train(made, images, images[:100], 0)


FAMILIES = {
    "residual": small.residual(width=4, groups=2),
    "dense_images": small.dense_images(width=32),
    "transformer": small.transformer(width=16),
}


@pytest.mark.parametrize(
    ("name", "family"),
    [*((name, "") for name in STUDY.competing), *itertools.product(("vae", "rae_gp", "rae_sn"), FAMILIES)],
)
def test_every_model_trains_in_bfloat16(name, family, images):
    network = FAMILIES.get(family)
    half, single = (_trained(name, images, precision, network) for precision in ("bfloat16", "float32"))
    assert all(math.isfinite(value) for row in half.history for value in row.values())
    assert half.history[1]["validation_total"] < half.history[0]["validation_total"]
    assert {w.dtype for w in half.model.parameters()} == {torch.float32}
    assert not any(torch.equal(a, b) for a, b in zip(half.model.parameters(), single.model.parameters(), strict=True))
    repeated = _trained(name, images, "bfloat16", network).model.state_dict()
    assert all(torch.equal(value, repeated[key]) for key, value in half.model.state_dict().items())


@pytest.mark.parametrize("name", STUDY.competing)
def test_losses_differ_by_the_roundings_of_the_layers_alone(name, images):
    """Each layer rounds its input, its weights and its output: 3n roundings of random sign, n layers, sum to √(3n) u.

    So far x_hat lies from float32's, in norm; by Cauchy and Schwarz the reconstruction then differs by no more than
    ‖x − x̂‖ ‖δ‖ + ½‖δ‖². Squares of what a layer gives differ twice as much, and exp(2 · 5 tanh) ten times.
    """
    model, objective = _fresh(name)
    error = math.sqrt(3 * len(networks.weighted_layers(model))) * UNIT
    assert error < 0.011
    x = training.as_input(images[:64])
    single, half = (_loss(_fresh(name)[0], x, objective, precision) for precision in ("float32", "bfloat16"))
    assert half.reconstruction != single.reconstruction

    far = math.sqrt(2 * single.reconstruction.item())  # root mean square over the batch, as all norms here
    norm = x.flatten(1).square().sum(dim=1).mean().sqrt().item()
    delta = error * (norm + far)
    assert abs(half.reconstruction - single.reconstruction) < far * delta + delta**2 / 2
    scales = len(objective.latent.scales) if isinstance(objective.latent, MMD) else 0  # each kernel is at most 1
    assert abs(half.latent - single.latent) <= error * max(10 * abs(single.latent), scales)
    assert abs(half.regulariser - single.regulariser) <= 2 * error * single.regulariser


@pytest.mark.parametrize("family", ["", *FAMILIES])
@pytest.mark.parametrize("name", ["vae", "rae_gp", "rae_sn"])
def test_layers_compute_in_bfloat16_and_losses_in_float32(name, family, images):
    model, objective = _fresh(name)
    model = build(FAMILIES[family], objective, 0) if family else model
    seen, kept = set(), []
    for layer in networks.weighted_layers(model):
        layer.register_forward_hook(lambda _layer, _inputs, output: seen.add(output.dtype))
    model.decoder.register_forward_hook(lambda _layer, _inputs, output: kept.append(output))
    x = training.as_input(images[:64])
    loss = _loss(model, x, objective, "bfloat16")
    assert seen == {torch.bfloat16}
    assert {part.dtype for part in loss} == {torch.float32}
    (x_hat,) = kept
    x_hat = torch.autograd.forward_ad.unpack_dual(x_hat).primal.detach()
    assert x_hat.dtype == torch.float32
    expected = 0.5 * ((x.double() - x_hat.double()) ** 2).flatten(1).sum(dim=1).mean().item()
    assert loss.reconstruction.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_so_do_those_of_other_families(family, images):
    """As above, and what is not a layer rounds as well: sums, and an attention's products, all of them counted here.

    Norms take what they are given to unit variance, so that roundings add up as those of layers do.
    """
    objective, network = _fresh("rae")[1], FAMILIES[family]
    model = build(network, objective, 0)
    sums = sum(type(module).__name__ in ("_Block", "_Attention") for module in model.modules())
    error = math.sqrt(3 * (len(networks.weighted_layers(model)) + 2 * sums)) * UNIT
    assert error < 0.025
    x = training.as_input(images[:64])
    single, half = (_loss(build(network, objective, 0), x, objective, kind) for kind in ("float32", "bfloat16"))
    assert half.reconstruction != single.reconstruction
    far = math.sqrt(2 * single.reconstruction.item())
    delta = error * (x.flatten(1).square().sum(dim=1).mean().sqrt().item() + far)
    assert abs(half.reconstruction - single.reconstruction) < far * delta + delta**2 / 2
    assert abs(half.latent - single.latent) <= 2 * error * single.latent


def test_validation_is_in_the_precision_of_training_and_codes_are_in_float32(images):
    model, objective = _fresh("vae")
    tasks = [training.task_of(model, objective, precision=precision) for precision in ("float32", "bfloat16")]
    single, half = (validate(task, images, 0) for task in tasks)
    assert single["reconstruction"] != half["reconstruction"]
    mean = training.encode(model, images)["mean"]
    assert (mean != torch.from_numpy(mean).bfloat16().float().numpy()).any()


def test_spectral_norms_are_found_in_float32(images):
    model, objective = _fresh("rae_sn")
    other, _ = _fresh("rae_sn")
    x = training.as_input(images[:64])
    _loss(model, x, objective, "float32")
    _loss(other, x, objective, "bfloat16")
    state = other.decoder.state_dict()
    vectors = {name: value for name, value in model.decoder.state_dict().items() if name.endswith(("_u", "_v"))}
    assert vectors
    assert all(torch.equal(value, state[name]) for name, value in vectors.items())


def test_tf32_is_a_setting_of_a_gpu():
    with pytest.raises(ConfigError, match=r"^tf32: true, but device is 'cpu', which has no TF32; write false$"):
        compute(tf32=True)
    assert compute("cuda", tf32=True).tf32


def _set(compute):
    process.configure_torch(compute)
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
    )


def test_the_process_is_deterministic_and_without_tf32():
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    assert _set(compute()) == (False, False, False, True)


@pytest.mark.parametrize("turn", ["first", "second"])
def test_what_a_test_sets_of_torch_ends_with_it(turn):
    """TF32 that one test had left on made another's features differ; on a GPU, but the flags are anywhere."""
    assert not torch.backends.cuda.matmul.allow_tf32, turn
    assert not torch.are_deterministic_algorithms_enabled()
    _set(compute())
    torch.backends.cuda.matmul.allow_tf32 = True


LOADS = """
import os
os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
from rae_bench import cli
from rae_bench.base.specs import Compute
from rae_bench.run import process
{}
import torch
"""


@pytest.mark.parametrize(
    "first",
    [
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass",
        "process.begin(Compute('cpu', 1, False, 'float32'), ())",
        "import conftest",
    ],
)
def test_cublas_is_told_to_be_deterministic_before_torch_is_loaded(first, tmp_path):
    """Later than CUDA starts it is not heard: products on a GPU then end in torch's own error. Tests do the same."""
    told = "import os\nprint(os.environ.get('CUBLAS_WORKSPACE_CONFIG'), flush=True)\nos._exit(0)\n"
    (tmp_path / "torch.py").write_text(told)
    seen = environment(ROOT, tmp_path, ROOT / "tests")
    done = subprocess.run([sys.executable, "-c", LOADS.format(first)], capture_output=True, text=True, env=seen)
    assert done.stdout.splitlines()[-1:] == [":4096:8"], done.stderr


def test_determinism_imports_no_compiler():
    """torch.use_deterministic_algorithms would: a second and 150 MiB of every stage."""
    lines = (
        "import sys, torch",
        "from rae_bench.base.specs import Compute",
        "from rae_bench.run import process",
        "process.configure_torch(Compute(device='cpu', threads=1, tf32=False, precision='float32'))",
        "print(torch.are_deterministic_algorithms_enabled(), 'torch._inductor' in sys.modules)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@pytest.mark.gpu
@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_as_the_study_says(tf32):
    assert _set(compute("cuda", tf32)) == (tf32, tf32, False, True)
    a, b = (torch.randn(256, 256, generator=torch_generator(0, name)).cuda() for name in "ab")
    error = ((a @ b).double() - a.double() @ b.double()).norm() / (a.double() @ b.double()).norm()
    assert (error > 2.0**-14) == tf32  # ten bits against 23; before Ampere there is no TF32, and this fails


@pytest.mark.gpu
@pytest.mark.parametrize("name", STUDY.competing)
def test_every_model_trains_in_bfloat16_on_a_gpu_to_the_same_bytes_twice(name, images):
    process.configure_torch(compute("cuda", precision="bfloat16"))
    first, second = (_trained(name, images.cuda(), "bfloat16").model.state_dict() for _ in range(2))
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_only_training_is_in_the_studys_precision():
    file = dataclasses.replace(load_study("smoke").file, compute=compute("cuda", tf32=True, precision="bfloat16"))
    study = resolve_study("smoke", file)
    assert study.training("digits_mini", "vae").compute.precision == "bfloat16"
    evaluation = study.evaluation("digits_mini", "vae")
    assert evaluation.training.compute.precision == "bfloat16"
    others = [evaluation, study.protocol_panel("digits_mini", "vae"), *study.references("digits_mini").values()]
    assert {spec.compute for spec in others} == {compute("cuda", tf32=True)}
    without = [
        study.floor("digits_mini"),
        *(study.fit("digits_mini", "vae", density) for density in study.densities_of("vae")),
    ]
    assert {spec.compute for spec in without} == {compute()}
