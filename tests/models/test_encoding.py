"""Latent terms of the encoder's own pass: the contraction against exact Jacobians, in value and in gradient."""

import dataclasses

import numpy as np
import pytest
import small
import torch
from torch import nn

from rae_bench.models import autoencoder, objectives, training
from rae_bench.models.terms.encoding import encode
from rae_bench.models.terms.specs import Contractive, MaskedInput, NoisyInput, Saturating, Sphere

CONTRACTIVE = Contractive(kind="contractive", weight=0.3)
VECTORS = small.vectors(input_dim=6, width=8, latent_dim=3)
MATRIX = torch.tensor([[1.0, 2, 0, -1, 0, 1], [-1, 0, 1, 2, -1, 0], [0, 1, 1, 0, -2, 1]])
POSTERIORS = {
    "point": small.POINT,
    "fixed": small.FIXED,
    "saturating": Saturating(kind="saturating"),
    "sphere": Sphere(kind="sphere"),
    "noisy": NoisyInput(kind="noisy_input", sd=0.3, bound=0.5),
    "masked": MaskedInput(kind="masked_input", share=0.5, patch=2),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def contraction(model, objective, x, seed):
    noise = objectives.noise(model, x.shape, objective, generator(seed), x.device)
    return encode(model, x, objective.latent, noise)[2]


def jacobian(model, x, noise):
    """∂z/∂x of the batch's map: (B, d, B, ...)."""
    return torch.autograd.functional.jacobian(lambda x: model.draw_with(x, noise)[1], x)


def test_the_contraction_of_a_linear_encoder_is_its_squared_frobenius_norm():
    objective = small.objective(CONTRACTIVE)
    model = autoencoder.build(VECTORS, objective, seed=0)
    model.features, model.mean = nn.Identity(), nn.Linear(6, 3)
    model.mean.weight.data = MATRIX
    found = contraction(model, objective, torch.randn(20_000, 6), seed=1)
    # ‖Aᵀu‖² has variance 2·tr (A Aᵀ)²; 4.5 standard errors of the mean of 20,000 draws
    error = np.sqrt(2 * (MATRIX @ MATRIX.T).square().sum().item() / 20_000)
    assert found.item() == pytest.approx(MATRIX.square().sum().item(), abs=4.5 * error)


@pytest.mark.parametrize("posterior", POSTERIORS.values(), ids=POSTERIORS)
@pytest.mark.parametrize("is_training", [True, False], ids=["training", "evaluation"])
def test_a_contraction_through_the_image_encoder_is_that_of_its_exact_jacobian(posterior, is_training):
    """Along the direction that was drawn; in training mode of the batch's map, with its off-diagonal blocks."""
    objective = small.objective(posterior, CONTRACTIVE)
    model = autoencoder.build(small.images(), objective, seed=0).double().train(is_training)
    x = torch.rand(3, 1, 32, 32, generator=generator()).double()
    noise = objectives.noise(model, x.shape, objective, generator(5), x.device)
    along = torch.einsum("bd,bdkcyx->kcyx", noise["contraction"].double(), jacobian(model, x, noise))
    codes, z, found = encode(model, x, CONTRACTIVE, noise)
    assert found.item() == pytest.approx(along.square().sum().item() / 3, rel=1e-9)
    assert found > 0
    again, same = model.draw_with(x, noise)
    assert torch.equal(z, same)
    assert torch.equal(codes.mean, again.mean)
    with torch.no_grad():
        assert encode(model, x, CONTRACTIVE, noise)[2].item() == pytest.approx(found.item(), rel=1e-12)


def test_the_contraction_is_unbiased_for_the_exact_jacobian():
    objective = small.objective(CONTRACTIVE)
    model, x = autoencoder.build(VECTORS, objective, seed=0), torch.randn(4, 6, generator=generator())
    exact = torch.func.vmap(torch.func.jacrev(lambda one: model.encode(one[None]).mean[0]))(x)  # (4, 3, 6)
    draws = [contraction(model, objective, x, seed).item() for seed in range(2000)]
    expected = exact.square().sum(dim=(1, 2)).mean().item()
    assert np.mean(draws) == pytest.approx(expected, abs=4.5 * np.std(draws) / np.sqrt(2000))


def test_one_backward_pass_gives_the_contractions_gradient_once():
    objective = small.objective(CONTRACTIVE)
    model, x = autoencoder.build(VECTORS, objective, seed=0), torch.randn(4, 6, generator=generator())
    model.features = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
    objectives.loss(model, x, objective, generator(1)).total.backward()

    u = torch.randn(4, 3, generator=generator(1))
    exact = torch.func.vmap(torch.func.jacrev(lambda one: model.mean(model.features(one))))(x)
    squares = torch.einsum("bdi,bd->bi", exact, u).square().sum(dim=1)
    errors = (x - model.decoder(model.encode(x).mean)).square().sum(dim=1) / 2
    expected = torch.autograd.grad((errors + 0.3 * squares).mean(), list(model.parameters()), allow_unused=True)
    for (name, parameter), gradient in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, msg=name)


def trained(objective, images):
    """A narrow model after some epochs of digits (n, 1, 32, 32), in evaluation mode."""
    images = training.to_device(images, "cpu")
    spec = small.training_spec(small.images(), objective, small.optimisation(epochs=15, batch_size=16))
    return training.train(spec, images, images, seed=0).model.eval()


def test_a_contractive_autoencoders_codes_move_less_for_their_spread_than_without_the_penalty(digits):
    """Small codes alone do not pass: the norm is taken over the codes' variance."""
    images = digits.images[digits.splits["train"]][:128]
    found = []
    for latent in (small.NO_LATENT, dataclasses.replace(CONTRACTIVE, weight=1.0)):
        model = trained(small.objective(latent, small.PYTORCHS_NORM), images)
        x = training.as_input(torch.from_numpy(images))
        exact = torch.func.vmap(torch.func.jacrev(lambda one, m=model: m.encode(one[None]).mean[0]))(x[:16])
        spread = model.encode(x).mean.var(dim=0).sum().item()
        found.append(exact.square().sum().item() / 16 / spread)
    assert found[1] < 0.6 * found[0]


def test_a_masked_autoencoder_tells_what_is_hidden_better_than_one_that_saw_whole_images(digits):
    """Of held-out digits of which half is hidden."""
    masked = MaskedInput(kind="masked_input", share=0.5, patch=4)
    train, held_out = (digits.images[digits.splits[split]][:400] for split in ("train", "validation"))
    x, errors = training.as_input(torch.from_numpy(held_out)), []
    seen = autoencoder.build(small.images(), small.objective(masked), seed=0).noise(x.shape, generator(), x.device)
    for posterior in (small.POINT, masked):
        model = trained(small.objective(posterior), train)
        model.posterior = masked
        with torch.no_grad():
            errors.append((model.decode(model.draw_with(x, seen)[1]) - x).square().sum().item() / len(x))
    assert errors[1] < 0.9 * errors[0]
