"""Evaluation in two stages, as on a GPU: what is decoded apart and measured then has the bytes of one process."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from checkout import ROOT, environment, put

from rae_bench.base import storage
from rae_bench.run import records, stages
from rae_bench.run.jobs import Job, read_state, study_jobs
from rae_bench.run.records import RecordError
from rae_bench.study.config import load_study
from rae_bench.study.files import StudyFiles

STUDY, D = load_study("smoke"), "digits_mini"


@pytest.fixture
def results(smoke, tmp_path):
    return shutil.copytree(smoke.results, tmp_path / "results")


def _apart(results, model):
    """A run's decoding and evaluation, as a study on a GPU has them."""
    run = StudyFiles(results, "smoke").run(D, model, 0)
    whole = next(job for job in study_jobs(STUDY, results) if job.output == run.metrics)
    given = {name: value for name, value in whole.arguments.items() if name in ("data", "reference", "run")}
    decoding = Job("decode", whole.name, run.decoded, whole.spec, given, whole.run, read_by=run.metrics)
    return decoding, replace(whole, arguments={**whole.arguments, "decoded": run.decoded})


def _do(job):
    getattr(stages, job.stage)(spec=job.spec, **job.arguments)


@pytest.mark.parametrize("model", ["vae", "rae_l2", "training_images"])
def test_two_stages_give_the_bytes_of_one(results, model):
    """A model with a second stage and likelihoods, one without, and images that are given."""
    decoding, measuring = _apart(results, model)
    run = measuring.arguments["run"]
    before = {path: path.read_bytes() for path in (run.metrics, run.sheets)}
    for path in before:
        path.unlink()
    _do(decoding)
    assert read_state(decoding)["status"] == "done"
    _do(measuring)
    assert {path: path.read_bytes() for path in before} == before
    record = records.load(records.beside(run.metrics))
    assert record.read["decoded.safetensors"] == storage.sha256(run.decoded)
    run.decoded.unlink()
    assert read_state(decoding)["status"] == "done"
    record = records.beside(run.decoded).rename(results / "kept.json")  # as of results from before there was this stage
    assert read_state(decoding)["status"] == "waiting"
    record.rename(records.beside(run.decoded))
    run.metrics.unlink()
    assert read_state(decoding)["status"] == "waiting"


def test_what_was_decoded_with_other_settings_is_refused(results):
    decoding, measuring = _apart(results, "rae_l2")
    _do(replace(decoding, spec=replace(decoding.spec, n_generated=decoding.spec.n_generated + 1)))
    with pytest.raises(RecordError, match=r"decoded\.safetensors: decode made it with other settings"):
        _do(measuring)


@pytest.fixture
def apart(smoke, tmp_path):
    """A copy in which the smoke study, cut to one run, decodes apart from measuring, though on the CPU."""
    checkout = smoke.copy(tmp_path / "copy")
    path = checkout.path / "rae_bench/study/study.py"
    before, name, after = path.read_text().partition("def decodes_apart")
    assert "return self.gpus > 0" in after
    path.write_text(before + name + after.replace("return self.gpus > 0", "return True", 1))
    made = checkout.results / "smoke"
    for path in [*made.iterdir(), *(made / D).iterdir(), *(made / D / "rae_l2").iterdir()]:
        if path.name not in (D, "floor.json", "floor.record.json", "floor.job.json", "rae_l2", "seed0"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (made / D / "rae_l2" / "seed0").glob("protocols.*"):
        path.unlink()
    cut = {"rows": ["rae_l2"], "train_seeds": [0], "protocols": {}, "tables": ["table1"]}
    with checkout.edited("studies/smoke.yaml", lambda data: [put(data, [key], value) for key, value in cut.items()]):
        yield checkout


def _is_as_if_in_one(checkout, smoke):
    """The run has the bytes of one process, nothing is left to do, and the record alone tells of what was decoded."""
    run = f"smoke/{D}/rae_l2/seed0"
    for name in ("metrics.parquet", "sheets.safetensors"):
        assert (checkout.results / run / name).read_bytes() == (smoke.results / run / name).read_bytes()
    assert (checkout.results / run / "decoded.record.json").exists()
    assert not (checkout.results / run / "decoded.safetensors").exists()
    assert checkout.plan() == {}
    verified = checkout.run("rae_bench", "verify", "smoke")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    status = checkout.run("rae_bench", "status", "smoke").stdout
    assert re.search(r"^decode +1 +0 +0 +0 +0$", status, re.MULTILINE), status
    assert "nothing left to do" in status


def test_what_is_measured_is_removed_and_made_again_when_it_is_needed(apart, smoke):
    """By Snakemake, by the script that does without it, and in an archive."""
    metrics = apart.results / "smoke" / D / "rae_l2/seed0/metrics.parquet"
    metrics.unlink()
    finished = apart.snakemake()
    assert finished.returncode == 0, finished.stdout + finished.stderr
    _is_as_if_in_one(apart, smoke)
    with apart.edited("metrics.yaml", lambda data: put(data, ["smoke", "kernel_subsets"], 3)):
        stages_again = {job.split()[0] for job in apart.plan()}
    assert stages_again == {"floor", "decode", "evaluate", "collect", "tables", "figures", "report"}

    metrics.unlink()
    command = [sys.executable, ROOT / "scripts" / "run_stages.py", "smoke"]
    ended = subprocess.run(command, cwd=apart.path, env=environment(apart.path), capture_output=True, text=True)
    assert [line.split()[1] for line in ended.stdout.splitlines()] == ["decode", "evaluate"], ended.stderr
    _is_as_if_in_one(apart, smoke)

    exported = apart.run("rae_bench", "export", "smoke", "--out", "smoke.zip")
    assert exported.returncode == 0, exported.stderr
    shutil.rmtree(apart.results)
    assert apart.run("rae_bench", "import", "smoke.zip").returncode == 0
    verified = apart.run("rae_bench", "verify", "smoke")
    assert verified.returncode == 0, verified.stdout + verified.stderr
