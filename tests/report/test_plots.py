"""Every figure drawn from the smoke study's results, and what it shows compared with them."""

import itertools
import json
import re
from dataclasses import replace
from typing import get_args

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from skimage.color import rgb2lab

from rae_bench.base import storage
from rae_bench.data.specs import FaceRenderer
from rae_bench.densities.specs import AggregatePosterior, AllImages
from rae_bench.report.answer import shown_rows, standings
from rae_bench.report.plots import catalogue as plots
from rae_bench.report.plots.codes import shown_densities
from rae_bench.report.plots.components import has_several_counts
from rae_bench.report.plots.images import sheet_keys
from rae_bench.report.plots.style import COLUMNS, FAMILIES, looks
from rae_bench.study.config import load_study, resolve_study
from rae_bench.study.files import StudyFiles
from rae_bench.study.specs import Family

KINDS = ["answer", "strip", "samples", "interpolations", "distances", "training", "codes", "components", "protocols"]
DATASET = "digits_mini"
SIZE = 32
"""Pixels of an image's side; a white pixel stands between two images."""


@pytest.fixture(scope="module")
def files(smoke):
    return StudyFiles(smoke.results, "smoke")


@pytest.fixture(scope="module")
def root(smoke):
    return smoke.results / "smoke"


@pytest.fixture(scope="module")
def sheets(root):
    return {
        model: storage.read_arrays(root / DATASET / model / "seed0" / "sheets.safetensors")[0]
        for model in ("vae", "rae_l2", "linear", "training_images")
    }


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def _shown(axis, number):
    """The image at place `number` of a row of images."""
    left = number * (SIZE + 1)
    return axis.images[0].get_array()[:SIZE, left : left + SIZE]


def _grey(image):
    return np.repeat(image.transpose(1, 2, 0), 3, axis=2)


def with_another_mixture(spec, frame):
    """The study with a second number of components, whose results are those of the first."""
    fits = spec.fits[DATASET]
    another = {"gmm5": replace(fits["gmm10"], n_components=5)}
    copied = frame[frame["density"] == "gmm10"].assign(density="gmm5")
    spec = replace(spec, densities=(*spec.densities, "gmm5"), fits={DATASET: {**fits, **another}})
    return spec, pd.concat([frame, copied], ignore_index=True)


