"""Studies and vocabulary, spoilt as bytes, lines, tokens and nodes; numbers read by the rules of YAML 1.2."""

import json
import math
import os
import re
import shlex
import shutil
from pathlib import Path

import yaml
from checkout import put
from fuzz_cases import Case, Ended, damaged, no_plain_file, refusal

from rae_bench.run import cost
from rae_bench.run.jobs import study_jobs
from rae_bench.study import config, resources
from rae_bench.study.yaml_files import read_yaml

LOADS = ("rae_bench.run.status",)

ORIGINALS = config.CONFIG
STUDIES = sorted(path.stem for path in (ORIGINALS / "studies").glob("*.yaml"))
VOCABULARY = sorted(path.name for path in ORIGINALS.glob("*.yaml"))

INTEGERS = (0, 1, -1, 2, 3, 1000, 2**16, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 10**400)
FLOATS = (0.0, -0.0, 0.5, 1.0, -1.5, 1e-320, 1e-30, 1e30, 1.8e308, math.inf, -math.inf, math.nan)
TEXTS = (
    *("", " ", "x" * 1000, "\0", "\x1b[31m", "é", "\u2028", "../..", "con", "a\nb", "1e3", "{study}", "%s", "true"),
    *(
        "smoke",
        "digits",
        "kl",
        "none",
        "own",
        "train",
        "a.b",
        "_point0",
        "vae_point0",
        "1",
        "٣",
        "\N{ZERO WIDTH SPACE}",
    ),
)
SPELLINGS = (
    *("010", "0o17", "0x1F", "0b11", "1_000", "5:00", "1:30.5", "+5", "1.", ".5", "1e3", "1E3", "1.e3", "1.0e3"),
    *("1e-3", "12e03", "-0", "00", "08", "0.1.2", "1,000", "1e", "0x", "٣", ".inf", "-.INF", ".NaN", "1e400", "1.5e+2"),
    *(
        "1 000",
        "1\u00a0000",
        "１２",
        "5 # five",
        "'5'",
        "2020-01-02",
        "0o",
        "0o8",
        "0_",
        "_1",
        "-0x1F",
        "1__0",
        "1e+03",
    ),
)
MARKS = (
    *("{", "}", "[", "]", ",", ": ", "- ", "? ", "&a ", "*a", "*quick", "<<: ", "<<: *quick\n", "!!int ", "!x ", "|\n"),
    *(">\n", "'", '"', "#", "%", "@", "`", "\t", "---\n", "...\n", "~", "null", "yes", "on", "No", "=", "%YAML 1.2\n"),
)
NUMBER = re.compile(r"(?<![\w.+-])[-+]?\d[\w.+-]*")
TOKEN = re.compile(r"[\w.+-]+|[^\w\s]|\n *")


def make(chance, folder):
    """A study and the vocabulary with one of their files spoilt, and the study loaded, sliced and costed."""
    shutil.copytree(ORIGINALS, folder / "config")
    (folder / "results").mkdir()  # else commands of results are refused whatever the study
    name = chance.choice(STUDIES)
    file = folder / "config" / chance.choice((f"studies/{name}.yaml",) * len(VOCABULARY) + (*VOCABULARY,))
    data = file.read_bytes()
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3))):
        data = chance.choice((damaged, _lines, _tokens, _numbers, _numbers, _nodes, _nodes, _nodes))(chance, data)
    file.write_bytes(data)
    if chance.random() < 0.03:
        no_plain_file(chance, file)
    elif chance.random() < 0.03:
        new = chance.choice(("x", "a b", "é", "Smoke", "con", "x" * 41, "datasets", "a{b}", "x\x1b"))
        shutil.copy(folder / "config" / "studies" / f"{name}.yaml", folder / "config" / "studies" / f"{new}.yaml")
        name = new
    lines = (
        "from pathlib import Path",
        "from rae_bench import cli",
        "from rae_bench.study import config",
        f"config.CONFIG = Path({str(folder / 'config')!r})",
        f"cli.main(['status', {name!r}])",
    )
    return Case(lambda: _run(name, folder, file), f"python -c {shlex.quote('; '.join(lines))}")


def _run(name, folder, file):
    config.CONFIG = folder / "config"
    os.chdir(folder)
    if refused := refusal("status", name):
        return Ended(refused)
    _ask_for_resources(config.load_study(name))
    try:
        return Ended(None, tuple(misread(file)))
    except RecursionError:
        return Ended(None)


def _ask_for_resources(study):
    """What the rules ask a scheduler for, of every job of a study."""
    for job in study_jobs(study, Path("results")):
        need = resources.of_job(study, job.stage, cost.about(job))
        assert need.mem_mb(1) <= need.mem_mb(3)
        assert need.minutes(1) <= need.minutes(3)


# --- an independent reader of numbers ---------------------------------------------------------------------


