"""What comes out of the densities of a trained model: table, values, samples and sheets, in a folder of the user's."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rae_bench.base import storage
from rae_bench.report import rendering
from rae_bench.report.rendering import Table
from rae_bench.report.tables.densities import JUDGED
from rae_bench.report.tables.wording import DISTANCES, METRICS, SCALE, density_label, distance_name, mean_sd
from rae_bench.run.expost import Data
from rae_bench.scoring.specs import IMAGES_PER_FEATURE

if TYPE_CHECKING:
    import pandas as pd

    from rae_bench.scoring.ex_post import Scored
    from rae_bench.scoring.generation import Images

COLUMNS = (
    *("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage", "nearest_training_ratio"),
    "log_likelihood_validation",
)
"""The metrics of the table; the file of values has all."""


def write(
    out: Path, found: "Iterable[Scored]", data: Data, pngs: int, title: str, about: Mapping[str, Any], notes: list[str]
) -> str:
    """Write `pngs` samples of each density, sheets, values and table into `out`, the index last; return the table."""
    import pandas as pd

    from rae_bench.scoring.evaluation import SHOWN
    from rae_bench.scoring.ex_post import FLOOR

    rows = []
    _sheet(out / "sheets" / "original.png", data.images["test"][:SHOWN])
    for scored in found:
        rows += scored.rows
        if scored.name != FLOOR:
            _sheet(out / "sheets" / f"{scored.name}.png", scored.images[:SHOWN])
        if any(row["image_set"] == "sample" for row in scored.rows):
            for i, image in enumerate(scored.images[:pngs]):
                _png(out / "samples" / scored.name / f"{i:05d}.png", image.transpose(1, 2, 0))
    frame = pd.DataFrame(rows)
    notes = [*notes, *_explained(frame)]
    told = rendering.markdown(_table(frame, title, about["extractor"]["label"], notes))
    storage.write_frame(out / "metrics.csv", frame)
    storage.write_text(out / "table.md", told)
    storage.write_json(out / "index.json", about)
    return told


def _sheet(path: Path, images: "Images") -> None:
    from rae_bench.report.plots.images import PER_CELL
    from rae_bench.report.sheets import tile

    _png(path, tile(images, PER_CELL))


def _png(path: Path, pixels: "Images") -> None:
    """Write one picture (H, W, C), grey or RGB."""
    from PIL import Image

    image = Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
    storage.render(path, lambda file: image.save(file, format="PNG"))


def _table(frame: "pd.DataFrame", title: str, extractor: str, notes: list[str]) -> Table:
    """A row for reconstructions, each density and, last, the floor; a column for each of `COLUMNS`."""
    names = frame["density"].where(frame["density"] != "", frame["image_set"])
    data = frame.assign(name=names).pivot_table(index="name", columns="metric", values="value")
    shown = [column for column in COLUMNS if column in data]
    order = sorted(names.unique(), key=lambda name: bool(name == "floor"))
    labels = {"floor": "Validation images", "reconstruction": "Reconstruction"}
    texts = [
        [
            labels.get(name) or density_label(name),
            *(_cell(data.loc[name, column], column) for column in shown),
        ]
        for name in order
    ]
    header = ["", *(_heading(column, extractor) for column in shown)]
    return Table("expost", title, header, texts, set(), notes, data.reset_index())


def _explained(frame: "pd.DataFrame") -> list[str]:
    """What must be said under the table to be understood, and of reconstructions pixel by pixel."""
    pixels = frame[frame["image_set"] == "reconstruction"].set_index("metric")["value"]
    notes = []
    if "floor" in set(frame["image_set"]):
        notes += ["Validation images: real ones in the place of samples, what a model without fault would get"]
    if "frechet_infinity" not in set(frame["metric"]):
        few = 2 * IMAGES_PER_FEATURE
        notes += [f"Fewer than {few} images a feature: Fréchet distances lie too high, alike at equal counts alone"]
    if len(pixels):
        error, psnr, ssim = (pixels[name] for name in ("squared_error", "psnr", "ssim"))
        notes += [f"Reconstruction: squared error {error:.2f} an image, PSNR {psnr:.2f} dB, SSIM {ssim:.3f}"]
    if "log_likelihood_validation" in set(frame["metric"]):
        notes += [f"log p(z): mean over validation codes, in nats. {JUDGED}"]
    return notes


def _heading(metric: str, extractor: str) -> str:
    if metric not in METRICS:
        return "log p(z) ↑"
    _, short, better = METRICS[metric]
    name = distance_name(short, extractor) if short in DISTANCES else short
    scaled = f" x {SCALE[metric]:.0f}" if metric in SCALE else ""
    return f"{name}{scaled} {'↓' if better == 'lower' else '↑'}"


def _cell(value: float, metric: str) -> str:
    return "–" if math.isnan(value) else mean_sd(value * SCALE.get(metric, 1.0), math.nan, metric)
