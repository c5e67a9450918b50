"""Damaged results: the stage that reads one, run by the workflow's own command, ends in one line that names the file.

A few of the pairs of file and damage are tried by every test run, all by the longer tests. Numbers that were altered
look like numbers; only hashes tell, which is not the business of these tests.
"""

import contextlib
import io
import json
import os
import pickle
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from checkout import Bomb, environment
from safetensors.numpy import load, save

ROOT, RUN = "smoke", "smoke/digits_mini/vae/seed0"
READER = {
    "datasets/digits_mini/manifest.json": "train",
    "datasets/digits_mini/images.npy": "train",
    "datasets/digits_mini/train.npy": "train",
    "datasets/digits_mini/test.npy": "evaluate",
    "datasets/digits_mini/labels.npy": "evaluate",
    "references/digits_mini/train.600.*.safetensors": "floor",
    f"{ROOT}/digits_mini/floor.json": "evaluate",
    f"{RUN}/model.safetensors": "evaluate",
    f"{RUN}/codes.safetensors": "fit",
    f"{RUN}/densities/gmm10.safetensors": "evaluate",
    f"{RUN}/densities/second_stage.safetensors": "evaluate",
    f"{RUN}/metrics.parquet": "collect",
    f"{RUN}/protocols.parquet": "collect",
    f"{RUN}/history.parquet": "figures",
    f"{RUN}/sheets.safetensors": "figures",
    f"{ROOT}/metrics.parquet": "tables",
    f"{ROOT}/protocols.parquet": "tables",
    f"{ROOT}/tables/index.json": "report",
    f"{ROOT}/figures/index.json": "report",
}
FOREIGN = {".npy": "datasets/digits_mini/labels.npy", ".json": f"{RUN}/model.record.json"}
"""Of the same format, but something else."""


# --- damages: a file's content to another, None if the damage is not for its kind ------------------------------


def _truncated(chance, _, content):
    return content[: chance.randrange(1, len(content))]


def _emptied(*_):
    return b""


def _flipped(chance, path, content):
    """One bit of the header's first bytes; parquet begins at its end."""
    at = chance.randrange(4) if path.suffix != ".parquet" else len(content) - 8 + chance.randrange(8)
    return content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :]


def _of_another_format(chance, *_):
    return chance.choice((b"%PDF-1.4 something else\n", b"\x89PNG\r\n\x1a\n", b"hello\n", bytes(5000)))


def _foreign(_, path, content):
    if path.suffix == ".safetensors":
        return save({"x": next(iter(load(content).values()))}, metadata={"about": json.dumps({"fingerprint": "x"})})
    if path.suffix == ".parquet":
        buffer = io.BytesIO()
        pd.DataFrame({"x": [1.0]}).to_parquet(buffer)
        return buffer.getvalue()
    return (path.parents[len(path.parents) - 2 - _depth(path)] / FOREIGN[path.suffix]).read_bytes()


def _misshapen(chance, path, content):
    """JSON of another shape, or arrays of which JSON of another shape is said."""
    shape = chance.choice(("[]", "{}", "null", "3", '"x"', '{"values": 3}', '[{"name": "x"}]', "[" * 100_000))
    if path.suffix == ".json":
        return shape.encode()
    return save(load(content), metadata={"about": shape}) if path.suffix == ".safetensors" else None


def _pickled(chance, path, _):
    """What runs when it is unpickled, in each of the forms that some loader unpickles."""
    bomb, form = Bomb(path.with_name("executed")), io.BytesIO()
    if path.suffix == ".npy":
        np.save(form, np.array([bomb], dtype=object), allow_pickle=True)
    elif chance.random() < 0.5:
        torch.save({"x": bomb}, form)
    return form.getvalue() or pickle.dumps(bomb)


CONTENTS = [_truncated, _emptied, _flipped, _of_another_format, _foreign, _misshapen, _pickled]
PLACES = ["a folder", "a link to nothing", "unreadable"]
PAIRS = [
    (file, damage)
    for file in READER
    for damage in [*CONTENTS, *PLACES]
    if damage is not _misshapen or file.endswith((".json", ".safetensors"))
    if (file, damage) != ("datasets/digits_mini/labels.npy", _foreign)  # the foreign file itself
    if (file, damage) != (f"{RUN}/sheets.safetensors", _misshapen)  # only their arrays are read
]


QUICK = [
    (file, chosen[i % len(chosen)]) for i, file in enumerate(READER) if (chosen := [d for f, d in PAIRS if f == file])
]
"""Every file once, every damage at least once."""
assert {damage for _, damage in QUICK} == {*CONTENTS, *PLACES}
assert len(PAIRS) > 150


def _depth(path):
    return path.parts.index("results") - 1


# --- the commands, run in children of a process that has imported everything --------------------------------------

