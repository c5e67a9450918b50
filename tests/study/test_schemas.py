"""The schemas that editors read: current, and in agreement with the suite's own reader."""

import json

import jsonschema
import pytest
from checkout import ROOT, script

from rae_bench.study.yaml_files import read_yaml

CONFIG = ROOT / "workflow/config"
SCHEMAS = script("schemas").schemas()
EXAMPLES = sorted(ROOT.glob("examples/*/study.yaml"))
FILES = [*sorted(CONFIG.glob("*.yaml")), *sorted(CONFIG.glob("studies/*.yaml")), *EXAMPLES]


def _faults(path, settings):
    name = f"{path.stem}.json" if path.parent == CONFIG else "study.json"
    return list(jsonschema.Draft202012Validator(json.loads(SCHEMAS[name])).iter_errors(settings))


def test_the_schemas_are_those_of_the_code():
    """If not: python scripts/schemas.py."""
    assert {path.name: path.read_text() for path in (CONFIG / "schemas").iterdir()} == SCHEMAS


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_the_suite_is_valid(path):
    assert not _faults(path, read_yaml(path.parent, path.name))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_names_the_schema(path):
    opening, _, where = path.read_text().splitlines()[0].partition("=")
    assert opening == "# yaml-language-server: $schema"
    assert (path.parent / where).resolve() == CONFIG / "schemas/study.json"


@pytest.mark.parametrize(
    ("key", "value"), [("rows", []), ("n_images", 0), ("train_seeds", ["0"]), ("floor_split", "test"), ("tabels", [])]
)
def test_what_the_suite_refuses_of_a_study_the_schema_does_too(key, value):
    path = CONFIG / "studies/smoke.yaml"
    assert _faults(path, {**read_yaml(path.parent, path.name), key: value})


def test_a_study_that_extends_another_needs_no_more_but_no_unknown_keys():
    path = CONFIG / "studies/mine.yaml"
    assert not _faults(path, {"extends": "smoke", "rows": {"add": ["wae"]}, "own": {"rows": {}}})
    assert _faults(path, {"extends": "smoke", "row": ["wae"]})
    assert _faults(path, {"extends": "smoke", "own": {"row": {}}})
