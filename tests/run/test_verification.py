"""A finished study held against its records: every kind of file, damaged in every way, is found by name."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from rae_bench import cli
from rae_bench.base import storage
from rae_bench.base.plain import ConfigError, fingerprint
from rae_bench.run import commands, process, records, stages
from rae_bench.run.cells import Cell, parse_cell, recompute, values
from rae_bench.run.jobs import recorded, study_jobs
from rae_bench.run.verification import describe, verify
from rae_bench.study.config import load_study

STUDY = load_study("smoke")
D, REFERENCE = "digits_mini", STUDY.reference("digits_mini").name
RUN, OTHER = f"smoke/{D}/vae/seed0", f"smoke/{D}/vae/seed1"
SHARED = {
    "images": (f"datasets/{D}/images.npy", f"datasets/{D}/labels.npy"),
    "split": (f"datasets/{D}/test.npy", f"datasets/{D}/validation.npy"),
    "labels": (f"datasets/{D}/labels.npy", f"datasets/{D}/test.npy"),
    "manifest": (f"datasets/{D}/manifest.json", f"smoke/{D}/floor.json"),
    "manifest's record": (f"datasets/{D}/manifest.record.json", f"smoke/{D}/floor.record.json"),
    "reference": (
        f"references/{D}/{REFERENCE}.safetensors",
        f"references/{D}/{STUDY.floor_reference(D).name}.safetensors",
    ),
    "reference's record": (
        f"references/{D}/{REFERENCE}.record.json",
        f"references/{D}/{STUDY.floor_reference(D).name}.record.json",
    ),
    "floor": (f"smoke/{D}/floor.json", f"datasets/{D}/manifest.json"),
    "floor's record": (f"smoke/{D}/floor.record.json", f"{RUN}/model.record.json"),
}
OF_RUNS = (
    *("model.safetensors", "codes.safetensors", "history.parquet", "model.record.json"),
    *("densities/gmm10.safetensors", "densities/gmm10.record.json", "densities/second_stage.safetensors"),
    *("metrics.parquet", "sheets.safetensors", "metrics.record.json", "protocols.parquet", "protocols.record.json"),
)
OF_STUDY = {
    "metrics": ("smoke/metrics.parquet", f"{RUN}/metrics.parquet"),
    "metrics' record": ("smoke/metrics.record.json", f"{RUN}/metrics.record.json"),
    "panel": ("smoke/protocols.parquet", f"{RUN}/protocols.parquet"),
    "csv": (f"smoke/tables/table1_{D}.csv", "smoke/tables/claims.csv"),
    "md": (f"smoke/tables/table1_{D}.md", "smoke/tables/claims.md"),
    "tex": (f"smoke/tables/table1_{D}.tex", "smoke/tables/claims.tex"),
    "tables": ("smoke/tables/index.json", "smoke/figures/index.json"),
    "tables' record": ("smoke/tables/index.record.json", "smoke/figures/index.record.json"),
    "png": (f"smoke/figures/samples_{D}.png", f"smoke/figures/codes_{D}.png"),
    "pdf": (f"smoke/figures/samples_{D}.pdf", f"smoke/figures/codes_{D}.pdf"),
    "figures": ("smoke/figures/index.json", "smoke/tables/index.json"),
    "report": ("smoke/report.html", "smoke/tables/claims.md"),
}
KINDS = SHARED | {name: (f"{RUN}/{name}", f"{OTHER}/{name}") for name in OF_RUNS} | OF_STUDY
"""Every kind of file a study has: one of it, and another that might be taken for it."""


def _truncate(data, _):
    return data[: len(data) // 2]


def _flip(data, _):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _swap(_, other):
    return other


DAMAGES = {"truncated": _truncate, "flipped": _flip, "swapped": _swap}


@pytest.fixture(scope="module")
def results(smoke, tmp_path_factory):
    """A copy of the smoke study's results; a test that alters it puts it back."""
    copy = tmp_path_factory.mktemp("verified") / "results"
    shutil.copytree(smoke.results, copy)
    return copy


