"""Seeds trained together end as if trained apart by `training.train`, up to rounding, whatever is beside them.

Weights are compared in float64: in float32 the bias of a convolution before batch norm, which changes no loss and whose
gradient is rounding alone, moves by a full step of Adam in a direction of its own.
"""

import dataclasses
import math
import signal

import pytest
import torch

from rae_bench import specs, training
from rae_bench.checkpoints import Checkpoint, StoppedError
from rae_bench.config import load_study
from rae_bench.together import train_together

STUDY = load_study("digits")
SMALL = dataclasses.replace(STUDY.training("digits", "ae").network, width=2, start_width=16, latent_dim=3)
DENSE = specs.DenseNetwork("dense", input_dim=32, width=32, depth=2, latent_dim=4)
COSINE = specs.Cosine("cosine")
RAE = STUDY.training("digits", "rae").objective
OBJECTIVES = {name: STUDY.training("digits", name).objective for name in STUDY.models} | {
    "output_gradient": dataclasses.replace(RAE, regulariser=specs.OutputGradient("output_gradient", 0.01)),
    "noisy_input": dataclasses.replace(RAE, posterior=specs.NoisyInput("noisy_input", 0.05, 0.05)),
    "keras_spectral_norm": dataclasses.replace(
        RAE,
        regulariser=specs.SpectralNorm("spectral_norm", 1, "autoencoder", "keras", 0, "differentiated", "iterates"),
    ),
    "every_draw": specs.Objective(
        STUDY.training("digits", "vae").objective.posterior,
        STUDY.training("digits", "wae").objective.latent,
        STUDY.training("digits", "rae_gp").objective.regulariser,
    ),
}
SEEDS = (3, 7, 5)


@pytest.fixture
def float64():
    """Models and noise in double precision; the tests' own comes back."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def images(digit_images):
    """Digits in [0, 1], already floats: of the precision the test computes in."""
    scaled = torch.from_numpy(digit_images[:60]).to(torch.get_default_dtype()) / 255
    return scaled.contiguous(memory_format=torch.channels_last)


def optimisation(epochs=2, batch_size=10, schedule=COSINE, learning_rate=5e-3, order="shuffled"):
    return specs.Optimisation(epochs, batch_size, order, learning_rate, 1e-7, schedule)


def rows_of(images):
    """Vectors (n, 32): a row of each image."""
    return images[:, 0, 15].contiguous()


def pairs(objective, data, network=SMALL, spec=None, precision="float32", seeds=SEEDS):
    """Each seed trained together with the others, and apart."""
    given = (network, objective, spec or optimisation(), data[:40], data[40:])
    apart = [training.train(*given, seed, precision=precision) for seed in seeds]
    return list(zip(train_together(*given, seeds, precision=precision), apart, strict=True))


def assert_close(ours, expected, relative):
    """Every array of the state relative to its norm, and every number of the history; equal columns and epochs."""
    assert list(ours.model.state_dict()) == list(expected.model.state_dict())
    for name, value in expected.model.state_dict().items():
        found = ours.model.state_dict()[name]
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert (found - value).double().norm() <= relative * max(value.double().norm().item(), 1.0), name
    assert [list(row) for row in ours.history] == [list(row) for row in expected.history]
    for row, other in zip(ours.history, expected.history, strict=True):
        assert row == pytest.approx(other, rel=relative, abs=relative)
    assert ours.best_epoch == expected.best_epoch
    assert not ours.model.training


# --- the same as apart ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_model_is_the_same_as_trained_apart(name, images):
    for ours, apart in pairs(OBJECTIVES[name], images):
        assert_close(ours, apart, 1e-6)


@pytest.mark.parametrize("name", ["vae", "wae", "rae_gp", "rae_l2", "rae_sn"])
def test_dense_models_are_the_same_in_float32(name, images):
    for ours, apart in pairs(OBJECTIVES[name], rows_of(images), DENSE):
        assert_close(ours, apart, 1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_first_updates_losses_are_the_same_up_to_rounding(name, precision, images):
    """One update: its losses are of the same weights.

    In bfloat16 each of n = 10 layers rounds three times, 2 sqrt(3n) 2^-9 = 0.02 of a square (tests/test_precision.py),
    on both sides.
    """
    given = (OBJECTIVES[name], images, SMALL, optimisation(epochs=1, batch_size=40))
    for ours, apart in pairs(*given, precision=precision):
        expected = {key: value for key, value in apart.history[0].items() if key.startswith("train")}
        found = {key: ours.history[0][key] for key in expected}
        assert found == pytest.approx(expected, rel=5e-2 if precision == "bfloat16" else 1e-4, abs=1e-3)


@pytest.mark.usefixtures("float64")
def test_in_file_order_the_same(images):
    for ours, apart in pairs(OBJECTIVES["vae"], images, spec=optimisation(order="file")):
        assert_close(ours, apart, 1e-6)


@pytest.mark.usefixtures("float64")
def test_each_model_has_its_own_plateaus(images):
    schedule = specs.Plateau("plateau", factor=0.5, patience=1, threshold=0.05)
    found = pairs(OBJECTIVES["rae"], rows_of(images), DENSE, optimisation(12, 10, schedule, 0.03))
    rates = [[row["learning_rate"] for row in ours.history] for ours, _ in found]
    assert rates == [[row["learning_rate"] for row in apart.history] for _, apart in found]
    assert len({tuple(one) for one in rates}) == len(SEEDS)
    for ours, apart in found:
        assert_close(ours, apart, 1e-5)


# --- independence -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("others", [(), (9,), (5, 9, 1)], ids=["alone", "another", "more"])
def test_a_seed_does_not_depend_on_those_beside_it(others, images):
    given = (SMALL, OBJECTIVES["vae"], optimisation(), images[:40], images[40:])
    seed = train_together(*given, (*others, 3))[-1]
    assert_close(seed, train_together(*given, (3, 8))[0], 1e-6)


def test_the_same_seeds_give_the_same_bytes(images):
    first, second = (train_together(SMALL, OBJECTIVES["vae"], optimisation(), images, images, (3, 8)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert result(one) == result(other)


def test_the_models_share_no_memory(images):
    one, other = train_together(SMALL, RAE, optimisation(epochs=1), images, images, (0, 1))
    kept = result(other)
    with torch.no_grad():
        for value in one.model.state_dict().values():
            value.zero_()
    assert result(other) == kept
    assert all(w.untyped_storage().nbytes() == w.nbytes for w in one.model.state_dict().values())


def result(trained):
    weights = {name: value.numpy().tobytes() for name, value in trained.model.state_dict().items()}
    return weights, [list(row.items()) for row in trained.history], trained.best_epoch


# --- the loop ---------------------------------------------------------------------------------------------


@pytest.fixture
def handlers():
    """Checkpoints take over two signals; the tests' own come back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("name", ["vae", "rae_sn"])
