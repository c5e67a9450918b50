"""A user's model and networks: equal in maths to the suite's they are equal to the bit."""

import doctest
import textwrap
from dataclasses import replace

import pytest
import small
import torch

from rae_bench import api
from rae_bench.base import contracts, own
from rae_bench.models import training
from rae_bench.models.layouts.specs import OwnModel, OwnNetworks
from rae_bench.models.terms.specs import GaussianKL, WeightL2

LAYOUT = {"width": 4, "start_width": 8, "kernel": 4, "norm_momentum": 0.1}
FILE = textwrap.dedent("""
    import torch
    from torch import nn

    from rae_bench import api


    class Networks:
        def __init__(self, channels, size, latent_dim, **layout):
            made = api.PaperNetworks(channels, size, latent_dim, **layout)
            self.encoder, self.decoder = made.encoder, made.decoder()


    class VaeL2(nn.Module):
        def __init__(self, channels, size, latent_dim, kl, l2, **layout):
            super().__init__()
            made = api.PaperNetworks(channels, size, latent_dim, **layout)
            self.encoder = made.encoder
            self.mean, self.log_sigma = (nn.Linear(made.length, latent_dim) for _ in range(2))
            self.decoder = made.decoder()
            api.initialise(self)
            self.weights = kl, l2

        def encode(self, x):
            features = self.encoder(x)
            return self.mean(features), 5.0 * torch.tanh(self.log_sigma(features))

        def decode(self, z):
            return self.decoder(z)

        def loss(self, x, generator):
            mean, log_sigma = self.encode(x)
            z = mean + log_sigma.exp() * torch.randn(mean.shape, generator=generator)
            error = 0.5 * (x - self.decode(z)).square().flatten(1).sum(dim=1).mean()
            log_variance = 2 * log_sigma
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
            layers = [one for one in self.decoder.modules() if isinstance(one, (nn.Linear, nn.ConvTranspose2d))]
            l2 = torch.stack([layer.weight.square().sum() for layer in layers]).sum()
            total = error + self.weights[0] * kl.mean() + self.weights[1] * l2
            return {"reconstruction": error, "latent": kl.mean(), "regulariser": l2, "total": total}
""")


@pytest.fixture
def code(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    return lambda name, **settings: own.found(f"mine.py:{name}", tmp_path, {**LAYOUT, **settings}, "code")


@pytest.fixture(scope="module")
def suites(digits):
    """A VAE with weight L2, its spec, its images and what it has learnt in two epochs."""
    network = replace(small.images(width=4, latent_dim=6), start_width=8)
    objective = small.objective(small.GAUSSIAN, GaussianKL("kl", 0.03), WeightL2("weight_l2", 1e-3, "all"))
    spec = small.training_spec(network, objective, small.optimisation(epochs=2, batch_size=32))
    images = [torch.from_numpy(digits.images[part]) for part in (slice(320), slice(320, 420))]
    return spec, images, training.train(spec, *images, seed=3)


@pytest.mark.parametrize("kind", ["model", "networks"])
def test_what_is_equal_in_maths_is_equal_to_the_bit(kind, suites, code):
    spec, images, expected = suites
    if kind == "model":
        network = OwnModel("own_model", code("VaeL2", kl=0.03, l2=1e-3), True, 1, 32, 6)
        mine = replace(spec, network=network, objective=None)
    else:
        mine = replace(spec, network=OwnNetworks("own", code("Networks"), "suite", 1, 32, 6))
    found = training.train(mine, *images, seed=3)
    assert found.history == expected.history
    for name, codes in training.encode(expected.model, images[1]).items():
        assert (training.encode(found.model, images[1])[name] == codes).all()


def test_a_users_own_first_weights_are_left_as_they_are(suites, code):
    """Drawn from the seed by torch's own defaults, which scale a dense layer's weights otherwise than the suite."""
    spec, *_ = suites
    found = {
        how: training.build(OwnNetworks("own", code("Networks"), how, 1, 32, 6), spec.objective, seed=0)
        for how in ("own", "suite")
    }
    weight = found["own"].decoder[0].weight
    bound = 1 / weight.shape[1] ** 0.5  # kaiming_uniform with a = sqrt(5)
    assert 0.9 * bound < weight.abs().max() <= bound
    glorot = (6 / sum(weight.shape)) ** 0.5
    assert 0.9 * glorot < found["suite"].decoder[0].weight.abs().max() <= glorot


@pytest.mark.parametrize("module", [contracts, api])
def test_the_examples_of_the_contracts_hold(module):
    tried = doctest.testmod(module)
    assert tried.attempted > 0
    assert tried.failed == 0
