"""`make test-gpu`: what it says without a GPU, that every test of a GPU can be imported, and how pieces go on."""

import json
import subprocess
import sys

import pytest
import torch
from checkout import ROOT, environment, script

TESTS = """
import time, pytest

@pytest.mark.tiny
def test_adds(record_property):
    record_property("sum", 2)
    assert 1 + 1 == 2

@pytest.mark.tiny
def test_fails():
    assert 1 + 1 == 3

@pytest.mark.tiny
def test_wants_a_package():
    import no_such_package

def test_of_no_mark():
    raise AssertionError
"""
SLOW = """
import pathlib, pytest, signal

@pytest.mark.tiny
def test_takes_long(tmp_path_factory):
    begun = pathlib.Path(__file__).with_suffix(".begun")
    if not begun.exists():
        begun.touch()
        signal.raise_signal(signal.SIGALRM)  # what comes when a piece is over
"""
WANTING = "import no_such_package, pytest\n@pytest.mark.tiny\ndef test_never():\n    pass\n"


def run(*arguments, **variables):
    """The runner in a process of its own; its JSON is beside the tests."""
    command = [sys.executable, ROOT / "scripts" / "test_gpu.py", *map(str, arguments)]
    return subprocess.run(command, env={**environment(ROOT), **variables}, capture_output=True, text=True, timeout=120)


@pytest.fixture
def tiny(tmp_path):
    """A folder of tests of the mark `tiny`, and how to run a piece of them: its status, and the JSON."""
    folder, out = tmp_path / "tests", tmp_path / "out" / "found.json"
    folder.mkdir()
    (folder / "test_few.py").write_text(TESTS)

    def piece(minutes=10.0):
        ended = run("--mark", "tiny", "--tests", folder, "--out", out, "--minutes", minutes)
        return ended, json.loads(out.read_text()) if out.exists() else None

    return folder, piece


def outcomes(found):
    return {name.rpartition("::")[2]: test["outcome"] for name, test in found["tests"].items()}


def test_without_a_gpu_it_says_so_in_one_line_and_fails(tmp_path):
    ended = run("--out", tmp_path / "found.json", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"test-gpu: there is no GPU here that torch {torch.__version__}, built ")
    assert not (tmp_path / "found.json").exists()


def test_make_gives_it_the_python_it_is_given_and_builds_nothing():
    command = ["make", "--no-print-directory", "--dry-run", "test-gpu", "PYTHON=/opt/theirs/python"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.stdout.split() == ["/opt/theirs/python", "scripts/test_gpu.py"]


@pytest.mark.slow
def test_every_test_of_a_gpu_can_be_imported():
    holding = script("test_gpu").files(ROOT / "tests", "gpu")
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "gpu", "-p", "no:xdist"]
    told = subprocess.run([*command, *holding], cwd=ROOT, env=environment(ROOT), capture_output=True, text=True)
    assert told.returncode == 0, told.stdout
    collected = {line.partition("::")[0] for line in told.stdout.splitlines() if "::" in line}
    assert collected == {str(path.relative_to(ROOT)) for path in holding}


def test_what_passes_fails_and_lacks_a_package_is_kept_by_name(tiny):
    folder, piece = tiny
    (folder / "test_wanting.py").write_text(WANTING)
    ended, found = piece()
    assert ended.returncode == 1
    assert outcomes(found) == {
        **{"test_adds": "passed", "test_fails": "failed", "test_wants_a_package": "skipped"},
        "tests/test_wanting.py": "skipped",
    }
    assert [found[kind] for kind in ("passed", "failed", "skipped", "left")] == [1, 1, 2, 0]
    by_name = {name.rpartition("::")[2]: test for name, test in found["tests"].items()}
    assert by_name["test_adds"]["found"] == {"sum": 2}
    assert by_name["test_adds"]["seconds"] >= 0
    assert "assert (1 + 1) == 3" in by_name["test_fails"]["reason"]
    assert by_name["test_wants_a_package"]["reason"] == by_name["tests/test_wanting.py"]["reason"]
    assert by_name["tests/test_wanting.py"]["reason"] == "no package no_such_package"
    assert set(found) >= {"device", "python", "unlike_the_lock", "sources", "date"}
    assert "torch" not in found["unlike_the_lock"] or found["unlike_the_lock"]["torch"]["here"] == torch.__version__


def test_all_passed_ends_with_0_and_runs_nothing_again(tiny):
    folder, piece = tiny
    (folder / "test_few.py").write_text("import pytest\n@pytest.mark.tiny\ndef test_holds():\n    pass\n")
    first, found = piece()
    assert (first.returncode, outcomes(found)) == (0, {"test_holds": "passed"})
    second, again = piece()
    assert second.returncode == 0
    assert again == found


def test_what_a_piece_cuts_off_comes_last_in_the_next(tiny):
    folder, piece = tiny
    (folder / "test_a_slow.py").write_text(SLOW)
    ended, found = piece()
    assert ended.returncode == 75
    assert ended.stdout.splitlines()[-1].startswith("test-gpu: 0 passed, 0 failed, 0 skipped, 4 left; the same command")
    left = dict.fromkeys(("test_adds", "test_fails", "test_wants_a_package"), "left")
    assert outcomes(found) == {"test_takes_long": "begun", **left}
    ended, found = piece()
    assert ended.returncode == 1
    assert outcomes(found)["test_takes_long"] == "passed"
    assert ended.stdout.index("test_few.py") < ended.stdout.index("test_a_slow.py")


def test_no_test_begins_when_the_time_is_over(tiny):
    ended, found = tiny[1](minutes=0)
    assert ended.returncode == 75
    assert set(outcomes(found).values()) == {"left"}


def test_outcomes_of_other_code_are_not_mixed(tiny):
    folder, piece = tiny
    piece()
    (folder / "test_few.py").write_text(TESTS.replace("== 3", "== 2"))
    ended, found = piece()
    assert ended.returncode == 1
    assert ended.stderr.endswith("found.json: holds tests of another sources; give another --out\n")
    assert outcomes(found)["test_fails"] == "failed"
