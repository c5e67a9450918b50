"""What a study needs of this machine before it runs: data, weights, disk, a GPU, packages, limits of a cluster.

`check` looks at everything once, where there is a network, before jobs fail one by one where there is none. `lacking`
is the part that costs nothing: `snakemake` and `cost` warn of it.
"""

import os
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rae_bench.base import devices
from rae_bench.data import files
from rae_bench.data.releases import RELEASES
from rae_bench.data.specs import DatasetSpec, FaceRenderer, ImageFolder
from rae_bench.scoring import weight_files
from rae_bench.scoring.specs import Extractor
from rae_bench.study import config, stated
from rae_bench.study.files import StudyFiles
from rae_bench.study.study import Study

DINO = "dinov2_vit_l_14"


class CheckError(RuntimeError):
    """A study lacks something here."""


@dataclass(frozen=True)
class Finding:
    """One line: about what, whether it is well, what was found and, where it is not well, what would be right.

    `carried`: addresses of files that can be carried here by hand.
    """

    what: str
    is_well: bool
    told: str
    carried: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The line, and one more for each address."""
        return "\n    ".join([f"{'ok' if self.is_well else 'missing':8}{self.what}: {self.told}", *self.carried])


def extractors(study: Study) -> list[Extractor]:
    """The networks of features that a study uses."""
    return sorted({spec.extractor for dataset in study.datasets for spec in study.references(dataset).values()})


def lacking(study: Study, results: Path) -> str:
    """One line of what a study lacks here of data, weights and a GPU, or nothing; files are looked for, never read."""
    where = StudyFiles(results, study.name)
    if where.metrics.exists():
        return ""  # all that needs them is done
    may_fetch = os.environ.get(files.DOWNLOAD_VARIABLE) == "1"
    found = []
    for dataset in study.datasets:
        source = study.preparation(dataset).source
        if where.manifest(dataset).exists():
            continue
        if isinstance(source, ImageFolder):
            is_there = (files.root() / source.path).is_dir()
        else:
            is_there = may_fetch or source.kind not in RELEASES or files.is_there(RELEASES[source.kind])
        found += [] if is_there else [f"the images of {dataset}"]
    found += [f"the weights of {one}" for one in extractors(study) if not may_fetch and weight_files.missing(one)]
    found += ["a GPU"] if study.gpus and shutil.which("sinfo") is None and not devices.n_gpus() else []
    if not found:
        return ""
    return f"missing: {', '.join(found)}; python -m rae_bench check {study.source} says what would be right"


def check(study: Study, results: Path, profile: Path, may_fetch: bool) -> Iterator[Finding]:
    """Everything that a study needs here; `may_fetch`: what is missing and can be had from the network is fetched."""
    os.environ[files.DOWNLOAD_VARIABLE] = "1" if may_fetch else "0"
    for dataset in study.datasets:
        yield _images(study, results, dataset)
    for extractor in extractors(study):
        yield _weights(extractor, may_fetch)
    yield _disk(study, results)
    yield _packages(config.CONFIG.parent.parent)
    yield from _device_and_limits(study, results, profile)


def _images(study: Study, results: Path, dataset: str) -> Finding:
    from rae_bench.data.prepared import DataError
    from rae_bench.run.jobs import read_state, study_jobs

    spec, what = study.preparation(dataset), f"images of {dataset}"
    job = next(job for job in study_jobs(study, results) if (job.stage, job.name) == ("prepare", dataset))
    if read_state(job)["status"] == "done":
        return Finding(what, True, f"prepared, {job.output.parent}")
    try:
        return Finding(what, True, _source(spec))
    except DataError as error:
        release = RELEASES.get(spec.source.kind)
        files_of = release.downloads if release else ()
        return Finding(what, False, str(error), tuple(f"{one.urls[0]}  MD5 {one.md5}" for one in files_of))


def _source(spec: DatasetSpec) -> str:
    """Where the images of a data set come from, all of them read but photographs of a folder or a zip file.

    Raises:
        DataError: they are missing or altered.
    """
    from rae_bench.data import catalogue

    if isinstance(spec.source, FaceRenderer):
        return "drawn by the suite"
    found = catalogue.prepare(spec)
    if found.origin is not None:
        return found.origin.folder
    return f"inside the packages {', '.join(sorted({one.distribution for one in found.sources}))}"


def _weights(extractor: Extractor, may_fetch: bool) -> Finding:
    from rae_bench.scoring.catalogue import load_extractor
    from rae_bench.scoring.pretrained import FeatureError, dino_file

    what = f"weights of {extractor}"
    try:
        if extractor == DINO and not may_fetch:
            return Finding(what, True, str(dino_file()))  # its code is run by nobody who was not asked
        return Finding(what, True, load_extractor(extractor).id)
    except FeatureError as error:
        return Finding(what, False, str(error), _addresses(extractor))


def _addresses(extractor: Extractor) -> tuple[str, ...]:
    """Where the files of an extractor can be had, their hash, and where they go."""
    if extractor == DINO:
        code, file = weight_files.dino_files()
        return (
            f"{weight_files.DINO_URL}  to {file}, no SHA-256 is published",
            f"{weight_files.DINO_CODE_URL}  unpacked to {code}",
        )
    if extractor == "inception_v3_compat":
        begins = f"SHA-256 begins with {weight_files.INCEPTION_SHA256}"
        return (f"{weight_files.INCEPTION_URL}  to {weight_files.inception_file()}, {begins}",)
    return ()


def _disk(study: Study, results: Path) -> Finding:
    from rae_bench.run.cost import job_frame

    frame = job_frame(study, results, None)
    needed = float(frame[~frame["is_done"]]["disk_bytes"].sum())
    free = shutil.disk_usage(results if results.is_dir() else results.absolute().parent).free
    told = f"{needed / 1e9:.1f} GB left to write, {free / 1e9:.1f} GB free in {results.absolute()}"
    return Finding("disk", needed < free, told if needed < free else f"{told}; free some, or move the checkout")


def _packages(root: Path) -> Finding:
    """What is installed, against the lock; another version is said, and one that the suite imports must be there."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    try:
        lines = (root / "requirements.lock").read_text("utf-8").splitlines()
        direct = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    except OSError as error:
        return Finding("packages", False, f"{error.filename}: {error.strerror}; it is part of the checkout")
    needed = {Requirement(one).name for one in direct}
    locked = [Requirement(line.rstrip("\\").split(" --hash")[0]) for line in lines if line[:1].isalnum()]
    absent, others = [], []
    for one in locked:
        if one.marker and not one.marker.evaluate():
            continue
        try:
            found = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            absent += [one.name] if one.name in needed else []
            continue
        if not one.specifier.contains(Version(found).public, prereleases=True):
            others.append(f"{one.name} {found} for {one.specifier}".replace("==", ""))
    if absent:
        return Finding("packages", False, f"not installed: {', '.join(absent)}; make environment")
    told = f"other versions than in requirements.lock: {', '.join(others)}" if others else "as in requirements.lock"
    return Finding("packages", True, told)


