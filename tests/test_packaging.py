"""One set of versions for everybody, from one lock; nothing in it that exists on one machine only."""

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import rae_bench
from rae_bench import cli

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text().replace("\\\n", "")
LOCK_LINES, HASHES = zip(*(line.split(" --hash=", 1) for line in LOCK.splitlines() if line[0] != "#"), strict=True)
NEEDED = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["test"],
    *PROJECT["build-system"]["requires"],
]


def _locked():
    """Distribution name to locked version."""
    requirements = [Requirement(line) for line in LOCK_LINES]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in requirements}


@pytest.mark.parametrize("line", LOCK_LINES)
def test_the_lock_pins_exact_versions(line):
    requirement = Requirement(line)
    assert requirement.url is None
    assert re.fullmatch(r"==[\w.+!]+", str(requirement.specifier))


def test_the_lock_has_hashes_of_every_distribution():
    """pip then installs no other files than those there were when the lock was written."""
    assert all(re.fullmatch("sha256:[0-9a-f]{64}", one) for line in HASHES for one in re.split(r" +--hash=", line))


def test_the_lock_names_each_distribution_once():
    assert len(_locked()) == len(LOCK_LINES)


@pytest.mark.parametrize("line", NEEDED)
def test_the_lock_satisfies_what_the_project_needs(line):
    requirement = Requirement(line)
    assert requirement.specifier.contains(_locked()[canonicalize_name(requirement.name)])


@pytest.mark.parametrize(
    ("name", "versions"), [("torch", "==2.14.1"), ("torchvision", "==0.29.1"), ("numpy", ">=2.4.5")]
)
def test_the_lock_holds_the_versions_asked_for(name, versions):
    assert SpecifierSet(versions).contains(_locked()[name])


def test_conda_users_install_exactly_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, *others, pip = environment["dependencies"]
    assert python == f"python{PROJECT['project']['requires-python']}"
    assert others == ["pip"]
    assert pip["pip"] == ["-r requirements.lock"]


def test_the_versions_of_package_and_project_agree():
    assert Version(rae_bench.__version__) == Version(PROJECT["project"]["version"])


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert Version(citation["version"]) == Version(rae_bench.__version__)
    assert citation["license"] == PROJECT["project"]["license"]
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert Version(newest[1]) == Version(rae_bench.__version__)


def test_the_installed_command_is_that_of_the_package():
    module, _, function = PROJECT["project"]["scripts"]["rae-bench"].partition(":")
    assert getattr(importlib.import_module(module), function) is cli.main


def _tracked_text():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.rstrip("\0").split("\0"):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" not in data and (ROOT / name).resolve() != (ROOT / "tests/test_packaging.py").resolve():
            yield name, data.decode()


@pytest.mark.parametrize(
    "pattern",
    [
        r"\bfile:" + "//",
        r"index-url|find-links|trusted-host",
        r"\b(pypi\.org/simple|files\.pythonhosted|artifactory|nexus\.|devpi)",
        r"(?<![\w.{}$/:])/(tmp|home|root|work|mnt|media|Users)/",
    ],
)
def test_no_tracked_file_names_one_machine_or_one_registry(pattern):
    places = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in _tracked_text()
        for number, line in enumerate(text.splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert not places


def test_a_wheel_holds_every_file_of_the_package(tmp_path):
    """Published numbers, weights and the report's page beside the modules."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "rae_bench"], cwd=ROOT, capture_output=True, text=True, check=True)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.iterdir()
    files = set(zipfile.ZipFile(wheel).namelist())
    assert files >= set(listed.stdout.split())
    licence, dist_info = (ROOT / "LICENSE").read_bytes(), f"rae_bench-{rae_bench.__version__}.dist-info"
    assert zipfile.ZipFile(wheel).read(f"{dist_info}/licenses/LICENSE") == licence
    assert {
        "rae_bench/report/published/table1_fid.csv",
        "rae_bench/report/published/third_party_reproductions.csv",
    } <= files
