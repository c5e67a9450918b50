"""The archive of a study in the words of RO-Crate 1.1 (JSON-LD), for programs that list and search research data."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rae_bench import __version__

CRATE = "ro-crate-metadata.json"
_FORMATS = {
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "md": "text/markdown",
    "pdf": "application/pdf",
    "png": "image/png",
    "tex": "application/x-tex",
    "txt": "text/plain",
    "yaml": "application/yaml",
}
_LICENCE = (
    "Images that are shown keep the licence of their data set; of all else whoever publishes the archive says it."
)


def described(name: str, title: str, sizes: Mapping[str, int], last: float) -> dict[str, Any]:
    """What `ro-crate-metadata.json` says of the archive of the study `name`: its members, and what made them.

    sizes: bytes of each member; last: when the study's last job began, in seconds since 1970. The specification asks
    for a date, and the same results must give the same bytes.
    """
    files = [
        {
            "@id": member,
            "@type": "File",
            "name": member.rpartition("/")[2],
            "contentSize": str(size),
            "encodingFormat": _format(member),
        }
        for member, size in sizes.items()
    ]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"{name}: {title}",
        "description": f"Results of the study {name} of rae_bench {__version__}, each file with its record.",
        "datePublished": datetime.fromtimestamp(last, UTC).date().isoformat(),
        "license": {"@id": "#licence"},
        "hasPart": [{"@id": file["@id"]} for file in files],
        "mentions": {"@id": "#run"},
    }
    suite = {"@id": "#rae_bench", "@type": "SoftwareApplication", "name": "rae_bench", "version": __version__}
    run = {
        "@id": "#run",
        "@type": "CreateAction",
        "name": f"snakemake --config study={name}",
        "instrument": {"@id": suite["@id"]},
        "result": {"@id": "./"},
    }
    licence = {"@id": "#licence", "@type": "CreativeWork", "name": _LICENCE}
    about = {
        "@id": CRATE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": [about, root, licence, suite, run, *files]}


def _format(member: str) -> str:
    return _FORMATS.get(member.rpartition(".")[2], "application/octet-stream")