def core_number(text):
    """The number that a plain scalar is in the core schema of YAML 1.2 (section 10.3.2), or None."""
    for pattern, read in (
        (r"[-+]?[0-9]+", int),
        (r"0o[0-7]+", lambda found: int(found[2:], 8)),
        (r"0x[0-9a-fA-F]+", lambda found: int(found[2:], 16)),
        (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", float),
        (r"[-+]?\.(inf|Inf|INF)", lambda found: -math.inf if found[0] == "-" else math.inf),
        (r"\.(nan|NaN|NAN)", lambda _: math.nan),
    ):
        if re.fullmatch(pattern, text, re.ASCII):
            return read(text)
    return None


def misread(file):
    """Where the suite's reader holds a number that YAML 1.2 does not, in a file that it accepts."""
    node = yaml.compose(file.read_text("utf-8"), Loader=yaml.BaseLoader)
    yield from _misread(node, read_yaml(file.parent, file.name), set())


def _misread(node, value, seen):
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, part in node.value:
            if key.value != "<<":
                yield from _misread(part, value[key.value], seen)
    elif isinstance(node, yaml.SequenceNode):
        for part, held in zip(node.value, value, strict=True):
            yield from _misread(part, held, seen)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        meant = core_number(node.value) if node.style is None else None
        if meant is None or not (meant == value or (meant != meant and value != value)):
            yield f"a number is misread: {node.value[:60]!r} is held as {value!r}, YAML 1.2 reads {meant!r}"


# --- mutations: bytes to bytes ----------------------------------------------------------------------------


def _text(change):
    """A mutation of text as one of bytes; what is no text any more stays as it is."""

    def mutation(chance, data):
        try:
            return change(chance, data.decode()).encode()
        except UnicodeError:
            return data

    return mutation


@_text
def _lines(chance, text):
    lines = text.splitlines(keepends=True) or ["\n"]
    at, to = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(to, lines[at])
        case 2:
            lines[at], lines[to] = lines[to], lines[at]
        case 3:
            lines[at] = chance.choice((" ", "  ", "    ", "\t", "- ")) + lines[at]
        case 4:
            lines[at] = lines[at].lstrip()
        case 5:
            other = ORIGINALS / chance.choice(VOCABULARY)
            lines.insert(to, chance.choice(other.read_text().splitlines(keepends=True)))
    return "".join(lines)


@_text
def _tokens(chance, text):
    tokens = list(TOKEN.finditer(text))
    if not tokens:
        return text
    one, other = chance.choice(tokens), chance.choice(tokens)
    new = chance.choice((other[0], other[0], "", chance.choice(MARKS), one[0] + chance.choice(MARKS), f'"{one[0]}"'))
    return text[: one.start()] + new + text[one.end() :]


@_text
def _numbers(chance, text):
    numbers = [found for found in NUMBER.finditer(text) if "#" not in text[: found.start()].rpartition("\n")[2]]
    if not numbers:
        return text
    found = chance.choice(numbers)
    new = chance.choice((chance.choice(SPELLINGS), chance.choice(SPELLINGS), str(chance.choice(INTEGERS + FLOATS))))
    return text[: found.start()] + new + text[found.end() :]


@_text
def _nodes(chance, text):
    try:
        data = json.loads(json.dumps(yaml.safe_load(text)))  # unshared
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return text
    places = list(_places(data, ()))
    if not places:
        return text
    keys, value = chance.choice(places)
    put(data, keys, _instead(chance, value, [value for _, value in places]))
    style = chance.choice((None, False, False, True))
    return yaml.safe_dump(data, sort_keys=False, default_flow_style=style, allow_unicode=chance.random() < 0.5)


def _places(data, keys):
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield (*keys, key), data[key]
            yield from _places(data[key], (*keys, key))


def _instead(chance, value, others):
    """What stands at a place instead of `value`; `...`: nothing."""
    same_type = [other for other in others if type(other) is type(value)]
    choices = [..., *(chance.choice(pool) for pool in (INTEGERS, FLOATS, TEXTS, others, same_type, same_type))]
    choices += [None, True, [], {}, [value], {"kind": value}]
    if isinstance(value, bool):
        choices += [not value] * 8
    elif isinstance(value, int):
        choices += [chance.choice(INTEGERS), value + 1, value - 1, -value, value * 1000, float(min(value, 2**60))] * 3
    elif isinstance(value, float):
        choices += [chance.choice(FLOATS), -value, value * 1e6, value * 1e-6, 0, 1] * 3
    elif isinstance(value, list):
        choices += [value[1:], value[::-1], value * 2, [*value, chance.choice(others)], value * 100] * 2
    elif isinstance(value, dict) and value:
        key = chance.choice(sorted(value))
        less = {name: part for name, part in value.items() if name != key}
        choices += [less, {**less, chance.choice(TEXTS): value[key]}, {**value, chance.choice(TEXTS): None}] * 3
    elif isinstance(value, str):
        choices += [value.upper(), value + "x", value[1:], chance.choice(TEXTS)] * 2
    return chance.choice(choices)
