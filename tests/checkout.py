"""A copy of the repository, in which the workflow's commands run without touching this one's results."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
COPIED = ("Snakefile", "environment.yml", "profiles", "workflow", "rae_bench")
DROPPED = ("RAE_BENCH_DRIVER", "SNAKEMAKE_PROFILE", "PYTHONUNBUFFERED")
VARYING = (".job.json", ".lock", ".log", ".html", "report.record.json", "costs.csv", "costs.txt")
"""What holds times and memory; everything else in results/ is promised to be the same bytes."""


def environment(package_root, *before):
    """The environment of a subprocess: this interpreter as `python`, the package from `package_root`, one thread."""
    return {
        **{name: value for name, value in os.environ.items() if name not in DROPPED},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, [*before, package_root])),
        "OMP_NUM_THREADS": "1",
    }


def program(*names):
    """The path of somebody else's program, by the first of its names that is found.

    Where none is, the test is skipped; but not in CI, which has all of them (`make validators`).
    """
    found = next(filter(None, map(shutil.which, names)), None)
    return found or _missing(names[0])


def node_module(name):
    """The folder of a JavaScript package of `make validators`; where it is not, as for `program`."""
    found = ROOT / ".validators" / "node_modules" / name
    return found if found.is_dir() else _missing(name)


def _missing(name):
    message = f"{name} is not installed (make validators)"
    pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


class Bomb:
    """Unpickled, it makes the folder it is told to."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def unshared(data):
    """Plain data without the sharing that YAML's aliases leave, so that editing one entry edits no other."""
    return json.loads(json.dumps(data))


def put(data, keys, value):
    """Set (or, with `...`, delete) the entry of nested `data` that `keys` lead to."""
    *path, last = keys
    for key in path:
        data = data[key]
    if value is ...:
        del data[last]
    else:
        data[last] = value


def differing(results, others):
    """The files of either folder of results that the other lacks or has with other bytes, though promised the same."""
    names = {
        path.relative_to(folder)
        for folder in (results, others)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(VARYING)
    }
    assert len(names) > 60  # else nothing was compared
    pairs = {name: (results / name, others / name) for name in sorted(names)}
    return [
        str(name)
        for name, (one, other) in pairs.items()
        if not (one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes())
    ]


def fill(disk, leave=0):
    """Fill a disk but for so many bytes (a multiple of 4,096); the file to be removed to make space again."""
    path = disk / "fill"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(path, path.stat().st_size - leave)
    return path


def our_lines(text):
    """What the suite itself says in a command's output."""
    return [line for line in text.splitlines() if line.startswith("rae_bench")]


def refusal(checkout, ended):
    """The one line with which a command was refused that started nothing."""
    text = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert "Traceback" not in text
    assert len(ended.stderr.splitlines()) <= 2  # the other names the profile in force
    assert not checkout.results.exists()
    (line,) = our_lines(text)
    return line


class Checkout:
    """The repository's files under `path`, copied there unless they are, and how to run its commands there."""

    def __init__(self, path):
        self.path = path
        self.results = path / "results"
        self.config = path / "workflow" / "config"
        if (path / COPIED[0]).exists():
            return
        path.mkdir(exist_ok=True)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, path / name)

    def copy(self, path):
        """A copy of this one with its results, their times and what Snakemake remembers of them."""
        passing = shutil.ignore_patterns("__pycache__", "log", "locks", "tmp*", ".*.tmp")  # others may be at work here
        shutil.copytree(self.path, path, symlinks=True, dirs_exist_ok=True, ignore=passing)
        return Checkout(path)

    def run(self, *arguments):
        """Run `python -m ARGUMENTS` here to its end."""
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.path,
            env=environment(self.path),
            capture_output=True,
            text=True,
            timeout=900,
        )

    def snakemake(self, *arguments, study="smoke", cores=2):
        """Run the workflow here to its end."""
        return self.run("snakemake", "--cores", str(cores), "--config", f"study={study}", *arguments)

    def start(self, *arguments, study="smoke", cores=2, start_new_session=False):
        """Start the workflow here and return at once."""
        with (self.path / "driver.log").open("a") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--cores", str(cores), "--config", f"study={study}", *arguments],
                cwd=self.path,
                env=environment(self.path),
                stdout=output,
                stderr=output,
                start_new_session=start_new_session,
            )

    def plan(self, study="smoke", cores=2, arguments=()):
        """What a dry run would do: rule and wildcards ("train digits_mini vae 0"), with the job's first output."""
        dry = self.snakemake("--dry-run", "--quiet", "progress", *arguments, study=study, cores=cores)
        assert dry.returncode == 0, dry.stdout + dry.stderr
        jobs = {}
        for rule, body in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", dry.stdout, re.MULTILINE):
            lines = dict(line.strip().split(": ", 1) for line in body.splitlines())
            wildcards = dict(pair.split("=") for pair in lines.get("wildcards", f"study={study}").split(", "))
            wildcards.pop("study", None)
            jobs[" ".join([rule, *wildcards.values()])] = lines.get("output", "").split(", ")[0]
        jobs.pop("all", None)
        assert jobs or "Nothing to be done" in dry.stdout + dry.stderr
        return jobs

    @contextlib.contextmanager
    def edited(self, file, change):
        """Let `change` edit the data of a configuration file; afterwards the file is as it was."""
        path = self.config / file
        before = path.read_bytes()
        data = unshared(yaml.safe_load(before))
        change(data)
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        try:
            yield
        finally:
            path.write_bytes(before)

    def processes(self):
        """Command lines of the processes at work here, by process id."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "cwd").readlink().is_relative_to(self.path):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found |= {int(process.name): command} if command else {}  # a zombie has none
        return found

    def wait_for_training(self, driver, timeout=300):
        """Wait until an epoch of some training is over, while the driver lives."""
        deadline = time.monotonic() + timeout
        while driver.poll() is None and time.monotonic() < deadline:
            states = [json.loads(path.read_text()) for path in self.results.glob("*/*/*/*/model.job.json")]
            if any(state["status"] == "running" and "done" in state for state in states):
                return
            time.sleep(0.02)
        raise AssertionError((self.path / "driver.log").read_text())


def script(name, folder="scripts"):
    """The module that a program of `scripts/`, or of another folder, is."""
    found = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
