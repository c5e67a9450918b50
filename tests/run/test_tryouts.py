"""Code of a user's own is tried before anything is trained: what is right passes, each of forty wrong files is a line."""

import re

import numpy as np
import pytest
import torch

from rae_bench.base import own
from rae_bench.base.own import OwnCodeError
from rae_bench.base.specs import Compute
from rae_bench.densities.specs import OwnDensity
from rae_bench.models.layouts.specs import OwnModel, OwnNetworks, TrainedElsewhere
from rae_bench.models.specs import Cosine, Optimisation, TrainingSpec
from rae_bench.models.terms.specs import (
    Deterministic,
    GradientPenalty,
    NoLatentTerm,
    NoRegulariser,
    Objective,
    SpectralNorm,
    WeightL2,
)
from rae_bench.run import tryouts
from rae_bench.scoring.specs import OwnMeasure

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 1, 32, 32), dtype=np.uint8))
ADAM = Optimisation(1, 4, "shuffled", 1e-3, 1e-7, Cosine("cosine"))
CPU = Compute("cpu", 1, False, "float32")
PENALTIES = {
    "none": NoRegulariser("none"),
    "weight_l2": WeightL2("weight_l2", 1e-3, "all"),
    "gradient_penalty": GradientPenalty("gradient_penalty", 0.1),
    "spectral_norm": SpectralNorm("spectral_norm", 1, "decoder", "output_channels", 15, "constant", "fixed"),
}

MODEL = """
import random
import numpy as np
import torch
from torch import nn

class Mine(nn.Module):
    def __init__(self, channels, size, latent_dim):
        super().__init__()
        self.to_code = nn.Linear(channels * size * size, latent_dim)
        self.to_image = nn.Linear(latent_dim, channels * size * size)

    def encode(self, x):
        return self.to_code(x.flatten(1))

    def decode(self, z):
        return self.to_image(z).sigmoid().unflatten(1, (1, 32, 32))

    def loss(self, x, generator):
        error = (x - self.decode(self.encode(x))).square().flatten(1).sum(1).mean()
        return {"reconstruction": error, "total": error}
"""

NETWORKS = """
import torch
from torch import nn

class Mine:
    def __init__(self, channels, size, latent_dim):
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(1024, 20), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 1024), nn.Unflatten(1, (1, 32, 32)), nn.Sigmoid())
"""

DENSITY = """
import numpy as np

class Mine:
    def fit(self, codes, validation, rng):
        self.mean_, self.sd_ = codes.mean(axis=0), codes.std(axis=0)

    def sample(self, n, rng):
        return self.mean_ + self.sd_ * rng.standard_normal((n, len(self.mean_)))

    def log_density(self, codes):
        z = (codes - self.mean_) / self.sd_
        return -0.5 * (z**2).sum(axis=1) - np.log(self.sd_).sum() - 0.5 * z.shape[1] * np.log(2 * np.pi)
"""


@pytest.fixture
def code(tmp_path):
    def code(text, **settings):
        (tmp_path / "mine.py").write_text(text)
        return own.found("mine.py:Mine", tmp_path, settings, "code")

    return code


def try_model(code, has_posterior=False):
    network = OwnModel("own_model", code, has_posterior, 1, 32, 6)
    tryouts.try_training(TrainingSpec(1, network, None, ADAM, "validation", CPU), IMAGES)


def try_networks(code, penalty="none"):
    network = OwnNetworks("own", code, "own", 1, 32, 6)
    objective = Objective(Deterministic("deterministic"), NoLatentTerm("none"), PENALTIES[penalty])
    tryouts.try_training(TrainingSpec(1, network, objective, ADAM, "validation", CPU), IMAGES)


def try_density(code):
    tryouts.try_density(OwnDensity("own", "mean", code), 6, seed=0)


def changed(text, *changes):
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


# --- what is right ----------------------------------------------------------------------------------------


def test_a_model_that_keeps_the_contract_passes(code):
    try_model(code(MODEL))


