"""A step and a training on a GPU: what they are on the CPU but for rounding, and the same bytes twice."""

import dataclasses

import pytest
import small
import torch

from rae_bench.base import rng
from rae_bench.models import autoencoder, optimisation, training
from rae_bench.models.terms.specs import GradientPenalty, OutputGradient
from rae_bench.study.config import load_study

BATCH = 32
DIGITS, RELEASED = load_study("digits"), load_study("paper_as_released")
OBJECTIVES = {name: DIGITS.training("digits", name).objective for name in DIGITS.competing} | {
    f"{name}, as released": RELEASED.training("mnist", name).objective for name in RELEASED.competing
}
DERIVATIVES = (GradientPenalty, OutputGradient)
NETWORK = small.images(width=8, latent_dim=16)


def step(objective, device, dtype, images):
    """The terms of the loss of a batch, all gradients as one vector, and all weights and states after Adam's update.

    With ε = 1 that is g / (1 + |g|). At the suite's ε it is all but the gradient's sign, which rounding decides where
    the gradient is 0, as of biases before a batch norm.
    """
    draw = rng.normal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rng, "normal", lambda *drawn: draw(*drawn).to(dtype))  # the same noise, widened
        model = autoencoder.build(NETWORK, objective, seed=0).to(device, dtype)
        settings = small.optimisation(batch_size=BATCH, learning_rate=1e-3, order="file", adam_epsilon=1.0)
        loop = optimisation.Loop.start(model, settings, BATCH, seed=0)
        x = training.to_device(images[:BATCH], device)[:].to(dtype) / 255
        terms = loop.train_epoch(training.task_of(model, objective), settings, x)
    gradients = [parameter.grad.flatten() for parameter in model.parameters()]
    state = [value.flatten().to(dtype) for value in model.state_dict().values()]
    return {"terms": terms, "gradient": torch.cat(gradients).cpu(), "state": torch.cat(state).cpu()}


def differences(found, expected):
    return {
        name: ((found[name] - expected[name]).double().norm() / expected[name].double().norm()).item() for name in found
    }


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_in_double_precision_is_the_cpus(name, device, digit_images):
    expected = step(OBJECTIVES[name], "cpu", torch.float64, digit_images)
    found = differences(step(OBJECTIVES[name], device, torch.float64, digit_images), expected)
    assert max(found.values()) < 1e-9, found


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_in_single_precision_is_the_cpus(name, device, digit_images):
    """Rounding turns ReLUs over, which moves derivatives: of float32 against float64 on the CPU, by up to 7e-5 of the
    state, 2e-4 of a penalty on a derivative, and 4e-3 of the gradient.
    """
    expected = step(OBJECTIVES[name], "cpu", torch.float32, digit_images)
    found = differences(step(OBJECTIVES[name], device, torch.float32, digit_images), expected)
    assert found["state"] < 1e-4
    assert found["terms"] < (1e-3 if isinstance(OBJECTIVES[name].regulariser, DERIVATIVES) else 1e-4)
    assert found["gradient"] < 1e-2


def test_a_step_of_other_images_is_noticed(digit_images):
    expected = step(OBJECTIVES["vae"], "cpu", torch.float32, digit_images)
    found = differences(step(OBJECTIVES["vae"], "cpu", torch.float32, digit_images[1:]), expected)
    assert min(found.values()) > 1e-3


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_trainings_are_the_same_bytes(name, device, digit_images):
    """Weights, history and codes, of networks as wide as their kernels' choice asks for on a GPU."""
    network = dataclasses.replace(NETWORK, width=32, start_width=256) if device == "cuda" else small.images()
    spec = small.training_spec(network, OBJECTIVES[name], small.optimisation(epochs=2, batch_size=BATCH))
    images = training.to_device(digit_images[: 3 * BATCH], device)
    made = []
    for _ in range(2):
        trained = training.train(spec, images, images[:BATCH], seed=0)
        weights = {key: value.cpu().numpy().tobytes() for key, value in trained.model.state_dict().items()}
        codes = {key: value.tobytes() for key, value in training.encode(trained.model, images).items()}
        made.append((weights, codes, trained.history))
    assert made[0] == made[1]
