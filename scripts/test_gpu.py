"""Run every test that needs a GPU with the Python at hand, in pieces, and keep what was found in one JSON.

Nothing is built and nothing fetched: a machine with a GPU may have another Python and another torch than the lock's.
Their versions are recorded, and how they differ. What a missing package forbids is skipped by that package's name, and
is no pass. No test begins in the last fifth of a piece, and what still runs at its end is left for a later one; the
same command goes on with the tests that the JSON does not know yet. An outcome is kept before and after each test, so
a process that is killed loses no more than the test it was at.

Ends with 0 where all tests passed, with 75 where some are left, and else with 1.
"""

import argparse
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GPU = "gpu"
"""The mark of tests that need one."""
LEFT, BEGUN = "left", "begun"
UNFINISHED = 75
"""The exit status where tests are left, as of a stage that was asked to end and will go on."""
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "OMP_NUM_THREADS": "1"}
"""What the libraries read when they load."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "test_gpu.json", help="the JSON")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long a piece may take")
    parser.add_argument("--mark", default=GPU, help="which tests: those of this mark")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", help="where they lie")
    asked = parser.parse_args(arguments)
    for name, value in DETERMINISTIC.items():
        os.environ.setdefault(name, value)
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if asked.mark == GPU and (lack := lacking()):
        return refuse(lack)
    if importlib.util.find_spec("pytest") is None:
        return refuse(f"{sys.executable} has no pytest; give another with PYTHON=")
    head, found = about(asked.tests), {}
    if asked.out.exists():
        found = json.loads(asked.out.read_text())
        if other := [key for key in head if key != "date" and found.get(key) != head[key]]:
            return refuse(f"{asked.out}: holds tests of another {' and '.join(other)}; give another --out")
    return piece(asked, {**head, **found})


def refuse(reason: str) -> int:
    """Say in one line why nothing runs; the status."""
    print(f"test-gpu: {reason}", file=sys.stderr)
    return 1


def lacking() -> str:
    """What keeps every test of a GPU from running here; empty if nothing does."""
    try:
        import torch
    except ModuleNotFoundError:
        return f"{sys.executable} has no torch; give another with PYTHON="
    import warnings

    with warnings.catch_warnings(record=True) as said:
        if torch.cuda.is_available():
            return ""
    why = f" ({' '.join(str(said[0].message).split())})" if said else ""
    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return f"there is no GPU here that torch {torch.__version__}, {built}, can use{why}"


def about(tests: Path) -> dict[str, Any]:
    """What the tests run on and with; the sources as a digest, since other code is another test."""
    sources = sorted([*(ROOT / "rae_bench").rglob("*.py"), *tests.rglob("*.py"), *(ROOT / "workflow").rglob("*.yaml")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    lock = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    differing = {name: {"lock": want, "here": have} for name, want in lock if (have := version(name)) != want}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device(),
        "python": platform.python_version(),
        "unlike_the_lock": differing,
        "sources": digest,
    }


def version(package: str) -> str | None:
    """The version of a package of this Python, None where it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def device() -> dict[str, Any]:
    """The GPU, its driver and libraries, as far as there are any; else the processor."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {"name": platform.machine()}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_mib": properties.total_memory // 2**20,
        "driver": driver(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def driver() -> str | None:
    """The version of NVIDIA's driver, where the program that tells it is there."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(told.stdout.split()), None) if told.returncode == 0 else None


def files(tests: Path, mark: str) -> list[Path]:
    """The files that hold tests of a mark: no other is imported, so what others need may be missing."""
    return [path for path in sorted(tests.rglob("test_*.py")) if re.search(rf"\bmark\.{mark}\b", path.read_text())]


