"""What is said of each figure: its caption, and its words for whoever cannot see it."""

from dataclasses import dataclass

import pandas as pd

from rae_bench.report.answer import ranked_column, shown_rows, standings
from rae_bench.report.tables.cells import COLUMNS
from rae_bench.report.tables.wording import model_labels
from rae_bench.study.specs import SummarySpec


@dataclass(frozen=True)
class Text:
    """What stands beside a figure: a sentence that says what to see, and what a reader who cannot see it is told."""

    caption: str
    alt: str


TEXTS = {
    "answer": Text(
        "how many times the best model's distance in column {column} each row has, with its 95 % interval over training"
        " seeds: see which rows keep to the grey band of ratios that count as equal (up to {within:g}), and how far the"
        " baselines (hollow) are from all.",
        "Ratios to the best model in column {column}, with 95 % intervals: {ratios}.",
    ),
    "strip": Text(
        "real images, and what {strip} make of them and of samples (the best model in column {column} and, where there"
        " are, others; training seed {seed}, the first as drawn): see what the ratios look like.",
        "A line of images for each of {strip}: real, reconstructed, and sampled from each density.",
    ),
    "samples": Text(
        "originals, and what each model makes of them and of samples (training seed {seed}; columns as in Table 1, not"
        " selected): see whose samples could be originals.",
        "A grid of images, a line for each of {rows}: originals, reconstructions, and samples of each column.",
    ),
    "interpolations": Text(
        "straight lines between the codes of random pairs of {interpolated} images (training seed {seed}): see whether"
        " the images half-way are images still.",
        "Two strips of images for each of {rows}, from one {interpolated} image's reconstruction to another's.",
    ),
    "distances": Text(
        "Fréchet distance of every row and image set, a point per training seed, lower being better: see how far the"
        " columns lie apart, and from as many real images as there are reconstructions (dotted; of more samples less is"
        " expected).",
        "Points on a logarithmic scale, by row and column; Table 1 has their means: {rows}.",
    ),
    "training": Text(
        "each term of the loss, unweighted, on validation images, a line per seed, the colour its family's (of more"
        " than twelve models, a panel for each): see whether every model has settled by its last epoch.",
        "Curves of loss terms by epoch, of {models}.",
    ),
    "codes": Text(
        "codes of {split} images (grey) and samples of one density of each kind (in the colour of the model's family)"
        " along the codes' first two principal axes (training seed {seed}): see where samples fall that no code does.",
        "Scatter plots of codes under samples, a line of panels per density, a column for each of {models}.",
    ),
    "components": Text(
        "distance of samples (above) and log-likelihood in nats a code (below; thick held out, thin of training codes)"
        " by the number K of a mixture's components, fitted by EM (solid) or as a Dirichlet process (dashed), bands the"
        " SD over seeds: see where more components stop helping.",
        "Curves by number of components, a column of panels for each of {models}.",
    ),
    "protocols": Text(
        "rank of every row (1 the lowest mean Fréchet distance) under the study's own protocol and others, the same"
        " samples in all: see which ranks hold.",
        "Tables of ranks by row and protocol; the table of protocols says how far they agree.",
    ),
}
"""The figures of a data set in order, and what is said of each."""
PUBLISHED = Text(
    "Published against reproduced, a point per cell of the paper's Table 1 with the noise of the tables (hollow: one"
    " seed, no bar): see which bars miss the line, those points edged in black.",
    "Points of our FID against the published one; the table of published values has each pair.",
)


def values(spec: SummarySpec, frame: pd.DataFrame, dataset: str) -> dict[str, object]:
    """What the texts of a data set's figures name."""
    column = ranked_column(spec, frame, dataset)
    return {
        "seed": spec.train_seeds[0],
        "split": spec.reference_split,
        "interpolated": spec.image_sets[dataset].interpolated,
        "within": spec.equal_within,
        "column": COLUMNS.get(column, ""),
        "ratios": "; ".join(one.text for one in standings(spec, frame, dataset)),
        "strip": ", ".join(spec.rows[name].label for name in shown_rows(spec, frame, dataset)),
        "rows": ", ".join(row.label for row in spec.ordered_rows.values()),
        "models": ", ".join(model_labels(spec).values()),
    }
