"""Plain data (what YAML and JSON hold) to frozen dataclasses and back, strictly.

A dataclass states the fields and their types; `parse` accepts exactly those: no unknown key, no missing
key, no number written as text. A union of dataclasses is told apart by their `kind` field. `to_json` writes
one canonical string, so that two spellings of the same settings are the same bytes.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Plain = Any
"""What YAML or JSON gives: None, bool, int, float, str, and lists and mappings of these."""


LONGEST = 200
"""Characters of what was found that a message repeats."""


class ConfigError(ValueError):
    """A setting that cannot be used; the message names what, where, and what would be right."""


def parse(kind: Any, data: Plain, where: str) -> Any:
    """Return `data` as an instance of the annotated type `kind`; `where` names its place in messages.

    Supports dataclasses, unions of dataclasses told apart by `kind`, Literal, tuple[T, ...],
    dict[str, T], bool, int, float and str.

    Raises:
        ConfigError: unknown or missing key, wrong type, value outside a Literal, or what a dataclass's own
            `__post_init__` refuses.
    """
    if kind is Any:
        return data
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _parse_dataclass(kind, data, where)
    if origin in (Union, types.UnionType):
        return _parse_union(get_args(kind), data, where)
    if origin is Literal:
        if data not in get_args(kind) or isinstance(data, bool) != isinstance(get_args(kind)[0], bool):
            raise ConfigError(f"{where}: {shown(data)} is not one of {list(get_args(kind))}")
        return data
    if origin is tuple:
        if not isinstance(data, Sequence) or isinstance(data, str):
            raise ConfigError(f"{where}: expected a list, found {shown(data)}")
        return tuple(parse(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if origin is dict:
        entries = _mapping(data, where)
        return {key: parse(get_args(kind)[1], value, f"{where}.{key}") for key, value in entries.items()}
    return _parse_scalar(kind, data, where)


def _parse_scalar(kind: Any, data: Plain, where: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        try:
            data = float(data)
        except OverflowError:
            raise ConfigError(f"{where}: expected a finite number, found one of {len(str(data))} digits") from None
    if type(data) is not kind:
        if kind is int and isinstance(data, float) and (hint := _hint(kind, data)):
            raise ConfigError(f"{where}: {data} is written as a fraction, expected an integer{hint}")
        raise ConfigError(f"{where}: expected {_NAMES.get(kind, kind)}, found {shown(data)}{_hint(kind, data)}")
    if kind is int and not -(2**63) <= data < 2**63:
        raise ConfigError(f"{where}: expected a whole number of 64 bits, found one of {len(str(data))} digits")
    if kind is float and not math.isfinite(data):
        raise ConfigError(f"{where}: expected a finite number, found {data!r}")
    return data


def shown(data: Plain) -> str:
    """How messages spell what was found: as Python does, the beginning of it if that is long."""
    text = repr(data)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


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


def _mapping(data: Plain, where: str) -> Mapping[str, Plain]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a mapping of keys to values, found {shown(data)}")
    for key in data:
        if not isinstance(key, str):
            raise ConfigError(f"{where}: the key {shown(key)} is not text; quote it")
    return data


def _parse_dataclass(kind: type, data: Plain, where: str) -> Any:
    entries = _mapping(data, where)
    hints = get_type_hints(kind)
    for key in entries:
        if key not in hints:
            raise ConfigError(unknown(f"{where}.{key[:LONGEST]}", "key", key, list(hints)))
    fields = {field.name: field for field in dataclasses.fields(kind)}
    missing = [key for key in hints if key not in entries and fields[key].default is dataclasses.MISSING]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")
    values = {key: parse(hints[key], value, f"{where}.{key}") for key, value in entries.items()}
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None


def of_kind(kinds: tuple[Any, ...], name: Plain, where: str) -> Any:
    """That dataclass of `kinds` whose `kind` field is `name`.

    Raises:
        ConfigError: there is none.
    """
    by_name = {get_args(get_type_hints(kind)["kind"])[0]: kind for kind in kinds}
    if not isinstance(name, str) or name not in by_name:
        raise ConfigError(f"{where}.kind: {shown(name)} is not one of {sorted(by_name)}")
    return by_name[name]


def _parse_union(kinds: tuple[Any, ...], data: Plain, where: str) -> Any:
    return _parse_dataclass(of_kind(kinds, _mapping(data, where).get("kind"), where), data, where)


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
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def to_json(value: Any) -> str:
    """Canonical JSON of settings: sorted keys, no blanks, one spelling per value."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def fingerprint(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()[:16]
