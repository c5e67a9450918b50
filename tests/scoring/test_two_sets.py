"""Two sets as users have them: the numbers of torch-fidelity and of a study, and one line for whatever does not fit."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch_fidelity
from PIL import Image

from rae_bench import cli
from rae_bench.base import storage
from rae_bench.run import stages
from rae_bench.scoring import sides, two_sets
from rae_bench.scoring.catalogue import load_extractor
from rae_bench.scoring.feature_files import FeatureFileError
from rae_bench.scoring.specs import DEFAULT_EXTRACTOR, DEFAULT_ID, GeneratedImages
from rae_bench.study import config, vocabulary
from rae_bench.study.config import load_study

SMALL = ["--kernel-subset-size", "20"]
PIXELS = ["--features", "pixels", *SMALL]


def images(n=60, channels=3, size=8, seed=0, darker=1.0):
    """Smooth random images, uint8 (n, C, H, W)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, channels, size // 4, size // 4)).repeat(4, axis=2).repeat(4, axis=3)
    return (darker * (0.8 * coarse + 50 * rng.random((n, channels, size, size)))).astype(np.uint8)


def save(pixels, folder):
    folder.mkdir()
    for number, one in enumerate(pixels):
        Image.fromarray(one[0] if len(one) == 1 else one.transpose(1, 2, 0)).save(folder / f"{number:03}.png")


REAL, FAKE = images(), images(50, seed=1, darker=0.9)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folders(folder):
    save(REAL, folder / "real")
    save(FAKE, folder / "fake")


@pytest.fixture
def score(capsys):
    """The printed JSON."""

    def run(*arguments):
        cli.main(["score", *map(str, arguments), "--json"])
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def refused(*arguments):
    with pytest.raises(SystemExit) as end:
        cli.main([*map(str, arguments)])
    assert isinstance(end.value.code, str)
    assert "\n" not in end.value.code
    assert "delete" not in end.value.code
    return end.value.code.removeprefix(f"rae_bench {arguments[0]}: ")


# --- values -----------------------------------------------------------------------------------------------


def fidelity(name, **settings):
    """What torch-fidelity says of the two folders through the same network, its features in double precision."""
    extractor = load_extractor(name)

    class Ours(torch_fidelity.FeatureExtractorBase):
        def __init__(self, name, features, **_):
            super().__init__(name, features)

        @staticmethod
        def get_provided_features_list():
            return ("pooled",)

        @staticmethod
        def get_default_feature_layer_for_metric(_):
            return "pooled"

        @staticmethod
        def can_be_compiled():
            return False

        def forward(self, batch):
            return (extractor.forward(batch).double(),)

    torch_fidelity.register_feature_extractor(f"ours-{name}", Ours)
    return torch_fidelity.calculate_metrics(
        **{"input1": "fake", "input2": "real", "feature_extractor": f"ours-{name}", "fid": True, "kid": True},
        **{"cuda": False, "cache": False, "save_cpu_ram": True, "verbose": False, **settings},
    )


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize("name", ["pixels", "efficientnet_lite0"])
def test_folders_have_torch_fidelitys_distances(score, name):
    """Of 60 and 50 images: 12 features, so that covariances are regular, and 1,280, so that they are not."""
    with torch.no_grad():
        expected = fidelity(name, kid_subsets=10, kid_subset_size=20, rng_seed=0)
    found = score("real", "fake", "--features", name, *SMALL)["values"]
    assert found["frechet_distance"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
    # on some processors features of other batches differ in their last digits, and the cubes of their products more
    assert found["kernel_distance"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-5)
    assert found["kernel_distance_subset_sd"] == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-5)


@pytest.mark.usefixtures("folders")
def test_the_same_images_have_the_same_scores_in_every_form(score, folder):
    expected = score("real", "fake", *PIXELS)
    np.save("first.npy", REAL)
    np.save("last.npy", REAL.transpose(0, 2, 3, 1))
    np.savez("both.npz", other=FAKE, images=REAL)
    with zipfile.ZipFile("real.zip", "w") as archive:
        for path in sorted((folder / "real").iterdir()):
            archive.write(path, f"real/{path.name}")
    for form in (["first.npy"], ["last.npy"], ["real.zip"], ["both.npz", "--real-array", "images"]):
        assert {**score(form[0], "fake", *form[1:], *PIXELS), "notes": expected["notes"]} == expected
    cli.main(["features", "real", "--out", "a/features.npy", "--features", "pixels"])
    cli.main(["features", "both.npz", "--array", "other", "--out", "other.npy", "--features", "pixels"])
    scored = score("a/features.npy", "other.npy", *SMALL)
    assert (scored["values"], scored["floor"]) == (expected["values"], expected["floor"])
    assert (scored["extractor"], expected["extractor"]) == (None, "pixels@any/mean4x4/flat/none")


