"""Plain data to dataclasses: what is accepted, what is refused, and the one spelling of everything."""

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from rae_bench.base.plain import ConfigError, fingerprint, parse, to_json, to_plain, unknown
from rae_bench.base.specs import ByKind, Count, Listed


@dataclass(frozen=True)
class Circle:
    kind: Literal["circle"]
    radius: float


@dataclass(frozen=True)
class Square:
    kind: Literal["square"]
    side: float

    def __post_init__(self) -> None:
        if self.side < 0:
            raise ConfigError("side: must be at least 0")


@dataclass(frozen=True)
class Drawing:
    title: str
    n_copies: Count
    is_filled: bool
    paper: Literal["a4", "a5"]
    shape: Annotated[Circle | Square, ByKind]
    weights: Listed[float]
    colours: dict[str, float]


PLAIN = {
    "title": "A drawing",
    "n_copies": 3,
    "is_filled": True,
    "paper": "a4",
    "shape": {"kind": "circle", "radius": 0.5},
    "weights": [1.0, 0.25],
    "colours": {"red": 0.1},
}
DRAWING = Drawing("A drawing", 3, True, "a4", Circle("circle", 0.5), (1.0, 0.25), {"red": 0.1})


def test_plain_data_become_the_dataclass_they_describe():
    assert parse(Drawing, PLAIN, "drawing") == DRAWING


def test_plain_data_survive_the_round_trip():
    assert to_plain(DRAWING) == PLAIN


def test_a_whole_number_is_accepted_where_a_number_is_expected():
    radius = parse(Circle, {"kind": "circle", "radius": 2}, "circle").radius
    assert type(radius) is float
    assert radius == 2.0


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("titel", "x", "d.titel: unknown key 'titel'; did you mean 'title'?"),
        ("n_copies", ..., "d: missing n_copies"),
        ("n_copies", 3.5, "d.n_copies: expected a whole number, found 3.5"),
        ("n_copies", 3.0, "d.n_copies: expected a whole number, found 3.0; write 3"),
        ("n_copies", True, "d.n_copies: expected a whole number, found True"),
        ("n_copies", None, "d.n_copies: expected a whole number, found None"),
        ("n_copies", "3", "d.n_copies: expected a whole number, found '3'; write 3 without quotes"),
        ("is_filled", 1, "d.is_filled: expected true or false, found 1"),
        ("is_filled", "yes", "d.is_filled: expected true or false, found 'yes'"),
        ("title", 3, "d.title: expected text, found 3; quote it"),
        ("paper", "a3", "d.paper: 'a3' is not one of ['a4', 'a5']"),
        ("paper", ["a4"], "d.paper: ['a4'] is not one of ['a4', 'a5']"),
        ("shape", {"kind": "circel", "radius": 1.0}, "d.shape.kind: 'circel' is not one of ['circle', 'square']"),
        ("shape", {"radius": 1.0}, "d.shape.kind: None is not one of ['circle', 'square']"),
        ("shape", {"kind": ["circle"], "radius": 1.0}, "d.shape.kind: ['circle'] is not one of ['circle', 'square']"),
        ("shape", "circle", "d.shape: expected a mapping of keys to values, found 'circle'"),
        ("shape", {"kind": "square", "side": -1.0}, "d.shape.side: must be at least 0"),
        ("shape", {"kind": "circle", "radius": math.nan}, "d.shape.radius: expected a finite number, found nan"),
        ("shape", {"kind": "circle", "radius": math.inf}, "d.shape.radius: expected a finite number, found inf"),
        ("shape", {"kind": "circle", "radius": False}, "d.shape.radius: expected a number, found False"),
        ("shape", {"kind": "circle", "radius": "1e-4"}, "d.shape.radius: expected a number, found '1e-4'; write"),
        ("shape", {"kind": "circle", "radius": 10**400}, "d.shape.radius: expected a"),
        ("weights", "12", "d.weights: expected a list, found '12'"),
        ("weights", 1.0, "d.weights: expected a list, found 1.0"),
        ("weights", [1.0, "x"], "d.weights[1]: expected a number, found 'x'"),
        ("colours", ["red"], "d.colours: expected a mapping of keys to values, found ['red']"),
        ("n_copies", 0, "d.n_copies: 0 must be above 0"),
        ("n_copies", 10**400, "d.n_copies: 1000"),
        ("weights", [], "d.weights: is empty; name at least one"),
        ("weights", [1.0, 2, 1], "d.weights: 1.0 stands twice"),
        ("colours", {"red": -math.inf}, "d.colours.red: expected a finite number, found -inf"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(key, value, expected):
    data = {**PLAIN, key: value}
    if value is ...:
        del data[key]
    with pytest.raises(ConfigError) as error:
        parse(Drawing, data, "d")
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


def test_a_number_written_as_text_is_told_how_to_write_it():
    with pytest.raises(ConfigError, match=r"; write 1\.0e-07 without quotes$"):
        parse(Circle, {"kind": "circle", "radius": "1e-7"}, "d")


def test_an_unknown_key_is_told_the_known_ones():
    with pytest.raises(ConfigError, match=r"Known: kind, radius$"):
        parse(Circle, {"kind": "circle", "radius": 1.0, "zzz": 1}, "d")


def test_of_many_known_names_a_message_lists_what_fits_a_line():
    known = [f"name_{i:03}" for i in range(100)]
    message = unknown("x", "name", "name_0500", known)
    assert "did you mean 'name_050'?" in message
    assert message.endswith("name_019 ... (100 in all)")
    assert len(message) < 300


def test_json_is_canonical():
    assert to_json({"b": (1, 2.5), "a": Circle("circle", 1e-3)}) == '{"a":{"kind":"circle","radius":0.001},"b":[1,2.5]}'


def test_json_does_not_depend_on_the_order_or_the_spelling_of_the_data():
    backwards = dict(reversed(PLAIN.items())) | {"shape": {"radius": float("5.0e-1"), "kind": "circle"}}
    assert to_json(parse(Drawing, backwards, "d")) == to_json(DRAWING)


def test_json_refuses_what_json_cannot_hold():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"a": math.nan})


def test_a_fingerprint_is_the_start_of_the_sha256_of_the_canonical_json():
    text = '{"kind":"circle","radius":0.5}'
    assert fingerprint(Circle("circle", 0.5)) == hashlib.sha256(text.encode()).hexdigest()[:16]
