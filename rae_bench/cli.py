"""The command line: a subcommand for each stage of the workflow and for each job of a user, made from its signature."""

import argparse
import dataclasses
import errno
import functools
import inspect
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from rae_bench.base.cluster import STOPPED, FinishedError, StoppedError
from rae_bench.base.plain import ConfigError, parse
from rae_bench.run import process, stages
from rae_bench.study.files import RunFiles


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand; a mistake of the user's is one line on stderr and exit status 1."""
    _print_any_text()
    os.environ.update(process.CUBLAS)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser(_commands(given)).parse_args(given)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it has against a file it also raises
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every glyph
    logging.raiseExceptions = False  # a line that a full disk does not take is lost, without a traceback
    try:
        options.call(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        print(f"rae_bench {options.command}: what it prints cannot be written: {error.strerror}", file=sys.stderr)
        os._exit(1)  # else Python tries again
    except FinishedError as error:
        logging.getLogger(__name__).info("%s: nothing to do: %s", options.command, error)
    except StoppedError as error:
        print(f"rae_bench {options.command}: {error}", file=sys.stderr)
        sys.exit(STOPPED)
    except Exception as error:
        is_own = type(error).__module__.startswith("rae_bench.")
        if not (is_own or isinstance(error, MemoryError | ImportError)):  # else the message alone says what is wrong
            raise
        told = " ".join(str(error).split()) or "the memory is full"  # Python's MemoryError says nothing
        sys.exit(f"rae_bench {options.command}: {told}")


def _print_any_text() -> None:
    """Let stdout put "?" for what its encoding lacks, as a Latin-1 terminal's lacks "λ"; stderr escapes it anyway."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    elif sys.stdout is None:  # closed by whoever called
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  it stays open to the end


def _commands(given: Sequence[str]) -> Sequence[Callable[..., None]]:
    """The stages alone for one of them, which need not wait for what the commands for people import; else all."""
    if given and given[0] in {stage.__name__ for stage in stages.ALL}:
        return stages.ALL
    from rae_bench.run import commands

    return (*commands.ALL, *stages.ALL)


def parser(functions: Sequence[Callable[..., None]]) -> argparse.ArgumentParser:
    """A subcommand for each of `functions`, made from its name, its docstring and its signature.

    A parameter that may be given by position is an argument, any other an option, with the text of its annotation as
    help; settings are given as JSON, a run as the path of its folder.
    """
    made = argparse.ArgumentParser(prog="rae_bench", description=__doc__, allow_abbrev=False)
    added = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for function in functions:
        told = (function.__doc__ or "").strip().partition("\n")[0]
        one = added.add_parser(function.__name__.rstrip("_"), help=told, description=told, allow_abbrev=False)
        parameters = inspect.signature(function, eval_str=True).parameters.values()
        for parameter in parameters:
            _add(one, parameter)
        one.set_defaults(call=functools.partial(_call, function, parameters))
    return made


def _add(to: argparse.ArgumentParser, parameter: inspect.Parameter) -> None:
    kind, told = parameter.annotation, None
    if get_origin(kind) is Annotated:
        kind, told = get_args(kind)
    about: dict[str, Any] = {"help": told}
    if kind is bool:
        about["action"] = "store_true"
    else:
        about["type"] = next((one for one in (int, float, Path) if one in (kind, *get_args(kind))), str)
    if parameter.kind is not parameter.KEYWORD_ONLY:
        to.add_argument(parameter.name, **about)
        return
    about["default"] = None if parameter.default is parameter.empty else parameter.default
    to.add_argument(f"--{parameter.name.replace('_', '-')}", required=parameter.default is parameter.empty, **about)


def _call(function: Callable[..., None], parameters: Iterable[inspect.Parameter], options: argparse.Namespace) -> None:
    """Call `function` with what was typed, as the types that it takes."""
    given = {one.name: _value(one.annotation, getattr(options, one.name)) for one in parameters}
    ordered = [given.pop(one.name) for one in parameters if one.kind is not one.KEYWORD_ONLY]
    function(*ordered, **given)


def _value(kind: Any, typed: Any) -> Any:
    if kind is RunFiles:
        return RunFiles.at(Path(typed))
    if not dataclasses.is_dataclass(kind):
        return typed
    try:
        plain = json.loads(typed)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"--spec: not JSON: {error}") from None
    return parse(kind, plain, "--spec")
