"""The training loop: it learns, repeats itself to the byte, keeps the best weights and says where it fails."""

import contextlib
import dataclasses
import itertools
import math
import warnings

import numpy as np
import pytest
import small
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rae_bench.base import storage
from rae_bench.models import autoencoder, optimisation, training
from rae_bench.models.specs import Plateau
from rae_bench.models.terms.specs import MMD, GaussianKL, GradientPenalty, OutputGradient, SquaredNorm, WeightL2
from rae_bench.study.config import load_study

VECTORS = small.vectors(input_dim=6, width=16, depth=1)
IMAGES = small.images(width=8, latent_dim=8)
AE = small.objective()
VAE = small.objective(small.GAUSSIAN, GaussianKL(kind="kl", weight=0.1))


def vectors(n=300, seed=0, scale=2.0):
    """Correlated vectors: three directions of six matter."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((3, 6))
    noisy = rng.standard_normal((n, 3)) @ mixing + 0.1 * rng.standard_normal((n, 6))
    return torch.from_numpy((scale * noisy).astype(np.float32))


def train(objective=AE, data=None, validation=None, seed=0, network=VECTORS, progress=None, **settings):
    spec = small.training_spec(network, objective, small.optimisation(**settings))
    data = vectors() if data is None else data
    return training.train(spec, data, vectors(100, seed=1) if validation is None else validation, seed, progress)


def validate(model, objective, data, seed=0):
    return optimisation.validate(training.task_of(model, objective), data, seed)


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
    found = []
    for global_seed, seed in enumerate((3, 3, 4)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        found.append(train(objective, seed=seed, epochs=2))
        assert torch.equal(torch.get_rng_state(), before)
    first, second, other = map(state_bytes, found)
    assert (first, found[0].history) == (second, found[1].history)
    assert all(first[name] != weights for name, weights in other.items())


@pytest.mark.parametrize(("size", "together"), [(16, 500), (64, 500), (128, 125), (256, 31)])
def test_of_large_images_fewer_are_worked_on_at_a_time(size, together):
    """As many pixels as of 500 images of 64x64."""
    first = next(training._batches(torch.zeros(501, 1, size, size, dtype=torch.uint8)))
    assert len(first) == together


def test_encode_gives_the_posterior_of_every_sample_in_order(monkeypatch):
    monkeypatch.setattr(training, "VALIDATION_BATCH", 7)
    model = train(VAE, epochs=1).model
    encoded, hidden = training.encode(model, vectors(30)), model.features(vectors(30))
    np.testing.assert_allclose(encoded["mean"], model.mean(hidden).detach(), rtol=1e-5, atol=1e-6)
    expected = 5 * torch.tanh(model.log_sigma(hidden)).detach()
    np.testing.assert_allclose(encoded["log_sigma"], expected, rtol=1e-5, atol=1e-6)
    assert list(training.encode(train(AE, epochs=1).model, vectors(30))) == ["mean"]


# --- regularisers lower what they name --------------------------------------------------------------------


KL = GaussianKL(kind="kl", weight=1.0)
LOWERED = {
    "kl": (small.GAUSSIAN, KL),
    "kl_of_fixed_sigma": (small.FIXED, KL),
    "mmd": (small.POINT, MMD(kind="mmd", weight=100.0, scales=(0.5, 1.0))),
    "squared_norm": (small.POINT, SquaredNorm(kind="squared_norm", weight=1.0)),
    "weight_l2": (small.POINT, WeightL2(kind="weight_l2", weight=1.0, scope="all")),
    "gradient_penalty": (small.POINT, GradientPenalty(kind="gradient_penalty", weight=0.3)),
    "output_gradient": (small.POINT, OutputGradient(kind="output_gradient", weight=0.01)),
}


@pytest.mark.parametrize(("posterior", "term"), LOWERED.values(), ids=LOWERED)
def test_a_term_lowers_the_quantity_it_names(posterior, term):
    """Codes that it was not trained on tell; `test_objectives` says that the quantity is what its name says."""
    found = []
    for one in (term, dataclasses.replace(term, weight=1e-9)):
        last = train(small.objective(posterior, one), epochs=30).history[-1]
        found.append(last["validation_latent"] + last["validation_regulariser"])
    assert found[0] < 0.7 * found[1]


# --- the loop ---------------------------------------------------------------------------------------------


@pytest.fixture
def batches(monkeypatch):
    """Trains on the numbers from 0 to n − 1 and tells which of them stood in each batch, in order."""

    def seen(n, **settings):
        found, real = [], training.as_input
        with monkeypatch.context() as patch:
            patch.setattr(training, "as_input", lambda data: found.append(data[:, 0]) or real(data / n))
            train(data=torch.arange(float(n))[:, None].expand(n, 6), validation=-torch.ones(5, 6), **settings)
        return [batch.int().tolist() for batch in found if batch[0] >= 0]

    return seen


def test_an_epoch_sees_samples_once_in_a_random_order_of_its_own_without_the_incomplete_batch(batches):
    seen = batches(70, epochs=2, batch_size=20)
    assert [len(batch) for batch in seen] == [20] * 6
    first, second = list(itertools.chain(*seen[:3])), list(itertools.chain(*seen[3:]))
    assert first != second
    for order in (first, second):  # neighbours in a random order are neighbours in the data 2 times in 70
        assert len(set(order)) == 60
        assert np.mean(np.abs(np.diff(order)) == 1) < 0.2
    assert batches(70, epochs=1, batch_size=20, seed=1) != seen[:3]


def test_in_file_order_every_epoch_has_the_same_batches(batches):
    seen = batches(50, epochs=2, batch_size=20, order="file")
    assert seen == 2 * [list(range(20)), list(range(20, 40))]


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
    latent, regulariser = SquaredNorm(kind="squared_norm", weight=0.3), LOWERED["weight_l2"][1]
    told = []
    history = train(
        small.objective(latent, dataclasses.replace(regulariser, weight=0.02)),
        epochs=4,
        progress=lambda *done: told.append(done),
    ).history
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for row, part in itertools.product(history, ("train", "validation")):
        terms = [row[f"{part}_{term}"] for term in ("reconstruction", "latent", "regulariser")]
        assert np.dot(terms, [1, 0.3, 0.02]) == pytest.approx(row[f"{part}_total"], rel=1e-5)
        assert min(terms) > 0


@pytest.mark.parametrize("size", [500, 10])
def test_validation_averages_over_samples_whatever_the_batches(size):
    data, model = vectors(23), autoencoder.build(VECTORS, AE, seed=0)
    expected = 0.5 * (data - model.decode(model.encode(data).mean)).square().sum(dim=1).mean().item()
    task = dataclasses.replace(training.task_of(model, AE), validation_batch=size)
    assert optimisation.validate(task, data, seed=0)["reconstruction"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("n", "parts"), [(10, [5, 5]), (11, [5, 6]), (12, [5, 5, 2]), (5, [5]), (6, [6]), (1, [1])])
def test_no_sample_is_validated_alone_but_for_an_only_one(n, parts):
    """Of one image there is no pair, which MMD and stratified weights need."""
    seen = []

    def loss(batch, _):
        seen.append(len(batch))
        return (batch.sum(),)

    task = optimisation.Task(autoencoder.build(VECTORS, AE, seed=0), loss, ("total",), validation_batch=5)
    optimisation.validate(task, vectors(n), seed=0)
    assert seen == parts


@pytest.mark.parametrize(
    ("size", "kernel", "width", "batch"),
    [
        *[(64, 5, 128, 62), (64, 5, 64, 125), (32, 4, 128, 125), (32, 4, 32, 500), (64, 5, 200, 31)],
        *[(16, 4, 128, 250), (128, 5, 128, 15), (256, 5, 128, 3), (256, 5, 4, 31)],
    ],
)
def test_only_the_widest_networks_validate_in_smaller_batches(size, kernel, width, batch):
    """At most 128 MiB of a layer's results: 500 of CelebA's, 128 x 64 x 64 floats each, would be 1 GB."""
    network = small.images(channels=3, size=size, kernel=kernel, width=width, start_width=64)
    with torch.device("meta"):
        model = autoencoder.build(network, AE, seed=0)
    assert training.validation_batch(model, size**2) == batch


def test_validation_repeats_its_noise_and_changes_nothing(digit_images):
    images = training.to_device(digit_images[:20], "cpu")
    model = autoencoder.build(IMAGES, VAE, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, again, other = (validate(model, VAE, images, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_result_has_the_weights_of_the_epoch_with_the_least_validation_total():
    validation = vectors(100, seed=1)
    trained = train(validation=validation, epochs=25, batch_size=10, learning_rate=0.06, schedule=plateau(patience=100))
    totals = [row["validation_total"] for row in trained.history]
    assert trained.best_epoch == int(np.argmin(totals))
    assert trained.best_epoch not in (0, 24)  # so fast a rate ends elsewhere than at its best
    assert validate(trained.model, AE, validation)["total"] == min(totals)


# --- schedules --------------------------------------------------------------------------------------------


def plateau(patience, threshold=0.0):
    return Plateau(kind="plateau", factor=0.5, patience=patience, threshold=threshold)


def test_the_cosine_falls_from_the_start_to_zero_over_all_updates():
    rates = [row["learning_rate"] for row in train(epochs=8, learning_rate=0.004).history]
    np.testing.assert_allclose(rates, [0.002 * (1 + math.cos(math.pi * epoch / 8)) for epoch in range(8)], rtol=1e-6)


@pytest.mark.parametrize("patience", [1, 2])
@pytest.mark.parametrize("objective", [AE, small.objective(LOWERED["weight_l2"][1])], ids=["error", "all terms"])
def test_the_plateau_is_kerass_of_the_validation_loss_with_all_its_terms(objective, patience):
    schedule, settings = plateau(patience, threshold=0.1), {"epochs": 30, "batch_size": 20, "learning_rate": 0.1}
    history = train(objective, vectors(100), schedule=schedule, **settings).history
    expected = keras_plateau([row["validation_total"] for row in history], 0.1, 0.5, patience, min_delta=0.1)
    assert [row["learning_rate"] for row in history] == pytest.approx(expected)
    assert len(set(expected)) >= 3


def test_the_plateau_halves_however_small_the_rate():
    schedule = plateau(patience=1, threshold=1e9)  # only the first epoch improves
    rates = [row["learning_rate"] for row in train(epochs=4, learning_rate=1e-8, schedule=schedule).history]
    assert rates == [1e-8, 1e-8, 5e-9, 2.5e-9]


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

TERMS = "reconstruction nan, latent nan, regulariser 0, total nan"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (0, f"epoch 0, batch 0: the loss is not finite: {TERMS}; lower the learning rate"),
        (4, f"epoch 1, batch 1: the loss is not finite: {TERMS}; lower the learning rate"),
        (5, f"epoch 1: the validation loss is not finite: {TERMS}"),
    ],
)
def test_a_loss_that_is_not_finite_names_epoch_batch_and_terms(call, message, monkeypatch):
    """An epoch is two batches of training and one of validation."""
    calls, real = itertools.count(), training.as_input
    monkeypatch.setattr(training, "as_input", lambda data: real(data) * (math.nan if next(calls) == call else 1))
    with pytest.raises(optimisation.TrainingError, match=f"^{message}$"):
        train(small.objective(LOWERED["squared_norm"][1]), data=vectors(100))


# --- where the images are ---------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_images_on_the_disk_give_the_bytes_of_images_in_memory(channels, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (90, channels, 32, 32), np.uint8)
    storage.write_npy(tmp_path / "x.npy", array)
    rows = np.random.default_rng(1).permutation(90)
    held = training.to_device(array[rows], "cpu")
    mapped = training.to_device(storage.map_rows(tmp_path / "x.npy", rows)[0], "cpu")
    assert isinstance(mapped, training.OnDisk)
    for which in (slice(3, 40), torch.randperm(90)[:20]):
        assert torch.equal(mapped[which], held[which])
        assert mapped[which].stride() == held[which].stride()
    found = []
    for images in (held, mapped):
        network = small.images(channels=channels, width=4)
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


def begun(model, images, device="cpu", **network):
    """A loop before its first update, and what it trains on."""
    spec = EMBEDDED.training("digits", model)
    settings = dataclasses.replace(spec.optimisation, batch_size=8)
    data = training.to_device(images, device)
    built = autoencoder.build(dataclasses.replace(spec.network, **network), spec.objective, seed=0).to(device)
    loop = optimisation.Loop.start(built, settings, len(data), seed=0)
    return loop, (training.task_of(built, spec.objective), settings, data)


@pytest.mark.parametrize("model", EMBEDDED.competing)
def test_no_step_waits_for_a_value(model, digit_images):
    """Losses are fetched once an epoch, so that a GPU never stands idle for the next step's orders."""
    loop, arguments = begun(model, digit_images[:24], width=2)
    with NoWaiting():
        losses = loop.train_epoch(*arguments)
    assert losses.shape == (3, 4)


