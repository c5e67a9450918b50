"""The training loop: it learns, repeats itself to the byte, keeps the best weights and says where it fails."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import distributions
from torch.utils._python_dispatch import TorchDispatchMode

from rae_bench.base import storage
from rae_bench.models import autoencoder, networks, training
from rae_bench.models.specs import (
    MMD,
    ConvolutionalNetwork,
    Cosine,
    DenseNetwork,
    Deterministic,
    FixedGaussian,
    Gaussian,
    GaussianKL,
    GradientPenalty,
    Latent,
    NoLatentTerm,
    NoRegulariser,
    Objective,
    Optimisation,
    OutputGradient,
    Plateau,
    SpectralNorm,
    SquaredNorm,
    WeightL2,
)
from rae_bench.study.config import load_study

VECTORS = DenseNetwork("dense", input_dim=6, width=16, depth=1, latent_dim=3)
IMAGES = ConvolutionalNetwork("convolutional", 1, 32, 4, width=8, start_width=64, latent_dim=8, norm_momentum=0.1)
POINT = Deterministic("deterministic")
NO_LATENT, NO_REGULARISER = NoLatentTerm("none"), NoRegulariser("none")
AE = Objective(POINT, NO_LATENT, NO_REGULARISER)
VAE = Objective(Gaussian("gaussian", 5.0), GaussianKL("kl", 0.1), NO_REGULARISER)
COSINE = Cosine("cosine")


def optimisation(epochs=5, batch_size=50, learning_rate=5e-3, schedule=COSINE, order="shuffled"):
    return Optimisation(epochs, batch_size, order, learning_rate, 1e-7, schedule)


def vectors(n=300, seed=0, scale=2.0):
    """Correlated vectors: three directions of six matter."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((3, 6))
    noisy = rng.standard_normal((n, 3)) @ mixing + 0.1 * rng.standard_normal((n, 6))
    return torch.from_numpy((scale * noisy).astype(np.float32))


def train(objective=AE, spec=None, data=None, validation=None, seed=0, network=VECTORS, **settings):
    return training.train(
        network,
        objective,
        spec or optimisation(**settings),
        vectors() if data is None else data,
        vectors(100, seed=1) if validation is None else validation,
        seed,
    )


def state_bytes(trained):
    return {name: value.numpy().tobytes() for name, value in trained.model.state_dict().items()}


# --- learning ---------------------------------------------------------------------------------------------


