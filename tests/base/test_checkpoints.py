"""A run stopped anywhere goes on to the same bytes; a state that is not this run's, or not whole, is not used."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import small
from checkout import ROOT, environment, our_lines

from rae_bench.base import storage
from rae_bench.base.checkpoints import Checkpoint, CheckpointError
from rae_bench.base.cluster import STOP_AT, STOPPED, StoppedError
from rae_bench.base.plain import to_json
from rae_bench.models import training
from rae_bench.models.autoencoder import build
from rae_bench.models.specs import Plateau
from rae_bench.models.terms.specs import (
    Capacity,
    Contractive,
    ImportanceWeighted,
    LearntVariance,
    MaskedInput,
    MixturePrior,
    NoisyInput,
    OrthogonalFirstLayer,
    OutputGradient,
    SIGReg,
    VampPrior,
)
from rae_bench.study.config import load_study

STUDY = load_study("smoke")
PLATEAU = Plateau(kind="plateau", factor=0.5, patience=1, threshold=1e9)  # never enough: halves the rate every epoch
DIGITS = load_study("digits")
OBJECTIVES = {model: DIGITS.training("digits", model).objective for model in DIGITS.competing}
NETWORK = small.images(latent_dim=3)
UPDATES = 2 * 4
"""Two epochs of four batches."""


@pytest.fixture(autouse=True)
def handlers():
    """Checkpoints take over two signals; the tests' own come back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


class StopAt:
    """A checkpoint of a process that is asked to end at its n-th update, `before` which something happens."""

    def __init__(self, checkpoint, update, saves=0, before=lambda: None):
        self.checkpoint, self.update, self.saves, self.before, self.made = checkpoint, update, saves, before, 0

    def is_due(self):
        self.made += 1
        if self.made == self.update:
            self.before()
            signal.raise_signal(signal.SIGTERM)
        return self.checkpoint.is_due() or self.made == self.saves

    def __getattr__(self, name):
        return getattr(self.checkpoint, name)


def checkpoint(path, fingerprint="one"):
    return Checkpoint.beside(path / "model.safetensors", fingerprint)


def images(n, seed=0):
    made = np.random.default_rng(seed).integers(0, 256, (n, 1, 32, 32)).astype(np.uint8)
    return training.to_device(made, "cpu")


def run(
    objective,
    schedule=small.COSINE,
    checkpoint=None,
    seed=0,
    order="shuffled",
    precision="float32",
    device="cpu",
    network=NETWORK,
):
    optimisation = small.optimisation(epochs=2, batch_size=8, schedule=schedule, order=order)
    spec = small.training_spec(network, objective, optimisation, precision)
    return training.train(spec, images(35).to(device), images(10, 1).to(device), seed, checkpoint=checkpoint)


def stop(path, updates, objective, **settings):
    """Run until asked to end at that update."""
    with pytest.raises(StoppedError, match=r"asked to end; \d updates? .*; state saved in .*; the same command"):
        run(objective, checkpoint=StopAt(checkpoint(path), updates), **settings)


def result(trained):
    weights = {name: value.cpu().numpy().tobytes() for name, value in trained.model.state_dict().items()}
    return weights, [list(row.items()) for row in trained.history], trained.best_epoch


# --- in one process: every place ----------------------------------------------------------------------------


