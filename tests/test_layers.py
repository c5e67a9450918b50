"""Who may import whom: eight rooms, one floor each; a room imports from rooms below it, a module never in a circle."""

import ast
import graphlib
import subprocess
import sys

import pytest
from checkout import ROOT, environment

FLOORS = ["base", "data", "models", "densities", "scoring", "study", "report", "run", "api", "cli", "__main__"]
"""The rooms from the ground up, the front door on top."""

PACKAGE = ROOT / "rae_bench"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in SOURCES}


def imported(path):
    """The suite's modules that a file imports anywhere, inside functions and for annotations too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            tail = name.removeprefix("rae_bench.")
            if tail != name:
                yield tail if tail in MODULES else tail.rpartition(".")[0]


def test_every_room_has_its_floor():
    assert {name.split(".")[0] for name in MODULES} == set(FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_from_rooms_below_it(module):
    floor = FLOORS.index(module.split(".")[0])
    above = {name for name in imported(MODULES[module]) if name and FLOORS.index(name.split(".")[0]) > floor}
    assert not above, f"{module} imports from above: {sorted(above)}"


def test_no_module_imports_itself_by_way_of_others():
    order = graphlib.TopologicalSorter({name: set(imported(path)) & set(MODULES) for name, path in MODULES.items()})
    order.prepare()


def test_the_check_sees_imports():
    """Known pairs, read by eye: at the top of a file, inside a function, of a family."""
    assert "base.storage" in imported(MODULES["run.jobs"])
    assert "densities.flow" in imported(MODULES["densities.catalogue"])
    assert "scoring.specs" in imported(MODULES["scoring.metrics.kernel"])


def test_files_that_make_packages_are_empty():
    written = [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE and path.read_text()]
    assert not written


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ([name for name in MODULES if name.endswith("specs")], ["torch", "sklearn", "torch_fidelity", "pandas"]),
        (
            [name for name in MODULES if name.split(".")[0] in ("study", "report")],
            ["torch", "sklearn", "torch_fidelity"],
        ),
        # tryouts are all calculation, and what their stage loads first
        ([name for name in MODULES if name.split(".")[0] in ("run", "cli") and name != "run.tryouts"], ["torch"]),
        (["cli"], ["numpy"]),  # which reads the number of threads when it loads: a stage sets that first
    ],
    ids=["settings", "studies and reports", "stages and the command line", "the command line"],
)
def test_what_need_not_calculate_loads_no_heavy_library(modules, heavy):
    lines = [f"import rae_bench.{module}" for module in modules]
    check = f"import sys; loaded = {{*{heavy}}} & {{*sys.modules}}; sys.exit(f'{{loaded}} loaded' if loaded else 0)"
    subprocess.run([sys.executable, "-c", "\n".join([*lines, check])], env=environment(ROOT), check=True)
