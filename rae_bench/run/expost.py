"""What a user types to have densities fitted to a trained model of theirs, read and checked.

Images are a prepared data set's, or a folder's. The model is a Python file's, or is read by `models.elsewhere`.
To be imported when the number of threads is set; what calculates is imported when something is read.
"""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rae_bench.base import own, storage
from rae_bench.base.own import OwnCode
from rae_bench.base.plain import ConfigError
from rae_bench.base.specs import Compute
from rae_bench.data.prepared import SPLITS
from rae_bench.data.specs import MANIFEST
from rae_bench.data.store import TELL_EVERY
from rae_bench.densities.specs import Density
from rae_bench.scoring.specs import EVALUATE_VERSION, EvaluationSpec, Extractor
from rae_bench.study import vocabulary
from rae_bench.study.stated import hashed
from rae_bench.study.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from rae_bench.base.storage import MappedRows
    from rae_bench.densities.codes import Posteriors
    from rae_bench.models.autoencoder import Model
    from rae_bench.scoring.ex_post import Trained
    from rae_bench.scoring.generation import Images
    from rae_bench.scoring.sides import Side

HELD_OUT = 5
"""A folder's images are cut into so many parts: one is for validation, one for the test."""
WAYS = (("model", "file"), ("encoder", "decoder"), ("pythae",), ("codes", "decoder"))
"""The options that name a model, together."""


@dataclass(frozen=True)
class Named:
    """The model as it was typed: a function in a Python file and what it loads, or files of other libraries.

    Raises:
        ConfigError: none of `WAYS`.
    """

    model: str | None = None
    file: Path | None = None
    encoder: Path | None = None
    decoder: Path | None = None
    pythae: Path | None = None
    codes: str | None = None

    def __post_init__(self) -> None:
        typed = [name for name, value in vars(self).items() if value is not None]
        if set(typed) not in map(set, WAYS):
            ways = [" and ".join(f"--{name}" for name in way) for way in WAYS]
            found = " and ".join(f"--{name}" for name in typed) or "none of them"
            raise ConfigError(f"found {found}; a model is named by {', '.join(ways[:-1])}, or {ways[-1]}")
        if self.file is not None and not self.file.exists():
            raise ConfigError(f"--file: {self.file}: no such file; expected what {self.model} loads")

    @property
    def label(self) -> str:
        """What tables call it."""
        return str(self.model or self.encoder or self.pythae or self.decoder)

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of all that it was read from, by option: of a folder that of all in it."""
        files = {"file": self.file, "encoder": self.encoder, "decoder": self.decoder, "pythae": self.pythae}
        for split, path in zip(SPLITS, (self.codes or "").split(","), strict=False):
            files[f"{split}_codes"] = Path(path) if path else None
        given = {name: hashed(path, f"--{name}") for name, path in files.items() if path is not None}
        return {"code": self.code.sha256, **given}

    @property
    def code(self) -> OwnCode:
        """The function that gives the model: the user's, or the suite's for such files."""
        if self.model is not None:
            return own.found(self.model, Path(), {}, "--model")
        models = Path(__file__).parent.parent / "models"
        return own.found(f"elsewhere.py:{'pythae' if self.pythae else 'exported'}", models, {}, "the model")

    def load(self, code: OwnCode) -> "nn.Module":
        """The module with `encode` and `decode`.

        Raises:
            OwnCodeError: the user's code or file cannot be used.
        """
        from rae_bench.models import elsewhere, own

        if self.model is not None:
            return own.load(code, str(self.file))
        if self.pythae is not None:
            return elsewhere.pythae(self.pythae)
        assert self.decoder is not None
        return elsewhere.exported(self.encoder, self.decoder)


@dataclass(frozen=True)
class Data:
    """The images of the three splits, all of one shape; `labels` of test images where they are digits.

    `dataset` is their data set's name, or empty; `about` what can be said of them in a line, `sha256` of all of them.
    """

    name: str
    dataset: str
    images: "Mapping[str, Images | MappedRows]"
    labels: "npt.NDArray[np.int64] | None"
    sha256: str
    about: str

    @property
    def test(self) -> "Side":
        """The test images, as those of `score`."""
        from rae_bench.scoring.sides import Side

        return Side(self.name, self.images["test"], dataset=self.dataset)


@contextlib.contextmanager
def seldom(logger: str) -> Iterator[None]:
    """A scope in which a logger has its say every TELL_EVERY seconds: a density's hundreds of epochs are no news."""
    told = time.monotonic()

    def is_due(_: logging.LogRecord) -> bool:
        nonlocal told
        due = time.monotonic() - told >= TELL_EVERY
        told = time.monotonic() if due else told
        return due

    named = logging.getLogger(logger)
    named.addFilter(is_due)
    try:
        yield
    finally:
        named.removeFilter(is_due)