PARENT = """
import importlib, json, os, pkgutil, sys
import matplotlib.pyplot, pandas, seaborn, sklearn.cluster, sklearn.mixture, torch, torch_fidelity.metric_kid
import rae_bench
for module in pkgutil.walk_packages(rae_bench.__path__, "rae_bench."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from rae_bench import cli

while line := sys.stdin.readline():
    arguments, log, user = json.loads(line)
    if (child := os.fork()) == 0:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1), os.dup2(out, 2)
        if user is not None:
            os.setresuid(user, user, user)
        sys.argv[1:] = arguments
        cli.main(arguments)
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
NOBODY = 65534


class Results:
    """A copy of the smoke study's results that may be damaged, and the workflow's commands to read them with."""

    def __init__(self, smoke, folder):
        self.folder = folder
        shutil.copytree(smoke.results, folder / "results")
        dry = smoke.snakemake("--dry-run", "--printshellcmds", "--forceall", "--quiet", "host")
        self.commands = [
            shlex.split(line)[3:-3]  # without `python -m rae_bench` and `>> log 2>&1`
            for line in re.findall(r"(python -m rae_bench .*)$", dry.stdout + dry.stderr, re.MULTILINE)
        ]
        assert len(self.commands) == 37
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)
        for path in (smoke.path, *smoke.path.parents):  # pytest's folders are its user's alone; nobody reads weights
            if path != Path(tempfile.gettempdir()) and path.is_relative_to(tempfile.gettempdir()):
                path.chmod(path.stat().st_mode | 0o011)
        self.parent = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            cwd=folder, env=environment(smoke.path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def path(self, file):
        folder = self.folder / "results" / Path(file).parent
        return next(path for path in folder.iterdir() if path.match(Path(file).name))

    def run(self, stage, file, as_nobody=False):
        """The exit status and the output of the command of `stage` that reads `file`."""
        name = str(self.path(file).relative_to(self.folder))
        mine = [one for one in self.commands if one[0] == stage]
        naming = [one for one in mine if any(part in (name, str(Path(name).parent)) for part in one)]
        command = (naming or mine)[0]  # summaries find most of what they read by themselves
        log = self.folder / "log"
        self.parent.stdin.write(json.dumps([command, str(log), NOBODY if as_nobody else None]) + "\n")
        self.parent.stdin.flush()
        return int(self.parent.stdout.readline()), log.read_text()

    @contextlib.contextmanager
    def damaged(self, file, damage, chance):
        """Damage a file; afterwards it is as it was."""
        path = self.path(file)
        content = path.read_bytes()
        if damage == "unreadable":
            path.chmod(0)
        else:
            path.unlink()
            if damage == "a folder":
                path.mkdir()
            elif damage == "a link to nothing":
                path.symlink_to(path.with_name("nothing"))
            else:
                path.write_bytes(damage(chance, path, content))
        try:
            yield path
        finally:
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            path.chmod(0o666)


@pytest.fixture(scope="module")
def results(smoke):
    with tempfile.TemporaryDirectory(prefix="damaged.") as folder:
        made = Results(smoke, Path(folder))
        try:
            yield made
        finally:
            made.parent.communicate()


def _is_refused(results, file, damage):
    chance = random.Random(f"{file} {damage if isinstance(damage, str) else damage.__name__}")
    drops = damage == "unreadable" and os.geteuid() == 0  # to whom nothing is unreadable
    with results.damaged(file, damage, chance) as path:
        status, output = results.run(READER[file], file, as_nobody=drops)
    assert status == 1, output
    assert "Traceback" not in output, output
    *_, last = output.splitlines()
    assert [line for line in output.splitlines() if line.startswith("rae_bench ")] == [last]
    assert last.startswith(f"rae_bench {READER[file]}: ")
    assert str(path.relative_to(results.folder)) in last
    assert len(last) < 600
    assert not list(results.folder.rglob("executed"))
    return True


IDS = {"ids": lambda part: part if isinstance(part, str) else part.__name__}


@pytest.mark.parametrize(("file", "damage"), QUICK, **IDS)
def test_a_damaged_file_is_one_line_that_names_it(results, file, damage):
    assert _is_refused(results, file, damage)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "damage"), [pair for pair in PAIRS if pair not in QUICK], **IDS)
def test_every_other_damage_of_a_file_is_one_line_too(results, file, damage):
    assert _is_refused(results, file, damage)


@pytest.mark.parametrize("damage", [_truncated, "a folder"], **IDS)
def test_a_damaged_state_of_a_job_stops_nothing(results, damage):
    """It is only status: the report, which lists costs, and the job itself go on without."""
    state = f"{RUN}/densities/gaussian.job.json"
    with results.damaged(state, damage, random.Random(0)):
        status, output = results.run("report", f"{ROOT}/tables/index.json")
        assert status == 0, output
        status, output = results.run("fit", f"{RUN}/codes.safetensors")
        assert status == 0, output
