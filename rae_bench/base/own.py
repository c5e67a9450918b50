"""Code of a user's own: a class or function in a Python file, named by a study and loaded by that study alone.

A study says `FILE.py:NAME`. When it is read, the file and all that it imports from beside itself are hashed, and
nothing is run (`found`): the hash is part of the settings of every stage that uses the code. The stage loads it
(`load`), and what goes wrong inside is one line with the user's file and line (`explained`).
"""

import ast
import contextlib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rae_bench.base.plain import ConfigError, Plain, unknown


class OwnCodeError(RuntimeError):
    """Code of a user's own that cannot be used; the message names its file, and the line if there is one."""


@dataclass(frozen=True)
class OwnCode:
    """A class or function `name` in the Python `file`, made or called with `settings`.

    `sha256` is of the file's bytes and of those of all files beside it that it imports.
    """

    file: str
    name: str
    sha256: str
    settings: dict[str, Plain]

    @property
    def place(self) -> str:
        """How messages call it."""
        return f"{self.file}:{self.name}"

    def make(self, **given: Any) -> Any:
        """What the class or function returns for `given` and its settings.

        Raises:
            OwnCodeError: it cannot be loaded, or it fails.
        """
        made = load(self)
        with explained(self, self.name):
            return made(**given, **self.settings)


def found(text: str, folder: Path, settings: dict[str, Plain], where: str) -> OwnCode:
    """The code that `text`, FILE.py:NAME with the file's path from `folder`, names; its file is hashed, not run.

    Raises:
        ConfigError: no such file, no Python, or no such class or function in it.
    """
    path, colon, name = text.rpartition(":")
    if not colon or not path.endswith(".py") or not name.isidentifier():
        raise ConfigError(f"{where}: {text!r} is not FILE.py:NAME, a Python file and a class or function in it")
    file = folder / path
    tree = _parsed(file, where)
    names = [name for node in tree.body for name in _defined(node)]
    if name not in names:
        raise ConfigError(unknown(where, f"class or function in {file}", name, names))
    digest = hashlib.sha256()
    for one in _files(file, where):
        digest.update(one.name.encode() + b"\0" + one.read_bytes() + b"\0")
    return OwnCode(str(file), name, digest.hexdigest(), settings)


def files_of(code: OwnCode) -> list[Path]:
    """The code's file and all that it imports from beside itself."""
    return _files(Path(code.file), "own code")


def _parsed(file: Path, where: str) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except FileNotFoundError:
        raise ConfigError(f"{where}: {file}: no such file; a relative path starts at the study's file") from None
    except OSError as error:
        raise ConfigError(f"{where}: {file}: cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        raise ConfigError(f"{where}: {file}{line}: no Python: {error.msg}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {file}: no Python: {error}") from None


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement at the top of a file defines."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.ImportFrom(names=names):
            return [alias.asname or alias.name for alias in names]
        case _:
            return []


def _files(file: Path, where: str) -> list[Path]:
    """The file and all that it imports from its own folder, directly or not, in the order of their paths."""
    seen: dict[Path, None] = {}
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen[one] = None
        for node in ast.walk(_parsed(one, where)):
            match node:
                case ast.Import(names=names):
                    imported = [alias.name for alias in names]
                case ast.ImportFrom(module=module, names=names):
                    imported = [*([module] if module else []), *(f"{module or ''}.{a.name}".strip(".") for a in names)]
                case _:
                    continue
            waiting += [path for name in imported for path in _beside(file.parent, name)]
    return sorted(seen)


def _beside(folder: Path, module: str) -> list[Path]:
    """The files that an import of `module` reads in `folder`: the module's, and those of the packages it lies in."""
    parts = module.split(".")
    packages = [folder.joinpath(*parts[:i], "__init__.py") for i in range(1, len(parts) + 1)]
    return [path for path in (*packages, folder.joinpath(*parts).with_suffix(".py")) if path.is_file()]


def load(code: OwnCode) -> Any:
    """The class or function itself; its file runs, once in a process, with its folder first in Python's path.

    Raises:
        OwnCodeError: the file has changed since the study was read, fails, or has no callable of this name.
    """
    file = Path(code.file)
    try:
        now = found(f"{file.name}:{code.name}", file.parent, code.settings, "own code")
    except ConfigError as error:
        raise OwnCodeError(str(error)) from None
    if now.sha256 != code.sha256:
        raise OwnCodeError(f"{file}: it, or a file that it imports, has changed since the study was read; start again")
    made = getattr(_module(code, file.absolute()), code.name, None)
    if not callable(made):
        raise OwnCodeError(f"{code.place}: expected a class or a function, found {type(made).__name__}")
    return made


def _module(code: OwnCode, file: Path) -> ModuleType:
    name = f"rae_bench_own_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}_{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with explained(code, "its import"):
            spec.loader.exec_module(module)
    except OwnCodeError:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def explained(code: OwnCode, doing: str) -> Iterator[None]:
    """A scope in which `code` runs: what fails there is an OwnCodeError with the user's file and line.

    Too little memory and what the suite itself refuses pass as they are.
    """
    try:
        yield
    except (MemoryError, ConfigError, OwnCodeError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and "out of memory" in str(error):
            raise
        if isinstance(error, SyntaxError):
            at = f"{error.filename}:{error.lineno}"
        else:
            files = {str(file.absolute()): file for file in files_of(code)}
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
            at = f"{files[frames[-1].filename]}:{frames[-1].lineno}" if frames else code.file
        told = " ".join(str(error).split())
        raise OwnCodeError(f"{at}: {doing} fails: {type(error).__name__}: {told}") from error
