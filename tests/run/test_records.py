"""Records: a small chain of stages, and every way in which a file may not be what the next stage expects."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest

from rae_bench.base import devices, storage
from rae_bench.base.plain import fingerprint
from rae_bench.base.storage import StorageError
from rae_bench.run import jobs, records
from rae_bench.run.records import RecordError

NOBODY = 65534
SETTINGS = {"images": {"n": 3}, "codes": {"epochs": 2}, "density": {"components": 1}}


def _make(path, stage, reads=(), text=None, run=None, settings=None):
    """Run a stage that writes one file; `reads` are its inputs."""
    with jobs.running(stage, settings or SETTINGS[path.stem], {str(i): i for i in reads}, {"it": path}, run or {}):
        path.write_text(text or f"{stage} of {path}")


@pytest.fixture
def chain(tmp_path):
    """images -> codes -> density, of two seeds; the paths of seed 0."""
    paths = {"images": tmp_path / "data" / "images.npy"}
    _make(paths["images"], "prepare", run={"dataset": "digits"})
    for seed in (1, 0):
        folder = tmp_path / f"seed{seed}"
        paths["codes"], paths["density"] = folder / "codes.safetensors", folder / "fits" / "density.safetensors"
        _make(paths["codes"], "train", [paths["images"]], run={"seed": seed})
        _make(paths["density"], "fit", [paths["codes"]], run={"seed": seed})
    return paths


def _check(*paths, made_by=None, run=None):
    reads = {path.stem: path for path in paths}
    return records.check(reads, storage.hashes(reads), made_by or {}, {} if run is None else run)


def _refused(*paths, **expectation):
    with pytest.raises((RecordError, StorageError)) as error:
        _check(*paths, **expectation)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_as_it_was_made_passes_and_tells_its_run(chain):
    run = _check(chain["density"], chain["codes"], made_by={"codes": fingerprint(SETTINGS["codes"])})
    assert run == {"dataset": "digits", "seed": 0}  # the data set's name comes down from the images


@pytest.mark.parametrize("damage", [b"", b"train of codes", b"something else"])
def test_altered_bytes_are_named(chain, damage):
    chain["codes"].write_bytes(damage)
    assert _refused(chain["codes"]).startswith(f"{chain['codes']}: differs from what train wrote; delete it")


def test_another_seeds_file_with_its_record_is_named(chain):
    other = chain["codes"].parents[1] / "seed1"
    for name in ("codes.safetensors", "codes.record.json"):
        (chain["codes"].parent / name).write_bytes((other / name).read_bytes())
    assert _refused(chain["codes"], run={"seed": 0}).startswith(f"{chain['codes']}: of seed 1, expected 0; delete it")
    # and without being told the seed: the density here was fitted to other codes
    assert _refused(chain["density"]).startswith(f"{chain['density']}: made from another {chain['codes']} than")


def test_files_of_two_runs_do_not_go_together(chain):
    other = chain["codes"].parents[1] / "seed1" / "codes.safetensors"
    assert "of seed 1, expected 0" in _refused(chain["density"], other)


def test_other_settings_are_named(chain):
    message = _refused(chain["codes"], made_by={"codes": fingerprint({"epochs": 3})})
    assert message.startswith(f"{chain['codes']}: train made it with other settings than are expected here")


def test_a_file_older_than_what_it_was_made_from_is_named_however_far_back(chain):
    _make(chain["images"], "prepare", text="other images", run={"dataset": "digits"})
    assert _refused(chain["density"]).startswith(f"{chain['codes']}: made from another {chain['images']} than")
    _make(chain["codes"], "train", [chain["images"]], text="other codes", run={"seed": 0})
    assert _refused(chain["density"]).startswith(f"{chain['density']}: made from another {chain['codes']} than")
    _make(chain["density"], "fit", [chain["codes"]], run={"seed": 0})
    _check(chain["density"])


def test_a_stage_run_twice_leaves_what_others_read_valid(chain):
    _make(chain["codes"], "train", [chain["images"]], run={"seed": 0})
    _check(chain["density"])


A100 = {"gpu": "NVIDIA A100-SXM4-40GB", "driver": "535.104.05", "cuda": "12.4", "cudnn": "90100"}
TOLD = "NVIDIA A100-SXM4-40GB, driver 535.104.05, CUDA 12.4, cuDNN 90100"


@pytest.fixture
def on_gpu(monkeypatch, tmp_path):
    """A function that makes this process one that computed on such a GPU: a stand-in for a torch that started CUDA."""

    def compute(gpu="", driver="", cuda="", cudnn=0):
        about = {"is_initialized": lambda: bool(gpu), "get_device_name": lambda: gpu, "max_memory_reserved": lambda: 0}
        backends = SimpleNamespace(cudnn=SimpleNamespace(version=lambda: int(cudnn)))
        torch = SimpleNamespace(cuda=SimpleNamespace(**about), version=SimpleNamespace(cuda=cuda), backends=backends)
        monkeypatch.setitem(sys.modules, "torch", torch)
        (tmp_path / "driver").write_text(f"{driver}\n")

    monkeypatch.setattr(devices, "KERNEL", tmp_path / "driver")
    return compute


def test_a_record_names_the_gpu_and_its_versions_and_nothing_without_one(chain, on_gpu):
    on_gpu()
    _make(chain["codes"], "train", [chain["images"]], run={"seed": 0})
    path = records.beside(chain["codes"])
    before = path.read_bytes()
    assert b"computed_on" not in before  # as records were before they could name one
    on_gpu(**A100)
    _make(chain["codes"], "train", [chain["images"]], run={"seed": 0})
    record = records.load(path)
    assert record.computed_on == A100
    assert record.device == TOLD
    assert record.settings == json.loads(before)["settings"]
    assert _check(chain["density"]) == {"dataset": "digits", "seed": 0}  # no setting: nothing is stale
    path.write_text(path.read_text().replace("535.104.05", "550.54.14"))
    assert _refused(chain["codes"]) == f"{path}: altered since it was written; delete it and run again"


def test_what_a_file_was_made_from_was_computed_on_too(chain, on_gpu):
    on_gpu(**A100)
    _make(chain["codes"], "train", [chain["images"]], run={"seed": 0})
    on_gpu(**{**A100, "driver": "550.54.14"})
    _make(chain["density"], "fit", [chain["codes"]], run={"seed": 0})
    found = records.computed_on(chain.values())
    newer = TOLD.replace("535.104.05", "550.54.14")
    assert found == {chain["images"]: [], chain["codes"]: [TOLD], chain["density"]: [TOLD, newer]}


def test_ancestors_may_be_gone(chain):
    """As after an import without weights and codes: their records tell the rest; and even these may be missing."""
    chain["codes"].unlink()
    _check(chain["density"])
    records.beside(chain["images"]).unlink()
    _check(chain["density"])


def test_a_file_without_a_record_is_foreign(chain):
    records.beside(chain["density"]).unlink()
    assert _refused(chain["density"]) == (
        f"{chain['density']}: no record beside it says what wrote it; delete it and run again"
    )


def test_a_missing_file_is_named(chain):
    chain["codes"].unlink()
    assert _refused(chain["codes"]).startswith(f"{chain['codes']}: no such file")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda _: "[]",
        lambda text: text.replace('"epochs": 2', '"epochs": 3'),
        lambda text: text.replace('"stage": "train"', '"stage": "fit"'),
        lambda text: json.dumps({**json.loads(text), "more": 1}),
        lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "seal"}),
        lambda text: json.dumps({**json.loads(text), "wrote": {"codes.safetensors": "0" * 64}}),
        lambda text: json.dumps({**json.loads(text), "wrote": ["codes.safetensors"]}),
    ],
)
def test_an_altered_record_is_named(chain, damage):
    path = records.beside(chain["codes"])
    text = path.read_text()
    path.write_text(damage(text))
    assert path.read_text() != text
    assert str(path) in _refused(chain["codes"])
    assert str(path) in _refused(chain["density"])  # as part of what the density was made from


def test_records_hold_wherever_the_results_are_copied(chain, tmp_path):
    shutil.copytree(tmp_path, tmp_path / "copy")
    copy = {name: tmp_path / "copy" / path.relative_to(tmp_path) for name, path in chain.items()}
    chain["codes"].write_text("other")
    _check(copy["density"], copy["codes"])
    copy["codes"].write_text("other")
    assert _refused(copy["codes"]).startswith(str(copy["codes"]))


def test_a_refused_input_fails_the_job_and_writes_nothing(chain, tmp_path):
    chain["codes"].write_text("other")
    output = tmp_path / "new" / "density.safetensors"
    with pytest.raises(RecordError):
        _make(output, "fit", [chain["codes"]], run={"seed": 0})
    state = jobs.read_state(jobs.Job("fit", "new", output, SETTINGS["density"]))
    assert state["status"] == "failed"
    assert state["error"].startswith(f"{chain['codes']}: differs from what train wrote")
    assert not output.exists()
    assert not records.beside(output).exists()
