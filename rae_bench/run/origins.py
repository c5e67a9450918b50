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
from rae_bench.base.plain import ConfigError, fingerprint, parse, to_plain
from rae_bench.base.storage import StorageError
from rae_bench.data import files, image_folder
from rae_bench.data.prepared import DataError, Origin
from rae_bench.data.specs import DatasetSpec, ImageFolder
from rae_bench.data.store import SOURCE, Manifest, load_manifest
from rae_bench.study.study import Study


@dataclass(frozen=True)
class Finding:
    """What is to be said of a source, one line, or nothing; `is_changed`: it is no longer what was prepared."""

    text: str = ""
    is_changed: bool = False


def findings(study: Study, results: Path, is_thorough: bool) -> list[Finding]:
    """What is to be said of the sources of a study's data sets, and of a changed one how it is prepared anew."""
    found = []
    for dataset in study.datasets:
        folder = results / "datasets" / dataset
        try:
            finding = look(study.preparation(dataset), folder, is_thorough)
        except (StorageError, ConfigError, DataError) as error:
            finding = Finding(str(error), is_changed=True)
        if finding.is_changed:
            command = f"snakemake --cores 1 --config study={study.name} --forcerun {folder / 'manifest.json'}"
            finding = replace(finding, text=f"{finding.text}; to prepare it anew: {command}")
        found += [finding] if finding.text else []
    return found


def look(spec: DatasetSpec, folder: Path, is_thorough: bool) -> Finding:
    """Hold the source of the data set that was prepared in `folder` against what was read then.

    `is_thorough`: files whose size or time leaves it open are read; else these count as they are.

    Raises:
        StorageError, ConfigError, DataError: the prepared data set is damaged, or a file of the source cannot be read.
    """
    if not (folder / "manifest.json").exists():
        return Finding()
    manifest = load_manifest(folder)
    if fingerprint(manifest.settings) != fingerprint(to_plain(spec)):
        return Finding()  # to be prepared anew in any case
    kept = _kept(folder)
    top, names = _place(spec, folder, kept)
    if not names:
        return Finding()
    if not any((top / name).exists() for name in names):
        return Finding(f"{top}: not there now, moved or not mounted; what was prepared from it stays valid")
    hashes = _hashes(folder, manifest)
    changes, touched = _changes(top, names, hashes, kept.files, is_thorough)
    if isinstance(spec.source, ImageFolder) and not changes:
        changes = _other_choice(spec, spec.source, top, folder)
    if changes:
        return Finding(f"{top}: not what was prepared: {'; '.join(changes)}", is_changed=True)
    if touched:
        many = f"{len(touched):,} of {len(names):,} files have other times than when they were read"
        return Finding(f"{top}: {many}, first {touched[0]}; verify compares what they hold")
    return Finding()


def _kept(folder: Path) -> Origin:
    """What `prepare` left of the source; of a data set of before it did, nothing."""
    path = folder / SOURCE
    if not path.exists():
        return Origin("", {})
    kept: Origin = parse(Origin, storage.read_json(path), str(path))
    return kept


def _place(spec: DatasetSpec, folder: Path, kept: Origin) -> tuple[Path, Collection[str]]:
    """Where the source lies, and the names of its files that were read."""
    if not isinstance(spec.source, ImageFolder):
        return Path(kept.folder), kept.files
    here = files.root() / spec.source.path
    listed = _listed(folder)
    return (Path(kept.folder) if kept.folder and not here.is_dir() else here), listed


def _listed(folder: Path) -> dict[str, str]:
    """The hashes of the images' files, by name; of an imported data set there are none."""
    path = folder / "files.sha256"
    if not path.exists():
        return {}
    with storage.reading(path, "list of hashes"):
        lines = [line.split("  ", 1) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
        return {name: sha256 for sha256, name in lines}


def _hashes(folder: Path, manifest: Manifest) -> dict[str, str]:
    """All hashes that the data set has of its source's files: images by their names, others by the last part of it."""
    return {**{str(source["path"]): str(source["sha256"]) for source in manifest.sources}, **_listed(folder)}


def _changes(
    top: Path,
    names: Collection[str],
    hashes: Mapping[str, str],
    kept: Mapping[str, tuple[int, ...]],
    is_thorough: bool,
) -> tuple[list[str], list[str]]:
    """What has become of the files, a phrase for every kind of change with the first; the files that leave it open."""
    gone: list[str] = []
    other: list[str] = []
    touched: list[str] = []
    for name in names:
        path = top / name
        try:
            status = path.stat()
        except OSError:
            gone.append(name)
            continue
        known = kept.get(name)
        if known == (status.st_size, status.st_mtime_ns):
            continue
        if not stat.S_ISREG(status.st_mode) or (known and known[0] != status.st_size):
            other.append(name)
        elif is_thorough:
            if hashlib.sha256(files.read(path)).hexdigest() != hashes.get(name, hashes.get(path.name)):
                other.append(name)
        elif known:
            touched.append(name)
    kinds = {"missing": gone, "of other content": other}
    of = f"of {len(names):,} files"
    return [f"{len(those):,} {of} are {kind}, first {those[0]}" for kind, those in kinds.items() if those], touched


def _other_choice(spec: DatasetSpec, source: ImageFolder, top: Path, folder: Path) -> list[str]:
    """Whether `prepare` would take other files now, though all that it took are as they were."""
    try:
        names, splits = image_folder.chosen(spec, source, top)
    except DataError as error:
        return [str(error)]
    if new := sorted(set(names) - set(_listed(folder))):
        return [f"of the files there now prepare would choose {len(new):,} others, first {new[0]}"]
    if any(not np.array_equal(splits[split], storage.read_npy(folder / f"{split}.npy")) for split in splits):
        return ["of the files there now prepare would draw other splits"]
    return []
