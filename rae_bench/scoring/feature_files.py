"""Array files that users hand to `score`: features or images as NumPy saves them, or moments as pytorch-fid saves them.

They are the user's own and may have cost hours: a message says what was found and what would be right, and advises
neither to delete a file nor to trust it. Nothing in a file is executed: arrays of Python objects are refused.
"""

import lzma
import math
import stat
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from rae_bench.scoring.metrics.frechet import between_factors
from rae_bench.scoring.metrics.pairs import Float64
from rae_bench.scoring.metrics.reference import factor_of

EXPECTED = "expected features (n, d) or uint8 images (n, C, H, W), as numpy.save writes them"
MOMENTS = ("mu", "sigma")
"""The names of a mean and a covariance in an archive of pytorch-fid's."""
ROUNDING = 1e-5
"""How far a covariance may be from symmetric and from positive semi-definite, of its largest entry or eigenvalue: a
hundred times the rounding of single precision."""

_KINDS = {
    b"PAR1": "a parquet file",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"BM": "an image",
    b"II*\0": "an image",
    b"MM\0*": "an image",
    b"RIFF": "an image or a sound",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip file",
    b"\x80": "a Python pickle",
}
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, OSError)
"""What zipfile raises at damaged or encrypted members and at compressions it does not know."""

Array = npt.NDArray[Any]


class FeatureFileError(ValueError):
    """A file that holds nothing to be scored; the message names it, what was found and what would be right."""


@dataclass(frozen=True)
class Moments:
    """Mean (d,) of features and a factor (d, r) of their covariance, F Fᵀ = Σ, in float64."""

    mean: Float64
    factor: Float64 = field(repr=False)

    @classmethod
    def of(cls, features: npt.NDArray[np.floating]) -> "Moments":
        """The moments of features (n, d)."""
        return cls(features.mean(axis=0, dtype=np.float64), factor_of(features))

    def frechet_distance(self, other: "Moments") -> float:
        """The distance of two Gaussians with these moments.

        Raises:
            FeatureFileError: features of another dimension.
        """
        if len(self.mean) != len(other.mean):
            raise FeatureFileError(
                f"fake features have dimension {len(other.mean)}, real ones {len(self.mean)};"
                " both must come from the same extractor"
            )
        return between_factors(self.mean, self.factor, other.mean, other.factor)


