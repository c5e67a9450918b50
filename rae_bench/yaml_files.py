"""YAML to plain data, strictly: what could mean something else, or anything at all, is an error that names its line.

A key written twice or not as text, a tag (`!!python/...`, `!!binary`), a file that would grow without bound as its
aliases are followed: none of them is needed in a study. Dates are text.
"""

from pathlib import Path
from typing import Any

import yaml

from rae_bench.plain import ConfigError, Plain

MOST_BYTES = 2**18
"""A study's file has a thousand bytes, the longest of the vocabulary some ten thousand."""
MOST_LEVELS = 32
MOST_NODES = 100_000
"""Of keys and values once every alias is followed."""


def read_yaml(path: Path) -> dict[str, Plain]:
    """The mapping a YAML file holds.

    Raises:
        ConfigError: no such file, not a mapping, or not the YAML of the module's opening; one line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{path.name}: is longer than {MOST_BYTES} bytes; no list of settings is")
    try:
        found = yaml.load(data.decode(), Loader=_Loader)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ConfigError(f"{path.name}: not YAML: {line}{error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # bytes that are no text, numbers that are none
        raise ConfigError(f"{path.name}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path.name}: expected a mapping, found {type(found).__name__}")
    return found


class _Loader(yaml.SafeLoader):
    """SafeLoader without tags, dates, repeated or foreign keys, and bounded."""

    yaml_implicit_resolvers = {  # noqa: RUF012  a class variable of PyYAML's
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _levels = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            raise ConfigError(f"line {line}: tags are not used here, found {event.tag[:60]!r}")
        self._levels += 1
        if self._levels > MOST_LEVELS:
            raise ConfigError(f"line {line}: is nested more than {MOST_LEVELS} levels deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._levels -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _size(node, {})
        return node


def _size(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """How many nodes `node` is once every alias is followed; `sizes` holds those known, 0 where it is being found."""
    if node not in sizes:
        sizes[node] = 0
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        sizes[node] = 1 + (0 if isinstance(node, yaml.ScalarNode) else sum(_size(part, sizes) for part in parts))
    line = node.start_mark.line + 1
    if sizes[node] == 0:
        raise ConfigError(f"line {line}: refers to itself")
    if sizes[node] > MOST_NODES:
        raise ConfigError(f"line {line}: its aliases stand for more than {MOST_NODES} values")
    return sizes[node]


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Plain]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag.endswith(":merge"):
            continue
        line = key.start_mark.line + 1
        if not key.tag.endswith(":str"):
            found = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
            raise ConfigError(f"line {line}: a key must be text, found {found[:60]}; quote it")
        if key.value in seen:
            raise ConfigError(f"line {node.start_mark.line + 1}: the key {key.value[:60]!r} stands twice")
        seen.add(key.value)
    mapping: dict[Any, Plain] = loader.construct_mapping(node, deep=True)
    return mapping


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