def test_stopped_after_any_update_all_go_on_to_the_same_bytes(name, images, tmp_path, monkeypatch):
    given = (SMALL, OBJECTIVES[name], optimisation(batch_size=20), images, images[:20], (3, 8))
    checkpoint = Checkpoint.beside(tmp_path / "model.safetensors", "one")
    monkeypatch.setattr(checkpoint, "stop_at", 0.0)  # every attempt makes one update
    for _ in range(2 * 3):
        with pytest.raises(StoppedError):
            train_together(*given, checkpoint=checkpoint)
    carried = train_together(*given, checkpoint=checkpoint)
    assert [result(one) for one in carried] == [result(one) for one in train_together(*given)]


def test_progress_is_told_after_every_epoch(images):
    told = []
    given = (DENSE, RAE, optimisation(epochs=3), rows_of(images), rows_of(images))
    train_together(*given, (0, 1), lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_loss_that_is_not_finite_names_the_seed(images):
    vectors = rows_of(images)
    vectors[7] = math.nan
    with pytest.raises(
        training.TrainingError, match=r"^seed 4: epoch 0, batch \d: the loss is not finite: reconstruction n"
    ):
        train_together(DENSE, RAE, optimisation(), vectors, vectors[:5], (4, 6))


def test_fewer_samples_than_a_batch_are_an_error(images):
    with pytest.raises(training.TrainingError, match="30 training samples are fewer than one batch of 50"):
        train_together(SMALL, RAE, optimisation(batch_size=50), images[:30], images, (0, 1))


def test_training_leaves_torchs_global_generator_as_it_was(images):
    before = torch.get_rng_state()
    train_together(SMALL, OBJECTIVES["vae"], optimisation(epochs=1), images, images, (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