OFFICIAL = {
    "noisy_input": {"posterior": NoisyInput(kind="noisy_input", sd=0.01, bound=0.01)},
    "output_gradient": {"regulariser": OutputGradient(kind="output_gradient", weight=0.1)},
    "spectral_norm": {"regulariser": small.OFFICIAL_NORM},
}
VARIANTS = {
    "capacity": {"latent": Capacity(kind="capacity", weight=1.0, capacity=5.0, updates=6)},
    "importance_weighted": {"latent": ImportanceWeighted(kind="importance_weighted", weight=0.1, samples=3)},
    "learnt_variance": {"reconstruction": LearntVariance("learnt_variance", initial_log_sigma=0.0, least_sigma=0.0)},
}
STATEFUL = {
    "masked_input": small.objective(MaskedInput(kind="masked_input", share=0.25, patch=4)),
    "contractive": small.objective(Contractive(kind="contractive", weight=0.1)),
    "sigreg": small.objective(SIGReg(kind="sigreg", weight=10.0, slices=8, points=17, reach=5.0, window=1.0)),
    "orthogonal_first_layer": small.objective(OrthogonalFirstLayer(kind="orthogonal_first_layer")),
    "mixture_prior": small.objective(small.GAUSSIAN, MixturePrior(kind="mixture_prior", weight=0.1, n_components=4)),
    "vampprior": small.objective(small.GAUSSIAN, VampPrior(kind="vampprior", weight=0.1, n_components=4)),
}
"""Those of no study that draw numbers of their own, or have parameters beside the networks'."""
STOPPED_TWICE = (
    OBJECTIVES
    | {f"official {name}": dataclasses.replace(OBJECTIVES["rae"], **parts) for name, parts in OFFICIAL.items()}
    | {name: dataclasses.replace(OBJECTIVES["vae"], **parts) for name, parts in VARIANTS.items()}
    | STATEFUL
)


@pytest.mark.parametrize(("precision", "order"), [("float32", "file"), ("bfloat16", "shuffled")])
@pytest.mark.parametrize("name", STOPPED_TWICE)
def test_every_objective_stopped_in_both_epochs_ends_with_the_same_bytes(name, precision, order, device, tmp_path):
    settings = {"objective": STOPPED_TWICE[name], "precision": precision, "order": order, "device": device}
    for updates in (3, 4):  # within the first epoch, and then within the second
        stop(tmp_path, updates, **settings)
    assert result(run(checkpoint=checkpoint(tmp_path), **settings)) == result(run(**settings))


@pytest.mark.parametrize("kind", sorted(set(small.FAMILIES) - {"convolutional"}))
@pytest.mark.parametrize("name", ["vae", "rae_gp", "rae_sn"])
def test_so_does_every_family_of_networks(kind, name, device, tmp_path):
    settings = {"objective": OBJECTIVES[name], "network": small.FAMILIES[kind](latent_dim=3), "device": device}
    stop(tmp_path, 5, **settings)
    assert result(run(checkpoint=checkpoint(tmp_path), **settings)) == result(run(**settings))


@pytest.mark.parametrize("schedule", [small.COSINE, PLATEAU], ids=["cosine", "plateau"])
@pytest.mark.parametrize("updates", range(1, UPDATES + 1))
def test_stopped_at_any_update_the_run_is_the_same(updates, schedule, tmp_path):
    stop(tmp_path, updates, OBJECTIVES["vae"], schedule=schedule)
    resumed = run(OBJECTIVES["vae"], schedule, checkpoint(tmp_path))
    assert result(resumed) == result(run(OBJECTIVES["vae"], schedule))


def test_a_limit_too_short_for_anything_still_lets_every_attempt_make_one_update(tmp_path, monkeypatch):
    """No attempt is in vain, so a retried job cannot stand still; and the run ends with the same bytes."""
    monkeypatch.setenv(STOP_AT, "0")
    objective = OBJECTIVES["vae"]
    for _ in range(UPDATES):
        with pytest.raises(StoppedError, match=r"^the job's time limit is near; 1 update in .*; runtime of train sets"):
            run(objective, checkpoint=checkpoint(tmp_path))
    assert result(run(objective, checkpoint=checkpoint(tmp_path))) == result(run(objective))


