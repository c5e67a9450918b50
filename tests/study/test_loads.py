"""What each stage loads, in its own command on the smoke study: its libraries, before its work; no other."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from checkout import Checkout, environment

from rae_bench.study import loads
from rae_bench.study.config import load_study

COMPILER = ["torch._dynamo", "torch._inductor", "sympy"]
FIDELITY = ["torch_fidelity", "torchvision"]
DRAWING = ["matplotlib", "seaborn"]
HEAVY = ["torch", *COMPILER, *FIDELITY, "sklearn", *DRAWING, "scipy", "scipy.stats", "pandas", "skimage", "zuko"]
LOADED = {
    "prepare": [],
    "reference": ["torch"],
    "floor": ["torch", *FIDELITY, *COMPILER, "sklearn", "scipy", "scipy.stats", "pandas"],
    "train": ["torch", *COMPILER, "pandas"],
    "train linear": ["torch", *COMPILER, "scipy", "pandas"],
    "fit standard_normal": [],
    "fit gaussian": [],
    "fit gmm10": ["sklearn", "scipy", "scipy.stats", "pandas"],
    "fit second_stage": ["torch", *COMPILER],
    "decode": ["torch", "scipy", "skimage"],
    "evaluate": ["torch", *FIDELITY, *COMPILER, "sklearn", "scipy", "scipy.stats", "pandas", "skimage"],
    "protocols": ["torch", "pandas"],
    "collect": ["pandas"],
    "tables": ["scipy", "scipy.stats", "pandas"],
    "figures": ["scipy", "scipy.stats", "pandas", *DRAWING],
    "report": ["scipy", "scipy.stats", "pandas"],
}
"""scikit-learn brings scipy.stats and, where there is one, pandas; torchvision and the optimisers, the compiler.

torch-fidelity is for the kernel distance: the subsets of smoke do not overlap.
"""
WATCHING = """
import contextlib, json, sys
from rae_bench import cli
from rae_bench.run import jobs

heavy, running = json.loads(sys.argv[1]), jobs.running

@contextlib.contextmanager
def watched(*arguments, **more):
    with running(*arguments, **more) as progress:
        before = {name for name in heavy if name in sys.modules}
        yield progress
        torch = sys.modules.get("torch")
        found = {
            "before": sorted(before),
            "after": sorted(name for name in heavy if name in sys.modules),
            "deterministic": torch is None or torch.are_deterministic_algorithms_enabled(),
            "only_warns": torch is not None and torch.is_deterministic_algorithms_warn_only_enabled(),
        }
        print(json.dumps(found))

jobs.running = watched
cli.main(sys.argv[2:])
"""


@pytest.fixture(scope="module")
def commands(smoke, tmp_path_factory):
    """A copy of the finished smoke study; Snakemake's command for each stage, for `fit` one of each density."""
    checkout = Checkout(tmp_path_factory.mktemp("loads"))
    shutil.copytree(smoke.results, checkout.results)
    dry = checkout.snakemake("--dry-run", "--quiet", "progress", "--printshellcmds", "--forceall")
    found = {}
    for command in re.findall(r"^Shell command: python -m rae_bench (.*)$", dry.stdout, re.MULTILINE):
        words = shlex.split(command.partition(">>")[0])
        density = re.search(r"--density (\w+)", command) if words[0] == "fit" else None
        linear = " linear" if words[0] == "train" and "/linear/" in command else ""
        found[f"fit {density[1]}" if density else words[0] + linear] = words
    whole = found["evaluate"]  # this study, which is the CPU's, decodes there
    found["decode"] = ["decode", *whole[1 : whole.index("--prd-reference")], *whole[whole.index("--run") :]]
    return checkout, found


@pytest.mark.parametrize("stage", LOADED)
def test_a_stage_loads_its_libraries_before_its_work_and_no_other(commands, stage):
    checkout, found = commands
    ended = subprocess.run(
        [sys.executable, "-c", WATCHING, json.dumps(HEAVY), *found[stage]],
        cwd=checkout.path,
        env=environment(checkout.path),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout.splitlines()[-1])
    assert said["after"] == sorted(LOADED[stage])
    lazy = {"skimage"}  # which loads its parts when they are first used, milliseconds
    assert set(said["after"]) - set(said["before"]) <= lazy
    assert said["deterministic"]
    assert not said["only_warns"]


def test_every_stage_and_density_is_listed(commands):
    assert sorted(commands[1]) == sorted(LOADED)
    own = {"tryout"}  # of a study with code of a user's own, which this is not
    assert {stage.split()[0] for stage in LOADED} == {"fit", *loads.STAGES} - own


@pytest.mark.parametrize(
    ("study", "asking"),
    [
        ("search_digits", set()),  # the subsets of its kernel distance overlap
        ("digits", {"evaluate"}),  # among more images drawn they do not
        ("paper_as_released", {"floor", "evaluate"}),  # official Inception, whose distance is torch-fidelity's
    ],
)
def test_torch_fidelity_is_loaded_where_it_is_asked(study, asking):
    study = load_study(study)
    dataset, model = next(iter(study.datasets)), next(iter(study.models))
    specs = {"floor": study.floor(dataset), "evaluate": study.evaluation(dataset, model)}
    assert {
        stage for stage, spec in specs.items() if set(loads.FIDELITY) <= set(loads.of_scoring(stage, spec))
    } == asking
