"""Does the primary distance of each data set grow with damage? Run with OUT.csv OUT.png.

Real images, disjoint from the reference ones but of the same kind, are damaged in five ways of growing strength:
noise (SD in grey levels), blur (SD in pixels), dropped classes (share of digits, of photographs or of hair colours that
never occur), blending (weight of a second image), contamination (share of images of another data set). Faces are seen
by EfficientNet, too, to show why it is not theirs. Ends with status 1 if any distance fails to grow from one strength
to the next.
"""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from rae_bench.base import storage
from rae_bench.base.rng import numpy_generator
from rae_bench.data import catalogue as sources
from rae_bench.data import faces
from rae_bench.scoring.catalogue import load_extractor
from rae_bench.scoring.metrics.frechet import frechet_distance
from rae_bench.scoring.metrics.reference import Reference
from rae_bench.scoring.specs import Extractor
from rae_bench.study.config import load_study

Images = npt.NDArray[np.uint8]
Groups = npt.NDArray[np.int64]
RULERS: tuple[tuple[str, Extractor], ...] = (
    ("digits", "digit_classifier"),
    ("photos", "efficientnet_lite0"),
    ("faces", "face_features"),
    ("faces", "efficientnet_lite0"),
)
FOREIGN = {"digits": "faces", "photos": "faces", "faces": "digits"}
N_REFERENCE, N_DAMAGED = 1000, 800
STRENGTHS = {
    "noise": (8, 16, 32, 64),
    "blur": (0.5, 0.8, 1.2, 2.0),
    "dropped classes": (0.2, 0.4, 0.6, 0.8),
    "blending": (0.1, 0.2, 0.35, 0.5),
    "contamination": (0.05, 0.1, 0.25, 0.5),
}


def damaged(
    kind: str, strength: float, images: Images, groups: Groups, foreign: Images, rng: np.random.Generator
) -> Images:
    """N_DAMAGED images (n, C, H, W) with one damage; `groups` (n,) are the classes, `foreign` the contaminants."""
    if kind == "dropped classes":
        names = np.unique(groups)
        kept = names[: max(1, round((1 - strength) * len(names)))]
        images = images[np.isin(groups, kept)]
    chosen = images[rng.permutation(len(images))[:N_DAMAGED]].astype(np.float64)
    assert len(chosen) == N_DAMAGED, f"{kind} {strength}: only {len(chosen)} images"
    if kind == "noise":
        chosen += rng.normal(0, strength, chosen.shape)
    elif kind == "blur":
        from scipy.ndimage import gaussian_filter

        chosen = gaussian_filter(chosen, (0, 0, strength, strength), mode="nearest")
    elif kind == "blending":
        chosen = (1 - strength) * chosen + strength * np.roll(chosen, 1, axis=0)
    elif kind == "contamination":
        some = rng.permutation(len(chosen))[: round(strength * len(chosen))]
        chosen[some] = foreign[rng.permutation(len(foreign))[: len(some)]]
    return np.rint(np.clip(chosen, 0, 255)).astype(np.uint8)


def pool(name: str, size: int) -> tuple[Images, Groups]:
    """Images of a data set (n, C, size, size), which may lie in one split, and the class of each."""
    data = load_study("embedded").datasets[name].data
    prepared = sources.prepare(data if data.size == size else replace(data, size=size))
    if name == "digits":
        return prepared.images, prepared.extras["labels"]
    if name == "faces":
        return prepared.images, faces.classes(faces.named(prepared.note, prepared.extras["factors"]))["hair"]
    # of the photographs one split: other blocks show other things
    chosen = prepared.splits["train"]
    return prepared.images[chosen], prepared.extras["origins"][chosen, 0]


def measure(name: str, ruler: Extractor) -> pd.DataFrame:
    """One row per damage and strength, and the floor: damage none, strength 0."""
    size = load_study("embedded").datasets[name].data.size
    images, groups = pool(name, size)
    extractor = load_extractor(ruler)
    order = numpy_generator(0, "sensitivity", name).permutation(len(images))
    reference = Reference.of(extractor(images[order[:N_REFERENCE]]), 0)
    rest, kinds = images[order[N_REFERENCE:]], groups[order[N_REFERENCE:]]
    others = pool(FOREIGN[name], size)[0]  # which may lie in an order: digits by class
    foreign = others[numpy_generator(0, "foreign", name).permutation(len(others))[:N_DAMAGED]]
    if foreign.shape[1] != images.shape[1]:
        grey = np.rint(foreign.mean(axis=1, keepdims=True)).astype(np.uint8)
        foreign = np.repeat(grey, images.shape[1], axis=1)
    rows = []
    for kind, strengths in {"none": (0,), **STRENGTHS}.items():
        for strength in strengths:
            made = damaged(kind, strength, rest, kinds, foreign, numpy_generator(0, "damage", name, kind))
            value = frechet_distance(reference, extractor(made))
            rows.append(
                {"dataset": name, "extractor": extractor.label, "damage": kind, "strength": strength, "fd": value}
            )
    return pd.DataFrame(rows)


def draw(frame: pd.DataFrame, path: Path) -> None:
    """A panel per data set: the distance over its floor against the strength's number."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    figure, axes = plt.subplots(1, len(RULERS), figsize=(10, 2.8), layout="constrained", squeeze=False)
    colours = dict(zip(STRENGTHS, sns.color_palette("colorblind", len(STRENGTHS)), strict=True))
    for axis, ((name, label), mine) in zip(axes[0], frame.groupby(["dataset", "extractor"], sort=False), strict=True):
        floor = float(mine.loc[mine["damage"] == "none", "fd"].iloc[0])
        for kind, colour in colours.items():
            values = mine.loc[mine["damage"] == kind, "fd"] / floor
            axis.plot(range(5), [1, *values], marker="o", markersize=3, color=colour, label=kind)
        axis.set(yscale="log", title=f"{name}, FD-{label}", xlabel="strength", xticks=range(5))
    axes[0, 0].set_ylabel("distance / undamaged")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=5, loc="outside lower center", frameon=False)
    sns.despine(figure)
    storage.render(path, lambda target: figure.savefig(target, format="png", dpi=150, metadata={"Software": None}))


def failures(frame: pd.DataFrame) -> list[str]:
    """The damages whose distance does not grow from each strength to the next, the undamaged set first."""
    found = []
    for (name, label), mine in frame.groupby(["dataset", "extractor"], sort=False):
        floor = mine.loc[mine["damage"] == "none", "fd"].tolist()
        for kind in STRENGTHS:
            values = floor + mine.loc[mine["damage"] == kind, "fd"].tolist()
            if not all(low < high for low, high in itertools.pairwise(values)):
                found.append(f"{name}, {label}: {kind}: {[round(value, 4) for value in values]}")
    return found


def main(table: str, figure: str) -> None:
    """Measure, write, and say what does not grow."""
    frame = pd.concat([measure(*pair) for pair in RULERS], ignore_index=True)
    storage.write_frame(Path(table), frame)
    draw(frame, Path(figure))
    print(frame.to_string(index=False))
    if found := failures(frame):
        sys.exit("not monotonic: " + "; ".join(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
