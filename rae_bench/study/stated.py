"""A study as its files state it: one of the suite's, or a user's own anywhere on disk, laid over one of the suite's.

One rule merges what an own file says (`laid`): mappings merge by key, but one of another `kind` replaces; a list
replaces a list; `{add: [...]}` appends to one; null takes a key out. `extends` names what is laid over: for a study one
of the suite's, for an entry under `own` an entry of the same section. Paths in a file start at that file.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rae_bench.base import own
from rae_bench.base.plain import ConfigError, Plain, parse, shown, to_plain, unknown
from rae_bench.base.storage import tree_sha256
from rae_bench.study.yaml_files import read_yaml

SECTIONS = ("datasets", "budgets", "models", "rows", "densities", "metrics", "image_sets")
"""The files of the vocabulary to which a study may add entries of its own."""
SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Stated:
    """A study before its names are looked up.

    `source` is what a user calls it: a name, or a file's path; `where`, what messages call its file. `settings` are
    those of `StudyFile`, plain; `own` its own entries of each section, `extends` among their keys. What names code or
    files holds them with their hashes here, and as the file says it in `as_written`, under the file's keys.
    """

    name: str
    source: str
    where: str
    settings: dict[str, Plain]
    own: dict[str, dict[str, Plain]]
    as_written: dict[str, Plain] = field(default_factory=dict)


def is_file(source: str) -> bool:
    """Whether a user means a file, and not one of the suite's studies."""
    return source.endswith(SUFFIXES)


def names(folder: Path) -> list[str]:
    """The studies of the suite, whose vocabulary lies in `folder`."""
    return sorted(path.stem for path in (folder / "studies").glob("*.yaml"))


def read(source: str, folder: Path) -> Stated:
    """The study `source`, a name or the path of a file; `folder` holds the suite's vocabulary and studies.

    Raises:
        ConfigError: no such study, or its file is none; one line.
    """
    if not is_file(source):
        if source not in names(folder):
            raise ConfigError(f"{unknown('study', 'study', source, names(folder))}; a file of one's own ends in .yaml")
        where = f"studies/{source}.yaml"
        return _stated(source, source, where, read_yaml(folder, where), folder)
    path = from_here(Path(source))
    settings = read_yaml(Path(), str(path))
    name = parse(str, settings.pop("name", path.absolute().parent.name), f"{path}.name")
    if name in names(folder):
        raise ConfigError(f"{path}.name: {name!r} is a study of the suite, whose results lie there; give it another")
    return _stated(name, str(path), str(path), settings, folder)


def from_here(path: Path) -> Path:
    """The path from the working folder where it lies below that, else from the root: one spelling for one file."""
    absolute = Path(os.path.normpath(path.absolute()))
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute


def _stated(name: str, source: str, where: str, settings: dict[str, Plain], folder: Path) -> Stated:
    as_written: dict[str, Plain] = {
        key: settings[key] for key in ("own", "measures") if is_file(source) and key in settings
    }
    located = _located(as_written.get("own", {}), Path(where).parent, f"{where}.own")
    sections: dict[str, dict[str, Plain]] = parse(dict[str, dict[str, Plain]], located, f"{where}.own")
    for section, named in sections.items():
        if section not in SECTIONS:
            raise ConfigError(unknown(f"{where}.own.{section}", "section", section, SECTIONS))
        for entry_name, entry in named.items():
            if isinstance(entry, Mapping) and "code" in entry:
                stands = {"densities": {"kind": "own", "codes": "mean"}, "models": {"label": entry_name}}
                named[entry_name] = {**stands.get(section, {}), **entry}
    if "measures" in as_written:
        settings["measures"] = _located(as_written["measures"], Path(where).parent, f"{where}.measures")
    if "own" in as_written:
        del settings["own"]
    base = settings.pop("extends", None)
    if base is not None:
        if base not in names(folder):
            raise ConfigError(unknown(f"{where}.extends", "study", str(base), names(folder)))
        settings = laid(read(base, folder).settings, settings, where)
    return Stated(name, source, where, settings, sections, as_written)


def laid(base: Plain, over: Plain, where: str) -> Plain:
    """`base` with `over` laid over it, by the rule of the module's opening.

    Raises:
        ConfigError: `add` to what is no list, or null for a key that is not there.
    """
    if not isinstance(over, Mapping):
        return over
    if set(over) == {"add"}:
        if not isinstance(base, list) or not isinstance(over["add"], list):
            raise ConfigError(f"{where}.add: appends a list to a list; found {shown(over['add'])} for {shown(base)}")
        return [*base, *over["add"]]
    if not isinstance(base, Mapping) or over.get("kind", base.get("kind")) != base.get("kind"):
        base = {}
    if absent := [key for key, value in over.items() if value is None and key not in base]:
        raise ConfigError(unknown(f"{where}.{absent[0]}: null takes a key out", "key", absent[0], list(base)))
    merged = {key: laid(base.get(key), value, f"{where}.{key}") for key, value in over.items() if value is not None}
    return {key: value for key, value in {**base, **merged}.items() if key not in over or over[key] is not None}


def _located(data: Plain, folder: Path, where: str) -> Plain:
    """`data` with its paths from the file that holds it.

    Under `code` the code that is named there, its `settings` with it; under `file` and `path` the whole path, and
    beside a `file` the hash of its bytes.
    """
    if not isinstance(data, Mapping):
        return data
    found = {}
    for key, value in data.items():
        if key == "code":
            text = parse(str, value, f"{where}.code")
            settings = parse(dict[str, Plain], data.get("settings", {}), f"{where}.settings")
            found[key] = to_plain(own.found(text, folder, settings, f"{where}.code"))
        elif key == "file":
            path = from_here(folder / parse(str, value, f"{where}.file"))
            found |= {"file": str(path), "sha256": hashed(path, f"{where}.file")}
        elif key == "path" and isinstance(value, str):
            found[key] = str((folder / value).absolute())
        elif key != "settings" or "code" not in data:
            found[key] = _located(value, folder, f"{where}.{key}")
    return found


def hashed(path: Path, where: str) -> str:
    """The hash of a file, or of all files in a folder with their names."""
    try:
        return tree_sha256(path)
    except FileNotFoundError:
        raise ConfigError(f"{where}: {path}: no such file; a relative path starts at the study's file") from None
    except OSError as error:
        raise ConfigError(f"{where}: {path}: cannot be read: {error.strerror}") from None