def check_empty(out: Path) -> None:
    """Raise ConfigError unless `out` is not there, or an empty folder."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {out}: is a file; expected a folder that is empty, or not there")
    if out.exists() and (there := sorted(path.name for path in out.iterdir())):
        raise ConfigError(f"--out: {out}: holds {len(there)} files, as {there[0]}; expected an empty folder, or none")


def densities_of(words: Vocabulary, typed: str, dataset: str) -> dict[str, Density]:
    """The densities that a user lists, separated by commas, with the weights for a data set or for none.

    Raises:
        ConfigError: no such density, one that stands twice, or one without weights for these images.
    """
    names = typed.split(",")
    vocabulary.known("--densities", "density", words.densities, *names)
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--densities: {twice[0]!r} stands twice")
    like = words.datasets[dataset].weights if dataset in words.datasets else ""
    for name in names:
        weights = words.densities[name].get("weights")
        if weights is not None and like not in weights:
            raise ConfigError(
                f"--densities: {name!r} has weights for {', '.join(weights)}; none for these images; leave it out"
            )
    return {name: words.density(name, like) for name in names}


def read_data(given: str, datasets: Path) -> Data:
    """The images in a folder, or those of a data set prepared in the folder `datasets`.

    A folder has subfolders train, validation and test, or is split by a fixed seed.

    Raises:
        ConfigError, DataError, FeatureFileError, StorageError: there is no such thing, or it is no set of images.
    """
    from rae_bench.data import store
    from rae_bench.scoring import sides

    folder = Path(given)
    if folder.is_dir():
        return _of_folder(given, folder)
    prepared = datasets / given
    images = {split: sides.split_of(f"{given}:{split}", prepared, split) for split in SPLITS}
    digest = storage.sha256(prepared / MANIFEST)
    return Data(given, given, images, store.load_digits(prepared, "test"), digest, f"{given}: {_counts(images)}")


def _counts(images: "Mapping[str, Images | MappedRows]") -> str:
    return f"{', '.join(f'{len(images[split]):,} {split}' for split in SPLITS)} images"


def _of_folder(given: str, folder: Path) -> Data:
    import numpy as np

    from rae_bench.base.rng import numpy_generator

    is_split = all((folder / split).is_dir() for split in SPLITS)
    digest, images = sha256(), {}
    for name in SPLITS if is_split else ("",):
        images[name] = _decoded(folder / name, digest)
    if is_split:
        shapes = {split: array.shape[1:] for split, array in images.items()}
        if len(set(shapes.values())) > 1:
            told = ", ".join(f"{split} {shape}" for split, shape in shapes.items())
            raise ConfigError(f"--data: {given}: images (channels, height, width) are {told}; expected all alike")
    else:
        every = images[""]
        order, held = numpy_generator(0, "split").permutation(len(every)), len(every) // HELD_OUT
        ends = {"train": (2 * held, len(every)), "validation": (held, 2 * held), "test": (0, held)}
        images = {split: every[np.sort(order[slice(*ends[split])])] for split in SPLITS}
    _, _, height, width = images["test"].shape
    if height != width:
        raise ConfigError(f"--data: {given}: images are {width}x{height}; expected squares, as the model reads them")
    how = "by its subfolders" if is_split else "drawn with seed 0, whichever the model was trained on"
    return Data(given, "", images, None, digest.hexdigest(), f"{given}: {_counts(images)}, {how}")


def _decoded(folder: Path, digest: Any) -> "Images":
    """All images of a folder in memory; `digest` takes their files' hashes and names."""
    import numpy as np

    from rae_bench.data import image_folder, store

    files = image_folder.as_they_are(folder)
    hashes: list[str] = []
    images = np.concatenate(list(store.decoded(files, hashes, lambda *_: None)))
    for one, name in zip(hashes, files.names, strict=True):
        digest.update(f"{one}  {name}\n".encode())
    return images