def _device_and_limits(study: Study, results: Path, folder: Path) -> Iterator[Finding]:
    from rae_bench.run import requests

    known, under = requests.partitions(), requests.profile(folder)
    with_gpus = [one.name for one in known or [] if one.has_gpus]
    is_auto = stated.read(study.source, config.CONFIG).settings["compute"]
    if study.gpus:
        here = devices.n_gpus()
        told = f"cuda; GPUs here: {here}, partitions with GPUs: {', '.join(with_gpus) or 'none'}"
        right = "; run it where there is one, or write device: cpu"
        yield Finding("device", bool(here or with_gpus), told if here or with_gpus else told + right)
    elif with_gpus and isinstance(is_auto, dict) and is_auto["device"] == "auto" and devices.DEVICE not in os.environ:
        told = f"auto stands for cpu, for no GPU is here; partition {with_gpus[0]} has: export {devices.DEVICE}=cuda"
        yield Finding("device", False, f"{told}, or =cpu")
    else:
        yield Finding("device", True, "cpu")
    asked = requests.requests(study, results, under)
    refused = requests.refusals(asked, known, under)
    yield from (Finding("limits", False, told) for told in refused)
    if not refused:
        most = max((one.minutes for one in asked), default=0)
        told = "Slurm cannot be asked here" if known is None else f"of {len(known)} partitions"
        yield Finding("limits", True, f"{told}; the longest job asks for {most} minutes")