def test_an_autoencoder_overfits_eight_images(digit_images):
    images = training.to_device(digit_images[:8], "cpu")
    trained = train(data=images, validation=images, network=IMAGES, epochs=200, batch_size=8)
    x = digit_images[:8].reshape(8, -1) / 255
    half_variance = 0.5 * ((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert trained.history[-1]["validation_reconstruction"] < 0.02 * half_variance
    assert not trained.model.training


@pytest.mark.parametrize("objective", [AE, VAE], ids=["ae", "vae"])
def test_a_seed_gives_identical_weights_and_another_seed_others(objective):
    torch.manual_seed(0)
    first = train(objective, seed=3, epochs=2)
    torch.manual_seed(1)
    second = train(objective, seed=3, epochs=2)
    other = train(objective, seed=4, epochs=2)
    assert state_bytes(first) == state_bytes(second)
    assert first.history == second.history
    assert all(state_bytes(first)[name] != weights for name, weights in state_bytes(other).items())


def test_training_leaves_torchs_global_generator_as_it_was():
    before = torch.get_rng_state()
    train(VAE, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_encode_gives_the_posterior_of_every_sample_in_order(monkeypatch):
    monkeypatch.setattr(training, "VALIDATION_BATCH", 7)
    trained = train(VAE, epochs=1)
    encoded = training.encode(trained.model, vectors(30))
    hidden = trained.model.features(vectors(30))
    np.testing.assert_allclose(encoded["mean"], trained.model.mean(hidden).detach(), rtol=1e-5, atol=1e-6)
    expected = 5 * torch.tanh(trained.model.log_sigma(hidden)).detach()
    np.testing.assert_allclose(encoded["log_sigma"], expected, rtol=1e-5, atol=1e-6)
    assert list(training.encode(train(AE, epochs=1).model, vectors(30))) == ["mean"]


def test_uint8_images_are_scaled_to_one_and_vectors_left_alone():
    torch.testing.assert_close(
        training.as_input(torch.tensor([0, 51, 255], dtype=torch.uint8)), torch.tensor([0, 0.2, 1])
    )
    x = torch.tensor([0.0, 51, 255])
    assert training.as_input(x) is x


# --- regularisers lower what they name --------------------------------------------------------------------


def codes_of(trained):
    return torch.from_numpy(training.encode(trained.model, vectors(200, seed=2))["mean"])


def mean_kl(trained):
    encoded = {name: torch.from_numpy(v) for name, v in training.encode(trained.model, vectors(200, seed=2)).items()}
    sigma = encoded["log_sigma"].exp() if "log_sigma" in encoded else torch.full_like(encoded["mean"], 0.7)
    normal = distributions.Normal(encoded["mean"], sigma)
    return distributions.kl_divergence(normal, distributions.Normal(0.0, 1.0)).sum(dim=1).mean().item()


def mean_squared_norm(trained):
    return codes_of(trained).square().sum(dim=1).mean().item()


def distance_from_the_prior(trained):
    z, prior = codes_of(trained), torch.randn(200, 3, generator=torch.Generator().manual_seed(0))

    def mean_kernel(a, b):
        return (1 / (1 + torch.cdist(a, b).square())).mean().item()

    return mean_kernel(z, z) + mean_kernel(prior, prior) - 2 * mean_kernel(z, prior)


def decoder_weights_squared(trained):
    return sum(p.detach().square().sum().item() for p in trained.model.decoder.parameters() if p.ndim == 2)


def mean_squared_jacobian(trained):
    return torch.func.vmap(torch.func.jacrev(trained.model.decoder))(codes_of(trained)).square().sum(dim=(1, 2)).mean()


def mean_squared_energy_gradient(trained):
    decoder = trained.model.decoder
    gradient = torch.func.vmap(torch.func.grad(lambda z: decoder(z).square().sum()))(codes_of(trained))
    return gradient.square().sum(dim=1).mean()


def objective(posterior, term):
    is_latent = isinstance(term, Latent)
    return Objective(posterior, term if is_latent else NO_LATENT, NO_REGULARISER if is_latent else term)


@pytest.mark.parametrize(
    ("posterior", "term", "quantity"),
    [
        (Gaussian("gaussian", 5.0), GaussianKL("kl", 1.0), mean_kl),
        (FixedGaussian("fixed_gaussian", 0.7), GaussianKL("kl", 1.0), mean_kl),
        (POINT, MMD("mmd", 100.0, (0.5, 1.0)), distance_from_the_prior),
        (POINT, SquaredNorm("squared_norm", 1.0), mean_squared_norm),
        (POINT, WeightL2("weight_l2", 1.0, "all"), decoder_weights_squared),
        (POINT, GradientPenalty("gradient_penalty", 0.3), mean_squared_jacobian),
        (POINT, OutputGradient("output_gradient", 0.01), mean_squared_energy_gradient),
    ],
    ids=["kl", "kl_of_fixed_sigma", "mmd", "squared_norm", "weight_l2", "gradient_penalty", "output_gradient"],
)
def test_a_term_lowers_the_quantity_it_names(posterior, term, quantity):
    bound = train(objective(posterior, term), epochs=30)
    free = train(objective(posterior, dataclasses.replace(term, weight=1e-9)), epochs=30)
    assert quantity(bound) < 0.7 * quantity(free)


def test_spectral_norm_lowers_the_largest_singular_values_to_one():
    spectral = Objective(
        POINT, NO_LATENT, SpectralNorm("spectral_norm", 1, "decoder", "output_channels", 15, "constant", "fixed")
    )
    assert largest_singular_values(train(spectral, epochs=30)) == pytest.approx([1, 1], abs=0.01)
    assert min(largest_singular_values(train(AE, epochs=30))) > 1.1


def largest_singular_values(trained):
    layers = networks.weighted_layers(trained.model.decoder)
    return [torch.linalg.matrix_norm(layer.weight.detach(), 2).item() for layer in layers]


# --- the loop ---------------------------------------------------------------------------------------------


def spy_on_batches(monkeypatch):
    """Every batch the network sees, as the loop scales it."""
    seen, real = [], training.as_input

    def as_input(data):
        seen.append(data)
        return real(data)

    monkeypatch.setattr(training, "as_input", as_input)
    return seen


def test_an_epoch_sees_every_sample_once_in_a_fresh_random_order(monkeypatch):
    seen = spy_on_batches(monkeypatch)
    data = torch.arange(60.0)[:, None].expand(60, 6).contiguous() / 60
    train(data=data, validation=-torch.ones(5, 6), epochs=2, batch_size=20)
    batches = [(batch[:, 0] * 60).round().int().tolist() for batch in seen if batch[0, 0] >= 0]
    assert [len(batch) for batch in batches] == [20] * 6
    first, second = list(itertools.chain(*batches[:3])), list(itertools.chain(*batches[3:]))
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second
    for order in (first, second):  # neighbours in a random order are neighbours in the data 2 times in 60
        assert np.mean(np.abs(np.diff(order)) == 1) < 0.2


def test_in_file_order_every_epoch_has_the_same_batches(monkeypatch):
    seen = spy_on_batches(monkeypatch)
    data = torch.arange(50.0)[:, None].expand(50, 6).contiguous() / 50
    train(data=data, validation=-torch.ones(5, 6), epochs=2, batch_size=20, order="file")
    batches = [(batch[:, 0] * 50).round().int().tolist() for batch in seen if batch[0, 0] >= 0]
    assert batches == 2 * [list(range(20)), list(range(20, 40))]


def test_every_seed_has_its_own_order(monkeypatch):
    data = torch.arange(40.0)[:, None].expand(40, 6).contiguous() / 40
    orders = []
    for seed in (0, 1):
        seen = spy_on_batches(monkeypatch)
        train(data=data, validation=data[:5], epochs=1, batch_size=40, seed=seed)
        orders.append(seen[0][:, 0].tolist())
    assert orders[0] != orders[1]


def test_the_incomplete_last_batch_of_an_epoch_is_left_out(monkeypatch):
    seen = spy_on_batches(monkeypatch)
    data = torch.arange(50.0)[:, None].expand(50, 6).contiguous() / 50
    train(data=data, validation=-torch.ones(5, 6), epochs=1, batch_size=20)
    samples = [round(value * 50) for batch in seen if batch[0, 0] >= 0 for value in batch[:, 0].tolist()]
    assert len(samples) == len(set(samples)) == 40


def test_one_update_is_adams():
    data = vectors(50)
    trained = train(data=data, validation=data, epochs=1, batch_size=50, learning_rate=1e-3)
    model = autoencoder.build(VECTORS, AE, seed=0)
    loss = 0.5 * (data - model.decode(model.encode(data).mean)).square().sum(dim=1).mean()
    gradients = dict(zip(model.state_dict(), torch.autograd.grad(loss, list(model.parameters())), strict=True))
    for name, before in model.state_dict().items():
        g = gradients[name]  # after one step both moments are g and g²
        torch.testing.assert_close(trained.model.state_dict()[name], before - 1e-3 * g / (g.abs() + 1e-7))


def test_the_history_has_a_row_per_epoch_and_its_total_is_the_weighted_sum():
    objective = Objective(POINT, SquaredNorm("squared_norm", 0.3), WeightL2("weight_l2", 0.02, "all"))
    history = train(objective, epochs=4).history
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    for row in history:
        for part in ("train", "validation"):
            terms = [row[f"{part}_{term}"] for term in ("reconstruction", "latent", "regulariser")]
            assert np.dot(terms, [1, 0.3, 0.02]) == pytest.approx(row[f"{part}_total"], rel=1e-5)
            assert min(terms) > 0


def test_validation_averages_over_samples_whatever_the_batches(monkeypatch):
    data = vectors(23)
    model = autoencoder.build(VECTORS, AE, seed=0)
    expected = 0.5 * (data - model.decode(model.encode(data).mean)).square().sum(dim=1).mean().item()
    for size in (500, 10):
        monkeypatch.setattr(training, "VALIDATION_BATCH", size)
        assert training.validate(model, AE, data, seed=0)["reconstruction"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "width", "batch"),
    [(64, 5, 128, 62), (64, 5, 64, 125), (32, 4, 128, 125), (32, 4, 32, 500), (64, 5, 200, 31)],
)
def test_only_the_widest_networks_validate_in_smaller_batches(size, kernel, width, batch):
    """At most 128 MiB of a layer's results: 500 of CelebA's, 128 x 64 x 64 floats each, would be 1 GB."""
    network = dataclasses.replace(IMAGES, channels=3, size=size, kernel=kernel, width=width)
    with torch.device("meta"):
        model = autoencoder.build(network, AE, seed=0)
    assert training.validation_batch(model, size**2) == batch


def test_validation_repeats_its_noise_and_changes_nothing(digit_images):
    images = training.to_device(digit_images[:20], "cpu")
    model = autoencoder.build(IMAGES, VAE, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert training.validate(model, VAE, images, seed=0) == training.validate(model, VAE, images, seed=0)
    assert training.validate(model, VAE, images, seed=1) != training.validate(model, VAE, images, seed=0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_result_has_the_weights_of_the_epoch_with_the_least_validation_total():
    validation = vectors(100, seed=1)
    constant = Plateau("plateau", factor=0.5, patience=100, threshold=0.0)
    trained = train(validation=validation, epochs=25, batch_size=10, learning_rate=0.06, schedule=constant)
    totals = [row["validation_total"] for row in trained.history]
    assert trained.best_epoch == int(np.argmin(totals))
    assert trained.best_epoch not in (0, 24)  # so fast a rate ends elsewhere than at its best
    assert training.validate(trained.model, AE, validation, seed=0)["total"] == min(totals)


def test_progress_is_told_after_every_epoch():
    told = []
    training.train(VECTORS, AE, optimisation(epochs=3), vectors(), vectors(50), 0, lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


# --- schedules --------------------------------------------------------------------------------------------


def test_the_cosine_falls_from_the_start_to_zero_over_all_updates():
    rates = [row["learning_rate"] for row in train(epochs=8, learning_rate=0.004).history]
    np.testing.assert_allclose(rates, [0.002 * (1 + math.cos(math.pi * epoch / 8)) for epoch in range(8)], rtol=1e-6)


def test_the_plateau_halves_after_patience_epochs_without_improvement():
    schedule = Plateau("plateau", factor=0.5, patience=2, threshold=1e9)  # only the first epoch improves
    rates = [row["learning_rate"] for row in train(epochs=7, learning_rate=0.004, schedule=schedule).history]
    assert rates == [0.004, 0.004, 0.004, 0.002, 0.002, 0.001, 0.001]


@pytest.mark.parametrize("patience", [1, 2])
def test_the_plateau_is_kerass(patience):
    schedule = Plateau("plateau", factor=0.5, patience=patience, threshold=0.1)
    history = train(data=vectors(100), epochs=30, batch_size=20, learning_rate=0.1, schedule=schedule).history
    expected = keras_plateau([row["validation_total"] for row in history], 0.1, 0.5, patience, min_delta=0.1)
    assert [row["learning_rate"] for row in history] == pytest.approx(expected)
    assert len(set(expected)) >= 3


def test_the_plateau_halves_however_small_the_rate():
    schedule = Plateau("plateau", factor=0.5, patience=1, threshold=1e9)
    rates = [row["learning_rate"] for row in train(epochs=4, learning_rate=1e-8, schedule=schedule).history]
    assert rates == [1e-8, 1e-8, 5e-9, 2.5e-9]


def test_the_plateau_sees_all_terms_of_the_validation_loss():
    """Where the penalty falls by more than the threshold in every epoch, and the error by less."""
    heavy = Objective(POINT, NO_LATENT, WeightL2("weight_l2", 1e3, "all"))
    schedule = Plateau("plateau", factor=0.5, patience=2, threshold=5.0)
    history = train(heavy, epochs=8, learning_rate=1e-3, schedule=schedule).history
    totals = [row["validation_total"] for row in history]
    assert all(later < earlier for earlier, later in itertools.pairwise(totals))
    errors = [row["validation_reconstruction"] for row in history]
    assert [row["learning_rate"] for row in history] == keras_plateau(totals, 1e-3, 0.5, 2, 5.0) == 8 * [1e-3]
    assert keras_plateau(errors, 1e-3, 0.5, 2, 5.0) != 8 * [1e-3]


def keras_plateau(losses, rate, factor, patience, min_delta):
    """`on_epoch_end` of keras.callbacks.ReduceLROnPlateau, mode "min", no cooldown: the rate of each epoch."""
    best, wait, rates = math.inf, 0, []
    for current in losses:
        rates.append(rate)
        if current < best - min_delta:
            best, wait = current, 0
        else:
            wait += 1
            if wait >= patience:
                rate, wait = rate * factor, 0
    return rates


# --- errors -----------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_names_epoch_batch_and_terms(monkeypatch):
    seen = spy_on_batches(monkeypatch)
    data = vectors()
    data[7] = math.nan
    objective = dataclasses.replace(AE, latent=SquaredNorm("squared_norm", 0.1))
    with pytest.raises(training.TrainingError) as error:
        train(objective, data=data)
    batch = next(i for i, batch in enumerate(seen) if batch.isnan().any())
    assert str(error.value).startswith(
        f"epoch 0, batch {batch}: the loss is not finite: reconstruction nan, latent nan"
    )
    for term in ("regulariser 0", "total nan"):
        assert term in str(error.value)


def test_a_later_epoch_is_named(monkeypatch):
    calls, real = itertools.count(), training.as_input
    # one batch each of training and validation per epoch: the third call is epoch 1's training
    monkeypatch.setattr(training, "as_input", lambda data: real(data) * (math.nan if next(calls) == 2 else 1))
    with pytest.raises(training.TrainingError, match="epoch 1, batch 0: the loss is not finite: reconstruction nan"):
        train(data=vectors(50))


def test_a_validation_loss_that_is_not_finite_names_epoch_and_terms():
    validation = vectors(20)
    validation[3] = math.inf
    with pytest.raises(
        training.TrainingError, match=r"epoch 0: the validation loss is not finite: reconstruction \w+, latent 0, regul"
    ):
        train(validation=validation)


def test_fewer_samples_than_a_batch_are_an_error():
    with pytest.raises(training.TrainingError, match="30 training samples are fewer than one batch of 50"):
        train(data=vectors(30))


# --- where the images are ---------------------------------------------------------------------------------


def coloured(n, channels, seed=0):
    made = np.random.default_rng(seed).integers(0, 256, (n, channels, 32, 32), np.uint8)
    return np.maximum(made, np.roll(made, 1, axis=3))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_on_the_disk_give_the_bytes_of_images_in_memory(channels, tmp_path):
    array = coloured(90, channels)
    storage.write_npy(tmp_path / "x.npy", array)
    rows = np.random.default_rng(1).permutation(90)
    held = training.to_device(array[rows], "cpu")
    mapped = training.to_device(storage.map_rows(tmp_path / "x.npy", rows)[0], "cpu")
    assert isinstance(mapped, training.OnDisk)
    for which in (slice(3, 40), torch.randperm(90)[:20]):
        assert torch.equal(mapped[which], held[which])
        assert mapped[which].stride() == held[which].stride()
    network = dataclasses.replace(IMAGES, channels=channels, width=4)
    found = []
    for images in (held, mapped):
        trained = train(VAE, data=images, validation=images, network=network, epochs=2, batch_size=20)
        codes = training.encode(trained.model, images)
        drawn = training.draw_codes(trained.model, images, torch.Generator().manual_seed(0))
        found.append((state_bytes(trained), trained.history, codes["mean"].tobytes(), drawn.tobytes()))
    assert found[0] == found[1]


class NoWaiting(TorchDispatchMode):
    """Refuses whatever makes the host wait for a value of a tensor, or for how many there are of something."""

    WAITS = ("_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(func.name().removeprefix("aten::").split(".")[0] == name for name in self.WAITS):
            raise AssertionError(f"{func.name()} in the middle of an epoch")
        return func(*args, **(kwargs or {}))


EMBEDDED = load_study("embedded")


@pytest.mark.parametrize("model", EMBEDDED.models)
def test_no_step_waits_for_a_value(model, digit_images):
    """Losses are fetched once an epoch, so that a GPU never stands idle for the next step's orders."""
    spec = EMBEDDED.training("digits", model)
    network = dataclasses.replace(spec.network, width=2)
    optimisation = dataclasses.replace(spec.optimisation, batch_size=8)
    data = training.to_device(digit_images[:24], "cpu")
    run = training.Run.start(network, spec.objective, optimisation, data, seed=0)
    with NoWaiting():
        terms = training._train_epoch(run, spec.objective, optimisation, data, "float32", None)
    assert terms.shape == (3, 4)


def test_what_waits_is_noticed():
    with NoWaiting(), pytest.raises(AssertionError, match="_local_scalar_dense in the middle of an epoch"):
        torch.ones(3).sum().item()


@pytest.mark.gpu
@pytest.mark.parametrize("model", EMBEDDED.models)
def test_no_step_waits_for_the_gpu(model, digit_images):
    spec = EMBEDDED.training("digits", model)
    optimisation = dataclasses.replace(spec.optimisation, batch_size=8)
    data = training.to_device(digit_images[:80], "cuda")
    run = training.Run.start(spec.network, spec.objective, optimisation, data, seed=0)
    run.permutation = training.epoch_order(80, optimisation, run.order).to("cuda")
    run.batch = 1  # the order of the epoch is there, its terms are fetched after the last update
    waits = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "cpu", lambda tensor: waits.append(tensor) or tensor)
            training._train_epoch(run, spec.objective, optimisation, data, "float32", None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(waits) == 1
