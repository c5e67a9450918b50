"""Files of pretrained weights, checked against their SHA-256."""

import hashlib
from pathlib import Path


class FeatureError(RuntimeError):
    """Weights that are missing or not the expected ones, images of the wrong kind, features that are not finite."""


def checked(path: Path, sha256: str, remedy: str) -> bytes:
    """The bytes of `path`.

    Raises:
        FeatureError: it is missing, or its SHA-256 does not begin with `sha256`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FeatureError(f"{path}: the weight file is missing; {remedy}") from None
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(sha256):
        raise FeatureError(f"{path}: SHA-256 is {found[:16]}..., expected {sha256[:16]}...; {remedy}")
    return data