def test_the_state_holds_all_that_training_carries(tmp_path):
    """Weights, best weights, both of Adam's moments and its count, both generators, the epoch's order and losses."""
    objective = OBJECTIVES["rae_l2"]
    stop(tmp_path, 6, objective)
    arrays, about = storage.read_arrays(tmp_path / "state" / "model.safetensors")
    model = build(NETWORK, objective, 0)
    expected = {f"{kind}.{name}" for kind in ("model", "best") for name in model.state_dict()}
    count = len(list(model.parameters()))
    expected |= {f"optimiser.{i}.{name}" for i in range(count) for name in ("exp_avg", "exp_avg_sq", "step")}
    assert set(arrays) == expected | {"order", "noise", "permutation", "terms"}
    assert arrays["terms"].shape == (2, 4)
    assert arrays["optimiser.0.step"] == 6
    assert (about["epoch"], about["batch"], len(about["history"])) == (1, 2, 1)


# --- states that are not used -------------------------------------------------------------------------------


def test_a_state_of_other_settings_is_not_used(tmp_path, caplog):
    made = checkpoint(tmp_path)
    assert made.load() is None
    made.save({"x": np.zeros(2)}, {"epoch": 3})
    assert made.load()[1]["epoch"] == 3
    assert checkpoint(tmp_path, "two").load() is None
    assert "of other settings, data or versions; starting afresh" in caplog.text


def _folder(path):
    path.unlink()
    path.mkdir()
    (path / "x").write_text("")


def _link(path):
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


def _altered(path):
    """Other numbers, which no format tells apart."""
    data = path.read_bytes()
    path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])


SPOIL = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "not safetensors": lambda path: path.write_bytes(b"x" + path.read_bytes()),
    "of other contents": lambda path: storage.write_arrays(path, {"x": np.zeros(2)}, {"fingerprint": "one"}),
    "saying a list": lambda path: storage.write_arrays(path, {"x": np.zeros(2)}, []),
    "altered": _altered,
    "a folder": _folder,
    "a link to nothing": _link,
}


@pytest.mark.parametrize("spoil", SPOIL)
def test_a_spoilt_state_stops_nothing_and_changes_nothing(tmp_path, monkeypatch, spoil):
    """It only saves time. It is not used, not even where it would be written again, and gone in the end."""
    objective = OBJECTIVES["rae_l2"]
    stop(tmp_path, 3, objective)
    made = checkpoint(tmp_path)
    SPOIL[spoil](made.path)
    assert made.load() is None
    monkeypatch.setenv("RAE_BENCH_CHECKPOINT_SECONDS", "0")
    assert result(run(objective, checkpoint=checkpoint(tmp_path))) == result(run(objective))
    made.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_is_removed_leaves_no_folder(tmp_path):
    made = checkpoint(tmp_path)
    made.save({"x": np.zeros(2)}, {})
    made.path.with_name(f".{made.path.name}.1.tmp").write_bytes(b"a killed process left this")
    made.remove()
    made.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["often", "-1", "nan", ""])
def test_an_interval_that_is_no_number_is_an_error(tmp_path, monkeypatch, text):
    monkeypatch.setenv("RAE_BENCH_CHECKPOINT_SECONDS", text)
    with pytest.raises(CheckpointError, match=f"CHECKPOINT_SECONDS: expected seconds, 0 or more, found '{text}'"):
        checkpoint(tmp_path)


# --- real processes, really killed --------------------------------------------------------------------------


