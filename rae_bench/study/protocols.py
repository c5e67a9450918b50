"""Protocols as data: named settings, each a change of what a study states, with its source and expected effect.

`settings.yaml` describes each setting once; a protocol (`protocols.yaml`) is a list of them, laid in that order over
the study's own entries. No code asks which protocol is in force: it reads the changed settings. A setting says where
it applies (`like`: the paper's data set whose settings a data set follows; `of`: models, or rows for a change of rows)
and what it sets, under one of five targets:

    training      fields of TrainingSpec (network, objective, optimisation, validation_split)
    densities     fields of a density, by name
    fit           fields of every FitSpec
    image_sets    fields of ImageSets
    rows          fields of Row; the same for all data sets
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from rae_bench.base.plain import ConfigError, Plain, parse, unknown
from rae_bench.base.specs import Distinct, Listed

ANY = "any"
Changes = tuple[tuple[str, dict[str, Plain]], ...]
"""Pairs of a place and the change that stands there, in the order in which they apply."""
Target = Literal["training", "densities", "fit", "image_sets", "rows"]


@dataclass(frozen=True)
class Patch:
    """A change of one target, and where it applies; `[any]` is everywhere."""

    like: Listed[Literal["any", "mnist", "cifar10", "celeba"]]
    of: Listed[str]
    target: Target
    set: Annotated[dict[str, Plain], Field(min_length=1)]

    def __post_init__(self) -> None:
        if self.target == "rows" and self.like != (ANY,):
            raise ConfigError(f"like: {list(self.like)}: rows are the same for all data sets; write [any]")
        if self.target == "image_sets" and self.of != (ANY,):
            raise ConfigError(f"of: {list(self.of)}: image sets are the same for all models; write [any]")

    def applies(self, like: str, of: str) -> bool:
        """Whether this changes what belongs to a data set like `like`, and to the model (or row) `of`."""
        return (ANY in self.like or like in self.like) and (ANY in self.of or of in self.of)


@dataclass(frozen=True)
class Setting:
    """One named switch of `settings.yaml`.

    `what` it does, in a sentence; `source`, where that stands; `effect`, what is expected of it; `stands_in` text,
    code or both: what determines it. `note`: a line under the tables of the data sets it touches, or empty.
    """

    what: str
    source: str
    stands_in: Literal["text", "code", "both", "neither"]
    effect: str
    note: str
    patches: Annotated[tuple[Patch, ...], Field(min_length=1)]

    def touches(self, like: str) -> bool:
        """Whether any of it applies to a data set like `like`."""
        return any(ANY in patch.like or like in patch.like for patch in self.patches)


@dataclass(frozen=True)
class ProtocolEntry:
    """An entry of `protocols.yaml`: how it is called in titles, what it is, and its settings, in order."""

    label: str
    what: str
    settings: Distinct[str]


def merge(data: Plain, change: Plain, where: str) -> Plain:
    """`data` with `change` laid over it; a mapping of another `kind` replaces the old one whole.

    Raises:
        ConfigError: `change` names a key that `data` has not.
    """
    if not isinstance(data, Mapping) or not isinstance(change, Mapping):
        return change
    if "kind" in change and change["kind"] != data.get("kind"):
        return dict(change)
    for key in change:
        if key not in data:
            raise ConfigError(unknown(f"{where}.{key}", "key", str(key), list(data)))
    return {key: merge(data[key], change[key], f"{where}.{key}") if key in change else data[key] for key in data}


def changes(
    settings: Mapping[str, Setting], chosen: tuple[str, ...], target: Target, like: str, of: str
) -> Iterator[tuple[str, dict[str, Plain]]]:
    """What the chosen settings do to `target`, in their order: where each change stands, and the change."""
    for name in chosen:
        for i, patch in enumerate(settings[name].patches):
            if patch.target == target and patch.applies(like, of):
                yield f"settings.yaml.{name}.patches[{i}].set", patch.set


def laid_over(kind: Any, data: Plain, laid: Sequence[tuple[str, Plain]], where: str) -> Any:
    """Return `data`, stated at `where`, with the changes `laid` over it, in their order, as an instance of `kind`.

    Raises:
        ConfigError: `data` alone is none, or a change makes it none, at that change's place.
    """
    made = parse(kind, data, where)
    for at, change in laid:
        data = merge(data, change, at)
        made = parse(kind, data, at)
    return made


def origin(laid: Sequence[tuple[str, Plain]], keys: tuple[str, ...], stated: str) -> str:
    """Where the value under `keys` stands: in the last change that sets it, or where it is `stated`."""
    for at, change in reversed(laid):
        for key in keys:
            change = change.get(key) if isinstance(change, Mapping) else None
        if change is not None:
            return ".".join((at, *keys))
    return stated


def parse_settings(data: Plain, models: list[str], rows: list[str]) -> dict[str, Setting]:
    """The entries of `settings.yaml`; every name in them is checked, whether a study uses it or not."""
    settings: dict[str, Setting] = parse(dict[str, Setting], data, "settings.yaml")
    for name, setting in settings.items():
        for i, patch in enumerate(setting.patches):
            noun, known = ("row", rows) if patch.target == "rows" else ("model", models)
            for of in patch.of:
                if of not in (ANY, *known):
                    raise ConfigError(unknown(f"settings.yaml.{name}.patches[{i}].of", noun, of, [ANY, *known]))
    return settings


def described(settings: Mapping[str, Setting], protocols: Mapping[str, ProtocolEntry]) -> list[list[str]]:
    """A row of text per setting: name, what it does, where it applies, its source, in which protocols, its effect."""
    rows = []
    for name, setting in settings.items():
        where = sorted({like for patch in setting.patches for like in patch.like})
        of = list(dict.fromkeys(of for patch in setting.patches for of in patch.of))
        applies = f"{_listed(where, 'all data sets')}; {_listed(of, 'all models')}"
        used = [entry.label for entry in protocols.values() if name in entry.settings]
        rows.append([f"`{name}`", setting.what, applies, setting.source, ", ".join(used) or "none", setting.effect])
    return rows


def _listed(names: Sequence[str], everywhere: str) -> str:
    return everywhere if ANY in names else ", ".join(names)
