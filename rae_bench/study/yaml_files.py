"""YAML to plain data, strictly: what could mean something else, or anything at all, is an error that names its line.

A key written twice or not as text, a number or a word that YAML 1.1 and YAML 1.2 read differently (`010`, `5:00`,
`1e-4`, `yes`), a tag (`!!python/...`, `!!binary`), a file that would grow without bound as its aliases are followed:
none of them is needed in a study. Dates, `=`, `y` and `n` are text.

PyYAML gives nodes and their lines. A reader of YAML 1.2 (ruamel.yaml) would take one of two readings in silence: all of
this would stand here still.
"""

import math
import re
from pathlib import Path

import yaml

from rae_bench.base.plain import ConfigError, Plain, written

MOST_BYTES = 2**18
"""A study's file has a thousand bytes, the longest of the vocabulary some ten thousand."""
MOST_LEVELS = 32
"""Levels of lists and mappings inside each other, once every alias is followed."""
MOST_NODES = 100_000
"""Keys and values, once every alias is followed."""
LONGEST = 60
"""Characters of what was found that a message repeats."""

_BREAK = re.compile("\r\n?|\n")
_UNSHOWN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""Control characters, byte order marks, and what breaks a line for YAML 1.1 alone (U+0085, U+2028, U+2029)."""
_AGREED = re.compile(r"true|True|TRUE|false|False|FALSE|null|Null|NULL|~||[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_OCTAL = re.compile("0o[0-7]+")


def read_yaml(folder: Path, name: str) -> dict[str, Plain]:
    """The mapping that the YAML file `name` in `folder` holds; messages call it `name`.

    Raises:
        ConfigError: no such file, not a mapping, or not the YAML of the module's opening; one line.
    """
    path = folder / name
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ConfigError(f"{path}: is no regular file; expected a YAML file")
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{name}: is longer than {MOST_BYTES} bytes; no list of settings is")
    try:
        found = yaml.load(_text(data), Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{name}: not YAML: {_told(error)}") from None
    except RecursionError:
        raise ConfigError(f"{name}: is nested more than {MOST_LEVELS} levels deep") from None
    if not isinstance(found, dict):
        kind = "nothing" if found is None else type(found).__name__
        raise ConfigError(f"{name}: expected a mapping of keys to values, found {kind}")
    return found


def _text(data: bytes) -> str:
    """UTF-8 as text, without the byte order mark some editors put first."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before, found = error.object[: error.start].decode("latin-1"), error.object[error.start]
        line = len(_BREAK.findall(before)) + 1
        raise ConfigError(f"line {line}: the byte 0x{found:02x} is not UTF-8; save the file as UTF-8") from None
    if foreign := _UNSHOWN.search(text):
        line = len(_BREAK.findall(text[: foreign.start()])) + 1
        raise ConfigError(
            f"line {line}: holds the character U+{ord(foreign[0]):04X}, which editors do not show; take it out"
        )
    return text


def _told(error: yaml.MarkedYAMLError) -> str:
    """What PyYAML found, on one line."""
    at = error.problem_mark or error.context_mark
    line = "" if at is None else f"line {at.line + 1}: "
    begun = "" if error.context_mark is None else f" (line {error.context_mark.line + 1})"
    context = "" if error.context is None else f"{error.context}{begun}, "
    return " ".join(f"{line}{context}{error.problem}".split())


class _Loader(yaml.SafeLoader):
    """SafeLoader without tags, dates, repeated or foreign keys and numbers of two readings, and bounded."""

    yaml_implicit_resolvers = {  # noqa: RUF012  a class variable of PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":value"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._lines: dict[yaml.Node, dict[str, int]] = {}
        """The keys of each mapping so far, and where they stand."""

    def compose_node(self, parent: yaml.Node | None, index: yaml.Node | int | None) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            raise ConfigError(f"line {line}: tags are not used here, found {event.tag[:LONGEST]!r}")
        node: yaml.Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]
        if isinstance(parent, yaml.MappingNode) and index is None:
            _check_key(node, line, self._lines.setdefault(parent, {}))
        elif isinstance(node, yaml.ScalarNode) and node.style is None:
            self._check_value(node, line)
        return node

    def _check_value(self, node: yaml.ScalarNode, line: int) -> None:
        """Refuse a value without quotes that other readers of YAML, or people, take for another one."""
        found = node.value[:LONGEST]
        if node.tag.endswith(":merge"):
            raise ConfigError(f"line {line}: {found} merges as a key only; quote it if it is text")
        try:
            value = self.construct_object(node)
            readings = [value, _elsewhere(node.value, value)]
            numbers = [_spelled(reading)[:LONGEST] for reading in readings if not isinstance(reading, str)]
        except ValueError:  # no digits, or more than Python reads
            raise ConfigError(f"line {line}: {found} is no number that can be read; quote it if it is text") from None
        if all(isinstance(reading, str) for reading in readings) or (len(numbers) == 2 and len(set(numbers)) == 1):
            return
        if len(numbers) == 2:
            raise ConfigError(f"line {line}: {found} could be {' or '.join(numbers)}; write the one that is meant")
        raise ConfigError(
            f"line {line}: {found} could be {numbers[0]} or text; write {numbers[0]}, or {found!r} if text is meant"
        )

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node


def _elsewhere(text: str, value: Plain) -> Plain:
    """What YAML 1.2 and people take `text` without quotes for; `value` is YAML 1.1's reading, PyYAML's."""
    is_number = bool(_DECIMAL.fullmatch(text))
    if _AGREED.fullmatch(text) or (is_number and math.isinf(float(text))):
        return value
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    if not is_number:
        return text
    return float(text) if set(text) & set(".eE") else int(text)


def _spelled(value: Plain) -> str:
    """A value that is no text, as a file would say it."""
    return written(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()


def _check_key(key: yaml.Node | None, line: int, lines: dict[str, int]) -> None:
    """Refuse a key that is no text or stands in `lines` already; else note it there."""
    if key is None or not key.tag.endswith((":str", ":merge")):
        found = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
        raise ConfigError(f"line {line}: a key must be text, found {found[:LONGEST]}; quote it")
    if not key.value.isprintable():
        raise ConfigError(f"line {line}: the key {key.value[:LONGEST]!r} holds what cannot be printed; no name does")
    if key.value in lines:
        hint = "; write one, <<: [*a, *b], of which the first counts" if key.tag.endswith(":merge") else ""
        raise ConfigError(
            f"line {line}: the key {key.value[:LONGEST]!r} stands twice, first on line {lines[key.value]}{hint}"
        )
    lines[key.value] = line


def _measure(node: yaml.Node, known: dict[yaml.Node, tuple[int, int]]) -> tuple[int, int]:
    """Return how many nodes `node` is once every alias is followed, and how deep; (0, 0) where that is being found."""
    if node not in known:
        known[node] = (0, 0)
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = [] if isinstance(node, yaml.ScalarNode) else [_measure(part, known) for part in parts]
        known[node] = (1 + sum(size for size, _ in inner), 1 + max((depth for _, depth in inner), default=0))
    size, depth = known[node]
    line = node.start_mark.line + 1
    if size == 0:
        raise ConfigError(f"line {line}: refers to itself")
    if size > MOST_NODES:
        raise ConfigError(f"line {line}: its aliases stand for more than {MOST_NODES} values")
    if depth > MOST_LEVELS:
        raise ConfigError(f"line {line}: is nested more than {MOST_LEVELS} levels deep, aliases followed")
    return known[node]