def read(path: Path, name: str | None, option: str) -> Array | Moments:
    """The array of an .npy file or, of an .npz archive, the array `name`, its only one, or the moments in it.

    `option`: how the user would give `name`.

    Raises:
        FeatureFileError: no such file, or none of these.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            found = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise FeatureFileError(f"{path}: {found}; {EXPECTED}")
        with path.open("rb") as file:
            start = file.read(2**10)
            file.seek(0)
            if start[:4] in (b"PK\3\4", b"PK\5\6"):
                return _from_archive(path, file, name, option)
            if name is not None:
                raise FeatureFileError(f"{path}: not an .npz archive, so it has no array {name!r}; leave out {option}")
            if not start.startswith(np.lib.format.MAGIC_PREFIX):
                raise FeatureFileError(f"{path}: {_kind(start)}; {EXPECTED}")
            return _array(str(path), file, path.stat().st_size)
    except FileNotFoundError:
        raise FeatureFileError(f"{path}: no such file") from None
    except OSError as error:
        raise FeatureFileError(f"{path}: cannot be read: {error.strerror or error}") from None


def _kind(start: bytes) -> str:
    """What a file is that begins with these bytes."""
    if not start:
        return "an empty file"
    if start[8:10] == b'{"':
        return "a safetensors file"
    for begins, kind in _KINDS.items():
        if start.startswith(begins):
            return kind
    is_text = all(byte in b"\t\n\f\r" or byte >= 32 for byte in start)
    return "a text file" if is_text else "no file of NumPy's"


def _from_archive(path: Path, file: IO[bytes], name: str | None, option: str) -> Array | Moments:
    try:
        with zipfile.ZipFile(file) as archive:
            found = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            arrays = {key: info for key, info in found.items() if info.filename.endswith(".npy")}

            def array(key: str) -> Array:
                with archive.open(arrays[key]) as member:
                    return _array(f"{path}: {key}", member, arrays[key].file_size)

            names = ", ".join(arrays)
            if not arrays:
                kind = "a file of torch.save" if any(key.endswith("data.pkl") for key in found) else "an archive"
                raise FeatureFileError(f"{path}: {kind} without arrays of NumPy's; {EXPECTED}")
            if name is not None and name not in arrays:
                raise FeatureFileError(f"{path}: holds no array {name!r}; give {option} one of {names}")
            if name is None and set(MOMENTS) <= set(arrays):
                return _moments(path, *map(array, MOMENTS))
            if name is None and len(arrays) > 1:
                raise FeatureFileError(f"{path}: holds {len(arrays)} arrays ({names}); choose one with {option} NAME")
            return array(name or names)
    except FeatureFileError:
        raise
    except DAMAGED:
        raise FeatureFileError(f"{path}: an archive that is cut off or damaged; {EXPECTED}, or numpy.savez") from None


def _array(where: str, file: IO[bytes], size: int) -> Array:
    """The array that a file of `size` bytes holds, in this machine's byte order."""
    try:
        version = np.lib.format.read_magic(file)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a header that Python 2 wrote: it is read all the same
            shape, is_fortran, dtype = headers[version](file)
        count = math.prod(shape)
        if min(shape, default=0) < 0:
            raise ValueError
    except (zipfile.BadZipFile, zlib.error):  # of the archive around it
        raise
    except Exception:  # what damaged bytes raise, NumPy does not say, and its messages offer to trust the file
        raise FeatureFileError(f"{where}: an .npy file whose header is cut off or damaged; {EXPECTED}") from None
    if dtype.kind not in "fiubc":
        kind = "Python objects" if dtype.hasobject else str(dtype)
        raise FeatureFileError(f"{where}: an array of {kind}; expected numbers in floating point, as float32")
    expected = file.tell() + count * dtype.itemsize
    if size != expected:
        shown = f"an array {shape} of {dtype} takes {expected:,}"
        state = "cut off" if size < expected else "more than one array, or damaged"
        raise FeatureFileError(f"{where}: {size:,} bytes, but {shown}: {state}; {EXPECTED}")
    values = np.empty(count, dtype)
    file.readinto(values.view(np.uint8))  # type: ignore[attr-defined]  # of files opened for bytes
    ordered = values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)
    return ordered.astype(dtype.newbyteorder("="), copy=False)


def _moments(path: Path, mean: Array, covariance: Array) -> Moments:
    """What an archive's mu and sigma stand for, if they can be the mean and the covariance of features."""
    d = len(mean) if mean.ndim == 1 else 0
    if not d or covariance.shape != (d, d):
        raise FeatureFileError(
            f"{path}: mu has shape {mean.shape}, sigma {covariance.shape}; expected (d,) and (d, d), d features"
        )
    for name, array in zip(MOMENTS, (mean, covariance), strict=True):
        if array.dtype.kind != "f":
            raise FeatureFileError(f"{path}: {name} is {array.dtype}; expected floating point")
        if not np.isfinite(array).all():
            raise FeatureFileError(f"{path}: {name} holds values that are not finite; expected finite numbers")
    exact = covariance.astype(np.float64)
    if np.abs(exact - exact.T).max() > ROUNDING * np.abs(exact).max():
        raise FeatureFileError(f"{path}: sigma is not symmetric; expected a covariance")
    values, vectors = np.linalg.eigh(exact)
    if values[0] < -ROUNDING * np.abs(values).max():
        raise FeatureFileError(f"{path}: sigma has the negative eigenvalue {values[0]:.3g}; expected a covariance")
    return Moments(mean.astype(np.float64), (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)