def test_a_model_with_a_posterior_passes(code):
    posterior = ("return self.to_code(x.flatten(1))", "m = self.to_code(x.flatten(1)); return m, 0 * m - 1")
    loss = ("self.decode(self.encode(x))", "self.decode(self.encode(x)[0])")
    try_model(code(changed(MODEL, posterior, loss)), has_posterior=True)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_networks_that_keep_the_contract_pass_under_every_regulariser(penalty, code):
    try_networks(code(NETWORKS), penalty)


UP = "nn.Linear(latent_dim, 1024), nn.Unflatten(1, (1, 32, 32)), "
CONVOLUTIONS = """nn.Linear(latent_dim, 256), nn.Unflatten(1, (4, 8, 8)), nn.ConvTranspose2d(4, 4, 4, 2, 1), {norm},
            nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1), """
NORMS = ("nn.BatchNorm2d(4)", "nn.GroupNorm(2, 4)", "nn.LayerNorm((4, 16, 16))", "nn.LayerNorm(16, bias=False)")


@pytest.mark.parametrize("norm", NORMS)
def test_a_penalty_on_the_derivative_is_right_through_every_norm(norm, code):
    """torch's own derivatives of batch norm and layer norm are not: the suite's take their places."""
    try_networks(code(changed(NETWORKS, (UP, CONVOLUTIONS.format(norm=norm)))), "gradient_penalty")


def test_a_density_that_keeps_the_contract_passes(code):
    try_density(code(DENSITY))


# --- what is wrong ----------------------------------------------------------------------------------------
# Each: what is changed in the file that is right, and what is told. A line a fault, however long.
# ruff: noqa: E501

