"""A disk that fills up under each kind of file: the message names it, nothing half-written stands, and it goes on."""

import os
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from checkout import ROOT, Checkout, differing, environment, fill, our_lines
from test_checkpoints import StopAt, checkpoint, result, run
from test_checkpoints import handlers as handlers

from rae_bench.base import storage
from rae_bench.base.cluster import StoppedError
from rae_bench.base.plain import to_json
from rae_bench.base.storage import StorageError
from rae_bench.run import jobs
from rae_bench.run.jobs import Job, read_state, study_jobs
from rae_bench.study.config import load_study
from rae_bench.study.files import RunFiles

BIG = np.random.default_rng(0).normal(size=20_000)
OBJECTIVE = load_study("digits").training("digits", "rae_l2").objective


def _draw(kind):
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.plot(BIG[:2000])
    axes.imshow(BIG.reshape(100, 200))
    metadata = {"pdf": {"CreationDate": None}, "png": {"Software": None}}[kind]
    return lambda path: storage.render(path, lambda target: figure.savefig(target, format=kind, metadata=metadata))


WRITE = {
    "images.npy": lambda path: storage.write_npy(path, BIG),
    "blocks.npy": lambda path: storage.write_npy_blocks(path, BIG.shape, [np.ones(BIG.shape, np.uint8)]),
    "model.safetensors": lambda path: storage.write_arrays(path, {"a": BIG}, {}),
    "metrics.parquet": lambda path: storage.write_frame(path, pd.DataFrame({"a": BIG})),
    "table.csv": lambda path: storage.write_frame(path, pd.DataFrame({"a": BIG})),
    "index.json": lambda path: storage.write_json(path, BIG.tolist()),
    "table.md": lambda path: storage.write_text(path, "| é |\n" * 20_000),
    "figure.pdf": _draw("pdf"),
    "figure.png": _draw("png"),
}


@pytest.mark.parametrize("leave", [0, 8192])
@pytest.mark.parametrize("name", WRITE)
def test_every_kind_of_result(mount_disk, tmp_path, name, leave):
    disk = mount_disk(tmp_path / "disk", "2m")
    WRITE[name](tmp_path / name)
    (disk / name).write_bytes(b"old")
    filler = fill(disk, leave)
    with pytest.raises(StorageError) as error:
        WRITE[name](disk / name)
    assert str(error.value).startswith(f"{disk / name}: cannot be written: ")
    assert {path.name for path in disk.iterdir()} == {filler.name, name}
    assert (disk / name).read_bytes() == b"old"
    filler.unlink()
    WRITE[name](disk / name)
    assert (disk / name).read_bytes() == (tmp_path / name).read_bytes()


# --- locks, states and records ------------------------------------------------------------------------------


@pytest.fixture
def job(small_disk):
    return Job("train", "digits/vae/seed0", small_disk / "model.safetensors", {})


def _run(job, body=lambda _: None):
    with jobs.running(job.stage, {}, {}, {"model": job.output}) as progress:
        job.output.write_bytes(b"weights")
        body(progress)


def test_a_lock(job, small_disk):
    filler = fill(small_disk)
    with pytest.raises(StorageError, match=rf"{small_disk}/model\.lock: cannot be written: No space left on device"):
        _run(job)
    filler.unlink()
    _run(job)
    assert read_state(job)["status"] == "done"


def test_the_lock_of_a_folder_of_results(small_disk):
    filler = fill(small_disk)
    with pytest.raises(StorageError, match=r"results/\.driver\.lock: cannot be written: No space left on device; free"):
        jobs.claim(small_disk / "results")
    filler.unlink()
    jobs.claim(small_disk / "results").close()


def test_a_state_that_cannot_be_written_costs_no_result(job, small_disk, caplog):
    def body(progress):
        filler = fill(small_disk)
        progress(1, 10)
        filler.unlink()

    _run(job, body)
    assert f"{small_disk}/model.job.json: cannot be written: No space left on device" in caplog.text
    assert read_state(job)["status"] == "done"


def test_a_record_is_a_result(job, small_disk):
    with pytest.raises(StorageError, match=r"model\.record\.json: cannot be written: No space left on device"):
        _run(job, lambda _: fill(small_disk))
    assert read_state(job)["status"] != "done"
    (small_disk / "fill").unlink()
    _run(job)
    assert read_state(job)["status"] == "done"


# --- checkpoints --------------------------------------------------------------------------------------------


def test_a_training_that_cannot_save_its_state_goes_on_without(mount_disk, tmp_path, monkeypatch, caplog):
    """An interval is lost, should the process end; to end the process would lose the run for certain."""
    monkeypatch.setenv("RAE_BENCH_CHECKPOINT_SECONDS", "0")
    disk = mount_disk(tmp_path / "disk", "1m")
    fill(disk)
    made = checkpoint(disk)
    assert result(run(OBJECTIVE, checkpoint=made)) == result(run(OBJECTIVE))
    assert f"state not saved: {made.path}: cannot be written: No space left on device" in caplog.text
    assert not made.path.exists()