@pytest.fixture
def changed(results):
    """A function that gives a file other bytes (None: deletes it) until the test is over."""
    before = {}

    def change(name, data):
        path = results / name
        before.setdefault(path, path.read_bytes() if path.exists() else None)
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        return path

    yield change
    for path, data in before.items():
        if data is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(data)


@pytest.fixture
def damaged(results, changed):
    def damage(kind, how):
        name, other = KINDS[kind]
        data = (results / name).read_bytes()
        new = DAMAGES[how](data, (results / other).read_bytes())
        assert new != data
        return changed(name, new)

    return damage


def _problems(results, study=STUDY):
    found = verify(study, results).problems
    assert all("\n" not in problem for problem in found)
    return found


# --- verify -----------------------------------------------------------------------------------------------


def test_a_finished_study_is_what_its_jobs_wrote(results):
    verdict = verify(STUDY, results)
    assert verdict.problems == []
    assert verdict.left_out == []
    files = [path for path in results.rglob("*") if path.is_file()]
    mine = [path for path in files if path.suffix not in (".lock", ".log") and "costs" not in path.name]
    records_and_states = sum(path.name.endswith((".record.json", ".job.json")) for path in mine)
    assert verdict.files.total() == len(mine) - records_and_states
    assert verdict.files["train"] == 6 * 3
    assert verdict.files["prepare"] == 2 + 1 + 3 + 1  # manifest and croissant, images, splits, labels


ON = {"gpu": "A100", "driver": "535.104.05", "cuda": "12.4", "cudnn": "90100"}


def test_a_study_on_two_drivers_says_so_in_its_tables_and_when_it_is_verified(smoke, tmp_path):
    """As if its evaluations had been made on a GPU, whose driver was renewed between the seeds."""
    results = tmp_path / "results"
    shutil.copytree(smoke.results, results)
    for job in study_jobs(STUDY, results):
        if job.stage == "evaluate":
            old = recorded(job)
            storage.write_frame(job.output, storage.read_frame(job.output).assign(device="cuda"))
            renewed = {"driver": "550.54.14"} if job.output.parent.name == "seed1" else {}
            read, wrote = ({job.file(name): digest for name, digest in of.items()} for of in (old.read, old.wrote))
            records.write("evaluate", old.settings, old.run, read, wrote, {**ON, **renewed})
    text = describe(STUDY, verify(STUDY, results))
    assert "computed on A100, driver 550.54.14, CUDA 12.4, cuDNN 90100: 4 jobs, MIXED with others" in text
    for stage in (stages.collect, stages.tables):
        stage(spec=STUDY.summary(), results=results)
    frame = storage.read_frame(results / "smoke" / "metrics.parquet")
    assert frame.groupby("train_seed")["gpu"].nunique().tolist() == [1, 1]
    for name in ("md", "tex"):
        table = (results / "smoke" / "tables" / f"table1_{D}.{name}").read_text()
        told = "A100, driver 535.104.05, CUDA 12.4, cuDNN 90100; A100, driver 550.54.14, CUDA 12.4, cuDNN 90100."
        assert f"Mixed GPUs or versions, which may change last digits: {told}" in table
    text = describe(STUDY, verify(STUDY, results))
    assert "ran with other settings" not in text  # a driver is none


def test_a_study_on_a_cpu_says_nothing_of_gpus(results):
    verdict = verify(STUDY, results)
    assert not verdict.gpus
    assert "computed on" not in describe(STUDY, verdict)
    assert "gpu" not in storage.read_frame(results / "smoke" / "metrics.parquet")
    assert not any("computed_on" in path.read_text() for path in results.rglob(f"*{records.SUFFIX}"))


