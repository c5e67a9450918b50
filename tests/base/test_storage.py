"""Result files: read with checks, written whole, the same bytes for the same data, and never code."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkout import Bomb
from safetensors.numpy import save

from rae_bench.base import storage
from rae_bench.base.storage import StorageError

ARRAY = np.arange(12.0).reshape(3, 4)
FRAME = pd.DataFrame({"name": ["a", "b"], "value": [0.5, -1.25]})
WRITE = {
    "x.json": lambda path: storage.write_json(path, {"b": [1, 2.5], "a": "é"}),
    "x.safetensors": lambda path: storage.write_arrays(path, {"z": ARRAY, "a": ARRAY[0]}, {"seed": 3}),
    "x.npy": lambda path: storage.write_npy(path, ARRAY),
    "x.parquet": lambda path: storage.write_frame(path, FRAME),
    "x.csv": lambda path: storage.write_frame(path, FRAME),
    "x.md": lambda path: storage.write_text(path, "| é |\n"),
    "x.png": lambda path: storage.render(path, lambda target: target.write(b"pixels")),
}
READ = {
    "x.json": storage.read_json,
    "x.safetensors": storage.read_arrays,
    "x.npy": storage.read_npy,
    "x.npy by rows": lambda path: storage.read_rows(path, np.arange(3)),
    "x.parquet": storage.read_frame,
}
DAMAGE = {
    "missing": lambda _: None,
    "a folder": lambda _: ...,
    "empty": lambda _: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "last byte lost": lambda data: data[:-3],
    "foreign": lambda _: b"%PDF-1.4 is something else entirely" * 10,
    "altered header": lambda data: bytes(255 - byte for byte in data[:24]) + data[24:],
    "altered end": lambda data: data[:-8] + bytes(255 - byte for byte in data[-8:]),
}
UNDETECTED = {
    *[(how, "altered end") for how in ("x.npy", "x.npy by rows", "x.safetensors")],
    ("x.parquet", "altered header"),
}
"""Altered numbers look like numbers: the SHA-256s of manifests and records tell them apart, not the format."""


@pytest.mark.parametrize(
    ("how", "damage"), [(how, damage) for how in READ for damage in DAMAGE if (how, damage) not in UNDETECTED]
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, how, damage):
    path = tmp_path / how.split()[0]
    WRITE[path.name](path)
    data = DAMAGE[damage](path.read_bytes())
    path.unlink()
    if data is ...:
        path.mkdir()
    elif data is not None:
        path.write_bytes(data)
    with pytest.raises(StorageError) as error:
        READ[how](path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("how", ["x.safetensors", "x.parquet"])
def test_a_file_without_what_is_needed_is_refused(tmp_path, how):
    WRITE[how](tmp_path / how)
    with pytest.raises(StorageError, match=f"{how}: holds no b, c; delete it and run again$"):
        READ[how](tmp_path / how, "c", "b")


def test_safetensors_of_another_program_are_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(save({"a": ARRAY}))
    with pytest.raises(StorageError, match=r"x\.safetensors: .*not one of this suite"):
        storage.read_arrays(tmp_path / "x.safetensors")


def _object_array(file, bomb):
    np.save(file, np.array([bomb], dtype=object), allow_pickle=True)


def _pickle(file, bomb):
    file.write(pickle.dumps(bomb))


def _about(file, bomb):
    file.write(save({"a": ARRAY}, metadata={"about": pickle.dumps(bomb, protocol=0).decode()}))


@pytest.mark.parametrize(
    ("read", "plant"),
    [
        *[(read, _pickle) for read in READ.values()],
        *[(READ[how], _object_array) for how in READ if "npy" in how],
        (storage.read_npy, lambda file, bomb: np.savez(file, a=np.array([bomb], dtype=object))),
        (storage.read_npy, lambda file, _: np.savez(file, a=ARRAY)),  # an archive of arrays is no array
        (storage.read_arrays, _about),
    ],
)
def test_code_is_refused_and_not_executed(tmp_path, read, plant):
    with (tmp_path / "x").open("wb") as file:
        plant(file, Bomb(tmp_path / "executed"))
    with pytest.raises(StorageError, match=r"x: not a whole"):
        read(tmp_path / "x")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("place", ["a type", "pandas' notes", "a cell"])
def test_what_parquet_carries_beside_numbers_is_not_executed(tmp_path, place):
    """A type of the writer's own (which pyarrow once unpickled), what pandas notes of columns, pickles as cells."""
    bomb = pickle.dumps(Bomb(tmp_path / "executed"))
    field = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bomb}
    notes = {"index_columns": [], "columns": [{"name": "a", "field_name": "a", "numpy_type": "object", "metadata": {}}]}
    notes["columns"][0]["pandas_type"] = bomb.decode("latin-1")
    table = {
        "a type": lambda: pa.table([[1.0]], pa.schema([pa.field("a", pa.float64(), metadata=field)])),
        "pandas' notes": lambda: pa.table({"a": [1.0]}).replace_schema_metadata({"pandas": json.dumps(notes)}),
        "a cell": lambda: pa.table({"a": [bomb]}),
    }[place]()
    pq.write_table(table, tmp_path / "x.parquet")
    assert len(storage.read_frame(tmp_path / "x.parquet", "a")) == 1
    assert not (tmp_path / "executed").exists()


