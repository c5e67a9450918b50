"""The report of studies that take hours or a GPU, from results made up in the form of the smoke study's."""

import itertools
import re
import shutil
from dataclasses import dataclass, replace

import pandas as pd
import pytest

from rae_bench.base import storage
from rae_bench.base.rng import numpy_generator
from rae_bench.densities.specs import SelectedMixture
from rae_bench.report import page
from rae_bench.report.plots import catalogue as plots
from rae_bench.report.tables import catalogue as tables
from rae_bench.run.status import cost_frame
from rae_bench.study.config import load_study
from rae_bench.study.files import StudyFiles
from rae_bench.study.specs import SummarySpec

pytestmark = pytest.mark.slow
KINDS = ("sample", "codes")
"""Sheets that a density has, of images and of codes."""


@dataclass
class Planted:
    """What a study would have of its runs: their values, and the files that figures are drawn from.

    Each model has the results of one of the smoke study's: a baseline its own, a variational one VAE's, any other
    RAE-L2's. Every value is a few per cent off, and densities that smoke does not have stand where its mixture does.
    """

    spec: SummarySpec
    smoke: StudyFiles
    files: StudyFiles

    def like(self, model):
        if model in ("linear", "training_images"):
            return model
        (family, *_) = (row.family for row in self.spec.rows.values() if row.model == model)
        return "vae" if family == "variational" else "rae_l2"

    def density(self, name):
        known = ("", "standard_normal", "gaussian", "second_stage", "train_images")
        return name if name in known else "gmm10"

    def write(self, dataset, model, seed):
        """The sheets and the history of a run."""
        mine, theirs = self.files.run(dataset, model, seed), self.smoke.run("digits_mini", self.like(model), seed % 2)
        mine.root.mkdir(parents=True)
        if theirs.history.exists():
            shutil.copy(theirs.history, mine.history)
        arrays, about = storage.read_arrays(theirs.sheets)
        shown = {f"{kind}.{name}": f"{kind}.{self.density(name)}" for name in self.spec.densities for kind in KINDS}
        storage.write_arrays(
            mine.sheets, arrays | {key: arrays[there] for key, there in shown.items() if there in arrays}, about
        )

    def frame(self, datasets, models):
        """The values of these models' runs on these data sets, whose files it writes."""
        real, rng, parts = storage.read_frame(self.smoke.metrics), numpy_generator(0, "planted"), []
        for dataset, model, seed in itertools.product(datasets, models, self.spec.train_seeds):
            self.write(dataset, model, seed)
            found = real[(real["model"] == self.like(model)) & (real["train_seed"] == seed % 2)]
            run = {"study": self.spec.study, "dataset": dataset, "model": model, "train_seed": seed}
            stages = {"second_stage"} & set(self.spec.fits[dataset])
            for name in dict.fromkeys(["", "train_images", *stages, *self.spec.densities]):
                part = found[found["density"] == self.density(name)]
                off = rng.normal(1, 0.03, len(part))
                parts.append(part.assign(**run, density=name, value=part["value"] * off))
                if isinstance(density := self.spec.fits[dataset].get(name), SelectedMixture):
                    tried = parts[-1][parts[-1]["metric"] == "log_likelihood_validation"]
                    parts += [tried.assign(metric=f"log_likelihood_validation_{k}") for k in density.grid]
        return pd.concat(parts, ignore_index=True)


def rendered(planted, frame, costs):
    """The page of the study, as its stages make it."""
    spec, files = planted.spec, planted.files
    for dataset in spec.datasets:
        shutil.copytree(planted.smoke.data("digits_mini"), files.data(dataset))
    tables.write(spec, frame, files, files.tables)
    plots.write(spec, frame, files, files.figures)
    page.write(spec, frame, costs, files, files.report)
    return files.report.read_text()


@pytest.fixture
def plant(smoke, tmp_path):
    def planted(name, dataset):
        spec = load_study(name).summary()
        one = {key: {dataset: getattr(spec, key)[dataset]} for key in ("datasets", "published")}
        spec = replace(spec, **one)
        return Planted(spec, StudyFiles(smoke.results, "smoke"), StudyFiles(tmp_path, spec.study))

    return planted


@pytest.fixture(scope="module")
def costs(smoke):
    return cost_frame(load_study("smoke"), smoke.results)


@pytest.mark.parametrize(("name", "dataset"), [("embedded", "faces"), ("paper_clean", "mnist"), ("variants", "digits")])
def test_a_studys_report_is_written(plant, costs, name, dataset):
    planted = plant(name, dataset)
    spec = planted.spec
    text = rendered(planted, planted.frame([dataset], dict.fromkeys(row.model for row in spec.rows.values())), costs)
    shown = set(re.findall(r'<th scope="row">(.*?)</th>', text))
    assert shown >= {row.label for row in spec.rows.values()}
    assert spec.datasets[dataset].label in text
    assert ("Published" in text) == (name == "paper_clean")
