"""Sixty studies, spoilt in every way at random places: each is one line that names the place, and starts nothing."""

import math
import random
import re
import shutil
import time

import pytest
import yaml
from checkout import put, refusal, unshared

from rae_bench.base.plain import ConfigError
from rae_bench.study import config
from rae_bench.study.config import load_study

STUDY = "studies/smoke.yaml"
DENSITIES = ("standard_normal", "gaussian", "gmm10", "second_stage")
USED = {  # what of each file the smoke study reads
    STUDY: [()],
    "datasets.yaml": [("digits_mini",)],
    "budgets.yaml": [("digits_smoke",)],
    "metrics.yaml": [("smoke",)],
    "image_sets.yaml": [("standard",)],
    "models.yaml": [("vae",), ("rae_l2",)],
    "densities.yaml": [(name,) for name in DENSITIES],
    "rows.yaml": [("two_stage_vae",)],
}
FREE = ("title", "label")
"""Text that may be any."""


def _at(data, keys):
    for key in keys:
        data = data[key]
    return data


def _places(file, data):
    """The keys of everything that the smoke study reads in `file`, with what stands there."""
    waiting = list(USED[file])
    while waiting:
        keys = waiting.pop()
        found = _at(data, keys)
        if not keys or keys[-1] not in FREE:
            yield keys, found
        if isinstance(found, dict | list):
            waiting += [(*keys, key) for key in (found if isinstance(found, dict) else range(len(found)))]


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- spoilt data: a value for the value at a place, where the place is of the kind ----------------------------


def _other_type(chance, _, value):
    """Of a type that the place cannot hold: numbers for text, a mapping for numbers, and so on."""
    kinds = {dict: (None, 3.5, "many", [[]], True), list: (None, 3.5, True, {"x": 1}), str: (3.5, [[]], {"x": 1})}
    return chance.choice(kinds.get(type(value), (None, "many", [[]], {"x": 1}, True)))


def _unknown_key(chance, _, value):
    return {**value, "".join(chance.sample("qwxz", 4)): None} if isinstance(value, dict) else ...


def _missing_key(chance, keys, value):
    """Of settings with fixed keys: whatever is left out is missed."""
    if (
        not isinstance(value, dict)
        or not value
        or set(keys) & {"protocols", "datasets", "search"}
        or keys[-1:] == ("weights",)
    ):
        return ...
    gone = chance.choice(sorted(value))
    return {key: part for key, part in value.items() if key != gone}


def _not_finite(chance, _, value):
    return chance.choice((math.nan, math.inf, -math.inf)) if _is_number(value) else ...


def _huge(chance, _, value):
    return chance.choice((1, -1)) * 10 ** chance.randrange(309, 4000) if _is_number(value) else ...


def _negative(chance, _, value):
    return -chance.randrange(1, 1000) if _is_number(value) else ...


def _number_as_text(chance, _, value):
    return chance.choice(("{}", "{} ", "0x{}", "1e-{}")).format(value) if _is_number(value) else ...


def _empty_list(_, __, value):
    return [] if isinstance(value, list) else ...


def _unknown_name(chance, _, value):
    return "".join(chance.sample("qwxz", 4)) if isinstance(value, str) and value else ...


def _twice(chance, _, value):
    return [*value, chance.choice(value)] if isinstance(value, list) and value else ...


def _key_of_another_type(chance, _, value):
    return {**value, chance.choice((1, 2.5, True, None)): None} if isinstance(value, dict) else ...


DATA = [
    *(_other_type, _unknown_key, _missing_key, _not_finite, _huge, _negative, _number_as_text, _empty_list),
    *(_unknown_name, _twice, _key_of_another_type),
]


# --- spoilt text: what is no YAML, or YAML that holds more than it seems -------------------------------------


