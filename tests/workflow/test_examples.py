"""The examples of docs/own.md, run from a folder outside the checkout, of which no file is touched."""

import re
import shutil
import subprocess
import sys
from collections import Counter

import pandas as pd
import pytest
from checkout import ROOT, environment

pytestmark = pytest.mark.workflow
EXAMPLES = ROOT / "examples"
ROWS = {
    "own_model": ["vae", "student_vae"],
    "own_networks": ["rae_gp"],
    "own_density": ["rae_t"],
    "own_metric": ["rae_l2"],
    "trained_elsewhere": ["theirs"],
}
"""What is run of each: the first whole, of the others a row of the user's."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A copy of the examples; what `trained_elsewhere` loads is trained there, without this suite."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    before = _git_status()
    subprocess.run([sys.executable, "theirs.py"], cwd=folder / "examples/trained_elsewhere", check=True)
    yield folder
    assert _git_status() == before


def _git_status():
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout


def snakemake(lab, example, *options):
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1", *options]
    source = f"study=examples/{example}/study.yaml"
    ended = subprocess.run(
        [*command, "--config", source], cwd=lab, env=environment(ROOT), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def ran(lab):
    """Every example, run once, the first to its report; they share the prepared data and its features."""
    snakemake(lab, "own_model")
    for example in [name for name in ROWS if name != "own_model"]:
        path = lab / "examples" / example / "study.yaml"
        path.write_text(re.sub("rows: .*", f"rows: {ROWS[example]}", path.read_text()))
        snakemake(lab, example, f"results/{example}/metrics.parquet")
    return lab


@pytest.mark.parametrize("example", ROWS)
def test_an_example_runs_from_anywhere_and_scores_its_rows(example, ran):
    frame = pd.read_parquet(ran / "results" / example / "metrics.parquet")
    assert sorted(frame["model"].unique()) == sorted(ROWS[example])
    distances = frame[(frame["metric"] == "frechet_distance") & (frame["image_set"] == "reconstruction")]
    assert (distances["value"] < 1).all()  # a decoder that gives one image for all has 1.6


def test_a_metric_of_ones_own_is_taken_of_every_image_set(ran):
    """The Vendi score of digits, of ten kinds in many hands; no image set is one image, or as many as there are."""
    frame = pd.read_parquet(ran / "results/own_metric/metrics.parquet")
    found = frame[frame["metric"] == "vendi"]
    assert set(found["image_set"]) == {"reconstruction", "interpolation", "sample"}
    assert found["value"].between(5, 30).all()


def test_a_report_holds_the_users_row(ran):
    assert "Student-t VAE" in (ran / "results/own_model/report.html").read_text()


def planned(lab, example):
    """The jobs that would run, by rule."""
    lines = snakemake(lab, example, "--dry-run").split("job", 1)[-1].splitlines()
    return Counter(
        {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) == 2 and words[1].isdigit()}
    )


def test_an_edit_of_the_users_file_runs_what_names_it_and_nothing_else(ran):
    assert planned(ran, "own_model") == {}
    (ran / "examples/own_model/notes.py").write_text("nobody imports this\n")
    assert planned(ran, "own_model") == {}
    path = ran / "examples/own_model/student.py"
    path.write_text(path.read_text() + "\n\nEDITED = True\n")
    jobs = planned(ran, "own_model")
    one = {"tryout": 1, "train": 1, "fit": 3, "evaluate": 1}
    assert {rule: jobs[rule] for rule in one} == one
    assert set(jobs) - set(one) <= {"collect", "tables", "figures", "report", "all", "total"}
