"""Files of pretrained weights: sought, allowed, checked against their SHA-256, then read as tensors, never as code.

Where a file lies and whether this machine may fetch it are facts of the machine, not of a study: the environment says
so, and Snakemake and Slurm pass it on. Without RAE_BENCH_DOWNLOAD=1 nothing in here touches the network.
"""

import contextlib
import hashlib
import io
import logging
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from rae_bench.scoring.weight_files import (
    INCEPTION_SHA256,
    INCEPTION_URL,
    INCEPTION_VARIABLE,
    dino_files,
    inception_file,
)

log = logging.getLogger(__name__)

DOWNLOAD_VARIABLE = "RAE_BENCH_DOWNLOAD"
TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""A variable of torch's: with it, torch.load reads tensors only."""
UNVERIFIED_VARIABLE = "RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS"


class FeatureError(RuntimeError):
    """Weights that are missing or not the expected ones, images of the wrong kind, features that are not finite."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, the SHA-256 of their file, and whether that is the official file's."""

    tensors: dict[str, Tensor]
    sha256: str
    is_verified: bool


def checked(path: Path, sha256: str, remedy: str) -> bytes:
    """The bytes of `path`.

    Raises:
        FeatureError: it is missing, or its SHA-256 does not begin with `sha256`.
    """
    data, found = _read(path, remedy)
    if not found.startswith(sha256):
        raise _other_hash(path, found, sha256, remedy)
    return data


def inception() -> Weights:
    """The official Inception weights: the file RAE_BENCH_INCEPTION_WEIGHTS names, else torch.hub's copy, else fetched.

    Raises:
        FeatureError: no such file and no permission to fetch it; another hash, unless
            RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS=1; a file that holds anything but tensors.
    """
    remedy = f"set {INCEPTION_VARIABLE}=FILE, or allow the download with {DOWNLOAD_VARIABLE}=1"
    named = os.environ.get(INCEPTION_VARIABLE)
    path = inception_file(INCEPTION_URL)
    if not named and not path.exists() and _is_set(DOWNLOAD_VARIABLE):
        _download(INCEPTION_URL, path, INCEPTION_SHA256)
    data, found = _read(path, remedy)
    is_verified = found.startswith(INCEPTION_SHA256)
    if not is_verified and not _is_set(UNVERIFIED_VARIABLE):
        remedy = f"replace it, or allow it, under another name than FID, with {UNVERIFIED_VARIABLE}=1"
        raise _other_hash(path, found, INCEPTION_SHA256, remedy)
    return Weights(tensors(data, path), found, is_verified)


def dino_file() -> Path:
    """Where torch.hub keeps, or will keep, the weights of DINOv2 ViT-L/14.

    Raises:
        FeatureError: the cache lacks them or their code, and there is no permission to fetch them.
    """
    missing = [str(part) for part in dino_files() if not part.exists()]
    if missing and not _is_set(DOWNLOAD_VARIABLE):
        raise FeatureError(
            f"DINOv2: {' and '.join(missing)} missing; copy a hub cache that holds both there, or allow the download"
            f" with {DOWNLOAD_VARIABLE}=1"
        )
    return dino_files()[1]


class _Refusing(urllib.request.BaseHandler):
    def default_open(self, request: urllib.request.Request) -> None:
        raise URLError(f"{request.full_url}: not asked without {DOWNLOAD_VARIABLE}=1")


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """A scope in which torch reads tensors and no code from files, and asks nobody anything but with permission."""
    before, may_ask = os.environ.get(TENSORS_ONLY), _is_set(DOWNLOAD_VARIABLE)
    os.environ[TENSORS_ONLY] = "1"
    if not may_ask:
        urllib.request.install_opener(urllib.request.build_opener(_Refusing))
    try:
        yield
    finally:
        del os.environ[TENSORS_ONLY]
        if before is not None:
            os.environ[TENSORS_ONLY] = before
        if not may_ask:
            urllib.request.install_opener(urllib.request.build_opener())


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file that may be too large for memory, 64 digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _is_set(variable: str) -> bool:
    return os.environ.get(variable) == "1"


def _read(path: Path, remedy: str) -> tuple[bytes, str]:
    """The bytes of a file, and their SHA-256."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FeatureError(f"{path}: the weight file is missing; {remedy}") from None
    except OSError as error:
        raise FeatureError(f"{path}: the weight file cannot be read: {error.strerror}; {remedy}") from None
    return data, hashlib.sha256(data).hexdigest()


def _other_hash(path: Path, found: str, expected: str, remedy: str) -> FeatureError:
    return FeatureError(f"{path}: SHA-256 is {found[:16]}..., expected {expected[:16]}...; {remedy}")


def _download(url: str, path: Path, sha256: str) -> None:
    """Fetch `url` to `path`: under another name until whole and of the right hash."""
    log.info("fetching %s to %s", url, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    except (OSError, HTTPException, RuntimeError) as error:
        raise FeatureError(f"{url}: cannot be fetched: {error}; set {INCEPTION_VARIABLE}=FILE") from None


def tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors by name that `data`, the bytes of `path`, hold; whatever else they hold is not executed.

    Raises:
        FeatureError: they hold anything but tensors.
    """
    refusal = FeatureError(f"{path}: not a state dict of tensors alone; it is not loaded, for it may hold code")
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes raise what they like; torch's own messages offer to load them unsafely
        raise refusal from None
    if not isinstance(found, dict) or not all(isinstance(x, str) and isinstance(y, Tensor) for x, y in found.items()):
        raise refusal
    return dict(found)
