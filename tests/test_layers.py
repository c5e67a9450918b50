"""Who may import whom: a module imports only from what stands before it in this table."""

import ast
import subprocess
import sys

import pytest
from checkout import ROOT, environment

ORDER = [
    *["plain", "published", "yaml_files", "specs", "official", "conversion", "protocols", "devices", "study", "config"],
    *["loads", "resources", "rng", "storage", "cluster", "checkpoints", "locks"],
    *["faces", "digit_classifier", "face_classifier", "metrics", "feature_files", "pretrained", "features"],
    *["memory", "records", "jobs", "settling"],
    *["datasets", "backbones", "results", "comparisons", "claims"],
    *["autoencoder", "objectives", "training"],
    *["densities", "generation", "likelihood", "pca", "evaluation"],
    *["rendering", "tables", "plots", "status", "report", "cost"],
    *["process", "stages", "verification", "archive", "cli", "__main__"],
]
WITHOUT_TORCH = [
    *["plain", "published", "yaml_files", "specs", "official", "conversion", "protocols", "devices", "study", "config"],
    *["resources", "storage", "cluster", "checkpoints", "locks", "memory", "records", "jobs", "datasets", "results"],
    *["settling", "loads", "comparisons", "claims"],
    *[
        "rendering",
        "tables",
        "plots",
        "status",
        "report",
        "cost",
        "process",
        "stages",
        "verification",
        "archive",
        "cli",
    ],
]

PACKAGE = ROOT / "rae_bench"


def _module(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
MODULES = {_module(path) for path in SOURCES}


def _imported(path):
    """The suite's modules (a family counts as one) that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.split(".")[0] == "rae_bench" and "." in name)


def test_the_table_lists_every_module_once():
    assert sorted(ORDER) == sorted(MODULES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_what_stands_before_it(path):
    module = _module(path)
    allowed = {*ORDER[: ORDER.index(module) + 1]}
    assert set(_imported(path)) & MODULES <= allowed


def test_the_check_sees_imports():
    """Known pairs, read by eye: at the top of a file, inside a function, of a family."""
    assert "storage" in _imported(PACKAGE / "jobs.py")
    assert "training" in _imported(PACKAGE / "stages.py")
    assert "specs" in _imported(PACKAGE / "metrics" / "kernel.py")


def test_settings_and_summaries_do_not_load_torch():
    lines = [f"import rae_bench.{module}" for module in WITHOUT_TORCH]
    check = "import sys; sys.exit('torch is loaded' if 'torch' in sys.modules else 0)"
    code = "\n".join([*lines, check])
    subprocess.run([sys.executable, "-c", code], env=environment(ROOT), check=True)
