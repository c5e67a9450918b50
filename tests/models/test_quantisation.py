"""Quantised codes: nearest entries against scipy, the straight-through gradient, moving averages, what is decoded."""

import numpy as np
import pytest
import small
import torch
from scipy.spatial.distance import cdist

from rae_bench.densities.indices import indices_of
from rae_bench.models import autoencoder, training
from rae_bench.models.quantisation import Codebook
from rae_bench.models.terms.specs import Commitment, Quantised
from rae_bench.study.config import load_study

SPEC = Quantised(kind="quantised", n_entries=6, length=2, decay=0.9, smoothing=1e-3)
COMMITMENT = Commitment(kind="commitment", weight=0.25)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def codebook():
    """One in evaluation mode, its entries anywhere."""
    made = Codebook(SPEC).double().eval()
    made.entries.copy_(normal(6, 2, seed=9))
    return made


def test_every_vector_of_a_code_becomes_its_nearest_entry(codebook):
    continuous = normal(50, 8)
    code, distance = codebook(continuous)
    vectors, entries = continuous.numpy().reshape(-1, 2), codebook.entries.numpy()
    between = cdist(vectors, entries)
    np.testing.assert_array_equal(code.numpy().reshape(-1, 2), entries[between.argmin(axis=1)])
    expected = np.square(between.min(axis=1)).reshape(50, 4).sum(axis=1)
    np.testing.assert_allclose(distance.numpy(), expected, rtol=1e-12)
    assert codebook.nearest(code).equal(code)
    np.testing.assert_array_equal(codebook.nearest(continuous), code)


def test_gradients_pass_a_code_straight_through_and_pull_it_to_its_entries(codebook):
    continuous, above = normal(5, 4).requires_grad_(), normal(5, 4, seed=1)
    code, distance = codebook(continuous)
    (through,) = torch.autograd.grad((code * above).sum(), continuous, retain_graph=True)
    torch.testing.assert_close(through, above)
    (pull,) = torch.autograd.grad(distance.sum(), continuous)
    torch.testing.assert_close(pull, 2 * (continuous - code).detach())


def test_entries_are_moving_averages_of_the_vectors_that_chose_them(codebook):
    """Written out entry by entry, over three batches; the first one's own averages stand at the beginning."""
    codebook.train()
    batches = [normal(20, 4, seed=seed).numpy() for seed in range(3)]
    entries = batches[0].reshape(-1, 2)[[0, 6, 13, 20, 26, 33]]  # six of its 40 vectors, evenly spaced
    sizes, sums = np.zeros(6), np.zeros((6, 2))
    for step, batch in enumerate(batches):
        vectors = batch.reshape(-1, 2)
        code, _ = codebook(torch.from_numpy(batch))
        chosen = cdist(vectors, entries).argmin(axis=1)
        np.testing.assert_allclose(code.numpy().reshape(-1, 2), entries[chosen], rtol=1e-12)
        kept = 0.9 if step else 0.0
        for k in range(6):
            sizes[k] = kept * sizes[k] + (1 - kept) * np.sum(chosen == k)
            sums[k] = kept * sums[k] + (1 - kept) * vectors[chosen == k].sum(axis=0)
        smoothed = (sizes + 1e-3) / (sizes.sum() + 6e-3) * sizes.sum()
        entries = sums / smoothed[:, None]
        np.testing.assert_allclose(codebook.entries, entries, rtol=1e-10)


def test_an_entry_that_nothing_chooses_any_more_stays_finite(codebook):
    codebook.train()
    codebook(normal(20, 4))
    for _ in range(400):
        codebook(torch.full((20, 4), 3.0, dtype=torch.float64))
    assert torch.isfinite(codebook.entries).all()
    assert (codebook.entries - 3).abs().sum(dim=1).min() < 1e-2


def test_evaluation_moves_no_average(codebook):
    before = {name: buffer.clone() for name, buffer in codebook.named_buffers()}
    codebook(normal(20, 4))
    assert all(buffer.equal(before[name]) for name, buffer in codebook.named_buffers())


def test_averages_keep_their_precision_where_layers_compute_in_bfloat16():
    vectors = normal(20, 4).float()
    found = []
    for enabled in (False, True):
        made = Codebook(SPEC).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            made(vectors)
        found.append(made.entries)
    assert found[0].equal(found[1])


def test_a_decoder_sees_entries_alone_whatever_codes_it_is_given():
    model = autoencoder.build(small.images(latent_dim=4), small.objective(SPEC, COMMITMENT), seed=0).eval()
    z = normal(7, 4).float()
    with torch.no_grad():
        assert model.decode(z).equal(model.decoder(model.codebook.nearest(z)))
        assert not model.decode(z).equal(model.decoder(z))


def trained_on(digits, posterior, latent_dim):
    """A small model of real digits, and their codes."""
    images = {split: torch.from_numpy(digits.images[digits.splits[split]]) for split in ("train", "validation")}
    objective = small.objective(posterior, Commitment(kind="commitment", weight=0.6))
    spec = small.training_spec(small.images(width=4, latent_dim=latent_dim), objective, small.optimisation(epochs=4))
    model = training.train(spec, images["train"], images["validation"], seed=0).model
    return model, training.encode_splits(model, images)


@pytest.fixture(scope="module")
def trained(digits):
    """A codebook of 32 vectors of two dimensions."""
    return trained_on(digits, Quantised(kind="quantised", n_entries=32, length=2, decay=0.99, smoothing=1e-5), 8)


def test_the_codebook_of_the_study_is_used(digits):
    """Its perplexity, exp of the entropy of how often entries stand in validation codes, is at least half of it."""
    posterior = load_study("variants").training("digits", "vq_vae").objective.posterior
    _, codes = trained_on(digits, posterior, 16)
    chosen = indices_of(codes["validation.mean"], codes["codebook"])
    share = np.bincount(chosen.ravel(), minlength=posterior.n_entries) / chosen.size
    assert np.exp(-np.sum(share * np.log(np.maximum(share, 1e-300)))) >= posterior.n_entries / 2


def test_codes_of_images_are_entries_to_the_bit(trained):
    _, codes = trained
    for split in ("train", "validation"):
        vectors = codes[f"{split}.mean"].reshape(-1, 2)
        assert (vectors[:, None] == codes["codebook"]).all(axis=2).any(axis=1).all()