def piece(asked: argparse.Namespace, found: dict[str, Any]) -> int:
    """Run the tests that are left, as many as the time allows; the status."""
    import pytest

    def ring(*_: Any) -> None:
        pytest.exit(f"{asked.minutes:g} minutes are over")

    recorder = Recorder(found, asked.out, time.monotonic() + 0.8 * 60 * asked.minutes)
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 60 * asked.minutes)
    # a warning is no failure: another torch than the lock's warns of other things
    options = ["-m", asked.mark, "-W", "default", "-p", "no:cacheprovider", "-p", "no:xdist", "--color=no"]
    options += ["--continue-on-collection-errors", f"--rootdir={asked.tests.parent}"]
    pytest.main([*options, *map(str, files(asked.tests, asked.mark))], plugins=[recorder])
    signal.setitimer(signal.ITIMER_REAL, 0)
    recorder.write()
    counts = Counter(test["outcome"] for test in recorder.tests.values())
    left = counts[LEFT] + counts[BEGUN]
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))
    print(f"test-gpu: {told}, {left} left{'; the same command goes on' if left else ''}: {asked.out}")
    if left:
        return UNFINISHED
    return 0 if recorder.tests and set(counts) == {"passed"} else 1


class Recorder:
    """What pytest tells of each test, kept in the JSON as it comes."""

    def __init__(self, found: dict[str, Any], path: Path, until: float) -> None:
        self.found, self.path, self.until = found, path, until
        self.tests: dict[str, dict[str, Any]] = found.setdefault("tests", {})

    def write(self) -> None:
        """Put the JSON in the place of the last one."""
        counts = Counter(test["outcome"] for test in self.tests.values())
        told = {outcome: counts[outcome] for outcome in ("passed", "failed", "skipped", LEFT, BEGUN)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.with_suffix(".tmp")
        whole.write_text(json.dumps({**self.found, **told, "tests": self.tests}, indent=1) + "\n")
        whole.replace(self.path)

    def pytest_collectreport(self, report: Any) -> None:
        """Keep a file that cannot be imported: skipped where a package is missing."""
        if report.failed:
            self.tests[report.nodeid] = outcome_of(str(report.longrepr))

    def pytest_collection_finish(self, session: Any) -> None:
        """Leave the tests that are not done, those that were begun before at the end."""
        self.session = session
        for item in session.items:
            self.tests.setdefault(item.nodeid, {"outcome": LEFT})
        undone = [item for item in session.items if self.tests[item.nodeid]["outcome"] in (LEFT, BEGUN)]
        session.items[:] = sorted(undone, key=lambda item: self.tests[item.nodeid]["outcome"] == BEGUN)
        self.write()

    def pytest_runtest_protocol(self, item: Any) -> bool | None:
        """Say that a test begins, unless the time is over."""
        if time.monotonic() > self.until:
            self.session.shouldstop = "no test begins in the last fifth of a piece"
            return True  # as if it had been run
        self.tests[item.nodeid] = {"outcome": BEGUN}
        self.write()
        return None

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep the outcome of a test, after its last part."""
        kept = self.tests[report.nodeid]
        kept["seconds"] = round(kept.get("seconds", 0.0) + report.duration, 3)
        if report.failed:
            kept |= outcome_of(str(report.longrepr))
            if "CUDA error:" in str(report.longrepr):
                self.session.shouldstop = "CUDA is of no more use in this process; a new one goes on"
        elif report.skipped:
            kept |= {"outcome": "skipped", "reason": report.longrepr[2].removeprefix("Skipped: ")}
        elif report.when == "call":
            kept["outcome"] = "passed"
        if report.user_properties:
            kept["found"] = dict(report.user_properties)
        self.write()


def outcome_of(traceback: str) -> dict[str, str]:
    """What a traceback means: skipped for want of a package that is not ours, else failed."""
    named = re.findall(r"ModuleNotFoundError: No module named '(\w+)", traceback)
    ours = {"rae_bench", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    if named and named[-1] not in ours:
        return {"outcome": "skipped", "reason": f"no package {named[-1]}"}
    return {"outcome": "failed", "reason": traceback[-2000:]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