def test_every_kind_of_file_of_the_study_is_damaged_below(results):
    tested = {(results / name).parent.name + (results / name).suffix for name, _ in KINDS.values()}
    kinds = {
        path.parent.name.replace("seed1", "seed0") + path.suffix
        for path in results.rglob("*")
        if path.is_file() and not path.name.endswith((".job.json", ".lock", ".log"))
    }
    assert kinds - tested == {"smoke.csv", "smoke.txt"}  # costs, which no record holds


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_found_by_name(results, damaged, kind, how):
    path = damaged(kind, how)
    problems = _problems(results)
    assert any(problem.startswith(f"{path}:") for problem in problems), problems
    assert len(problems) < 6  # what is wrong, not all that hangs on it


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_file_is_found_by_name(results, changed, kind):
    path = changed(KINDS[kind][0], None)
    assert any(problem.startswith(f"{path}:") and "no such file" in problem for problem in _problems(results))


@pytest.mark.parametrize(
    "name", [f"smoke/{D}/vae/seed9/model.safetensors", "smoke/tables/mine.csv", f"{RUN}/x.record.json"]
)
def test_a_foreign_file_is_found_by_name(results, changed, name):
    (results / name).parent.mkdir(exist_ok=True)
    path = changed(name, b"mine")
    assert _problems(results) == [f"{path}: foreign: no job of the study wrote it"]


def test_runs_that_changed_places_are_found(results):
    one, other, aside = results / RUN, results / OTHER, results / "aside"
    for source, target in ((one, aside), (other, one), (aside, other)):
        source.rename(target)
    try:
        problems = _problems(results)
    finally:
        for source, target in ((one, aside), (other, one), (aside, other)):
            source.rename(target)
    expected = f"{one / 'model.record.json'}: foreign: of dataset {D}, seed 1, expected dataset {D}, seed 0; run train"
    assert any(problem.startswith(expected) for problem in problems)
    assert any(problem.startswith(f"{other / 'metrics.record.json'}: foreign: of") for problem in problems)


def test_a_stale_stage_says_which_setting_changed(results):
    study = replace(STUDY, metrics=replace(STUDY.metrics, neighbours=4))
    problems = _problems(results, study)
    stale = [problem for problem in problems if ": stale: floor ran with other settings" in problem]
    assert stale == [
        f"{results / 'smoke' / D / 'floor.json'}: stale: floor ran with other settings:"
        f" metrics.neighbours was {STUDY.metrics.neighbours}, is 4 now; run it again"
    ]
    assert {problem.split(": stale: ")[1].split()[0] for problem in problems} == {
        *("floor", "evaluate", "collect", "tables", "figures", "report")
    }


def test_a_training_run_again_by_hand_leaves_the_chain_open(results, damaged, changed):
    """With the right settings and seed but other weights: densities and metrics are still of the old ones."""
    model = results / RUN / "model.safetensors"
    record = records.beside(model)
    old = records.load(changed(record.relative_to(results), record.read_bytes()))
    codes = damaged("codes.safetensors", "flipped")
    read = {record.parent / name: digest for name, digest in old.read.items()}
    records.write("train", old.settings, old.run, read, [model, codes, model.with_name("history.parquet")])
    assert sorted(_problems(results)) == sorted(
        f"{codes.parent}/densities/{name}.safetensors: made from another {codes} than the one there now; run fit again"
        for name in STUDY.densities_of("vae")
    )


def test_verify_prints_one_screen_or_every_problem(results, damaged, monkeypatch, capsys):
    monkeypatch.chdir(results.parent)
    monkeypatch.setattr(commands, "RESULTS", results)
    cli.main(["verify", "smoke"])
    assert 5 < len(capsys.readouterr().out.splitlines()) < 25
    paths = [damaged(kind, "flipped") for kind in ("codes.safetensors", "csv")]
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", "smoke"])
    assert end.value.code == "rae_bench verify: smoke: 2 found wrong"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [str(path) for path in paths]


# --- stages refuse what they read -------------------------------------------------------------------------


def _job(results, stage):
    """The job of a stage that reads what `KINDS` damages."""
    names = {"reference": f"{D}/{REFERENCE}", "floor": D, "fit": f"{D}/vae/seed0/gaussian"}
    of_runs = dict.fromkeys(("train", "evaluate", "protocols"), f"{D}/vae/seed0")
    name = {**names, **of_runs}.get(stage, "smoke")
    return next(job for job in study_jobs(STUDY, results) if (job.stage, job.name) == (stage, name))