def _bomb(first, link):
    """Nine times nine times nine ... of what is written once."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{i}: &a{i} {link.format(', '.join([f'*a{i - 1}'] * 9))}" for i in range(1, 12)]
    return "\n".join([*lines, ""]).encode()


INSTEAD = {
    "empty": b"",
    "only a comment": b"# nothing\n",
    "binary": bytes(range(256)),
    "zeros": bytes(500),
    "UTF-16": "title: x\n".encode("utf-16"),
    "Latin-1": b"# caf\xe9\n",
    "a list": b"- 1\n",
    "a word": b"smoke\n",
    "cut inside a list": b"x: [1, 2",
    "deep lists": b"x: " + b"[" * 20_000,
    "deep mappings": b"{x: " * 20_000,
    "too long": b"#" * 300_000,
    "laughs as a value": _bomb("[ha, ha]", "[{}]") + b"title: *a11\n",
}
BEFORE = {
    "a tab": b"\t",
    "another document": b"x: 1\n---\n",
    "a key twice": b"x: 1\nx: 1\n",
    "laughs": _bomb("[ha, ha]", "[{}]"),
    "merges": _bomb("{ha: 1}", "{{<<: [{}]}}"),
    "itself": b"x: &x {y: [*x]}\n",
    "an alias of nothing": b"x: *x\n",
    "a merge of a word": b"<<: x\n",
    "a Python object": b"x: !!python/object/apply:os.system [exit]\n",
    "a tag of its own": b"x: !x 1\n",
    "a set": b"x: !!set {a, b}\n",
    "a date that is none": b"x: 2020-99-99\n",
    "a number too long": b"x: " + b"9" * 5000 + b"\n",
    "a number without digits": b"x: 0x_\n",
    "a number of two readings": b"x: 010\n",
    "a word of two readings": b"x: [a, {b: yes}]\n",
    "a key that is not printable": b'"a\\x1b[31m": 1\n',
    "two merges": b"x: {<<: {a: 1}, <<: {b: 1}}\n",
    "a merge as a value": b"x: <<\n",
    "a list as a key": b"? [a]\n: 1\n",
    "a key too long": b"x" * 900 + b": 1\n",
}


def _spoilt(chance, kind, folder):
    """Spoil one file; its name, and the keys of the place that must be named."""
    if isinstance(kind, str):
        file = chance.choice(sorted(USED))
        text = INSTEAD[kind] if kind in INSTEAD else BEFORE[kind] + (folder / file).read_bytes()
        (folder / file).write_bytes(text)
        return file, ()
    choices = []
    for file in sorted(USED):
        data = unshared(yaml.safe_load((folder / file).read_text()))
        choices += [
            (file, keys, changed)
            for keys, value in sorted(_places(file, data), key=str)
            if (changed := kind(chance, keys, value)) is not ...
        ]
    file, keys, value = chance.choice(choices)
    data = unshared(yaml.safe_load((folder / file).read_text()))
    if keys:
        put(data, keys, value)
    else:
        data = value
    (folder / file).write_text(yaml.safe_dump(data, sort_keys=False))
    return file, keys


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the configuration that may be spoilt."""
    shutil.copytree(config.CONFIG, tmp_path / "config")
    monkeypatch.setattr(config, "CONFIG", tmp_path / "config")
    return tmp_path / "config"


KINDS = [*DATA, *DATA, *DATA, *INSTEAD, *BEFORE]
assert len(KINDS) >= 60


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_a_spoilt_study_is_one_line_that_names_the_place(number, folder):
    kind = KINDS[number]
    file, keys = _spoilt(random.Random(number), kind, folder)
    started = time.monotonic()
    with pytest.raises(ConfigError) as error:
        load_study("smoke")
    assert time.monotonic() - started < 5
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 2000
    assert re.match(r"(studies/smoke|[a-z_]+)\.yaml\b", message), message
    if isinstance(kind, str):
        assert message.startswith((file.rpartition("/")[2], file)), message
    elif names := [key for key in keys if isinstance(key, str)]:
        assert names[-1] in message or "yaml: line " in message, (keys, message)


def test_each_number_is_spoilt_the_same_way_every_time(folder):
    before = {file: (folder / file).read_bytes() for file in USED}
    found = []
    for _ in range(2):
        for file, text in before.items():
            (folder / file).write_bytes(text)
        _spoilt(random.Random(3), KINDS[3], folder)
        found.append({file: (folder / file).read_bytes() for file in USED})
    assert found[0] == found[1] != before


@pytest.mark.parametrize("kind", [_other_type, _missing_key, "laughs as a value", "deep mappings", "binary", "itself"])
def test_the_real_command_refuses_it_too(kind, fresh):
    before = {file: (fresh.config / file).read_bytes() for file in USED}
    try:
        _spoilt(random.Random(0), kind, fresh.config)
        ended = fresh.snakemake()
    finally:
        for file, text in before.items():
            (fresh.config / file).write_bytes(text)
    assert ".yaml" in refusal(fresh, ended)