def test_two_splits_have_the_values_of_the_studys_floor(score, folder, prepared):
    """The stages `reference` and `floor` of the study smoke, on 300 test and 300 validation digits."""
    study = load_study("smoke")
    parts = {"reference": study.reference, "other": study.floor_reference, "training": study.training_reference}
    paths = {part: folder / f"{part}.safetensors" for part in parts}
    for part, spec in parts.items():
        stages.reference(spec=spec("digits_mini"), data=prepared, out=paths[part])
    stages.floor(spec=study.floor("digits_mini"), data=prepared, out=folder / "floor.json", **paths)
    expected = storage.read_json(folder / "floor.json")
    Path("results").mkdir()
    Path("results/datasets").mkdir()
    Path("results/datasets/digits_mini").symlink_to(prepared)
    found = score("digits_mini:test", "digits_mini:validation", "--metrics", "smoke")
    assert found["extractor"] == expected["extractor"] == "digit_classifier@32/none/unit128/5182624d"
    shared = set(expected["values"]) & set(found["values"])
    assert len(shared) > 10
    assert {name: found["values"][name] for name in shared} == {name: expected["values"][name] for name in shared}
    assert set(expected["values"]) - shared == {"nearest_training_ratio", "nearest_training_ratio_sd"}


# --- the floor --------------------------------------------------------------------------------------------


def test_the_floor_is_one_half_of_the_real_set_against_the_other(score):
    real = np.random.default_rng(0).normal(size=(401, 4)).astype(np.float32)
    np.save("real.npy", real)
    np.save("fake.npy", real[:150] + 3)
    found = score("real.npy", "fake.npy", *SMALL)
    assert (found["n_real"], found["n_fake"], found["n_floor"]) == (401, 150, 200)
    assert found["values"]["frechet_distance"] > 30
    assert 0 < found["floor"]["frechet_distance"] < 0.2
    assert found["floor"]["precision"] > 0.8
    other = score("real.npy", "fake.npy", *SMALL, "--metric-seed", "1")
    assert other["floor"]["frechet_distance"] != found["floor"]["frechet_distance"]