READS = {
    "reference": ("manifest", "manifest's record", "images", "split"),
    "train": ("manifest", "manifest's record", "images"),
    "floor": ("manifest", "reference", "reference's record", "manifest's record"),
    "fit": ("codes.safetensors", "model.record.json"),
    "evaluate": (
        *("manifest", "reference", "floor", "floor's record", "model.safetensors", "model.record.json"),
        *("split", "labels"),
        *("densities/gmm10.safetensors", "densities/gmm10.record.json", "densities/second_stage.safetensors"),
    ),
    "protocols": (
        "reference",
        "model.safetensors",
        "densities/gmm10.safetensors",
        "densities/second_stage.safetensors",
    ),
    "collect": (
        *("metrics.parquet", "metrics.record.json", "protocols.parquet", "protocols.record.json"),
        *("model.record.json", "densities/gmm10.record.json"),  # what the metrics were made from
    ),
    "tables": ("metrics", "metrics' record", "panel"),
    "figures": ("metrics", "panel", "sheets.safetensors", "history.parquet"),
    "report": ("metrics", "tables", "tables' record", "figures", "png", "manifest"),
}


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """Threads and determinism of this process stay as they are, whatever stage runs in it."""
    monkeypatch.setattr(process, "configure", lambda _: None)
    monkeypatch.setattr(process, "configure_torch", lambda _: None)


@pytest.fixture
def refused(results):
    """Run a stage in this process; the message it ends with."""

    def run(stage):
        job = _job(results, stage)
        before = job.output.read_bytes()
        with pytest.raises(SystemExit) as end:
            cli.main(job.command())
        assert isinstance(end.value.code, str)
        assert "\n" not in end.value.code
        assert job.output.read_bytes() == before
        return end.value.code

    return run


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize(("stage", "kind"), [(stage, kind) for stage, kinds in READS.items() for kind in kinds])
def test_a_stage_refuses_what_is_not_as_it_was_made(damaged, refused, stage, kind, how):
    path = damaged(kind, how)
    message = refused(stage)
    assert message.startswith(f"rae_bench {stage}: ")
    is_swapped_record = how == "swapped" and path.name.endswith(".record.json")
    assert str(path.parent if is_swapped_record else path) in message  # it may be the record that is right


# --- cells ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{D}/vae/gm10/seed0", "unknown density or image set 'gm10'; did you mean 'gmm10'?"),
        ("digit_mini/vae/gmm10/seed0", f"unknown data set 'digit_mini'; did you mean '{D}'?"),
        (f"{D}/rae_l/gmm10/seed0", "unknown model 'rae_l'; did you mean 'rae_l2'?"),
        (f"{D}/vae/gmm10/seed7", "unknown seed 'seed7'; did you mean"),
        (f"{D}/vae/gmm10/0", "unknown seed '0'"),
        (f"{D}/rae_l2/second_stage/seed0", "unknown density or image set 'second_stage'"),
        (f"{D}/vae/gmm10", "must read DATASET/MODEL/DENSITY/SEED"),
        ("", "must read DATASET/MODEL/DENSITY/SEED"),
    ],
)
def test_a_cell_that_does_not_exist_is_one_line(text, expected):
    with pytest.raises(ConfigError) as error:
        parse_cell(STUDY, text)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def _recompute(results, text):
    return {one.name: one for one in recompute(STUDY, results, parse_cell(STUDY, text))}


def test_a_cell_comes_out_again(smoke, smoke_frame):
    """In a process of its own, as users run it."""
    ended = smoke.run("rae_bench", "verify", "smoke", "--cell", f"{D}/vae/gmm10/seed1")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    mine = smoke_frame.query("model == 'vae' and train_seed == 1 and density == 'gmm10'")
    assert len(lines) == 2 + len(mine) + 1  # codes, density; every stored value; the sum
    assert all(" equal " in line for line in lines[:-1])
    distances = mine.query("image_set == 'sample' and metric == 'frechet_distance'")
    assert len(distances) == 4  # two draws of two fits
    for one in distances.itertuples():
        name = f"sample {one.fit_seed}.{one.sample_seed} frechet_distance "
        assert any(line.startswith(name) and line.endswith(f"{one.value:.6g}") for line in lines)


