"""Plain data (what YAML and JSON hold) to frozen dataclasses and back, strictly.

A dataclass states the fields, their types and, where a type allows too much, their limits
(`Annotated[int, Field(gt=0)]`); pydantic checks them. `parse` accepts exactly those: no unknown key, no missing key, no
number written as text, nothing infinite. A union of dataclasses is told apart by their `kind`
(`Field(discriminator="kind")`). What two fields must be to each other a dataclass says in its `__post_init__`.
`to_json` writes one canonical string, so that two spellings of the same settings are the same bytes.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

ADDED = {"added": True}
"""Metadata of a field that came later: while it has its default, plain data do not hold it and no fingerprint moves."""

Plain = Any
"""What YAML or JSON gives: None, bool, int, float, str, and lists and mappings of these."""


LONGEST = 200
"""Characters of what was found that a message repeats."""


class ConfigError(ValueError):
    """A setting that cannot be used; the message names what, where, and what would be right."""


def parse(kind: Any, data: Plain, where: str) -> Any:
    """Return `data` as an instance of the annotated type `kind`; `where` names its place in messages.

    Raises:
        ConfigError: `data` is not what the type says, or what a dataclass's own `__post_init__` refuses.
    """
    try:
        return _adapter(kind).validate_json(json.dumps({where: data}))[where]
    except ValidationError as error:
        raise ConfigError(_told(kind, where, error.errors(include_url=False))) from None


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[dict[str, Any]]:
    """The validator of `kind` as JSON's one value: from JSON, strict mode takes a list for a tuple, too."""
    return TypeAdapter(dict[str, kind], config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))


def schema(kind: Any) -> dict[str, Plain]:
    """The JSON Schema of a mapping of names to `kind`: types and limits of single fields, as `parse` checks them."""
    return _adapter(kind).json_schema()


_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "dataclass_type": "a mapping of keys to values",
    "finite_number": "a finite number",
}
_LIMITS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def _told(kind: Any, where: str, errors: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong, on one line; a key that is unknown comes first, as it may be one of those missing."""
    order = {"unexpected_keyword_argument": 0, "missing": 1}
    error = min(errors, key=lambda error: order.get(error["type"], 2))
    name, about, steps = error["type"], error.get("ctx", {}), error["loc"][1:]
    if name in order:
        *steps, key = steps
    at, kind = _place(kind, where, steps)
    found = shown(error["input"])
    if name == "unexpected_keyword_argument":
        return unknown(f"{at}.{key[:LONGEST]}", "key", key, [field.name for field in dataclasses.fields(kind)])
    if name == "missing":
        beside = [other["loc"] for other in errors if other["type"] == name and other["loc"][:-1] == error["loc"][:-1]]
        return f"{at}: missing {', '.join(loc[-1] for loc in beside)}"
    if name == "value_error":
        return f"{at}{'.' if dataclasses.is_dataclass(kind) else ': '}{about['error']}"
    if name in ("union_tag_invalid", "union_tag_not_found"):
        return f"{at}.kind: {shown(error['input'].get('kind'))} is not one of {sorted(kinds(kind))}"
    if name == "literal_error":
        return f"{at}: {found} is not one of {list(get_args(kind))}"
    if name in ("too_short", "string_too_short"):
        return f"{at}: is empty; name {'one' if kind is str else 'at least one'}"
    if name in _LIMITS:
        limit, side = _LIMITS[name]
        return f"{at}: {found} must be {side} {written(about[limit])}"
    if name in _EXPECTED:
        return f"{at}: expected {_EXPECTED[name]}, found {found}{_hint(kind, error['input'])}"
    return f"{at}: {error['msg']}"


def _place(kind: Any, where: str, steps: Sequence[str | int]) -> tuple[str, Any]:
    """Where pydantic's `steps` lead from `where`, as a path of keys, and what type is asked for there."""
    for step in steps:
        kind = _bare(kind)
        if dataclasses.is_dataclass(kind):
            where, kind = f"{where}.{step}", get_type_hints(kind)[str(step)]
        elif get_origin(kind) is tuple:
            where, kind = f"{where}[{step}]", get_args(kind)[0]
        elif get_origin(kind) is dict:
            where, kind = f"{where}.{str(step)[:LONGEST]}", get_args(kind)[1]
        else:  # of a union: the step is the kind, no key
            kind = kinds(kind)[str(step)]
    return where, _bare(kind)


def _bare(kind: Any) -> Any:
    """A type without its limits, and without the None that may stand in its place."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    parts = get_args(kind) if get_origin(kind) is types.UnionType else ()
    return next(part for part in parts if part is not types.NoneType) if types.NoneType in parts else kind


def kinds(union: Any) -> dict[str, Any]:
    """The dataclasses of a union by their `kind`."""
    return {get_args(get_type_hints(part)["kind"])[0]: part for part in get_args(_bare(union))}


def shown(data: Plain) -> str:
    """How messages spell what was found: as Python does, the beginning of it if that is long."""
    text = repr(data)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _hint(kind: Any, data: Plain) -> str:
    """What to write instead of a value of another type, where that can be said: it is accepted, and the same value."""
    if kind is str:
        return "; quote it" if isinstance(data, int | float) else ""
    if kind not in (int, float) or not isinstance(data, str | float):
        return ""
    try:
        number = float(data)
    except ValueError:
        return ""
    fits = math.isfinite(number) and (kind is float or (number.is_integer() and abs(number) < MOST_EXACT))
    return f"; write {written(number)}{' without quotes' if isinstance(data, str) else ''}" if fits else ""


MOST_EXACT = 2**53
"""Below, a float holds every whole number exactly."""


def written(number: float) -> str:
    """A number as every reader of YAML takes it for the same: a whole one without a point, 1e-07 as 1.0e-07."""
    if isinstance(number, int) or (number.is_integer() and abs(number) < MOST_EXACT):
        return str(int(number))
    digits, exponent, power = repr(number).partition("e")
    return f"{digits}{'' if '.' in digits or not exponent else '.0'}{exponent}{power}"


def unknown(where: str, noun: str, name: str, known: Sequence[str]) -> str:
    """The message for a name that does not exist, with the nearest that does and all that fit in a line."""
    near = difflib.get_close_matches(name[:LONGEST], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    listed = ", ".join(sorted(known))
    if len(listed) > LONGEST:
        listed = f"{listed[:LONGEST].rpartition(', ')[0]} ... ({len(known)} in all)"
    return f"{where}: unknown {noun} {shown(name)}{hint} Known: {listed}"


def to_plain(value: Any) -> Plain:
    """Dataclasses, tuples and dicts as plain data; the inverse of `parse`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: to_plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (field.metadata.get("added") and getattr(value, field.name) == _default(field))
        }
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def to_json(value: Any) -> str:
    """Canonical JSON of settings: sorted keys, no blanks, one spelling per value."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()[:16]