def test_where_halves_are_too_small_a_line_says_what_would_do(capsys):
    np.save("real.npy", np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    cli.main(["score", "real.npy", "real.npy", "--kernel-subset-size", "60"])
    told = capsys.readouterr().out
    assert "kernel_distance_subset_sd" not in told  # every subset is the whole set
    assert (
        "floor: left out: half of real.npy: 30 images; expected at least 60: give more, or --kernel-subset-size 30\n"
        in told
    )
    cli.main(["score", "real.npy", "real.npy", "--kernel-subset-size", "30"])
    told = capsys.readouterr().out
    assert "floor: 30 images of real.npy, drawn at random, against 30 others of it\n" in told
    (line,) = [line.split() for line in told.splitlines() if line.startswith("kernel_distance_subset_sd")]
    assert len(line) == 2  # its value, but not the floor's


# --- what is printed and written --------------------------------------------------------------------------


@pytest.mark.usefixtures("folders")
def test_network_settings_and_counts_are_said(capsys):
    cli.main(["score", "real", "fake", *SMALL, "--csv", "out/scores.csv"])
    told = capsys.readouterr().out
    assert "value: 50 images of fake against 60 of real\n" in told
    assert "settings: standard, kernel_subsets 10, kernel_subset_size 20, neighbours 3," in told
    assert f"features: {DEFAULT_ID}, the default; their Fréchet distance is called FD-EffLite0, not comparable" in told
    table = pd.read_csv("out/scores.csv").set_index("metric")
    lines = [line.split() for line in told.splitlines()[1 : 1 + len(table)]]
    assert {name: float(value) for name, value, *_ in lines} == pytest.approx(dict(table["value"]), rel=1e-5)
    assert {name: float(floor[0]) for name, _, *floor in lines if floor} == pytest.approx(
        dict(table["floor"].dropna()), rel=1e-5
    )
    assert set(table["extractor"]) == {DEFAULT_ID}


def test_the_defaults_in_help_are_those_in_force(capsys):
    assert load_extractor(DEFAULT_EXTRACTOR).id == DEFAULT_ID
    with pytest.raises(SystemExit):
        cli.main(["score", "--help"])
    told = "".join(capsys.readouterr().out.split())
    assert DEFAULT_ID in told
    standard = vars(vocabulary.read(config.CONFIG).metrics["standard"])
    named = {"metric_seed" if name == "seed" else name: value for name, value in standard.items()}
    del named["prd_angles"]
    for name, value in named.items():
        option = f"--{name.replace('_', '-')}{name.upper()}"
        assert f"(standard:{value})" in told.rpartition(option)[2].partition("--")[0]


# --- what does not fit ------------------------------------------------------------------------------------


def prepare_sides():
    """A file or folder of every kind, by name."""
    save(REAL, Path("real"))
    save(FAKE[:5], Path("few"))
    save(images(20, size=12), Path("large"))
    save(images(20, channels=1), Path("grey"))
    save(REAL[:4], Path("odd"))
    Image.new("RGB", (9, 8)).save("odd/999.png")
    save(REAL[:4], Path("broken"))
    Path("broken/002.png").write_bytes(Path("broken/002.png").read_bytes()[:90])
    Path("empty").mkdir()
    features = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    np.save("features.npy", features)
    np.save("nan.npy", np.where(np.arange(60)[:, None] == 7, np.nan, features))
    np.save("float.npy", REAL / 255)
    np.save("flat.npy", REAL[:, 0])
    np.save("four.npy", np.zeros((60, 4, 8, 8), np.uint8))
    np.save("objects.npy", np.array([[None]]), allow_pickle=True)
    np.savez("moments.npz", mu=np.zeros(12), sigma=np.eye(12))
    Path("results/datasets/mine").mkdir(parents=True)
    Path("results/datasets/mine/manifest.json").write_text("{}")


MISFITS = {
    "too few": (
        ["real", "few"],
        "few: 5 images; expected at least 20: give more, or --coverage-neighbours 4 --kernel-subset-size 5"
        " --prd-clusters 10",
    ),
    "far too few": (["real", "broken", "--neighbours", "1"], "broken: 4 images; expected at least 20: give more, or "),
    "another size": (["real", "large"], "large: images are 3x12x12 (channels, height, width), expected 3x8x8 as thos"),
    "other channels": (["real", "grey"], "grey: images are 1x8x8 (channels, height, width), expected 3x8x8 as those"),
    "mixed": (["real", "features.npy"], "features.npy: features, but real: images; give images of both, or features"),
    "mixed, too": (["features.npy", "real"], "real: images, but features.npy: features; give images of both, or feat"),
    "none": (["real", "empty"], "empty: no images; expected files of the kinds PNG"),
    "nothing": (["real", "nowhere"], "nowhere: no such file"),
    "not finite": (["features.npy", "nan.npy"], "nan.npy: features hold values that are not finite in 1 rows, the fi"),
    "floats": (["real", "float.npy"], "float.npy: images are float64 (60, 3, 8, 8); expected uint8 (n, C, H, W) or"),
    "four channels": (["four.npy", "real"], "four.npy: images are uint8 (60, 4, 8, 8); expected uint8 (n, C, H, W)"),
    "no channels": (["real", "flat.npy"], "flat.npy: images are uint8 (60, 8, 8); expected uint8 (n, C, H, W) or"),
    "objects": (["real", "objects.npy"], "objects.npy: an array of Python objects; expected numbers"),
    "moments of images": (["real", "moments.npz"], "real and moments.npz: moments do not say of which network they"),
    "no images": (["features.npy", "features.npy", "--features", "pixels"], "--features: 'pixels' is for images, and"),
    "no such network": (["real", "real", "--features", "incept"], "--features: unknown feature network 'incept'"),
    "no such settings": (["real", "real", "--metrics", "standart"], "--metrics: unknown settings of metrics 'standart"),
    "no array": (["real", "real", "--real-array", "a"], "real: holds image files, so it has no array 'a'; leave out -"),
    "other digits": (["real", "real", "--features", "digit_classifier"], "real: digit_classifier@32/none/unit128/"),
    "not prepared": (["digits:test", "real"], "digits:test: no such file, nor a split of a data set prepared in resu"),
    "no such split": (["mine:tset", "real"], "mine:tset: unknown split 'tset'; did you mean 'test'? Known: overlappi"),
    "no csv": (["real", "real", "--csv", "real.npy"], "--csv: real.npy: expected a name that ends in .csv"),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_what_cannot_be_compared_is_one_line(kind):
    arguments, expected = MISFITS[kind]
    prepare_sides()
    assert refused("score", *arguments, *SMALL).startswith(expected)


@pytest.mark.parametrize(
    ("name", "told"), [("odd", r"999.png: is 9x8, expected 8x8 as 000.png"), ("broken", "002.png")]
)
def test_an_image_that_does_not_fit_is_named(name, told):
    prepare_sides()
    message = refused("features", name, "--out", "x.npy")
    assert message.startswith(f"{name}/{told}")
    assert message.endswith(f"mend it or take it out of {name}")
    assert not Path("x.npy").exists()


def test_of_images_and_moments_the_frechet_distance_is_given(score):
    prepare_sides()
    found = score("moments.npz", "real", *PIXELS)
    features = load_extractor("pixels")(REAL).astype(np.float64)
    np.savez("other.npz", mu=features.mean(axis=0), sigma=np.cov(features.T))
    assert found["values"] == pytest.approx(score("moments.npz", "other.npz")["values"], rel=1e-6)
    assert found["extractor"] == "pixels@any/mean4x4/flat/none"


# --- features ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("folders")
def test_features_are_the_extractors_a_row_a_file(capsys):
    cli.main(["features", "real", "--out", "x.npy"])
    found = np.load("x.npy", allow_pickle=False)
    assert (found.dtype, found.shape) == (np.float32, (60, 1280))
    np.testing.assert_array_equal(found, load_extractor(DEFAULT_EXTRACTOR)(REAL))
    assert capsys.readouterr().out == f"x.npy: float32 (60, 1280), of {DEFAULT_ID}, the default\n"


@pytest.mark.usefixtures("folders")
def test_long_work_says_how_far_it_is(monkeypatch, caplog):
    monkeypatch.setattr(two_sets, "TELL_EVERY", 0)
    caplog.set_level("INFO")
    cli.main(["features", "real", "--out", "x.npy", "--features", "pixels"])
    told = [record.getMessage() for record in caplog.records if record.name == two_sets.__name__]
    assert told == ["real: 60 images through pixels@any/mean4x4/flat/none", "real: 60 of 60 images, 0 s left"]


@pytest.mark.usefixtures("folders")
def test_nothing_that_is_there_is_written_over():
    Path("x.npy").write_bytes(b"mine")
    assert refused("features", "real", "--out", "x.npy") == "--out: x.npy: is there already; give another name"
    assert refused("features", "real", "--out", "x.txt") == "--out: x.txt: expected a name that ends in .npy"
    np.save("y.npy", np.zeros((9, 4), np.float32))
    assert refused("features", "y.npy", "--out", "z.npy") == "y.npy: holds features already; expected images"
    assert Path("x.npy").read_bytes() == b"mine"
    assert not Path("z.npy").exists()


# --- generated images, as a study's row -------------------------------------------------------------------


def generated_images(folder, n=6, size=32):
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(0).integers(0, 256, (n, size, size), dtype=np.uint8)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    return images, GeneratedImages(str(folder), storage.tree_sha256(folder))


def test_generated_images_are_read_as_they_are(tmp_path):
    images, source = generated_images(tmp_path / "made")
    np.testing.assert_array_equal(sides.generated(source, (1, 32, 32), 6)[:, 0], images)


@pytest.mark.parametrize(
    ("shape", "least", "told"),
    [
        ((3, 32, 32), 6, r"made: images \(C, H, W\) of \(1, 32, 32\); those of the data set are \(3, 32, 32\)"),
        ((1, 32, 32), 7, r"made: holds 6 images; at least 7 are needed, as the reference has"),
    ],
)
def test_generated_images_that_do_not_fit_are_one_line(shape, least, told, tmp_path):
    _, source = generated_images(tmp_path / "made")
    with pytest.raises(FeatureFileError, match=told):
        sides.generated(source, shape, least)


def test_generated_images_that_have_changed_are_refused(tmp_path):
    _, source = generated_images(tmp_path / "made")
    Image.new("L", (32, 32)).save(tmp_path / "made/9.png")
    with pytest.raises(FeatureFileError, match="made: has changed since the study was read; start again"):
        sides.generated(source, (1, 32, 32), 6)