@pytest.fixture
def plant(results, changed):
    """A function that gives a file other contents and corrects every record of it, as a careful forger would."""

    def write(name, rewrite):
        path = changed(name, (results / name).read_bytes())
        old = storage.sha256(path)
        rewrite(path)
        for record in results.rglob(f"*{records.SUFFIX}"):
            if old in (text := record.read_text()):
                data = json.loads(text.replace(old, storage.sha256(path)))
                data["seal"] = fingerprint({key: value for key, value in data.items() if key != "seal"})
                changed(record.relative_to(results), json.dumps(data).encode())

    return write


def test_a_planted_value_is_told_by_how_much(results, plant):
    def raise_recall(path):
        frame = storage.read_frame(path)
        frame.loc[frame.eval("image_set == 'interpolation' and metric == 'recall'"), "value"] += 0.25
        storage.write_frame(path, frame)

    plant(f"smoke/{D}/rae_l2/seed0/metrics.parquet", raise_recall)
    made = _recompute(results, f"{D}/rae_l2/interpolation/seed0")
    assert [name for name, one in made.items() if not one.is_equal] == ["interpolation recall"]
    assert made["interpolation recall"].detail.endswith(" recomputed, 0.25 apart")


def test_a_planted_density_and_planted_weights_are_told_by_how_much(results, plant):
    def shift(name, amount):
        def rewrite(path):
            arrays, about = storage.read_arrays(path)
            arrays[name] = arrays[name] + np.array(amount, dtype=arrays[name].dtype)
            storage.write_arrays(path, arrays, about)

        return rewrite

    run = f"smoke/{D}/rae_l2/seed0"
    weights, _ = storage.read_arrays(results / run / "model.safetensors")
    (bias,) = [name for name, array in weights.items() if name.startswith("mean.") and array.ndim == 1]
    plant(f"{run}/densities/gaussian.safetensors", shift("0.mean", 0.5))
    plant(f"{run}/model.safetensors", shift(bias, 2.0))
    made = _recompute(results, f"{D}/rae_l2/gaussian/seed0")
    assert made["density gaussian"].detail == "0.mean differs by at most 0.5"
    assert made["codes"].detail in ("train.mean differs by at most 2", "validation.mean differs by at most 2")
    assert not made["codes"].is_equal
    # samples are drawn from the codes' own density, which is as it was, through weights whose decoder is
    assert all(one.is_equal for name, one in made.items() if name.startswith("sample"))


def test_a_cell_of_damaged_files_is_refused_by_name(results, damaged):
    path = damaged("codes.safetensors", "flipped")
    with pytest.raises(records.RecordError, match=str(path)):
        _recompute(results, f"{D}/vae/gmm10/seed0")


@pytest.mark.parametrize(
    ("model", "column"),
    [
        *((m, c) for m in STUDY.models for c in (*STUDY.densities_of(m), "reconstruction", "interpolation")),
        *((m, c) for m, row in STUDY.given.items() for c in row.images.values()),
    ],
)
def test_every_cell_comes_out_again(results, model, column):
    made = _recompute(results, f"{D}/{model}/{column}/seed0")
    assert made
    assert all(one.is_equal for one in made.values()), made


def test_the_cells_of_a_run_hold_all_of_its_values(smoke_frame):
    """No stored value is outside every cell."""
    run = smoke_frame.query("model == 'vae' and train_seed == 0")
    columns = (*STUDY.densities_of("vae"), "reconstruction", "interpolation")
    parts = [key for column in columns for key in values(run, Cell(D, "vae", column, 0))]
    assert len(parts) == len(set(parts)) == len(run)
