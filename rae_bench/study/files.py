"""Where the files of the results lie.

Paths are pure functions of what they depend on: data sets and references are shared by all studies, all else lies below
the study that made it. Names may be Snakemake's wildcards, such as `{model}`: then a path is a rule's pattern.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from rae_bench.base.plain import parse
from rae_bench.base.specs import Seed
from rae_bench.data.specs import MANIFEST

METRICS = "metrics.parquet"
"""What a run's scores are called, and all runs' together."""
PANEL = "protocols.parquet"
"""The same of the protocol-sensitivity panel."""


_NAME = re.compile(r"\w+")
_SEED = re.compile("seed(0|[1-9][0-9]{0,18})")


class PathError(ValueError):
    """A folder that is not where a run's results lie."""


@dataclass(frozen=True)
class StudyFiles:
    """The files of a study, below the folder `results`."""

    results: Path
    study: str

    @property
    def root(self) -> Path:
        """The folder of all that only this study has."""
        return self.results / self.study

    @property
    def metrics(self) -> Path:
        """Every value of every run, one to a row."""
        return self.root / METRICS

    @property
    def panel(self) -> Path:
        """The distances of every run's samples, scored in other ways."""
        return self.root / PANEL

    @property
    def tables(self) -> Path:
        """The list of all tables, beside which they lie."""
        return self.root / "tables" / "index.json"

    @property
    def figures(self) -> Path:
        """The list of all figures, beside which they lie."""
        return self.root / "figures" / "index.json"

    @property
    def report(self) -> Path:
        """The page with everything on it."""
        return self.root / "report.html"

    def data(self, dataset: str) -> Path:
        """The folder of a prepared data set."""
        return self.results / "datasets" / dataset

    def manifest(self, dataset: str) -> Path:
        """What a prepared data set holds; written last."""
        return self.data(dataset) / MANIFEST

    def reference(self, dataset: str, name: str) -> Path:
        """The real features of a `ReferenceSpec` of this name."""
        return self.results / "references" / dataset / f"{name}.safetensors"

    def floor(self, dataset: str) -> Path:
        """The metrics of real images against real images."""
        return self.root / dataset / "floor.json"

    def tryout(self, dataset: str, part: str) -> Path:
        """The file that says that a part of a user's own was tried on a data set, and held."""
        return self.root / dataset / "tryouts" / f"{part}.json"

    def run(self, dataset: str, model: str, seed: int | str) -> "RunFiles":
        """The files of one run."""
        return RunFiles(self, dataset, model, seed)


@dataclass(frozen=True)
class RunFiles:
    """The files of a run: a model trained on a data set from one seed."""

    of: StudyFiles
    dataset: str
    model_name: str
    seed: int | str

    @classmethod
    def at(cls, folder: Path) -> "RunFiles":
        """The files of the run whose folder this is.

        Raises:
            PathError, ConfigError: the folder's own name and those above it do not say which run that is.
        """
        *above, study, dataset, model, last = ("", "", "", "", *folder.parts)
        seed = _SEED.fullmatch(last)
        if seed is None or not all(_NAME.fullmatch(name) for name in (study, dataset, model)):
            raise PathError(f"--run: {folder} must end in STUDY/DATASET/MODEL/seedN, as in digits/digits/vae/seed0")
        number: int = parse(Seed, int(seed[1]), "--run")
        return StudyFiles(Path(*above), study).run(dataset, model, number)

    @property
    def root(self) -> Path:
        """The run's folder."""
        return self.of.root / self.dataset / self.model_name / f"seed{self.seed}"

    @property
    def model(self) -> Path:
        """The trained weights."""
        return self.root / "model.safetensors"

    @property
    def codes(self) -> Path:
        """The codes of the training and validation images."""
        return self.root / "codes.safetensors"

    @property
    def history(self) -> Path:
        """The losses of each epoch."""
        return self.root / "history.parquet"

    def density(self, name: str) -> Path:
        """A density fitted to the codes."""
        return self.root / "densities" / f"{name}.safetensors"

    @property
    def decoded(self) -> Path:
        """Features of every image set, from a GPU; removed once they are measured."""
        return self.root / "decoded.safetensors"

    @property
    def metrics(self) -> Path:
        """Every value of the run, one to a row."""
        return self.root / METRICS

    @property
    def sheets(self) -> Path:
        """A few images to look at."""
        return self.root / "sheets.safetensors"

    @property
    def panel(self) -> Path:
        """The distances of the run's samples, scored in other ways."""
        return self.root / PANEL
