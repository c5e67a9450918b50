"""Feature files as `score` may be given them: odd types, shapes, values and scales, other formats, damage."""

import contextlib
import io
import json
import math
import os
import pickle
import shlex
import struct
import zipfile

import numpy as np
from fuzz_cases import Case, Ended, damaged, no_plain_file, refusal

from rae_bench.study import loads

LOADS = (*loads.READING, *loads.FIDELITY, "sklearn.cluster", "scipy.linalg")

ORDINARY = ("<f4", "<f8", ">f4", ">f8", "<f2", np.longdouble)
WHOLE = ("<i4", ">i8", "u1", "i1", "<u8", "?")
ODD = (
    *("<c8", "<c16", "O", "<U8", "S4", "<M8[s]", "<m8[D]", "V4"),
    *([("x", "<f4")], [("x", "<f4"), ("y", "<f8", (2,))]),
)
COUNTS = {
    "--kernel-subsets": (3, (-1, 0, 1)),
    "--kernel-subset-size": (10, (-1, 0, 1, 2, 2**31, 2**63)),
    "--neighbours": (3, (-1, 0, 1, 10**6, 2**63)),
    "--coverage-neighbours": (5, (-1, 0, 1, 10**6)),
    "--prd-clusters": (4, (-1, 0, 1, 10**6)),
    "--prd-runs": (1, (-1, 0)),
    "--infinity-sizes": (3, (-1, 0, 1, 2, 1000)),
    "--half-samples": (2, (-1, 0, 1)),
    "--metric-seed": (0, (-1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64)),
}
RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""Casting to float64 changes no value: the metrics may differ by the rounding of sums only."""


def make(chance, folder):
    """Two feature files, one of them odd, and the options of `score`; what is ordinary must be scored."""
    rng = np.random.default_rng(chance.getrandbits(64))
    n, m, d = chance.choice((25, 40, 80)), chance.choice((25, 40, 80)), chance.choice((1, 2, 5, 16, 100))
    arrays = {"real": rng.normal(size=(n, d)), "fake": rng.normal(size=(m, d)) + chance.choice((0, 0.5, 5))}
    options = {name: usual for name, (usual, _) in COUNTS.items()}
    side = chance.choice(list(arrays))
    kinds = (_types, _values, _values, _scales, _shapes, _files, _files, _damage, _damage, _options)
    kind = chance.choice(kinds)
    paths = {name: folder / f"{name}{chance.choice(('.npy',) * 9 + ('', '.npz', '.txt', ' é.npy'))}" for name in arrays}
    is_ordinary = kind(chance, rng, arrays, side, paths, options)
    for name, path in paths.items():
        if not os.path.lexists(path) and arrays[name] is not None:
            _save(path, arrays[name])
    given = ["score", str(paths["real"]), str(paths["fake"]), "--json"]
    given += [f"{name}={value}" for name, value in options.items()]
    return Case(lambda: _run(given, arrays, folder, is_ordinary), shlex.join(["python", "-m", "rae_bench", *given]))


def _run(given, arrays, folder, is_ordinary):
    refused, values = _scored(given)
    if refused:
        wrong = is_ordinary and f"ordinary features are refused: {refused}"
        return Ended(refused, (wrong,) if wrong else ())
    complaints = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    if all(array is not None for array in arrays.values()):
        complaints += _against_plain(given, arrays, folder, values)
    return Ended(None, tuple(complaints))


def _scored(given):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        refused = refusal(*given)
    if refused:
        return refused, None
    found = json.loads(printed.getvalue())
    return None, found["values"] | {f"floor of {name}": value for name, value in found["floor"].items()}


def _against_plain(given, arrays, folder, values):
    """Where scores differ from those of the same arrays in float64, saved plainly."""
    (folder / "plain").mkdir()
    plain = [folder / "plain" / f"{name}.npy" for name in ("real", "fake")]
    for path, array in zip(plain, arrays.values(), strict=True):
        np.save(path, np.ascontiguousarray(array, dtype=np.float64))
    refused, expected = _scored(["score", *map(str, plain), *given[3:]])
    if refused:
        return [f"refused once cast to float64: {refused}"]
    types = " and ".join(str(array.dtype) for array in arrays.values())
    return [
        f"{name} of {types} differs from that of the same in float64: {value} instead of {expected[name]}"
        for name, value in values.items()
        if not math.isclose(value, expected[name], rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    ]


def _save(path, array):
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


# --- what is odd; each returns whether it must be scored all the same -------------------------------------


def _types(chance, _, arrays, side, paths, __):
    kind = chance.choice((*ORDINARY, *ORDINARY, *WHOLE, *ODD))
    if kind in ODD:
        shape = arrays[side].shape
        _save(paths[side], np.zeros(shape, kind))
        arrays[side] = None
        return False
    for name in chance.choice(((side,), tuple(arrays))):
        cast = (10 * np.abs(arrays[name])).astype(kind) if kind in WHOLE else arrays[name].astype(kind)
        arrays[name] = np.asfortranarray(cast) if chance.random() < 0.3 else cast
    return kind in ORDINARY


def _values(chance, rng, arrays, side, *_):
    array = arrays[side]
    row, column = rng.integers(len(array)), rng.integers(array.shape[1])
    match chance.randrange(8):
        case 0:
            array[row, column] = chance.choice((np.nan, np.inf, -np.inf))
            return False
        case 1:
            array[:, column] = chance.choice((0, 1, 1e5))
        case 2:
            array[:] = array[row]
            return False
        case 3:
            array[: len(array) // 2] = array[row]
        case 4:
            array[:] = np.round(array)
        case 5:
            array[:] = 0
            return False
        case 6:
            other = arrays["fake" if side == "real" else "real"]
            n = min(len(array), len(other))
            array[:n] = other[:n]
        case 7:
            array[row] = chance.choice((1e3, 1e8, 1e15))
    return True


def _scales(chance, _, arrays, side, *__):
    """The same factor and offset for both sides, or for one; in float32 or float64."""
    factor = 10.0 ** chance.choice((-320, -200, -100, -30, -10, 0, 0, 0, 5, 18, 30, 37, 80, 150, 160, 300))
    offset = chance.choice((0, 0, 1e3, 1e6, 1e9, 1e15, 1e200))
    kind = chance.choice(("<f4", "<f8", "<f8"))
    for name in chance.choice(((side,), tuple(arrays), tuple(arrays))):
        with np.errstate(all="ignore"):
            arrays[name] = ((arrays[name] + offset) * factor).astype(kind)
    return False


def _shapes(chance, rng, arrays, side, *_):
    n, d = arrays[side].shape
    shape = chance.choice(
        [
            (),
            (n,),
            (0, d),
            (n, 0),
            (0, 0),
            (1, d),
            (2, d),
            (3, d),
            (4, d),
            (5, d),
            (6, d),
            (n, d + 1),
            (n, d, 1),
            (n, 1, d, 1),
        ]
    )
    for name in chance.choice(((side,), tuple(arrays))):
        arrays[name] = np.asarray(rng.normal(size=shape), dtype=chance.choice(("<f4", "<f8")))
    return False


def _options(chance, _, __, ___, ____, options):
    for name in chance.sample(list(COUNTS), chance.choice((1, 1, 2))):
        options[name] = chance.choice(COUNTS[name][1])
    return False


def _damage(chance, _, arrays, side, paths, __):
    file = io.BytesIO()
    (np.save if chance.random() < 0.7 else np.savez)(file, arrays[side].astype(chance.choice(("<f4", "<f8"))))
    data = file.getvalue()
    header = chance.choice((128, len(data)))  # most bytes are numbers; the header decides more
    paths[side].write_bytes(damaged(chance, data[:header]) + data[header:])
    arrays[side] = None
    return False


def _files(chance, _, arrays, side, paths, __):
    path, array = paths[side], arrays[side].astype("<f4")
    arrays[side] = None
    match chance.randrange(10):
        case 0:
            names = chance.sample(["arr_0", "features", "mu", "sigma", "a/b", "é"], chance.randint(0, 3))
            with path.open("wb") as file:
                chance.choice((np.savez, np.savez_compressed))(file, **dict.fromkeys(names, array))
        case 1:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(
                    chance.choice(("a.txt", "../x.npy", "a.npy", "a/")), chance.choice((b"", b"x", b"\x93NUMPY"))
                )
        case 2:
            np.savetxt(path, array, delimiter=chance.choice((" ", ",", ";", "\t")), header=chance.choice(("", "a,b")))
        case 3:
            path.write_bytes(
                chance.choice(("1,2,3\n", "x", "", "{}", "é\n")).encode(chance.choice(("utf-8", "utf-16")))
            )
        case 4:
            path.write_bytes(pickle.dumps(chance.choice((array, {"features": array}, [1, 2], None))))
        case 5 | 6:
            path.write_bytes(_forged(chance, array))
        case 7:
            np.lib.format.write_array(file := io.BytesIO(), array, version=chance.choice(((1, 0), (2, 0), (3, 0))))
            path.write_bytes(file.getvalue() + chance.choice((b"", b"\0" * 7, file.getvalue())))
        case 8:
            _save(path, array.astype(object))
        case 9:
            no_plain_file(chance, path)
    return False


def _forged(chance, array):
    """An array file whose header says what `np.save` would not."""
    n, d = array.shape
    shapes = [
        (-1, d),
        (n, -d),
        (2**40, d),
        (2**62, 2**62),
        (n * 2, d),
        (n, d, 0),
        (float(n), d),
        n,
        (n,) * 40,
        (True, d),
        "x",
        None,
    ]
    described = [
        *("<f4x", "|O", "<f3", "V0", "", "<f4,<f4", ">f16", "<f16", "f4", "object", "<U0"),
        None,
        [],
        [("x", "<f4")] * 2,
        ("<f4", (2,)),
        4,
    ]
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, d)}
    match chance.randrange(6):
        case 0 | 1:
            header["shape"] = chance.choice(shapes)
        case 2 | 3:
            header["descr"] = chance.choice(described)
        case 4:
            header["fortran_order"] = chance.choice((1, "x", None, True))
        case 5:
            header[chance.choice(("shape ", "x", "descr"))] = header.pop(chance.choice(list(header)))
    text = repr(header)
    if chance.random() < 0.2:
        depth = chance.choice((50, 150, 5000, 20000))
        text = chance.choice(
            ("(" * depth, "[" * depth + "]" * depth, "-" * depth + "1", "{" * depth, " " * 70_000, "9" * 5000, "f()")
        )
    version = chance.choice(((1, 0), (1, 0), (2, 0), (3, 0), (9, 9), (0, 1)))
    length = struct.pack("<H", len(text) % 2**16) if version[0] < 2 else struct.pack("<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text.encode() + array.tobytes()