def test_an_array_of_objects_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="Object arrays"):
        storage.write_npy(tmp_path / "x.npy", np.array([Bomb(tmp_path)], dtype=object))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
        np.zeros((0, 3), dtype=np.uint8),
        np.array(7, dtype=np.int64),  # a batch norm's counter
    ],
    ids=["matrix", "transposed", "empty", "scalar"],
)
def test_arrays_come_back_as_they_were(tmp_path, array):
    storage.write_arrays(tmp_path / "x.safetensors", {"array": array}, {"seed": 3, "name": "é"})
    arrays, about = storage.read_arrays(tmp_path / "x.safetensors")
    assert about == {"seed": 3, "name": "é"}
    assert arrays["array"].dtype == array.dtype
    assert arrays["array"].shape == array.shape
    np.testing.assert_array_equal(arrays["array"], array)


def test_frames_json_and_npy_come_back_as_they_were(tmp_path):
    for name in ("x.parquet", "x.json", "x.npy"):
        WRITE[name](tmp_path / name)
    pd.testing.assert_frame_equal(storage.read_frame(tmp_path / "x.parquet"), FRAME)
    assert storage.read_json(tmp_path / "x.json") == {"a": "é", "b": [1, 2.5]}
    np.testing.assert_array_equal(storage.read_npy(tmp_path / "x.npy"), ARRAY)


def test_csv_is_what_other_programs_read(tmp_path):
    WRITE["x.csv"](tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_bytes() == b"name,value\na,0.5\nb,-1.25\n"


@pytest.mark.parametrize("name", WRITE)
def test_the_same_data_are_the_same_bytes(tmp_path, name):
    WRITE[name](tmp_path / "once" / name)
    WRITE[name](tmp_path / "twice" / name)
    assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_the_order_of_names_does_not_change_bytes(tmp_path):
    storage.write_arrays(tmp_path / "a", {"x": ARRAY, "y": ARRAY[0]}, {"k": 1, "l": 2})
    storage.write_arrays(tmp_path / "b", {"y": ARRAY[0], "x": ARRAY}, {"l": 2, "k": 1})
    storage.write_json(tmp_path / "c", {"x": 1, "y": 2})
    storage.write_json(tmp_path / "d", {"y": 2, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()


def test_a_writer_that_fails_halfway_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def draw(target):
        target.write(b"half")
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        storage.render(path, draw)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"x.png": b"old"}


@pytest.mark.parametrize("name", WRITE)
def test_what_killed_writers_left_of_a_file_goes_with_its_next_writing(tmp_path, name):
    left, other = tmp_path / f".{name}.1.tmp", tmp_path / f".other.{name}.1.tmp"
    left.write_bytes(b"half")
    other.write_bytes(b"half")
    WRITE[name](tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, other.name])


def test_a_name_that_is_a_pattern_is_a_name(tmp_path):
    (tmp_path / ".x.1.tmp").write_bytes(b"half")
    storage.write_text(tmp_path / "[xy]", "")
    assert (tmp_path / ".x.1.tmp").exists()


def test_json_without_a_spelling_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "x.json", {"value": float("nan")})
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/x\.json: cannot be written: "):
        storage.write_json(tmp_path / "file" / "x.json", {})