def evaluation(
    words: Vocabulary,
    data: Data,
    densities: Mapping[str, Density],
    network: Extractor,
    metrics: str,
    n_generated: int | None,
    compute: Compute,
) -> EvaluationSpec:
    """What a study's `evaluate` would be told: all test images, and one fit and one draw of each density.

    Raises:
        ConfigError: fewer samples than test images. MetricError: too few images for these metrics.
    """
    from rae_bench.scoring.metrics.reference import MetricError
    from rae_bench.scoring.two_sets import too_few

    n, settings = len(data.images["test"]), words.metrics[metrics]
    if reason := too_few(f"{data.name}, test", n, settings).partition(", or --")[0]:
        raise MetricError(f"{reason}, or other --metrics")
    if n_generated is not None and n_generated < n:
        raise ConfigError(f"--n-generated: {n_generated} samples are fewer than the {n} test images they stand against")
    entry = words.datasets.get(data.dataset)
    return EvaluationSpec(
        version=EVALUATE_VERSION,
        training=None,
        given={},
        extractor=network,
        metrics=settings,
        reference_split="test",
        image_sets=words.image_sets["standard"],
        n_images=n,
        n_generated=n_generated or n,
        sample_seeds=(0,),
        densities=tuple(densities),
        fit_seeds=dict.fromkeys(densities, (0,)),
        through=(),
        priors=(),
        importance_samples=0,
        has_factors=entry is not None and entry.data.has_factors,
        made_by={},
        compute=compute,
    )


def adopt(named: Named, data: Data, densities: Mapping[str, Density]) -> "Trained":
    """The model, tried on a few images, with the codes of `data`'s, its own or those from files.

    Raises:
        ConfigError: no such code, codes that cannot be, or a density of posteriors where there are none.
        OwnCodeError: a model that cannot be used. FeatureFileError, MetricError: files of codes that cannot.
    """
    import torch

    from rae_bench.models import networks, own, training
    from rae_bench.models.layouts.specs import TrainedElsewhere
    from rae_bench.run import tryouts
    from rae_bench.scoring import ex_post

    code, (_, channels, size, _) = named.code, data.images["test"].shape
    made = named.load(code)
    few = training.as_input(training.to_device(data.images["train"][: tryouts.MOST_IMAGES], "cpu")[:])
    given = None if named.codes is None else _read_codes(named.codes)
    dim, has_posterior = own.latent_of(made, code, few) if given is None else (given["train"].mean.shape[1], False)
    for name, density in densities.items():
        for need in sorted(density.needs - ({"a posterior"} if has_posterior else set())):
            raise ConfigError(f"--densities: {name!r} needs {need}, and this model has none; leave it out")
    spec = TrainedElsewhere("trained", code, named.label, "", has_posterior, channels, size, dim)
    model: Model = networks.placed(own.ForeignModel(spec, made), "cpu").eval()
    if given is None:
        tryouts.try_coding(code, model, few)
    else:
        tryouts.try_decoding(code, model, torch.from_numpy(given["train"].mean[: tryouts.MOST_IMAGES]))
    posteriors = given or ex_post.codes(model, data.images, "cpu")
    return ex_post.Trained(
        model=model, images=data.images, posteriors=posteriors, labels=data.labels, encodes=given is None
    )


def _read_codes(typed: str) -> "dict[str, Posteriors]":
    """The codes in the files TRAIN.npy,VALIDATION.npy, which may be of any images of their split."""
    import numpy as np

    from rae_bench.densities.codes import Posteriors
    from rae_bench.scoring import feature_files
    from rae_bench.scoring.metrics.reference import usable

    paths = typed.split(",")
    if len(paths) != 2:
        raise ConfigError(f"--codes: {typed!r} names {len(paths)} files; expected TRAIN.npy,VALIDATION.npy")
    found: dict[str, Posteriors] = {}
    for split, path in zip(SPLITS, paths, strict=False):
        array = feature_files.read(Path(path), None, "--codes")
        if isinstance(array, feature_files.Moments) or array.ndim != 2 or array.dtype.kind != "f":
            kind = "moments" if isinstance(array, feature_files.Moments) else f"{array.dtype} {array.shape}"
            raise ConfigError(f"--codes: {path}: holds {kind}; expected codes (n, d) in floating point")
        found[split] = Posteriors(usable(path, array, {}).astype(np.float32), None)
    dims = [part.mean.shape[1] for part in found.values()]
    if len(set(dims)) > 1:
        raise ConfigError(f"--codes: {paths[1]}: codes of {dims[1]} dimensions, those of {paths[0]} have {dims[0]}")
    return found
