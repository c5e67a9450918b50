"""The only module that opens result files: arrays, frames, JSON and text, read with checks, written whole.

A file appears under its name only when all its bytes are on the disk (temporary name, fsync, rename), so
a killed job or a full disk never leaves half a result. Arrays are safetensors: no file here can execute code.
Whoever writes a file does so alone (`jobs.running` holds the run's lock): what killed writers left of it is removed.
"""

import contextlib
import glob
import hashlib
import io
import json
import math
import mmap
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save as to_safetensors

if TYPE_CHECKING:
    import pandas as pd

Arrays = dict[str, npt.NDArray[Any]]


_BLOCK = 2**23
"""Bytes of a file that are read or copied at once."""


class StorageError(RuntimeError):
    """A file that cannot be read or written; the message names it and what would be right."""


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says while `path` is written into a StorageError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error  # numpy states none
        raise StorageError(f"{path}: cannot be written: {reason}; free space or allow writing there") from None


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; afterwards flush it to the disk and rename it to `path`."""
    # nodes share process ids
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            killed = {*path.parent.glob(f".{glob.escape(path.name)}.*.tmp")} - {temporary}
            remove(*killed)  # what their writers left
            yield temporary
            with temporary.open("rb+") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def remove(*paths: Path) -> None:
    """Remove files, whether they exist or not."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{path}: cannot be removed: {error.strerror}; allow writing there") from None