def test_hashes_are_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert storage.hashes({"name": tmp_path / "x"}) == {"name": known}
    with pytest.raises(StorageError, match="no such file"):
        storage.sha256(tmp_path / "y")


# --- rows and blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_array_in_blocks_has_the_bytes_of_the_whole(size, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 5), np.uint8)
    storage.write_npy(tmp_path / "whole.npy", array)
    blocks = (array[first : first + size] for first in range(0, 50, size))
    storage.write_npy_blocks(tmp_path / "blocks.npy", array.shape, blocks)
    assert (tmp_path / "blocks.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize("blocks", [[], [(3, 2)], [(3, 2), (3, 2)], [(4, 3)]])
def test_blocks_that_are_not_the_array_are_not_kept(blocks, tmp_path):
    with pytest.raises(AssertionError):
        storage.write_npy_blocks(tmp_path / "x.npy", (4, 2), (np.zeros(shape, np.uint8) for shape in blocks))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("block", [1, 100, 2**23])
@pytest.mark.parametrize("rows", [[], [0], [49, 0, 3, 3, 17], list(range(50))])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_rows_come_in_the_order_asked_for_with_the_hash_of_the_file(dtype, rows, block, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_BLOCK", block)
    array = np.random.default_rng(0).integers(0, 256, (50, 3, 4)).astype(dtype)
    path, rows = tmp_path / "x.npy", np.array(rows, np.int64)
    storage.write_npy(path, array)
    found, digest = storage.read_rows(path, rows)
    mapped, same = storage.map_rows(path, rows)
    assert digest == same == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (len(mapped), mapped.shape, mapped.ndim, mapped.dtype) == (len(rows), (len(rows), 3, 4), 3, dtype)
    assert found.dtype == dtype
    some = np.arange(len(rows))[::-1]
    for taken, expected in ((found, rows), (mapped[:], rows), (mapped[1:4], rows[1:4]), (mapped[some], rows[some])):
        np.testing.assert_array_equal(taken, array[expected])
        assert taken.flags.writeable


def test_a_mapped_file_that_is_replaced_stays_the_one_that_was_hashed(tmp_path):
    storage.write_npy(tmp_path / "x.npy", ARRAY)
    found, _ = storage.map_rows(tmp_path / "x.npy", np.arange(3))
    storage.write_npy(tmp_path / "x.npy", ARRAY + 1)
    np.testing.assert_array_equal(found[:], ARRAY)


def test_reading_through_a_map_leaves_no_pages_of_it_with_the_process(tmp_path):
    array = np.ones((2**15, 2**12), np.uint8)  # 128 MiB
    storage.write_npy(tmp_path / "x.npy", array)
    found, _ = storage.map_rows(tmp_path / "x.npy", np.arange(len(array)))
    before = _mapped_pages()
    for start in range(0, len(array), 2**10):
        assert found[start : start + 2**10].all()
    assert _mapped_pages() - before < 2**23


def _mapped_pages():
    """Bytes of mapped files that are resident in this process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile")]
    return 1024 * int(line.split()[1])


@pytest.mark.parametrize("rows", [[-1], [0, 50]])
def test_rows_that_do_not_exist_are_an_error(rows, tmp_path):
    storage.write_npy(tmp_path / "x.npy", np.zeros((50, 3), np.uint8))
    with pytest.raises(StorageError, match=rf"x\.npy: not a whole npy file \(50 rows, asked for rows {rows[0]} to"):
        storage.map_rows(tmp_path / "x.npy", np.array(rows))


def test_what_killed_writers_left_is_found_and_removed(tmp_path):
    storage.write_npy(tmp_path / "x.npy", ARRAY)
    (tmp_path / ".x.npy.123.tmp").write_bytes(b"half")
    assert storage.leftovers(tmp_path) == [tmp_path / ".x.npy.123.tmp"]
    storage.remove(*storage.leftovers(tmp_path), tmp_path / "never.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder: cannot be removed: Is a directory; allow writing there"):
        storage.remove(tmp_path / "folder")
