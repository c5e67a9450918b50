"""Are the reconstructions of a finished study recognisable? Run with STUDY and OUT.csv; OUT.md is written beside it.

The images that the study reconstructs are passed through every trained row, and asked what they still show:

    digits   the digit, by the committed classifier
    faces    each attribute that the renderer drew, by the committed reader
    photos   the photograph, by that of the nearest training patch, pixel by pixel

The same is asked of the images themselves: what nobody reads rightly there is not lost by a model.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from rae_bench.base import storage
from rae_bench.data import faces, store
from rae_bench.models import training
from rae_bench.report.rendering import Table, markdown
from rae_bench.report.tables.cells import cell_values
from rae_bench.run.stages import load_model
from rae_bench.scoring import classifiers, generation
from rae_bench.study.config import load_study
from rae_bench.study.files import StudyFiles

Images = npt.NDArray[np.uint8]
Asked = dict[str, float]
"""What is asked, and the share of images of which the answer is right."""


def question(folder: Path, split: str, n: int) -> Callable[[Images], Asked] | None:
    """What the first `n` images of a prepared data set's split are asked; None where nothing is known of them."""
    rows = storage.read_npy(folder / f"{split}.npy")[:n]
    if (labels := store.load_digits(folder, split)) is not None:
        digits = labels[:n]
        return lambda images: {"digit": classifiers.accuracy(classifiers.digit_classifier(), images, digits)}
    if (folder / "factors.npy").exists():
        factors = faces.named(store.load_manifest(folder).note, storage.read_npy(folder / "factors.npy")[rows])
        truth = faces.classes(factors)
        return lambda images: _attributes(images, truth)
    if (folder / "origins.npy").exists():
        photographs, trained = storage.read_npy(folder / "origins.npy")[:, 0], storage.read_npy(folder / "train.npy")
        patches = store.load_split(folder, "train")
        return lambda images: {
            "photograph": float(np.mean(photographs[trained[nearest(images, patches)]] == photographs[rows]))
        }
    return None


def _attributes(images: Images, truth: faces.Classes) -> Asked:
    read = classifiers.read_classes(classifiers.face_classifier(), images)
    return {factor: float(np.mean(read[factor] == classes)) for factor, classes in truth.items()}


def nearest(images: Images, among: Images) -> npt.NDArray[np.int64]:
    """The number of the image with the least squared error, for each of `images`."""
    a, b = (part.reshape(len(part), -1).astype(np.float64) for part in (images, among))
    found: npt.NDArray[np.int64] = (np.square(b).sum(axis=1) - 2 * a @ b.T).argmin(axis=1)
    return found


def recognised(study: str, results: Path = Path("results")) -> pd.DataFrame:
    """A row for each data set, table row, seed and question; of the images themselves as row "real"."""
    loaded, records = load_study(study), []
    spec, files = loaded.summary(), StudyFiles(results, loaded.name)
    frame = storage.read_frame(files.metrics)
    for dataset in spec.datasets:
        folder, split = files.data(dataset), spec.image_sets[dataset].reconstructed
        asked = question(folder, split, spec.n_images)
        if asked is None:
            continue
        images = store.load_split(folder, split, spec.n_images)
        records += [
            {"dataset": dataset, "row": "real", "asked": key, "share": one} for key, one in asked(images).items()
        ]
        for name, row in spec.competing.items():
            if row.through:
                continue
            distances = cell_values(frame, dataset, row, "reconstruction")
            for seed in spec.train_seeds:
                model = load_model(files.run(dataset, row.model, seed).model, spec.trainings[dataset][row.model])
                codes = training.encode(model, torch.from_numpy(images))["mean"]
                about = {"dataset": dataset, "row": name, "train_seed": seed, "fd_reconstruction": distances[seed]}
                answers = asked(generation.decode(model, codes))
                records += [{**about, "asked": key, "share": one} for key, one in answers.items()]
    return pd.DataFrame(records)


def table(found: pd.DataFrame, labels: dict[str, str], title: str) -> Table:
    """The mean over seeds and the worst seed of every row, best reconstructions first, and of the images themselves."""
    found = found.assign(row=found["row"].map(lambda name: labels.get(name, "The images themselves")))
    means = found.groupby(["dataset", "row", "asked"], sort=False).agg(
        fd=("fd_reconstruction", "mean"), mean=("share", "mean"), worst=("share", "min")
    )
    data = means.reset_index().sort_values(["dataset", "fd"], na_position="first", kind="stable")
    rows = []
    for (dataset, row), mine in data.groupby(["dataset", "row"], sort=False):
        shares = [f"{one.asked} {100 * one.mean:.1f} ({100 * one.worst:.1f})" for one in mine.itertuples()]
        fd = mine["fd"].iloc[0]
        rows.append([str(dataset), str(row), "–" if np.isnan(fd) else f"{fd:.4g}", ", ".join(shares)])
    notes = [
        "Percent of the reconstructions that show what their originals do, mean over training seeds and, in brackets,"
        " the worst of them. Digits and attributes are read by the committed classifiers, a photograph is that of the"
        " nearest training patch."
    ]
    return Table("recognised", title, ["Data", "Row", "FD Rec.", "Still shown, %"], rows, set(), notes, data)


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask, and write OUT.csv and OUT.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("out", type=Path, metavar="OUT.csv")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = recognised(options.study)
    spec = load_study(options.study).summary()
    labels = {name: row.label for name, row in spec.rows.items()}
    storage.write_frame(options.out, found)
    told = markdown(table(found, labels, f"{spec.title}: what reconstructions still show"))
    storage.write_text(options.out.with_suffix(".md"), told)
    print(told)


if __name__ == "__main__":
    main()