def test_a_training_asked_to_end_that_cannot_save_keeps_its_last_state(mount_disk, tmp_path, monkeypatch):
    """It saves at its second update; at its fourth it is asked to end, and the disk is full."""
    monkeypatch.setenv("RAE_BENCH_CHECKPOINT_SECONDS", "1000")
    disk = mount_disk(tmp_path / "disk", "1m")
    stopped = StopAt(checkpoint(disk), update=4, saves=2, before=lambda: fill(disk))
    with pytest.raises(StoppedError, match=r"asked to end; .*; state not saved: .*No space left on device"):
        run(OBJECTIVE, checkpoint=stopped)
    (disk / "fill").unlink()
    assert checkpoint(disk).load()[1]["batch"] == 2
    assert result(run(OBJECTIVE, checkpoint=checkpoint(disk))) == result(run(OBJECTIVE))


# --- whole stages, their logs and the libraries' caches ---------------------------------------------------------


SPLITS = (("train", 200), ("validation", 50))


def trained(folder):
    """A run below `folder` with codes, to which a density can be fitted."""
    run = RunFiles.at(folder / "smoke" / "digits_mini" / "rae_l2" / "seed0")
    rng = np.random.default_rng(0)
    codes = {f"{split}.mean": rng.standard_normal((n, 8)).astype(np.float32) for split, n in SPLITS}
    with jobs.running("train", {}, {}, {"codes": run.codes}, {"seed": 0}):
        storage.write_arrays(run.codes, codes, {"fingerprint": "0"})
    return run


def fit(run, log):
    """Run the command of a fit, its log appended to as the rule does."""
    spec = to_json(load_study("smoke").fit("digits_mini", "rae_l2", "gaussian"))
    command = [sys.executable, "-m", "rae_bench", "fit", "--spec", spec, "--run", str(run.root), "--density", "one"]
    script = f"set -euo pipefail; {shlex.join(command)} >> {shlex.quote(str(log))} 2>&1"
    return subprocess.run(["bash", "-c", script], env=environment(ROOT), capture_output=True, text=True)


def test_a_stage_and_its_log_on_a_full_disk(mount_disk, tmp_path):
    whole = trained(tmp_path / "elsewhere")
    assert fit(whole, tmp_path / "log").returncode == 0
    expected = whole.density("one").read_bytes()
    disk = mount_disk(tmp_path / "disk", "256k")
    run = trained(disk)
    density = run.density("one")
    density.parent.mkdir()
    for leave in (0, 4096, 8192):
        filler = fill(disk, leave)
        assert fit(run, tmp_path / "log").returncode != 0
        assert our_lines((tmp_path / "log").read_text())[-1].startswith(f"rae_bench fit: {density.parent}/one.")
        assert fit(run, disk / "log").returncode != 0
        if density.exists():  # there was no room for its record
            assert density.read_bytes() == expected
        assert not list(density.parent.glob(".*.tmp"))
        filler.unlink()
    assert "Traceback" not in (tmp_path / "log").read_text() + (disk / "log").read_text()
    assert fit(run, disk / "log").returncode == 0
    assert density.read_bytes() == expected


def test_a_log_that_takes_no_line_costs_no_result(tmp_path):
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full here")
    run = trained(tmp_path)
    assert fit(run, "/dev/full").returncode == 0
    assert run.density("one").exists()


FIGURE = """
import sys
from pathlib import Path
from rae_bench.base import storage
from rae_bench.report.plots import catalogue as plots
figure = plots.plt.figure()
figure.text(0.1, 0.5, "β·½‖z‖²")
storage.render(Path(sys.argv[1]), lambda target: figure.savefig(target, format="png", metadata={"Software": None}))
"""


def test_caches_on_a_full_disk_change_no_figure(mount_disk, tmp_path):
    disk = mount_disk(tmp_path / "disk", "64k")
    full = {name: str(disk) for name in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR")}
    fill(disk)
    for name, variables in (("whole", {}), ("full", full)):
        subprocess.run(
            [sys.executable, "-c", FIGURE, str(tmp_path / f"{name}.png")], env=environment(ROOT) | variables, check=True
        )
    assert (tmp_path / "full.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


# --- the workflow -------------------------------------------------------------------------------------------

PREPARED = "results/datasets/digits_mini/manifest.json"


@pytest.mark.slow
@pytest.mark.parametrize("leave", [0, 16_384, 262_144])
def test_everything_on_one_full_disk_snakemakes_own_files_too(mount_disk, tmp_path, leave):
    checkout = Checkout(mount_disk(tmp_path / "checkout", "16m"))
    filler = fill(checkout.path, leave)
    ended = checkout.snakemake("--", PREPARED)
    assert ended.returncode != 0
    text = ended.stdout + ended.stderr
    assert "Traceback" not in text
    assert "No space left on device" in text or "images.npy: cannot be written" in text
    assert not (checkout.path / PREPARED).exists()
    filler.unlink()
    assert checkout.snakemake("--", PREPARED).returncode == 0
    assert read_state(study_jobs(load_study("smoke"), checkout.results)[0])["status"] == "done"


@pytest.mark.slow
def test_a_study_on_a_disk_too_small_finishes_when_there_is_space(mount_disk, tmp_path, smoke):
    """No room for the trainings: a whole study has 13 MB."""
    checkout = Checkout(tmp_path / "checkout")
    mount_disk(checkout.results, "9m")
    ended = checkout.snakemake()
    assert ended.returncode != 0
    text = ended.stdout + ended.stderr
    assert "Traceback" not in text
    assert "cannot be written: " in text or "results: the disk is full, " in text
    subprocess.run(["mount", "-o", "remount,size=200m", checkout.results], check=True)
    ended = checkout.snakemake()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert differing(checkout.results, smoke.results) == []
