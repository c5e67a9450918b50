"""Write the JSON Schemas of studies and of the vocabulary's files, for editors: workflow/config/schemas/*.json.

They say names, types and limits of single values. What values must be to each other, and that a name is one of
something, the suite alone checks.
"""

import json
from typing import get_type_hints

from rae_bench.base.plain import Plain, kinds, schema
from rae_bench.base.storage import write_text
from rae_bench.densities.specs import Density
from rae_bench.study.config import CONFIG
from rae_bench.study.stated import SECTIONS
from rae_bench.study.study import StudyFile
from rae_bench.study.vocabulary import ModelEntry, Vocabulary

FOLDER = CONFIG / "schemas"


def study() -> Plain:
    """The schema of a study: whole, or laid over the one that it `extends`, where only names of keys are checked."""
    found = schema(StudyFile)
    whole = found["$defs"]["StudyFile"]
    own = {section: {"type": "object"} for section in SECTIONS}
    whole["properties"] |= {
        "name": {"type": "string"},
        "own": {"type": "object", "properties": own, "additionalProperties": False},
    }
    laid = dict.fromkeys(whole["properties"], True) | {
        "own": whole["properties"]["own"],
        "extends": {"type": "string"},
    }
    return {
        "$defs": found["$defs"],
        "if": {"required": ["extends"]},
        "then": {"properties": laid, "additionalProperties": False},
        "else": {"$ref": "#/$defs/StudyFile"},
    }


def section(name: str) -> Plain:
    """The schema of the file of a section of the vocabulary."""
    if name == "densities":  # an entry is its kind's spec less the weights of its terms, or more
        kind = {"kind": {"enum": sorted(kinds(Density))}}
        return {"additionalProperties": {"type": "object", "properties": kind, "required": ["kind"]}}
    kind = get_type_hints(Vocabulary)[name].__args__[1]
    return schema(ModelEntry if name == "models" else kind)


def schemas() -> dict[str, str]:
    """Every schema as text, by the name of its file."""
    made = {name: section(name) for name in (*SECTIONS, "protocols", "settings")} | {"study": study()}
    opening = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}
    return {
        f"{name}.json": json.dumps({**opening, **one}, indent=1, sort_keys=True) + "\n" for name, one in made.items()
    }


if __name__ == "__main__":
    for file, text in schemas().items():
        write_text(FOLDER / file, text)
