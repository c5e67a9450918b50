"""Every figure drawn from the smoke study's results, and what it shows compared with them."""

import itertools
import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rae_bench import plots, storage

KINDS = ["samples", "interpolations", "distances", "training", "codes"]
DATASET = "digits_mini"
SIZE = 32
"""Pixels of an image's side; a white pixel stands between two images."""


@pytest.fixture(scope="module")
def root(smoke):
    return smoke.results / "smoke"


@pytest.fixture(scope="module")
def sheets(root):
    return {
        model: storage.read_arrays(root / DATASET / model / "seed0" / "sheets.safetensors")[0]
        for model in ("vae", "rae_l2")
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


@pytest.fixture(scope="module")
def written(root, smoke_spec, smoke_frame, tmp_path_factory):
    folders = [tmp_path_factory.mktemp("figures") for _ in range(2)]
    for folder in folders:
        plots.write(smoke_spec, smoke_frame, root, folder / "index.json")
    return folders


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_drawn_as_pdf_and_png(written, kind):
    folder = written[0]
    assert (folder / f"{kind}_{DATASET}.pdf").read_bytes().startswith(b"%PDF-")
    picture = plt.imread(folder / f"{kind}_{DATASET}.png")
    assert picture.shape[1] > 1000  # 7.2 inches at 200 dots
    assert picture[:, :, :3].std() > 0.02  # not blank


def test_the_index_lists_every_figure_with_a_caption(written):
    listed = json.loads((written[0] / "index.json").read_text())
    assert [figure["name"] for figure in listed] == [f"{kind}_{DATASET}" for kind in KINDS]
    assert all(figure["caption"].startswith("Digits, a few: ") for figure in listed)


def test_the_same_results_are_the_same_bytes(written):
    first, second = written
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert len(names) == 2 * len(KINDS) + 1
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert b"CreationDate" not in (first / f"distances_{DATASET}.pdf").read_bytes()


def test_captions_of_drawn_images_say_so(root, smoke_spec, smoke_frame, tmp_path):
    drawn = replace(smoke_spec.datasets[DATASET], source=plots.specs.FaceRenderer("face_renderer"))
    plots.write(replace(smoke_spec, datasets={DATASET: drawn}), smoke_frame, root, tmp_path / "index.json")
    listed = json.loads((tmp_path / "index.json").read_text())
    assert all(figure["caption"].startswith("SYNTHETIC images. ") for figure in listed)


def test_a_search_has_no_figures(root, smoke_spec, smoke_frame, tmp_path):
    plots.write(replace(smoke_spec, tables=("search",)), smoke_frame, root, tmp_path / "index.json")
    assert {path.name: path.read_text().strip() for path in tmp_path.iterdir()} == {"index.json": "[]"}


def test_the_sample_sheet_shows_each_rows_own_images(smoke_spec, sheets):
    figure = plots.sample_sheet(smoke_spec, sheets)
    axes = np.array(figure.axes).reshape(3, 5)  # vae, two_stage_vae, rae_l2 x original, Rec., N, N(0,I), GMM
    assert [axis.get_title() for axis in axes[0]] == ["Original", "Rec.", "N", "N(0,I)", "GMM"]
    vae, rae = sheets["vae"], sheets["rae_l2"]
    expected = [
        [vae["original"], vae["reconstruction"], vae["sample.standard_normal"], vae["sample.standard_normal"],
         vae["sample.gmm10"]],
        [vae["original"], vae["reconstruction.second_stage"], vae["sample.second_stage"],
         vae["sample.standard_normal"], None],
        [rae["original"], rae["reconstruction"], rae["sample.gaussian"], rae["sample.standard_normal"],
         rae["sample.gmm10"]],
    ]  # fmt: skip
    for axis, images in zip(axes.ravel(), itertools.chain(*expected), strict=True):
        assert len(axis.images) == (images is not None)
        if images is not None:
            for number in range(3):
                np.testing.assert_array_equal(_shown(axis, number), _grey(images[number]))


def test_an_interpolation_strip_runs_from_one_reconstruction_to_another(smoke_spec, sheets):
    figure = plots.interpolation_strips(smoke_spec, sheets)
    axes = np.array(figure.axes).reshape(3, 2)
    for row, (model, key) in enumerate(
        [("vae", "interpolation"), ("vae", "interpolation.second_stage"), ("rae_l2", "interpolation")]
    ):
        for strip in range(2):
            for step in range(8):
                image = sheets[model][key][8 * strip + step]
                np.testing.assert_array_equal(_shown(axes[row, strip], step), _grey(image))


def test_every_seed_of_every_cell_is_a_point_at_its_distance(smoke_spec, smoke_frame):
    frechet = smoke_frame[smoke_frame["metric"] == "frechet_distance"].set_index(["model", "image_set", "density"])
    cells = [
        *[("vae", "reconstruction", ""), ("vae", "interpolation", ""), ("vae", "sample", "gmm10")],
        *[("vae", image_set, "second_stage") for image_set in ("reconstruction", "interpolation", "sample")],
        *[("vae", "sample", density) for density in ("standard_normal", "gaussian")] * 2,  # VAE's and 2sVAE's
        *[("rae_l2", "reconstruction", ""), ("rae_l2", "interpolation", "")],
        *[("rae_l2", "sample", density) for density in ("standard_normal", "gaussian", "gmm10")],
    ]
    expected = sorted(value for cell in cells for value in frechet.loc[[cell], "value"])
    axis = plots.distances(smoke_spec, smoke_frame, DATASET).axes[0]
    drawn = sorted(y for points in axis.collections for _, y in points.get_offsets() if np.isfinite(y))
    assert len(drawn) == 30
    np.testing.assert_allclose(drawn, expected)
    assert axis.get_yscale() == "log"
    (floor,) = {line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":"}
    assert floor == frechet["floor"].iloc[0]
    assert axis.get_ylabel().startswith("FD-DigitCNN")


def test_training_curves_are_the_histories(smoke_spec, root):
    axes = plots.training_curves(smoke_spec, root, DATASET).axes
    assert [len(axis.lines) for axis in axes] == [8, 8, 4]  # 2 models x 2 seeds x 2 splits; only RAE-L2 is regularised
    history = pd.read_parquet(root / DATASET / "rae_l2" / "seed1" / "history.parquet")
    for axis, term in zip(axes, ("reconstruction", "latent", "regulariser"), strict=True):
        for split in ("train", "validation"):
            assert any(np.array_equal(line.get_ydata(), history[f"{split}_{term}"]) for line in axis.lines)
    assert list(axes[0].lines[0].get_xdata()) == list(range(1, 11))


def test_codes_are_drawn_under_the_samples_of_each_density(smoke_spec, sheets):
    axes = np.array(plots.code_views(smoke_spec, sheets).axes).reshape(3, 2)
    for axis in axes.ravel():
        codes, samples = (points.get_offsets() for points in axis.collections)
        assert len(codes) == len(samples) == 300
        np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-4)
    first = axes[0, 0].collections[0].get_offsets()
    # the first principal axis carries the largest share of the codes' variance, numpy's largest eigenvalue
    largest = np.linalg.eigvalsh(np.cov(sheets["vae"]["codes"].T))[-2:][::-1]
    np.testing.assert_allclose(np.var(first, axis=0, ddof=1), largest, rtol=1e-3)


def test_no_label_says_fid(smoke_spec, smoke_frame, root, sheets):
    figures = [
        plots.sample_sheet(smoke_spec, sheets),
        plots.distances(smoke_spec, smoke_frame, DATASET),
        plots.training_curves(smoke_spec, root, DATASET),
    ]
    texts = [text.get_text() for figure in figures for text in figure.findobj(plt.Text)]
    assert any("FD-DigitCNN" in text for text in texts)
    assert not any("FID" in text or "KID" in text for text in texts)


@pytest.mark.parametrize(("label", "name"), [("Inception", "FID"), ("inception-unverified", "FD-inception-unverified")])
def test_only_verified_inceptions_distance_is_fid(label, name, smoke_spec, smoke_frame):
    axis = plots.distances(smoke_spec, smoke_frame.assign(extractor_label=label), DATASET).axes[0]
    assert axis.get_ylabel() == f"{name} (log scale)"
