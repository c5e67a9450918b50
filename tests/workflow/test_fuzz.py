"""A minute of fuzzing, and that the fuzzer sees what it is there to see."""

import importlib
import os
import random
import subprocess
import sys
import time
import warnings

import fuzz
import numpy as np
import pytest
import yaml
from checkout import ROOT, environment
from fuzz_cases import Ended, damaged
from fuzz_studies import core_number, misread


@pytest.mark.workflow
@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_third_of_a_minute_finds_nothing(kind, tmp_path):
    ended = subprocess.run(
        [sys.executable, ROOT / "tests" / "fuzz.py", "--kind", kind, "--minutes", "0.333", "--out", tmp_path / "found"],
        env=environment(ROOT),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _raise():
    raise KeyError("a mistake of the suite's")


def _refuse(message):
    return lambda: Ended(message)


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (lambda: Ended(None), []),
        (_refuse("rae_bench score: x.npy: no such file"), []),
        (_raise, ["traceback: KeyError in test_fuzz.py, _raise"]),
        (lambda: time.sleep(60), ["hang of more than 1 s, in no function of the suite"]),
        (lambda: os.kill(os.getpid(), 11), ["crash by signal 11, in no function of the suite"]),
        (lambda: os._exit(3), ["exit 3 on the spot, in no function of the suite"]),
        (
            _refuse("rae_bench score: one\ntwo"),
            ["a message that is no line of printable text: rae_bench score: one\\ntwo"],
        ),
        (
            _refuse("rae_bench score: \x1b[31m"),
            ["a message that is no line of printable text: rae_bench score: \\x1b[N"],
        ),
        (_refuse("bad"), ["a message without its command: bad"]),
        (
            _refuse("rae_bench score: " + "x " * 200),
            [f"a message of more than 400 characters: {('rae_bench score: ' + 'x ' * 60)[:110]}"],
        ),
        (lambda: Ended(None, ("other pixels: 3 of 'x'",)), ["other pixels: N of TEXT"]),
    ],
)
def test_what_is_wrong_is_found(run, found, tmp_path):
    assert [one.what for one in fuzz.findings(run, tmp_path, limit=1.0)] == found


def test_a_warning_is_found(tmp_path):
    def run():
        importlib.reload(warnings)  # as a command has it: pytest collects them
        warnings.warn("what only a maintainer understands", stacklevel=1)
        return Ended(None)

    (found,) = fuzz.findings(run, tmp_path)
    assert "UserWarning: what only a maintainer understands" in found.what


def test_memory_is_bounded(tmp_path):
    (found,) = fuzz.findings(lambda: bytearray(2**40), tmp_path)
    assert found.what == "traceback: MemoryError in test_fuzz.py, <lambda>"


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_case_is_made_of_its_number_alone(kind, tmp_path):
    made = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        fuzz.KINDS[kind].make(random.Random(5), folder)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        made.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert made[0] == made[1] != {}


def test_damage_changes_bytes_most_of_the_time():
    data = np.random.default_rng(0).bytes(200)
    assert sum(damaged(random.Random(seed), data) != data for seed in range(100)) > 80


@pytest.mark.parametrize(
    ("text", "number"),
    [
        # the examples of YAML 1.2.2, section 10.3.2, and what YAML 1.1 reads otherwise
        *[("0", 0), ("0o7", 7), ("0x3A", 58), ("-19", -19), ("0.", 0.0), ("-0.0", 0.0), (".5", 0.5), ("+12e03", 12e3)],
        *[("-2E+05", -2e5), (".inf", np.inf), ("-.Inf", -np.inf), ("010", 10), ("1e3", 1000.0)],
        *[("5:00", None), ("1_000", None), ("0b11", None), ("true", None), ("", None), ("٣", None)],
    ],
)
def test_numbers_of_yaml_1_2(text, number):
    assert core_number(text) == number


def test_a_number_held_otherwise_is_seen(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("a: &x [1, 2.5, 16]\nb: {c: *x, d: '3'}\n")
    assert list(misread(file)) == []
    file.write_text("a: [1, 2]\n")
    node = yaml.compose("a: [1, 010]", Loader=yaml.BaseLoader)
    assert list(fuzz.fuzz_studies._misread(node, {"a": [1, 8]}, set())) == [
        "a number is misread: '010' is held as 8, YAML 1.2 reads 10"
    ]