def test_every_figure_is_drawn_captioned_and_the_same_bytes_again(files, smoke_spec, smoke_frame, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    spec, frame = with_another_mixture(smoke_spec, smoke_frame)
    for folder in (first, second):
        made = plots.write(spec, frame, files, folder / "index.json")
    assert [path.name for path in made] == [f"{kind}_{DATASET}.{suffix}" for kind in KINDS for suffix in ("pdf", "png")]
    listed = json.loads((first / "index.json").read_text())
    assert [figure["name"] for figure in listed] == [f"{kind}_{DATASET}" for kind in KINDS]
    assert all(figure["caption"].startswith("Digits, a few: ") for figure in listed)
    for figure in listed:  # one sentence that says what to see; words for who cannot
        assert re.search(": see (what|which|whose|whether|how|where) ", figure["caption"])
        assert figure["caption"].endswith(".")
        assert ". " not in figure["caption"].replace("Digits, a few: ", "")
        assert len(figure["alt"]) > 40
    ratios = listed[0]["alt"].removeprefix("Ratios to the best model in column GMM, with 95 % intervals: ")
    assert ratios.startswith(("VAE 1.00; ", "VAE "))
    assert "Training images 0." in ratios
    for path in made:
        assert path.read_bytes() == (first / path.name).read_bytes(), path.name
        if path.suffix == ".png":
            picture = plt.imread(path)
            # at 200 dots an inch: 7.2 inches, 4.6, or one inch a model and 0.6
            assert picture.shape[1] > (400 if "components" in path.name else 800)
            assert picture[:, :, :3].std() > 0.02  # not blank
    assert b"CreationDate" not in (first / f"distances_{DATASET}.pdf").read_bytes()


def test_captions_of_drawn_images_say_so(files, smoke_spec, smoke_frame, tmp_path):
    drawn = replace(smoke_spec.datasets[DATASET], channels=3, size=64, source=FaceRenderer("face_renderer"))
    plots.write(replace(smoke_spec, datasets={DATASET: drawn}), smoke_frame, files, tmp_path / "index.json")
    listed = json.loads((tmp_path / "index.json").read_text())
    assert all(figure["caption"].startswith("SYNTHETIC images. ") for figure in listed)


def test_a_search_has_no_figures(files, smoke_spec, smoke_frame, tmp_path):
    plots.write(replace(smoke_spec, tables=("search",)), smoke_frame, files, tmp_path / "index.json")
    assert {path.name: path.read_text().strip() for path in tmp_path.iterdir()} == {"index.json": "[]"}


def test_what_is_not_fid_is_not_drawn_beside_published_values(files, smoke_spec, smoke_frame, tmp_path):
    """The rest is: the smoke study's real results, as if its digits were the paper's."""
    papers = replace(smoke_spec, published={DATASET: "MNIST"}, tables=("table1", "published"))
    plots.write(papers, smoke_frame, files, tmp_path / "index.json")
    *others, last = json.loads((tmp_path / "index.json").read_text())
    assert [figure["name"] for figure in others] == [f"{kind}_{DATASET}" for kind in KINDS[:7]]
    counts = "; ".join(f"{count} images are not 10,000" for count in (300, 600))
    assert (last["name"], last["missing"]) == ("published", f"FD-DigitCNN is not FID; {counts}")
    assert not (tmp_path / "published.png").exists()


def test_the_sample_sheet_shows_each_rows_own_images(smoke_spec, sheets):
    figure = plots.sample_sheet(smoke_spec, sheets)
    axes = np.array(figure.axes).reshape(5, 5)  # every row x original, Rec., N, N(0,I), GMM
    assert [axis.get_title() for axis in axes[0]] == ["Original", "Rec.", "N", "N(0,I)", "GMM"]
    vae, rae, linear = sheets["vae"], sheets["rae_l2"], sheets["linear"]
    expected = [
        [vae["original"], vae["reconstruction"], vae["sample.standard_normal"], vae["sample.standard_normal"],
         vae["sample.gmm10"]],
        [vae["original"], vae["reconstruction.second_stage"], vae["sample.second_stage"],
         vae["sample.standard_normal"], None],
        [rae["original"], rae["reconstruction"], rae["sample.gaussian"], rae["sample.standard_normal"],
         rae["sample.gmm10"]],
        [linear["original"], linear["reconstruction"], linear["sample.gaussian"], linear["sample.standard_normal"],
         linear["sample.gmm10"]],
        [*[None] * 4, sheets["training_images"]["sample.train_images"]],
    ]  # fmt: skip
    for axis, images in zip(axes.ravel(), itertools.chain(*expected), strict=True):
        assert len(axis.images) == (images is not None)
        if images is not None:
            for number in range(3):
                np.testing.assert_array_equal(_shown(axis, number), _grey(images[number]))


def test_an_interpolation_strip_runs_from_one_reconstruction_to_another(smoke_spec, sheets):
    figure = plots.interpolation_strips(smoke_spec, sheets)
    axes = np.array(figure.axes).reshape(4, 2)
    plain = [(model, "interpolation") for model in ("vae", "rae_l2", "linear")]
    for row, (model, key) in enumerate([plain[0], ("vae", "interpolation.second_stage"), *plain[1:]]):
        for strip in range(2):
            for step in range(8):
                image = sheets[model][key][8 * strip + step]
                np.testing.assert_array_equal(_shown(axes[row, strip], step), _grey(image))


def test_every_seed_of_every_cell_is_a_point_at_its_distance(smoke_spec, smoke_frame):
    """Of a seed the mean over its fits and draws."""
    cell = ["model", "image_set", "density", "train_seed"]
    distances = smoke_frame[smoke_frame["metric"] == "frechet_distance"]
    frechet = distances.groupby(cell)[["value", "floor"]].mean().reset_index("train_seed")
    cells = [
        *[("vae", "reconstruction", ""), ("vae", "interpolation", ""), ("vae", "sample", "gmm10")],
        *[("vae", image_set, "second_stage") for image_set in ("reconstruction", "interpolation", "sample")],
        *[("vae", "sample", density) for density in ("standard_normal", "gaussian")] * 2,  # VAE's and 2sVAE's
        *[
            (model, image_set, "")
            for model in ("rae_l2", "linear")
            for image_set in ("reconstruction", "interpolation")
        ],
        *[(model, "sample", one) for model in ("rae_l2", "linear") for one in ("standard_normal", "gaussian", "gmm10")],
        ("training_images", "sample", "train_images"),
    ]
    expected = sorted(value for cell in cells for value in frechet.loc[[cell], "value"])
    axis = plots.distances(smoke_spec, smoke_frame, DATASET).axes[0]
    drawn = sorted(y for points in axis.collections for _, y in points.get_offsets() if np.isfinite(y))
    assert len(drawn) == 42
    np.testing.assert_allclose(drawn, expected)
    assert axis.get_yscale() == "log"
    (floor,) = {line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":"}
    assert floor == frechet["floor"].iloc[0]
    assert axis.get_ylabel().startswith("FD-DigitCNN")


def test_training_curves_are_the_histories(smoke_spec, root, files):
    axes = plots.training_curves(smoke_spec, files, DATASET).axes
    # 2 models that have epochs x 2 seeds; only RAE-L2 is regularised
    assert [len(axis.lines) for axis in axes] == [4, 4, 2]
    history = pd.read_parquet(root / DATASET / "rae_l2" / "seed1" / "history.parquet")
    for axis, term in zip(axes, ("reconstruction", "latent", "regulariser"), strict=True):
        assert any(np.array_equal(line.get_ydata(), history[f"validation_{term}"]) for line in axis.lines)
        assert axis.lines[-1].get_color() == FAMILIES["regularized"][0]
    assert list(axes[0].lines[0].get_xdata()) == list(range(1, 11))


def test_training_curves_of_many_models_have_a_panel_each(smoke_spec, root, files, monkeypatch):
    monkeypatch.setattr("rae_bench.report.plots.training.MANY", 1)
    axes = [axis for axis in plots.training_curves(smoke_spec, files, DATASET).axes if axis.get_visible()]
    # 2 seeds of 2 terms, and of 3
    assert {axis.get_title(): len(axis.lines) for axis in axes} == {"VAE": 4, "RAE-L2": 6}
    history = pd.read_parquet(root / DATASET / "rae_l2" / "seed1" / "history.parquet")
    *_, reconstruction, latent, regulariser = axes[1].lines
    for line, term in ((reconstruction, "reconstruction"), (latent, "latent"), (regulariser, "regulariser")):
        np.testing.assert_array_equal(line.get_ydata(), history[f"validation_{term}"])
    assert [line.get_linestyle() for line in axes[1].lines[:3]] == ["-", "--", "--"]  # of two kinds
    assert {line.get_color() for line in axes[1].lines} == {FAMILIES["regularized"][0]}
    assert axes[0].get_ylim() == axes[1].get_ylim()


def test_a_term_that_no_model_has_gets_no_panel(smoke_spec, files):
    rows = {"vae": smoke_spec.rows["vae"]}
    axes = plots.training_curves(replace(smoke_spec, rows=rows, order=("vae",)), files, DATASET).axes
    assert [axis.get_title() for axis in axes] == ["reconstruction (unweighted)", "latent (unweighted)"]


def test_codes_are_drawn_under_the_samples_of_each_density(smoke_spec, sheets):
    axes = np.array(plots.code_views(smoke_spec, sheets, DATASET).axes).reshape(4, 3)
    for axis in (*axes[:3].ravel(), axes[3, 0]):
        (points,) = axis.collections
        assert (
            len(points.get_offsets()) == len(points.get_facecolors()) == 300 + 500
        )  # of 600 samples, all that is kept
        np.testing.assert_allclose(points.get_offsets()[:300].mean(axis=0), 0, atol=1e-4)
        assert len(np.unique(points.get_facecolors()[:300], axis=0)) == 1
        assert not np.array_equal(points.get_facecolors()[0], points.get_facecolors()[300])
    first = axes[0, 0].collections[0].get_offsets()[:300]
    # the first principal axis carries the largest share of the codes' variance, numpy's largest eigenvalue
    largest = np.linalg.eigvalsh(np.cov(sheets["vae"]["codes"].T))[-2:][::-1]
    np.testing.assert_allclose(np.var(first, axis=0, ddof=1), largest, rtol=1e-3)


def test_a_model_without_a_density_has_no_panel_of_it(smoke_spec, sheets):
    """Only VAE has a second stage; a density of no model at all has no line."""
    nobody = AggregatePosterior("aggregate_posterior", "sample", AllImages("all"))
    fits = {DATASET: {**smoke_spec.fits[DATASET], "aggregate_posterior": nobody}}
    spec = replace(smoke_spec, densities=(*smoke_spec.densities, "aggregate_posterior"), fits=fits)
    axes = np.array(plots.code_views(spec, sheets, DATASET).axes).reshape(4, 3)
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["N(0,I)", "Gaussian", "GMM-10", "second stage"]
    assert [axis.get_title() for axis in axes[0]] == ["VAE", "RAE-L2", "Linear AE"]
    counts = [[sum(len(drawn.get_offsets()) for drawn in axis.collections) for axis in row] for row in axes]
    assert counts == [[800] * 3, [800] * 3, [800] * 3, [800, 0, 0]]
    assert [axis.spines["top"].get_visible() for axis in axes[3]] == [True, False, False]


def test_codes_are_shown_under_one_density_of_each_kind(smoke_spec):
    """What rows show of the kind, else its last: of mixtures ten components, of Dirichlet mixtures the most."""
    study = load_study("densities")
    spec = study.summary()
    assert shown_densities(spec, "digits") == [
        *("standard_normal", "gaussian", "gmm10", "dp200", "kde", "aggregate_posterior", "flow", "flow_matching"),
        *("second_stage_dai_wipf", "second_stage"),
    ]
    assert shown_densities(smoke_spec, DATASET) == ["standard_normal", "gaussian", "gmm10", "second_stage"]


# --- components -------------------------------------------------------------------------------------------

MIXTURES = {
    # model: density: metric: a value for each of two training seeds
    "vae": {
        "gmm1": {
            "frechet_distance": [8, 10],
            "log_likelihood_train": [-14, -16],
            "log_likelihood_validation": [-15, -17],
        },
        "gmm10": {
            "frechet_distance": [4, 6],
            "log_likelihood_train": [-9, -11],
            "log_likelihood_validation": [-11, -13],
        },
        "gmm10_sampled": {"frechet_distance": [90], "log_likelihood_train": [90], "log_likelihood_validation": [90]},
        "dp10": {"frechet_distance": [3, 4], "log_likelihood_train": [-8, -9], "log_likelihood_validation": [-10, -11]},
    },
    "rae_l2": {
        "gmm1": {"frechet_distance": [20, 20], "log_likelihood_train": [1, 1], "log_likelihood_validation": [0, 0]},
        "gmm10": {"frechet_distance": [2, 2], "log_likelihood_train": [5, 5], "log_likelihood_validation": [3, 3]},
    },
}


@pytest.fixture
def mixtures(smoke_spec):
    """A study of mixtures, and its frame."""
    names = ("gmm1", "gmm10", "gmm10_sampled", "dp10", "gaussian")
    fits = {name: load_study("densities").fit("digits", "vae", name).density for name in names}
    frame = pd.DataFrame(
        {"dataset": DATASET, "model": model, "density": density, "metric": metric, "train_seed": seed, "value": value}
        for model, densities in MIXTURES.items()
        for density, metrics in densities.items()
        for metric, values in metrics.items()
        for seed, value in enumerate(values)
    )
    rows = smoke_spec.competing
    return replace(smoke_spec, rows=rows, order=tuple(rows), densities=names, fits={DATASET: fits}), frame


def _lines(axis):
    return [
        (line.get_linestyle(), list(line.get_xdata()), list(line.get_ydata()))
        for line in axis.lines
        if len(line.get_xdata())
    ]


def test_components_are_drawn_where_there_are_several_numbers_of_them(smoke_spec):
    assert has_several_counts(load_study("densities").summary(), "digits")
    assert not has_several_counts(load_study("variants").summary(), "digits")  # one of ten, and one that is chosen
    assert not has_several_counts(smoke_spec, DATASET)


def test_components_are_drawn_by_number_a_line_a_kind_of_mixture(mixtures):
    axes = np.array(plots.components(*mixtures, DATASET).axes).reshape(2, 2)
    assert [axis.get_title() for axis in axes[0]] == ["VAE", "RAE-L2"]
    assert _lines(axes[0, 0]) == [("-", [1, 10], [9, 5]), ("--", [10], [3.5])]
    assert _lines(axes[1, 0]) == [
        *(("-", [1, 10], [-15, -10]), ("-", [1, 10], [-16, -12])),
        *(("--", [10], [-8.5]), ("--", [10], [-10.5])),
    ]
    assert _lines(axes[0, 1]) == [("-", [1, 10], [20, 2])]
    assert _lines(axes[1, 1]) == [("-", [1, 10], [1, 5]), ("-", [1, 10], [0, 3])]
    assert all(axis.get_xscale() == "log" for axis in axes.ravel())
    assert [axis.get_yscale() for axis in axes[:, 0]] == ["log", "linear"]
    assert axes[0, 0].get_ylim() == axes[0, 1].get_ylim()


def test_the_band_of_components_is_the_spread_over_seeds(mixtures):
    axis = plots.components(*mixtures, DATASET).axes[0]
    outline = axis.collections[0].get_paths()[0].vertices
    for count, mean in ((1, 9), (10, 5)):
        edges = {round(y, 9) for x, y in outline if x == count}
        assert edges == {round(mean - np.sqrt(2), 9), round(mean + np.sqrt(2), 9)}  # SD of two values 2 apart


def test_components_of_a_single_model_are_one_column(mixtures):
    spec, frame = mixtures
    rows = {name: row for name, row in spec.rows.items() if row.model == "rae_l2"}
    figure = plots.components(replace(spec, rows=rows, order=tuple(rows)), frame, DATASET)
    assert [axis.get_title() for axis in figure.axes] == ["RAE-L2", ""]
    assert _lines(figure.axes[0]) == [("-", [1, 10], [20, 2])]


# --- protocols --------------------------------------------------------------------------------------------


def test_protocols_show_every_rows_rank_in_columns_n_and_gmm(smoke_spec):
    values = {
        # VAE's N(0, I), 2sVAE's second stage, RAE-L2's Gaussian; the mixtures of VAE and RAE-L2
        "own": ([1, 2, 3], [5, 6]),
        "half": ([1, 3, 2], [6, 5]),
        "truncated": ([2, 2, 1], [7, 8]),
    }
    shown = [("vae", "standard_normal"), ("vae", "second_stage"), ("rae_l2", "gaussian")]
    shown += [("vae", "gmm10"), ("rae_l2", "gmm10")]
    panel = pd.DataFrame(
        {"dataset": DATASET, "model": model, "density": density, "protocol": protocol, "value": float(value)}
        for protocol, (n, gmm) in values.items()
        for (model, density), value in zip(shown, [*n, *gmm], strict=True)
    )
    own = smoke_spec.protocols[DATASET]
    spec = replace(smoke_spec, protocols={DATASET: {name: own[name] for name in values}})
    left, right = plots.protocols(spec, panel, DATASET).axes
    for axis, rows in ((left, ["VAE", "2sVAE", "RAE-L2"]), (right, ["VAE", "RAE-L2"])):
        assert [label.get_text() for label in axis.get_xticklabels()] == ["own", "half", "truncated"]
        assert [label.get_text() for label in axis.get_yticklabels()] == rows
    assert (left.get_title(), right.get_title()) == ("column N", "column GMM")
    # one row of ranks after another, a protocol a column; a tie shares its ranks
    assert [text.get_text() for text in left.texts] == ["1", "1", "2.5", "2", "3", "2.5", "3", "2", "1"]
    assert [text.get_text() for text in right.texts] == ["1", "2", "1", "2", "1", "2"]
    two = {"two_stage_vae": spec.rows["two_stage_vae"]}  # without column GMM
    (only,) = plots.protocols(replace(spec, rows=two, order=tuple(two)), panel, DATASET).axes
    assert [text.get_text() for text in only.texts] == ["1", "1", "1"]


@pytest.mark.parametrize(("label", "name"), [("Inception", "FID"), ("inception-unverified", "FD-inception-unverified")])
def test_only_verified_inceptions_distance_is_fid(label, name, smoke_spec, smoke_frame):
    axis = plots.distances(smoke_spec, smoke_frame.assign(extractor_label=label), DATASET).axes[0]
    assert axis.get_ylabel() == f"{name} (log scale)"


def test_a_study_without_the_standard_normal_shows_no_column_of_it():
    file = replace(load_study("smoke").file, rows=("rae_l2",), densities=("gaussian", "gmm10"))
    spec = resolve_study("smoke", file).summary()
    assert sheet_keys(spec) == {
        "rae_l2": {"original", "codes", "reconstruction", "interpolation", "sample.gaussian", "sample.gmm10"}
    }
    sheets = {"rae_l2": {key: np.zeros((12, 1, 32, 32), dtype=np.uint8) for key in sheet_keys(spec)["rae_l2"]}}
    titles = [axis.get_title() for axis in plots.sample_sheet(spec, sheets).axes]
    assert titles == ["Original", "Rec.", "N", "GMM"]
    titles = [axis.get_title() for axis in plots.strip(spec, sheets, ["rae_l2"]).axes]
    assert titles == ["Real", "Reconstruction", "Gaussian", "GMM"]


# --- the first screen -------------------------------------------------------------------------------------


def test_the_first_figure_has_each_rows_ratio_and_interval_on_the_band(smoke_spec, smoke_frame):
    (axis,) = plots.standings_figure(smoke_spec, smoke_frame, DATASET).axes
    found = standings(smoke_spec, smoke_frame, DATASET)
    assert [label.get_text() for label in axis.get_yticklabels()] == [one.label for one in found]
    drawn = [list(map(float, line.get_xdata())) for line in axis.lines]
    for one in found:
        assert [one.ratio] in drawn
        assert [one.low, one.high] in drawn
    (band,) = axis.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (1 / 1.25, 1.25)
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == 2  # the baselines


def test_the_strip_shows_the_best_row_first_as_it_was_drawn(smoke_spec, smoke_frame, sheets):
    names = shown_rows(smoke_spec, smoke_frame, DATASET)
    axes = np.array(plots.strip(smoke_spec, sheets, names).axes).reshape(len(names), 5)
    keys = ["original", "reconstruction", "sample.standard_normal", "sample.gaussian", "sample.gmm10"]
    for line, name in zip(axes, names, strict=True):
        for axis, key in zip(line, keys, strict=True):
            for number in range(3):
                np.testing.assert_array_equal(_shown(axis, number), _grey(sheets[name][key][number]))


SIMULATED = {
    # Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def test_families_keep_apart_in_greyscale_and_for_the_colour_blind():
    """By lightness 9 of CIELAB's 100, and 20 in its distance: 2 can just be told apart side by side."""
    assert set(FAMILIES) == set(get_args(Family))  # a user's own model has a look, too
    assert len({marker for _, marker in FAMILIES.values()}) == len(FAMILIES)
    assert len({marker for _, marker in COLUMNS.values()}) == len(COLUMNS)
    rgb = np.array([to_rgb(colour) for colour, _ in FAMILIES.values()])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for one, two in itertools.combinations(range(len(rgb)), 2):
        lightness = rgb2lab(rgb)[:, 0]
        assert abs(lightness[one] - lightness[two]) > 9
        for matrix in SIMULATED.values():
            seen = np.clip(linear @ np.transpose(matrix), 0, 1)
            seen = rgb2lab(np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055))
            assert np.linalg.norm(seen[one] - seen[two]) > 20


def test_a_models_look_is_its_familys_colour_and_a_dash_of_its_own():
    found = looks(load_study("digits").summary())
    assert len({(look.colour, look.dash) for look in found.values()}) == len(found)
    assert {found[name].colour for name in ("rae", "rae_l2", "rae_gp")} == {FAMILIES["regularized"][0]}
