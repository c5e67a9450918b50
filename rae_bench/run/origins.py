"""Whether what a data set was prepared from is still what a user's folder holds.

Size and time of every file that was read stand in `source.json` beside the prepared images. A file that kept both is
unchanged; of another the content decides, by the hash that the data set has of it.
"""

import hashlib
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from rae_bench.base import storage
from rae_bench.base.plain import ConfigError, fingerprint, parse
from rae_bench.base.storage import StorageError
from rae_bench.data import files, image_folder
from rae_bench.data.prepared import DataError, Origin
from rae_bench.data.specs import MANIFEST, DatasetSpec, ImageFolder
from rae_bench.data.store import SOURCE, Manifest, load_manifest
from rae_bench.study.study import Study


@dataclass(frozen=True)
class Finding:
    """One line about a source, or an empty one; `is_changed`: the source is no longer what was prepared."""

    text: str = ""
    is_changed: bool = False


def findings(study: Study, results: Path, is_thorough: bool) -> list[Finding]:
    """The findings about the sources of a study's data sets; of a changed one with the command to prepare it anew."""
    found = []
    for dataset in study.datasets:
        folder = results / "datasets" / dataset
        try:
            finding = look(study.preparation(dataset), folder, is_thorough)
        except (StorageError, ConfigError, DataError) as error:
            finding = Finding(str(error), is_changed=True)
        if finding.is_changed:
            command = f"snakemake --cores 1 --config study={study.source} --forcerun {folder / MANIFEST}"
            finding = replace(finding, text=f"{finding.text}; to prepare it anew: {command}")
        found += [finding] if finding.text else []
    return found


def look(spec: DatasetSpec, folder: Path, is_thorough: bool) -> Finding:
    """The finding about the source of the data set that was prepared in `folder`.

    `is_thorough`: a file of the old size but another time is read; else it is only mentioned.

    Raises:
        StorageError, ConfigError, DataError: the prepared data set is damaged, or a file of the source cannot be read.
    """
    if not all((folder / name).exists() for name in (MANIFEST, SOURCE)):
        return Finding()  # as of an imported data set: there is nothing to compare with
    manifest = load_manifest(folder)
    if fingerprint(manifest.settings) != fingerprint(spec):
        return Finding()  # to be prepared anew in any case
    kept: Origin = parse(Origin, storage.read_json(folder / SOURCE), str(folder / SOURCE))
    top = Path(kept.folder)
    if isinstance(spec.source, ImageFolder) and (named := files.root() / spec.source.path).is_dir():
        top = named
    if not any((top / name).exists() for name in kept.files):
        return Finding(f"{top}: not there now, moved or not mounted; what was prepared from it stays valid")
    hashes = _hashes(folder, manifest)
    fates = {}
    for name, known in kept.files.items():
        sha256 = hashes.get(name, hashes.get(Path(name).name))  # a manifest has the last part of a name
        fates[name] = _fate(top / name, known, sha256, is_thorough)
    changes = [_told(fates, fate, f"are {fate}") for fate in ("missing", "of other content") if fate in fates.values()]
    if isinstance(spec.source, ImageFolder) and not changes:
        changes = _other_choice(spec, spec.source, top, folder, kept.files)
    if changes:
        return Finding(f"{top}: not what was prepared: {'; '.join(changes)}", is_changed=True)
    if "open" in fates.values():
        many = _told(fates, "open", "have other times than when they were read")
        return Finding(f"{top}: {many}; verify compares what they hold")
    return Finding()


def _hashes(folder: Path, manifest: Manifest) -> dict[str, str]:
    """The SHA-256s of the source's files, by name: of published files from the manifest, of images from their list."""
    hashes = {str(source["path"]): str(source["sha256"]) for source in manifest.sources}
    path = folder / "files.sha256"
    if path.exists():
        with storage.reading(path, "list of hashes"):
            lines = [line.split("  ", 1) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
            hashes |= {name: sha256 for sha256, name in lines}
    return hashes


def _fate(path: Path, known: tuple[int, ...], sha256: str | None, is_thorough: bool) -> str:
    """What has become of a file: `same`, `missing`, `of other content`, or `open` where nothing is read to decide."""
    try:
        status = path.stat()
    except OSError:
        return "missing"
    if known == (status.st_size, status.st_mtime_ns):
        return "same"
    if not stat.S_ISREG(status.st_mode) or known[0] != status.st_size:
        return "of other content"
    if not is_thorough:
        return "open"
    return "same" if hashlib.sha256(files.read(path)).hexdigest() == sha256 else "of other content"


def _told(fates: Mapping[str, str], fate: str, what: str) -> str:
    """A phrase on the files of one fate, with their number and the first of them."""
    those = [name for name, one in fates.items() if one == fate]
    return f"{len(those):,} of {len(fates):,} files {what}, first {those[0]}"


def _other_choice(spec: DatasetSpec, source: ImageFolder, top: Path, folder: Path, kept: Collection[str]) -> list[str]:
    """A phrase if `prepare` would choose or split the files otherwise now, though all that it read are unchanged."""
    try:
        names, splits = image_folder.chosen(spec, source, top)
    except DataError as error:
        return [str(error)]
    if new := sorted(set(names) - set(kept)):
        return [f"of the files there now prepare would choose {len(new):,} others, first {new[0]}"]
    if any(not np.array_equal(splits[split], storage.read_npy(folder / f"{split}.npy")) for split in splits):
        return ["of the files there now prepare would draw other splits"]
    return []