def leftovers(folder: Path) -> list[Path]:
    """What writers that were killed have left in `folder`; only where nobody is writing now."""
    return sorted(folder.glob(".*.tmp"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, data: object) -> None:
    """Write JSON with sorted keys."""
    write_text(path, json.dumps(data, sort_keys=True, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON."""
    with reading(path, "JSON"):
        return json.loads(path.read_text("utf-8"))


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], about: object) -> None:
    """Write named arrays and what they are (`about`, plain data) as safetensors, the same bytes every time.

    `about` stands as one JSON string under one metadata key: the order of several keys would vary.
    """
    ordered = {name: np.asarray(arrays[name], order="C") for name in sorted(arrays)}
    write_bytes(path, to_safetensors(ordered, metadata={"about": json.dumps(about, sort_keys=True)}))


def read_arrays(path: Path, *needed: str, under: str = "") -> tuple[Arrays, Any]:
    """The arrays of a safetensors file whose names begin with `under`, and what was said about all.

    Raises:
        StorageError: no such file, or not a whole safetensors file written by `write_arrays`.
    """
    with _arrays(path) as (file, about):
        _check_holds(path, needed, file.keys())
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(under)}, about  # noqa: SIM118


def read_about(path: Path) -> Any:
    """What was said about the arrays of a safetensors file; none of them is read.

    Raises:
        StorageError: as `read_arrays`.
    """
    with _arrays(path) as (_, about):
        return about


@contextlib.contextmanager
def _arrays(path: Path) -> Iterator[tuple[Any, Any]]:
    """The open file, and what was said about its arrays."""
    with reading(path, "safetensors"), safe_open(path, framework="numpy") as file:
        about = (file.metadata() or {}).get("about")
        if about is None:
            raise StorageError(f"{path}: a safetensors file, but not one of this suite; delete it and run again")
        yield file, json.loads(about)


def write_npy(path: Path, array: npt.NDArray[Any]) -> None:
    """Write one array that others will memory-map."""
    with writing(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)


def write_npy_blocks(path: Path, shape: tuple[int, ...], blocks: Iterable[npt.NDArray[np.uint8]]) -> None:
    """Write one uint8 array of `shape` that comes in blocks of rows, of which only one need be in memory."""
    with writing(path) as temporary, temporary.open("wb") as handle:
        np.lib.format.write_array_header_1_0(handle, {"descr": "|u1", "fortran_order": False, "shape": shape})
        rows = 0
        for block in blocks:
            assert block.shape[1:] == shape[1:]
            handle.write(np.ascontiguousarray(block).data)
            rows += len(block)
        assert rows == shape[0]


@dataclass(frozen=True)
class MappedRows:
    """Some rows of an array file that stays on the disk, made by `map_rows`; indexed like an array of these rows.

    The kernel keeps what memory it can spare of the file, one copy for all processes of a machine; to this process
    belongs only what an index has just given. Pages looked at are let go at once: else the whole file would count as
    this process's memory where a scheduler adds up resident pages.
    """

    array: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]
    mapped: mmap.mmap

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that these rows would make."""
        return (len(self.rows), *self.array.shape[1:])

    @property
    def ndim(self) -> int:
        """The number of the array's axes."""
        return self.array.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the array's numbers."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """A copy in memory of some of the rows, in the order asked for."""
        found = self.array[self.rows[which]]
        self.mapped.madvise(mmap.MADV_DONTNEED)
        return found


def map_rows(path: Path, rows: npt.NDArray[np.int64]) -> tuple[MappedRows, str]:
    """Some rows of an array file, left on the disk, and the SHA-256 of the whole file.

    The file is hashed first, once and in order, which also brings it into memory where there is room. Files here are
    replaced, never written into: the file that was hashed is the one that stays mapped.
    """
    with reading(path, "npy"), path.open("rb") as handle:
        (count, *one), dtype = _rows_header(handle, rows)
        start = handle.tell()
        handle.seek(0)
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        array = np.frombuffer(mapped, dtype, count * math.prod(one), start).reshape(count, *one)
        return MappedRows(array, rows, mapped), digest


def read_rows(path: Path, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], str]:
    """Some rows of an array file in memory, in the order asked for, and the SHA-256 of the whole file.

    Beside them no more than _BLOCK bytes of the file count as this process's memory.
    """
    mapped, digest = map_rows(path, rows)
    found = np.empty(mapped.shape, mapped.dtype)
    step = max(1, _BLOCK // max(1, found[:1].nbytes))
    for first in range(0, len(rows), step):
        found[first : first + step] = mapped[first : first + step]
    return found, digest


def _rows_header(handle: IO[bytes], rows: npt.NDArray[np.int64]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the array that begins here, which has all of `rows`."""
    np.lib.format.read_magic(handle)
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(handle)
    if is_fortran or dtype.hasobject:
        raise ValueError("not rows of plain numbers")
    if len(rows) and not 0 <= rows.min() <= rows.max() < shape[0]:
        raise ValueError(f"{shape[0]} rows, asked for rows {rows.min()} to {rows.max()}")
    return shape, dtype


def read_npy(path: Path) -> npt.NDArray[Any]:
    """Read an array file; never a pickle."""
    with reading(path, "npy"):
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("an archive of arrays")
        return array


def write_frame(path: Path, frame: "pd.DataFrame") -> None:
    """Write a frame as parquet (with its `attrs`) or, by the suffix, csv; the same bytes for the same frame."""
    if path.suffix == ".csv":
        write_text(path, frame.to_csv(index=False, float_format="%.10g", lineterminator="\n"))
    else:
        write_bytes(path, frame.to_parquet(index=False))


def read_frame(path: Path, *needed: str) -> "pd.DataFrame":
    """Read a parquet frame.

    Raises:
        StorageError: no such file, not a whole parquet file, or one without a column of `needed`.
    """
    import pandas as pd

    with reading(path, "parquet"), path.open("rb") as file:  # a name might be a folder's, which pandas would read
        frame = pd.read_parquet(file)
    _check_holds(path, needed, frame.columns)
    return frame


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with reading(path, "file"), path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def tree_sha256(path: Path) -> str:
    """The SHA-256 of a user's file; of a folder, that of all its files with their names.

    Raises:
        OSError: it is not there, or cannot be read.
    """

    def digest(file: Path) -> str:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    if not path.is_dir():
        return digest(path)
    whole = hashlib.sha256()
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        whole.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\0".encode())
    return whole.hexdigest()


def _check_holds(path: Path, needed: Iterable[str], found: Iterable[str]) -> None:
    missing = sorted({*needed} - {*found})
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise StorageError(f"{path}: holds no {', '.join(missing[:3])}{more}; delete it and run again")


def arrays_sha256(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 of named arrays: their names, types, shapes and numbers, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Name `path` in whatever goes wrong while its bytes are made sense of: it is not a whole `kind` file.

    Raises:
        StorageError: instead of any other error but a full memory.
    """
    try:
        yield
    except (StorageError, MemoryError):
        raise
    except FileNotFoundError:
        raise StorageError(f"{path}: no such file; the stage that writes it has not run") from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damaged bytes raise what they like: SyntaxError, tokenize.TokenError, KeyError ...
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        reason = " ".join(said.split())[:200]
        raise StorageError(f"{path}: not a whole {kind} file ({reason}); delete it and run again") from error


def hashes(paths: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each named file."""
    return {name: sha256(path) for name, path in sorted(paths.items())}


def render(path: Path, draw: Callable[[IO[bytes]], None]) -> None:
    """Write what `draw` (a plotting library) puts into a file; matplotlib itself would stumble over a full disk."""
    drawn = io.BytesIO()
    draw(drawn)
    write_bytes(path, drawn.getvalue())