def test_what_waits_is_noticed():
    with NoWaiting(), pytest.raises(AssertionError, match="_local_scalar_dense in the middle of an epoch"):
        torch.ones(3).sum().item()


@contextlib.contextmanager
def refused_waits():
    """CUDA refuses to wait for a GPU, as far as it notices; that this is not far, torch warns once in a process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype feature", UserWarning)
        torch._C._cuda_set_sync_debug_mode(2)  # torch.cuda's own wants a GPU
    try:
        yield
    finally:
        torch._C._cuda_set_sync_debug_mode(0)


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch knows no CUDA")
def test_a_warning_of_torchs_does_not_keep_waits_from_being_refused():
    with refused_waits():
        assert torch._C._cuda_get_sync_debug_mode() == 2
    assert torch._C._cuda_get_sync_debug_mode() == 0


@pytest.mark.gpu
@pytest.mark.parametrize("model", EMBEDDED.competing)
def test_no_step_waits_for_the_gpu(model, digit_images):
    loop, arguments = begun(model, digit_images[:80], "cuda")
    loop.permutation = optimisation.epoch_order(80, arguments[1], loop.order).to("cuda")
    loop.batch = 1  # the order of the epoch is there, its terms are fetched after the last update
    waits = []
    with refused_waits(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "cpu", lambda tensor: waits.append(tensor) or tensor)
        loop.train_epoch(*arguments)
    assert len(waits) == 1


def test_the_log_ends_with_the_best_epoch_counted_from_one(caplog):
    with caplog.at_level("INFO", logger="rae_bench.models.optimisation"):
        trained = train(epochs=3)
    best = min(trained.history, key=lambda row: row["validation_total"])
    assert caplog.messages[-1] == f"best epoch {best['epoch'] + 1} of 3: validation {best['validation_total']:.4f}"