ERROR = "error = (x - self.decode(self.encode(x))).square().flatten(1).sum(1).mean()"
WRONG_MODELS = {
    "no method": ([("def loss", "def losses")], r"mine\.py:Mine: a model is a torch\.nn\.Module with the methods encode"),
    "no module": ([("(nn.Module)", ""), ("super().__init__()", "pass")], r"a model is a torch\.nn\.Module .* found Mine"),
    "unknown setting": ([("latent_dim):", "latent_dim, width):")], r"mine\.py: Mine fails: TypeError: .*'width'"),
    "code of a wrong shape": ([("channels * size * size, latent_dim)", "channels * size * size, 7)")], r"fails|encode gives \(2, 7\); expected \(2, 6\)"),
    "image of a wrong shape": ([("(1, 32, 32)", "(32, 32)")], r"decode gives \(\d, 32, 32\); expected \(\d, 1, 32, 32\)"),
    "a posterior that was not said": ([("return self.to_code(x.flatten(1))", "m = self.to_code(x.flatten(1)); return m, m"), ("self.encode(x))", "self.encode(x)[0])")], r"encode gives 2 tensors; expected the codes alone: has_posterior is false"),
    "a code that is an array": ([("return self.to_code(x.flatten(1))", "return self.to_code(x.flatten(1)).detach().numpy()"), (ERROR, "error = self.to_code(x.flatten(1)).square().sum() + self.to_image.weight.sum() + self.to_image.bias.sum()")], r"encode gives ndarray; expected a tensor"),
    "codes of whole numbers": ([("return self.to_code(x.flatten(1))", "return self.to_code(x.flatten(1)).long()"), (ERROR, "error = self.to_code(x.flatten(1)).square().sum() + self.to_image.weight.sum() + self.to_image.bias.sum()")], r"encode gives torch\.int64; expected floating-point"),
    "an exception": ([("def decode(self, z):", "def decode(self, z):\n        z.no_such_method()")], r"mine\.py:17: (loss|decode) fails: AttributeError"),
    "no total": ([('"total": error', '"sum": error')], r"loss gives \['reconstruction', 'sum'\]; expected a dict of scalars with 'total'"),
    "a loss that is no dict": ([('{"reconstruction": error, "total": error}', "error")], r"loss gives Tensor; expected a dict"),
    "a term that is no scalar": ([(".sum(1).mean()", ".sum(1)")], r"loss: 'reconstruction' gives \(2,\); expected \(\)"),
    "a term that is a float": ([('"total": error', '"total": error, "kl": 0.0')], r"loss: 'kl' gives float; expected a tensor \(\)"),
    "terms that change": ([('return {"reconstruction": error', 'return {("a" if len(x) == 2 else "b"): error')], r"loss gives \('b', 'total'\), before \('a', 'total'\); expected the same"),
    "a loss that is not finite": ([('"total": error}', '"total": error / 0}')], r"loss: 'total' is inf; expected a finite number"),
    "a loss without gradient": ([('"total": error}', '"total": error.detach()}')], r"loss: 'total' has no gradient"),
    "a parameter without gradient": ([("super().__init__()", "super().__init__(); self.spare = nn.Linear(2, 2)")], r"no gradient reaches 'spare\.weight'; use it in the loss, or freeze it"),
    "a gradient that is not finite": ([('"total": error}', '"total": error + (0 * self.to_code.bias.sum()).sqrt()}')], r"the gradient of 'to_code\.bias' is not finite"),
    "it changes its input": ([(ERROR, "x.mul_(0.5); " + ERROR)], r"loss changes the images that it is given"),
    "torch's global generator": ([("self.decode(self.encode(x))", "self.decode(self.encode(x) + torch.randn(len(x), 6))")], r"loss draws from torch's global generator"),
    "NumPy's global generator": ([(ERROR, "np.random.rand(); " + ERROR)], r"loss draws from NumPy's global generator"),
    "Python's global generator": ([(ERROR, "random.random(); " + ERROR)], r"loss draws from Python's global generator"),
    "two calls that differ": ([("super().__init__()", "super().__init__(); self.calls = 0"), (ERROR, "self.calls += 1; " + ERROR + " * self.calls")], r"loss: 'reconstruction' differs between two calls"),
    "two models of one seed": ([("super().__init__()", "super().__init__(); self.register_buffer('b', torch.tensor(np.random.default_rng().random()))")], r"two models of one seed differ in 'inner\.b'"),
    "images beyond [0, 1]": ([(".sigmoid()", ".mul(9)")], r"decode gives values from -\S+ to \S+; expected images in \[0, 1\]"),
    "codes that depend on their batch": ([("return self.to_code(x.flatten(1))", "z = self.to_code(x.flatten(1)); return z - z.mean(0)")], r"the code of an image depends on the others of its batch"),
    "codes that are not finite": ([("return self.to_code(x.flatten(1))", "z = self.to_code(x.flatten(1)); return z if self.training else z / 0")], r"encode gives numbers that are not finite|depends"),
    "a state outside the state": ([("super().__init__()", "super().__init__(); self.shift = torch.randn(())"), ("return self.to_code(x.flatten(1))", "return self.to_code(x.flatten(1)) + self.shift")], r"made anew with the saved state gives other codes; keep all in the state|made anew with its saved state"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG_MODELS)
def test_a_wrong_model_is_one_line(fault, code):
    changes, told = WRONG_MODELS[fault]
    with pytest.raises(OwnCodeError) as error:
        try_model(code(changed(MODEL, *changes)))
    assert re.search(told, str(error.value)), str(error.value)
    assert "mine.py" in str(error.value)
    assert "\n" not in str(error.value)


WRONG_NETWORKS = {
    "no decoder": ([("self.decoder", "self.dec")], "none", r"mine\.py:Mine: \.decoder is NoneType; expected a torch\.nn\.Module"),
    "a function": ([("nn.Sequential(nn.Flatten(), nn.Linear(1024, 20), nn.ReLU())", "lambda x: x")], "none", r"\.encoder is function; expected"),
    "features of a wrong shape": ([("nn.Flatten(), nn.Linear(1024, 20), nn.ReLU()", "nn.ReLU()")], "none", r"encoder gives \(2, 1, 32, 32\) of 2 images; expected features \(2, n\)"),
    "images of a wrong shape": ([("(1, 32, 32)", "(1, 16, 64)")], "none", r"decoder gives \(2, 1, 16, 64\) of 2 codes; expected \(2, 1, 32, 32\)"),
    "layers that do not fit": ([("nn.Linear(1024, 20)", "nn.Linear(1000, 20)")], "none", r"a pass through encoder and decoder fails: RuntimeError: mat1 and mat2"),
    "no bound": ([(", nn.Sigmoid()", "")], "none", r"decode gives values from .* expected images in \[0, 1\]"),
    "a layer that L2 does not know": ([(UP, "nn.Linear(latent_dim, 1024), nn.Unflatten(1, (1, 1024)), nn.Conv1d(1, 1, 1), nn.Unflatten(2, (32, 32)), ")], "weight_l2", r"'2\.weight' of the decoder, \(1, 1, 1\), is the weight of no dense, .* 'weight_l2' knows no other"),
    "a layer that spectral norm does not know": ([(UP, "nn.Linear(latent_dim, 1024), nn.Unflatten(1, (1, 1024)), nn.Conv1d(1, 1, 1), nn.Unflatten(2, (32, 32)), ")], "spectral_norm", r"'spectral_norm' knows no other"),
    "a norm whose derivative is wrong": ([(UP, "nn.Linear(latent_dim, 1024), nn.BatchNorm1d(1024), nn.Unflatten(1, (1, 32, 32)), ")], "gradient_penalty", r"torch's derivative of '1' of the decoder, a BatchNorm1d, is wrong; use nn\.BatchNorm2d"),
    "an instance norm": ([(UP, CONVOLUTIONS.format(norm="nn.InstanceNorm2d(4)"))], "gradient_penalty", r"torch's derivative of '3' of the decoder, a InstanceNorm2d, is wrong"),
    "a gradient that is wrong": ([("class Mine:", "class Cut(nn.Module):\n    def forward(self, x):\n        return x * x.detach()\n\nclass Mine:"), ("nn.Sigmoid()", "Cut(), nn.Sigmoid()")], "gradient_penalty", r"torch's gradient of the loss by '\d\.\w+' of the decoder is \S+, and \S+ by differences"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG_NETWORKS)
def test_wrong_networks_are_one_line(fault, code):
    changes, penalty, told = WRONG_NETWORKS[fault]
    with pytest.raises(OwnCodeError) as error:
        try_networks(code(changed(NETWORKS, *changes)), penalty)
    assert re.search(told, str(error.value)), str(error.value)
    assert "mine.py" in str(error.value)
    assert "\n" not in str(error.value)


WRONG_DENSITIES = {
    "no method": ([("def sample", "def draw")], r"mine\.py:Mine: a density has the methods fit and sample"),
    "samples of a wrong shape": ([("(n, len(self.mean_))", "len(self.mean_)")], r"sample\(2000, rng\) gives float\d+ \(6,\); expected \(2000, 6\) floats"),
    "samples that are whole numbers": ([("rng.standard_normal((n, len(self.mean_)))", "rng.integers(0, 2, (n, len(self.mean_)))"), ("return self.mean_ + self.sd_ *", "return")], r"gives int64 \(2000, 6\)"),
    "samples that are not finite": ([("return self.mean_ +", "return np.inf * self.mean_ +")], r"samples are not finite|fails"),
    "nothing learnt": ([("self.mean_, self.sd_ =", "self.mean, self.sd ="), ("len(self.mean_)", "6"), ("self.mean_ + self.sd_ *", "")], r"fit has left nothing to save"),
    "learnt where it is not saved": ([("self.mean_, self.sd_ = codes.mean(axis=0), codes.std(axis=0)", "self.mean_, self.sd_ = codes.mean(axis=0), codes.std(axis=0); self.shift = 1.0"), ("return self.mean_ + self.sd_", "return getattr(self, 'shift', 0) + self.mean_ + self.sd_")], r"saved and read back it samples otherwise"),
    "NumPy's global generator": ([("rng.standard_normal", "np.random.standard_normal")], r"saved and read back it samples otherwise|NumPy's global generator"),
    "two fits that differ": ([("codes.mean(axis=0), ", "codes.mean(axis=0) + np.random.default_rng().random(), ")], r"two fits of one seed differ in 'mean_'"),
    "log densities of a wrong shape": ([(".sum(axis=1)", "")], r"log_density of codes \(\d+, 6\) gives \(\d+, 6\); expected \(\d+,\)"),
    "an exception": ([("def fit(self, codes, validation, rng):", "def fit(self, codes, validation, rng):\n        raise ValueError('no')")], r"mine\.py:6: fit fails: ValueError: no"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG_DENSITIES)
def test_a_wrong_density_is_one_line(fault, code):
    changes, told = WRONG_DENSITIES[fault]
    with pytest.raises(Exception, match=told) as error:
        try_density(code(changed(DENSITY, *changes)))
    assert type(error.value).__module__.startswith("rae_bench.")
    assert "\n" not in str(error.value)


WRONG_TRAINED = {
    "no methods": ("import torch\ndef Mine(file):\n    return torch.nn.Linear(2, 2)\n", r"gives Linear; expected a torch\.nn\.Module with the methods encode and decode"),
    "a file of another form": ("import torch\ndef Mine(file):\n    return torch.load(file, weights_only=True)\n", r"mine\.py:3: Mine fails: "),
    "codes of another length": (MODEL + "\nInner = Mine\ndef Mine(file):\n    torch.manual_seed(0)\n    return Inner(1, 32, 7)\n", r"encode gives \(8, 7\); expected \(8, 6\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG_TRAINED)
def test_a_wrong_model_from_elsewhere_is_one_line(fault, code, tmp_path):
    text, told = WRONG_TRAINED[fault]
    (tmp_path / "file").write_text("no weights")
    network = TrainedElsewhere("trained", code(text), str(tmp_path / "file"), "", False, 1, 32, 6)
    with pytest.raises(OwnCodeError) as error:
        tryouts.try_training(TrainingSpec(1, network, None, ADAM, "validation", CPU), IMAGES)
    assert re.search(told, str(error.value)), str(error.value)


METRIC = """
import numpy as np

def Mine(real, fake, real_images, fake_images, scale=1.0):
    return scale * float(((real.mean(axis=0) - fake.mean(axis=0)) ** 2).sum())
"""


def try_metric(code):
    tryouts.try_measure(OwnMeasure(code, "lower", "Mine"), np.asarray(IMAGES), seed=0)


def test_a_metric_that_keeps_the_contract_passes(code):
    try_metric(code(METRIC, scale=2.0))


WRONG_METRICS = {
    "no number": ([("scale * float(", "str(")], r"mine\.py:Mine: gives '\S+'; expected a finite number"),
    "not finite": ([("scale *", "np.inf *")], r"gives inf; expected a finite number"),
    "it writes to what others read": ([("return", "real += 1; return")], r"mine\.py:5: Mine fails: ValueError: output array is read-only"),
    "a global generator": ([("scale *", "np.random.rand() *")], r"Mine draws from NumPy's global generator"),
    "two calls that differ": ([("scale *", "np.random.default_rng().random() *")], r"gives \S+, then \S+ of the same images"),
    "an unknown setting": ([(", scale=1.0", ""), ("scale *", "1.0 *")], r"Mine fails: TypeError: .*'scale'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", WRONG_METRICS)
def test_a_wrong_metric_is_one_line(fault, code):
    changes, told = WRONG_METRICS[fault]
    with pytest.raises(OwnCodeError) as error:
        try_metric(code(changed(METRIC, *changes), scale=2.0))
    assert re.search(told, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


def test_there_are_forty_wrong_files():
    assert len(WRONG_MODELS) + len(WRONG_NETWORKS) + len(WRONG_DENSITIES) + len(WRONG_TRAINED) >= 40
