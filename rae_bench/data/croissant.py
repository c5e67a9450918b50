"""A prepared data set in the words of Croissant 1.0 (MLCommons; JSON-LD), for programs that list and search data sets.

It names the files with their SHA-256, and the licences. It has no record sets: Croissant's readers know no NumPy files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CROISSANT = "croissant.json"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
}
_FORMATS = {".npy": "application/x-npy", ".sha256": "text/plain"}


def described(label: str, manifest: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """What `croissant.json` says of a data set called `label`, its manifest, and the files that lists."""
    licences = {source["licence"] for source in manifest["sources"]} or ({"MIT"} if manifest["synthetic"] else set())
    counts = ", ".join(f"{count} {split}" for split, count in manifest["counts"].items())
    _, channels, *sides = manifest["shape"]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": label,
        "description": f"{counts} images of {channels}x{sides[0]}x{sides[1]}, uint8. {manifest['note']}".strip(),
        **({"license": sorted(licences)} if licences else {}),  # of a user's own files none is known
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": path.name,
                "name": path.name,
                "contentUrl": path.name,
                "contentSize": f"{path.stat().st_size} B",
                "encodingFormat": _FORMATS[path.suffix],
                "sha256": manifest["sha256"][name],
            }
            for name, path in files.items()
        ],
    }
