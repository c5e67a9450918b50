"""One optimisation step of every official configuration at full size: 100 images, networks of the released width."""

import dataclasses
import os

import pytest
import torch
from keras import Keras, official_terms
from test_official import CASES, drawing

from rae_bench import datasets, objectives, official, training
from rae_bench.autoencoder import build
from rae_bench.config import load_study

pytestmark = pytest.mark.slow
SEEN = [(row, key) for row, key in CASES if key[1] not in ("two_stage_vae", "vae_2d")]
"""2sVAE trains the VAE."""


@pytest.fixture(scope="module", autouse=True)
def all_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(digit_images):
    """100 images of each shape: digits, patches of photographs, drawn faces."""
    found = {"mnist": digit_images[:100]}
    for like, name in (("cifar10", "photos"), ("celeba", "faces")):
        spec = load_study("embedded").preparation(name)
        prepared = datasets.prepare(dataclasses.replace(spec, n_train=100, n_validation=1, n_test=1))
        found[like] = prepared.images[prepared.splits["train"]]
    return found


@pytest.mark.parametrize(("row", "key"), SEEN, ids=["-".join(key) for _, key in SEEN])
def test_a_step_at_full_size_is_finite_and_of_the_official_loss(row, key, images):
    """Each term is the independent one, as coded: float32 against float64, of sums over up to 100 x 12,288 pixels."""
    one = official.configurations()[key]
    objective, optimisation = one.objective(), one.optimisation()
    data = training.to_device(images[key[0]], "cpu")
    x = training.as_input(data)
    assert x.shape == (100, one.network().channels, one.network().size, one.network().size)
    model = build(one.network(), objective, seed=0).train()
    draw = drawing(torch.Generator().manual_seed(1))
    expected = official_terms(row, Keras(model, one.network().size), x.double().numpy().transpose(0, 2, 3, 1), draw)

    optimiser = torch.optim.Adam(
        model.parameters(), lr=optimisation.learning_rate, eps=optimisation.adam_epsilon, fused=True
    )
    before = [value.detach().clone() for value in model.parameters()]
    loss = objectives.loss(model, x, objective, torch.Generator().manual_seed(1))
    loss.total.backward()
    optimiser.step()
    weights = [1.0, *(objectives.weight(term) for term in (objective.latent, objective.regulariser))]
    found = [loss.reconstruction, loss.latent, loss.regulariser]
    for term, weight, coded in zip(found, weights, expected, strict=True):
        assert one.scale * weight * term.item() == pytest.approx(coded, rel=1e-4)
    assert one.scale * loss.total.item() == pytest.approx(sum(expected), rel=1e-4)
    for value, old in zip(model.parameters(), before, strict=True):
        assert torch.isfinite(value).all()
        assert not torch.equal(value, old)
