"""Finished work is not made again: what a study's records say of its files, whatever their times, decides."""

import os
import random
import shutil
import time

import pytest
from checkout import Checkout, differing, our_lines, put

from rae_bench.base import storage
from rae_bench.base.locks import locked
from rae_bench.base.storage import StorageError
from rae_bench.run import records
from rae_bench.run.jobs import claim
from rae_bench.run.settling import look, settle
from rae_bench.study.config import load_study

STUDY = load_study("smoke")
SUMMARIES = ["collect", "figures", "report", "tables"]
RUN = "digits_mini vae 0"
FOLDER = "smoke/digits_mini/vae/seed0"
FITS = [f"fit {RUN} {density}" for density in ("standard_normal", "gaussian", "gmm10", "second_stage")]
SCORES = [f"evaluate {RUN}", f"protocols {RUN}"]


def _files(results):
    return sorted(path for path in results.rglob("*") if path.is_file())


def _shuffle_times(results, seed):
    """Give all files times a second apart, in any order, as `cp -r` or an object store may leave them."""
    files = _files(results)
    random.Random(seed).shuffle(files)
    now = time.time_ns()
    for after, path in enumerate(files):
        os.utime(path, ns=(now, now - 10**9 * (len(files) - after)))


@pytest.fixture
def copied(smoke, tmp_path):
    """A copy whose files are the younger the older they were: what was made is older than what it was made from.

    It is without what Snakemake remembers.
    """
    checkout = Checkout(tmp_path / "copy")
    shutil.copytree(smoke.results, checkout.results, copy_function=shutil.copyfile)
    now = time.time_ns()
    files = sorted(_files(smoke.results), key=lambda path: path.stat().st_mtime_ns)
    for before, path in enumerate(files):
        os.utime(checkout.results / path.relative_to(smoke.results), ns=(now, now - 10**9 * before))
    return checkout