class Run:
    """A run of twenty epochs below a folder, started again and again in processes of its own."""

    def __init__(self, results, data, device="cpu"):
        self.folder = results / "smoke" / "digits_mini" / "vae" / "seed0"
        self.folder.mkdir(parents=True)
        self.log, self.state = self.folder / "log", self.folder / "state" / "model.safetensors"
        spec = STUDY.training("digits_mini", "vae")
        compute = dataclasses.replace(spec.compute, device=device)
        longer = dataclasses.replace(spec.optimisation, epochs=20)
        spec = dataclasses.replace(spec, optimisation=longer, compute=compute)
        options = ["--spec", to_json(spec), "--data", str(data), "--run", str(self.folder)]
        self.command = [sys.executable, "-m", "rae_bench", "train", *options]

    def start(self, **variables):
        with self.log.open("a") as log:
            return subprocess.Popen(self.command, cwd=ROOT, env={**environment(ROOT), **variables}, stderr=log)

    def wait_until(self, condition, process):
        deadline = time.monotonic() + 120
        while not condition():
            assert process.poll() is None, "ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def epochs_done(self):
        path = self.folder / "model.job.json"
        return json.loads(path.read_text()).get("done", 0) if path.exists() else 0

    def finish(self, **variables):
        """Let it run to its end; the bytes of what it leaves, which is no state."""
        assert not (self.folder / "model.safetensors").exists()
        assert self.start(**variables).wait() == 0
        assert not self.state.parent.exists()
        names = ("model.safetensors", "codes.safetensors", "history.parquet")
        return [(self.folder / name).read_bytes() for name in names]


@pytest.fixture
def disturbed(prepared, tmp_path):
    return Run(tmp_path, prepared)


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    return Run(tmp_path_factory.mktemp("undisturbed"), prepared).finish()


def test_a_run_asked_to_end_saves_and_ends_and_goes_on_to_the_same_bytes(undisturbed, disturbed):
    process = disturbed.start()
    disturbed.wait_until(lambda: disturbed.epochs_done() >= 3, process)
    process.terminate()
    assert process.wait(timeout=20) == STOPPED
    assert disturbed.state.exists()
    assert disturbed.finish() == undisturbed
    assert "carrying on at epoch" in disturbed.log.read_text()
    assert "Traceback" not in disturbed.log.read_text()


def test_a_run_near_its_limit_saves_and_ends_and_goes_on_to_the_same_bytes(undisturbed, disturbed):
    process = disturbed.start()
    disturbed.wait_until(lambda: disturbed.epochs_done() >= 1, process)  # it knows its limit from its start
    process.kill()
    process.wait()
    assert disturbed.start(**{STOP_AT: str(time.time() + 5)}).wait() == STOPPED  # some of it imports
    (line,) = our_lines(disturbed.log.read_text())
    assert line.startswith("rae_bench train: the job's time limit is near; ")
    assert disturbed.finish(**{STOP_AT: str(time.time() + 3600)}) == undisturbed


def test_a_run_killed_again_and_again_ends_with_the_same_bytes(undisturbed, disturbed):
    assert killed_thrice(disturbed) == undisturbed


@pytest.mark.gpu
def test_so_does_one_on_a_gpu(prepared, tmp_path):
    undisturbed, disturbed = (Run(tmp_path / name, prepared, "cuda") for name in ("undisturbed", "disturbed"))
    assert killed_thrice(disturbed) == undisturbed.finish()


def killed_thrice(disturbed):
    """The bytes of what a run leaves that is killed three times, each after it has saved its state."""
    state = disturbed.state
    for _ in range(3):
        process = disturbed.start(RAE_BENCH_CHECKPOINT_SECONDS="0.05")
        before = state.stat().st_mtime_ns if state.exists() else 0
        disturbed.wait_until(lambda before=before: state.exists() and state.stat().st_mtime_ns > before, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    found = disturbed.finish()
    assert disturbed.log.read_text().count("carrying on at epoch") == 3
    return found


# --- what states cost -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("taken", "pause"), [(4.0, 200.0), (0.1, 60.0)])
def test_a_state_that_is_slow_to_save_is_saved_less_often(taken, pause, tmp_path, monkeypatch):
    """On a disk that takes 4 s for a state, 2 % of the time are a state every 200 s, not every 60."""
    now = 0.0
    write = storage.write_arrays

    def slow(*arguments):
        nonlocal now
        now += taken
        write(*arguments)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(storage, "write_arrays", slow)
    made = Checkpoint(tmp_path / "state.safetensors", "one", interval=60.0, _last=0.0)
    made.save({"x": np.zeros(3)}, {})
    now += pause - 1
    assert not made.is_due()
    now += 1
    assert made.is_due()