def _flip(path):
    """Change one bit, in place."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _times(results):
    return {path: path.stat().st_mtime_ns for path in _files(results) if path.name != ".driver.lock"}


# --- what holds -------------------------------------------------------------------------------------------


def test_a_copy_without_times_has_nothing_to_do(smoke, copied):
    """All 48 jobs that were made from others; `prepare`, made from none, is in order by itself."""
    dry = copied.snakemake("--dry-run")
    (line,) = our_lines(dry.stderr)
    assert line.startswith("rae_bench: 48 jobs hold already: nothing to do. ")
    assert "Nothing to be done" in dry.stdout + dry.stderr
    assert differing(copied.results, smoke.results) == []
    ended = copied.snakemake()
    assert "Nothing to be done" in ended.stdout + ended.stderr
    assert our_lines(ended.stderr) == []


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_times_is_put_in_order_once(smoke, copied, seed):
    _shuffle_times(copied.results, seed)
    found = look(STUDY, copied.results)
    assert found.held > 20
    assert found.altered == {}
    settle(STUDY, copied.results)
    assert look(STUDY, copied.results).times == {}
    assert differing(copied.results, smoke.results) == []


def test_times_in_order_cost_no_look_at_a_file(smoke, monkeypatch):
    """A study of ten thousand runs is not hashed by every dry run."""
    monkeypatch.setattr(storage, "sha256", lambda path: pytest.fail(f"{path} was hashed"))
    found = look(STUDY, smoke.results)
    assert (found.times, found.held) == ({}, 0)


def test_a_data_set_that_was_prepared_again_to_the_same_bytes_reruns_nothing(copied):
    settle(STUDY, copied.results)
    for name in ("manifest.json", "images.npy"):
        os.utime(copied.results / "datasets/digits_mini" / name)
    assert copied.plan() == {}


def test_a_file_that_is_a_link_holds_too(copied, tmp_path):
    """Snakemake goes by the time of the link where it wrote, and by the later of both where it reads."""
    codes = copied.results / FOLDER / "codes.safetensors"
    codes.rename(tmp_path / "elsewhere")
    codes.symlink_to(tmp_path / "elsewhere")
    os.utime(codes, ns=(0, 10**18), follow_symlinks=False)
    assert copied.plan() == {}


# --- what must be made again ------------------------------------------------------------------------------


@pytest.mark.parametrize("in_order", [True, False])
def test_a_changed_setting_reruns_what_it_must_after_a_copy(copied, in_order):
    """As where the study ran: Snakemake alone remembers settings only of what it saw being made."""
    if in_order:
        settle(STUDY, copied.results)
    with copied.edited("densities.yaml", lambda data: put(data, ["second_stage", "weights", "digits", "latent"], 0.77)):
        plan = copied.plan()
    fits = [f"fit digits_mini vae {seed} second_stage" for seed in (0, 1)]
    scores = [f"{stage} digits_mini vae {seed}" for stage in ("evaluate", "protocols") for seed in (0, 1)]
    assert sorted(plan) == sorted([*fits, *scores, *SUMMARIES])
    assert copied.plan() == {}


def test_what_was_made_from_another_file_than_there_is_now_is_made_again(copied):
    """Codes that were made anew, to other bytes, in a training that Snakemake did not see."""
    settle(STUDY, copied.results)
    model, codes, history = (
        copied.results / FOLDER / name for name in ("model.safetensors", "codes.safetensors", "history.parquet")
    )
    old = records.load(records.beside(model))
    _flip(codes)
    manifest = copied.results / "datasets/digits_mini/manifest.json"
    records.write("train", old.settings, old.run, {manifest: storage.sha256(manifest)}, [model, codes, history])
    os.utime(codes, ns=(0, 10**18))  # as old as can be: times tell nothing
    assert sorted(copied.plan()) == sorted([*FITS, *SCORES, *SUMMARIES])


@pytest.mark.parametrize(
    ("name", "maker", "expected"),
    [
        ("model.safetensors", "train", [f"train {RUN}", *FITS, *SCORES, *SUMMARIES]),
        ("densities/gmm10.safetensors", "fit", [f"fit {RUN} gmm10", *SCORES, *SUMMARIES]),
        ("metrics.parquet", "evaluate", [f"evaluate {RUN}", *SUMMARIES]),
    ],
)
def test_a_file_that_a_copy_damaged_is_made_again_with_what_hangs_on_it(copied, name, maker, expected):
    path = copied.results / FOLDER / name
    _flip(path)
    (altered,) = look(STUDY, copied.results).altered.items()
    assert (altered[0], altered[1].job.stage) == (path, maker)
    assert sorted(copied.plan()) == sorted(expected)


def test_damaged_images_are_told_with_the_command_that_makes_them_again(copied):
    """`prepare` is made from nothing, so no time says that it must run."""
    _flip(copied.results / "datasets/digits_mini/images.npy")
    (line,) = our_lines(copied.snakemake("--dry-run").stderr)
    told = "results/datasets/digits_mini/images.npy: differs from what prepare wrote"
    assert line == f"rae_bench: {told}; snakemake --forcerun prepare makes it again"
    assert "prepare digits_mini" in copied.plan(arguments=["--forcerun", "prepare"])


@pytest.mark.parametrize("damage", ["missing", "{}"])
def test_without_a_whole_record_nothing_is_taken_to_hold(copied, damage):
    record = records.beside(copied.results / FOLDER / "model.safetensors")
    if damage == "missing":
        record.unlink()
    else:
        record.write_text(damage)
    plan = copied.plan()
    assert sorted(plan) == sorted([f"train {RUN}", *FITS, *SCORES, *SUMMARIES])


# --- others at work, and others' files --------------------------------------------------------------------


def test_no_time_changes_while_another_command_is_at_work(copied):
    before = _times(copied.results)
    with claim(copied.results):
        settle(STUDY, copied.results)
        assert _times(copied.results) == before
    settle(STUDY, copied.results)
    assert _times(copied.results) != before


def test_no_time_changes_of_what_a_job_is_writing(copied):
    """A job of a driver that was killed goes on, on a cluster; its record is still that of the job before."""
    settle(STUDY, copied.results)
    table = copied.results / "smoke/tables/index.json"
    metrics = copied.results / "smoke/metrics.parquet"
    records.write("tables", {"fingerprint": "another"}, {}, {metrics: storage.sha256(metrics)}, [table])
    with locked(table.with_suffix(".lock")):
        assert look(STUDY, copied.results).times == {}
    assert list(look(STUDY, copied.results).times) == [table]


def test_a_time_that_cannot_be_set_is_one_line(copied, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    with pytest.raises(
        StorageError, match=r": its time cannot be set: Operation not permitted; run this as the file's"
    ):
        settle(STUDY, copied.results)


def test_a_folder_without_results_stays_without(tmp_path):
    settle(STUDY, tmp_path / "results")
    assert not (tmp_path / "results").exists()
