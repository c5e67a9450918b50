"""One command for a trained model: the numbers of a study of it, from all it may be read from; a line for a mistake."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from checkout import ROOT, Bomb
from PIL import Image
from saved_elsewhere import pythae_folder
from torch import nn

from rae_bench import cli
from rae_bench.base import storage
from rae_bench.run import stages
from rae_bench.run.tryouts import try_training
from rae_bench.study.config import load_study
from rae_bench.study.files import StudyFiles

THEIRS = """
import torch
from safetensors.torch import load_file
from torch import nn


class Theirs(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 6))
        out = nn.Sequential(nn.Linear(64, 1024), nn.Sigmoid(), nn.Unflatten(1, (1, 32, 32)))
        self.up = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), out)

    def encode(self, x):
        return self.down(x)

    def decode(self, z):
        return self.up(z)


class Posterior(Theirs):
    def encode(self, x):
        z = self.down(x)
        return z, z - z - 2


class Wide(Theirs):
    def decode(self, z):
        return torch.cat([self.up(z), self.up(z)], dim=3)


class Doubled(Theirs):
    def decode(self, z):
        return 2 * self.up(z)


def load(file, kind=Theirs):
    model = kind()
    model.load_state_dict(load_file(file))
    return model


def posterior(file):
    return load(file, Posterior)


def wide(file):
    return load(file, Wide)


def doubled(file):
    return load(file, Doubled)


def none(file):
    return file
"""
OPTIONS = ["--data", "digits_mini", "--metrics", "smoke", "--pngs", "3"]
DATA = Path("results/datasets/digits_mini")
MODEL = ["--model", "theirs.py:load", "--file", "theirs.safetensors"]
EXPORT = ["--encoder", "encoder.pt2", "--decoder", "decoder.pt2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a user works: a trained network as its file and as exports, its codes, and a prepared data set."""
    here = tmp_path_factory.mktemp("user")
    prepared = here / DATA
    stages.prepare(spec=load_study("smoke").preparation("digits_mini"), data=prepared)
    (here / "theirs.py").write_text(THEIRS)
    with torch.random.fork_rng():
        names = {}
        exec(THEIRS, names)  # the file itself stays unloaded
        torch.manual_seed(0)
        model = names["Theirs"]()
        images = torch.from_numpy(np.load(prepared / "images.npy")).float() / 255
        splits = {split: images[np.load(prepared / f"{split}.npy")] for split in ("train", "validation")}
        adam = torch.optim.Adam(model.parameters(), lr=3e-3)
        for batch in (part for _ in range(40) for part in splits["train"].split(50)):
            error = (batch - model.up(model.down(batch))).square().flatten(1).sum(1).mean()
            adam.zero_grad()
            error.backward()
            adam.step()
    save(model, here, splits)
    return here


def save(model, here, splits):
    from safetensors.torch import save_file

    model.eval()
    save_file(model.state_dict(), here / "theirs.safetensors")
    for name, part, example in (("encoder", model.down, splits["train"][:4]), ("decoder", model.up, torch.zeros(4, 6))):
        wrapped = nn.Sequential(part).eval()
        batch = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(wrapped, (example,), dynamic_shapes=batch), here / f"{name}.pt2")
    with torch.no_grad():
        for split, part in splits.items():
            np.save(here / f"{split}.npy", model.encode(part).numpy())


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def expost(tmp_path, capsys):
    """Give the command; the values that it writes, by image set, density and metric, and the folder it wrote."""

    def run(*options, densities="gaussian", name="out"):
        cli.main(["expost", *OPTIONS, "--densities", densities, "--out", str(tmp_path / name), *map(str, options)])
        capsys.readouterr()
        frame = pd.read_csv(tmp_path / name / "metrics.csv", keep_default_na=False)
        return frame.set_index(["image_set", "density", "metric"])["value"].sort_index(), tmp_path / name

    return run


@pytest.fixture(scope="module")
def scored(folder, tmp_path_factory):
    """What the command writes of the user's own file."""
    out = tmp_path_factory.mktemp("scored") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        cli.main(["expost", *OPTIONS, *MODEL, "--densities", "gaussian,gmm10", "--out", str(out)])
    return out


def values(out):
    frame = pd.read_csv(out / "metrics.csv", keep_default_na=False)
    return frame.set_index(["image_set", "density", "metric"])["value"].sort_index()


STUDY = """
extends: smoke
own:
  models:
    theirs: {code: theirs.py:load, file: theirs.safetensors, latent_dim: 6}
rows: [theirs]
densities: [gaussian, gmm10]
train_seeds: [0]
fit_seeds: [0]
sample_seeds: [0]
n_generated: 300
protocols: {half: null, pixels: null, truncated: null, validation: null}
tables: [table1, details]
"""


def test_the_numbers_are_those_of_a_study_of_the_same_model(folder, scored):
    """Every value that a study's `evaluate` has, to the last digit written."""
    Path("study.yaml").write_text(STUDY)
    study, files = load_study("study.yaml"), StudyFiles(Path("results"), folder.name)
    data, run = files.data("digits_mini"), files.run("digits_mini", "theirs", 0)
    references = {name: files.reference("digits_mini", name) for name in study.references("digits_mini")}
    for name, spec in study.references("digits_mini").items():
        stages.reference(spec=spec, data=data, out=references[name])
    asked = (study.reference, study.floor_reference, study.training_reference)
    real, other, training = (references[spec("digits_mini").name] for spec in asked)
    floor = files.floor("digits_mini")
    given = {"reference": real, "training": training}
    stages.floor(spec=study.floor("digits_mini"), data=data, other=other, out=floor, **given)
    stages.train(spec=study.training("digits_mini", "theirs"), data=data, run=run)
    for density in ("gaussian", "gmm10"):
        stages.fit(spec=study.fit("digits_mini", "theirs", density), run=run, density=density)
    stages.evaluate(spec=study.evaluation("digits_mini", "theirs"), data=data, prd_reference=real, run=run, **given)
    frame = storage.read_frame(run.metrics)
    frame = frame[frame["image_set"].isin(["reconstruction", "sample", "codes"])]
    expected = frame.set_index(["image_set", "density", "metric"])["value"].sort_index()
    found = values(scored)
    assert set(expected.index) <= set(found.index)
    assert len(expected) > 40
    np.testing.assert_allclose(found[expected.index], expected, rtol=1e-9)
    theirs = storage.read_json(floor)["values"]
    for name in ("frechet_distance", "precision", "nearest_training_ratio"):
        assert found["floor", "", name] == pytest.approx(theirs[name], rel=1e-9)


RECIPES = re.findall(
    r"```python\n(from rae_bench.api import .*?)```", (ROOT / "docs" / "own.md").read_text(), re.DOTALL
)


@pytest.mark.parametrize("recipe", RECIPES, ids=["pythae", "exported"])
def test_a_study_takes_the_recipes_of_the_documents(folder, tmp_path, recipe):
    """Tried as `tryout` does it: built three times, its state given to another, each image alone."""
    if "pythae" in recipe:
        pythae_folder(tmp_path / "theirs", latent_dim=6)
    else:
        (tmp_path / "theirs").mkdir()
        for name in ("encoder.pt2", "decoder.pt2"):
            shutil.copy(folder / name, tmp_path / "theirs" / name)
    (tmp_path / "theirs.py").write_text(recipe)
    (tmp_path / "study.yaml").write_text(STUDY.replace("theirs.safetensors", "theirs"))
    spec = load_study(str(tmp_path / "study.yaml")).training("digits_mini", "theirs")
    try_training(spec, torch.from_numpy(np.load(DATA / "images.npy")[:16]))
    assert len(RECIPES) == 2


def test_it_writes_pictures_a_table_and_what_it_read(scored):
    names = {path.relative_to(scored).as_posix() for path in scored.rglob("*") if path.is_file()}
    pictures = {f"samples/{density}/{i:05d}.png" for density in ("gaussian", "gmm10") for i in range(3)}
    sheets = {f"sheets/{name}.png" for name in ("original", "reconstruction", "gaussian", "gmm10")}
    assert names == {"table.md", "metrics.csv", "index.json", *pictures, *sheets}
    image = Image.open(scored / "samples/gmm10/00000.png")
    assert (image.size, image.mode) == ((32, 32), "L")
    sheet = np.asarray(Image.open(scored / "sheets/gmm10.png"))[:32, :32, 0]
    assert np.array_equal(sheet, np.asarray(image))
    table = (scored / "table.md").read_text()
    assert [line.split(" |")[0] for line in table.splitlines()[4:8]] == [
        *("| Reconstruction", "| Gaussian", "| GMM-10", "| Validation images")
    ]
    index = json.loads((scored / "index.json").read_text())
    assert index["model"]["sha256"]["file"]
    assert index["data"]["sha256"] == storage.sha256(DATA / "manifest.json")
    assert index["densities"]["gmm10"]["n_components"] == 10


def test_exports_and_codes_give_the_numbers_of_the_network_itself(expost, scored):
    """Codes alone leave nothing to reconstruct."""
    exported, _ = expost(*EXPORT, name="exported")
    codes, _ = expost("--codes", "train.npy,validation.npy", "--decoder", "decoder.pt2", name="codes")
    expected = values(scored)
    expected = expected[expected.index.get_level_values("density") != "gmm10"]
    assert list(exported.index) == list(expected.index)
    np.testing.assert_allclose(exported, expected, rtol=1e-3, atol=1e-6)
    assert set(codes.index) == {index for index in expected.index if index[0] != "reconstruction"}
    np.testing.assert_allclose(codes, expected[codes.index], rtol=1e-3, atol=1e-6)


def test_a_folder_of_images_is_split(expost, tmp_path):
    images = np.load(DATA / "images.npy")
    for split in ("train", "validation", "test"):
        for i in np.load(DATA / f"{split}.npy"):
            path = tmp_path / "split" / split / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[i, 0]).save(path)
    _, out = expost(*MODEL, "--data", tmp_path / "split", "--features", "digit_classifier", name="by_folders")
    told = json.loads((out / "index.json").read_text())["data"]["about"]
    assert told.endswith("600 train, 300 validation, 300 test images, by its subfolders")
    shutil.copytree(tmp_path / "split" / "train", tmp_path / "flat")
    _, out = expost(*MODEL, "--data", tmp_path / "flat", "--features", "digit_classifier", name="by_seed")
    told = json.loads((out / "index.json").read_text())["data"]["about"]
    assert told.endswith(
        "360 train, 120 validation, 120 test images, drawn with seed 0, whichever the model was trained on"
    )


def test_few_validation_images_leave_out_the_floor_alone(expost, tmp_path):
    images = np.load(DATA / "images.npy")[:, 0]
    for split, some in (("train", slice(0, 300)), ("validation", slice(300, 350)), ("test", slice(400, 520))):
        (tmp_path / "few" / split).mkdir(parents=True)
        for i, image in enumerate(images[some]):
            Image.fromarray(image).save(tmp_path / "few" / split / f"{i}.png")
    given = ["--data", tmp_path / "few", "--features", "digit_classifier", "--n-generated", "200"]
    found, out = expost(*MODEL, *given, densities="gaussian_diagonal")
    assert {*found.index.get_level_values("image_set")} == {"reconstruction", "sample", "codes"}
    assert "Validation images" not in (out / "table.md").read_text()
    assert "Fewer than 4 images a feature" in (out / "table.md").read_text()


def test_a_posterior_has_its_densities(expost):
    found, _ = expost("--model", "theirs.py:posterior", "--file", "theirs.safetensors", densities="aggregate_posterior")
    assert np.isfinite(found["codes", "aggregate_posterior", "log_likelihood_validation"])


@pytest.fixture
def refused(tmp_path):
    """The line with which the command refuses, having written nothing."""

    def run(*options, densities="gaussian"):
        given = ["expost", *OPTIONS, "--densities", densities, "--out", str(tmp_path / "refused"), *map(str, options)]
        with pytest.raises(SystemExit) as end:
            cli.main(given)
        assert isinstance(end.value.code, str)
        assert "\n" not in end.value.code
        assert not (tmp_path / "refused" / "index.json").exists()
        return end.value.code.removeprefix("rae_bench expost: ")

    return run


WRONG = {
    "nothing": (
        [],
        "found none of them; a model is named by --model and --file, --encoder and --decoder, --pythae, or",
    ),
    "half": (["--encoder", "encoder.pt2"], "found --encoder; a model is named by"),
    "both": ([*MODEL, "--pythae", "."], "found --model and --file and --pythae; a model is named by"),
    "no file": (["--model", "theirs.py:load", "--file", "gone"], "--file: gone: no such file; expected what theirs.py"),
    "no code": (["--model", "gone.py:load", "--file", "theirs.py"], "--model: gone.py: no such file"),
    "no function": (["--model", "theirs.py:lode", "--file", "theirs.py"], "did you mean 'load'?"),
    "no model": (["--model", "theirs.py:none", "--file", "theirs.py"], "gives str; expected a torch.nn.Module"),
    "no weights": (["--model", "theirs.py:load", "--file", "theirs.py"], "load fails: SafetensorError"),
    "wide": (
        ["--model", "theirs.py:wide", "--file", "theirs.safetensors"],
        "decode gives (64, 1, 32, 64); expected (64",
    ),
    "bright": (["--model", "theirs.py:doubled", "--file", "theirs.safetensors"], "expected images in [0, 1]"),
    "no export": (["--encoder", "theirs.py", "--decoder", "decoder.pt2"], "theirs.py: 1,"),
    "exchanged": (
        ["--encoder", "decoder.pt2", "--decoder", "encoder.pt2"],
        "decoder.pt2: reads images (6), found (1, ",
    ),
    "no folder": (["--pythae", "gone"], "gone/model_config.json: no such file; expected a folder as Pythae saves"),
    "one of codes": (["--codes", "train.npy", "--decoder", "decoder.pt2"], "names 1 files; expected TRAIN.npy,VALID"),
    "no codes": (["--codes", "train.npy,gone.npy", "--decoder", "decoder.pt2"], "gone.npy: no such file"),
    "no data": ([*MODEL, "--data", "digitz"], "digitz:train: no such file, nor a split of a data set prepared in"),
    "no density": ([*MODEL, "--densities", "gmm11"], "--densities: unknown density 'gmm11'; did you mean 'gmm1'?"),
    "twice": ([*MODEL, "--densities", "kde,kde"], "--densities: 'kde' stands twice"),
    "no posterior": ([*MODEL, "--densities", "aggregate_posterior"], "needs a posterior, and this model has none"),
    "too few": (
        [*MODEL, "--metrics", "standard"],
        "digits_mini, test: 300 images; expected at least 500: give more, or",
    ),
    "fewer samples": ([*MODEL, "--n-generated", "10"], "10 samples are fewer than the 300 test images"),
    "no count": ([*MODEL, "--pngs", "-1"], "--pngs: -1 must be at least 0"),
    "no threads": ([*MODEL, "--threads", "0"], "--threads.threads: 0 must be above 0"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_mistake_is_one_line(refused, kind):
    options, message = WRONG[kind]
    assert message in refused(*options)


def test_codes_of_another_length_are_one_line(refused, tmp_path):
    for name, shape in (("eight", (300, 8)), ("flat", (300,))):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32))
    eight, flat = tmp_path / "eight.npy", tmp_path / "flat.npy"
    decoder = ["--decoder", "decoder.pt2"]
    assert refused("--codes", f"{eight},{eight}", *decoder) == "decoder.pt2: reads codes (6), found (8)"
    assert refused("--codes", f"train.npy,{eight}", *decoder).endswith("of 8 dimensions, those of train.npy have 6")
    assert "holds float32 (300,); expected codes (n, d)" in refused("--codes", f"train.npy,{flat}", *decoder)


def test_images_of_another_size_are_one_line(refused, tmp_path):
    folder, _ = pythae_folder(tmp_path / "theirs", shape=(1, 28, 28))
    assert refused("--pythae", folder) == f"{folder}: reads images (1, 28, 28), found (1, 32, 32)"


def test_a_decoder_alone_is_tried_too(refused, tmp_path):
    """Else values outside [0, 1] would be clipped in silence."""
    bright = torch.export.export(nn.Sequential(nn.Linear(6, 1024), nn.Unflatten(1, (1, 32, 32))), (torch.ones(2, 6),))
    torch.export.save(bright, tmp_path / "bright.pt2")
    told = refused("--codes", "train.npy,validation.npy", "--decoder", tmp_path / "bright.pt2")
    assert "expected images in [0, 1]" in told


def test_a_pickle_is_not_opened(refused, tmp_path):
    for name in ("encoder.pt2", "model.pt"):
        torch.save(Bomb(tmp_path / "exploded"), tmp_path / name)
    (tmp_path / "model_config.json").write_text('{"input_dim": [1, 32, 32], "latent_dim": 6}')
    assert "a file of torch.save" in refused("--encoder", tmp_path / "encoder.pt2", "--decoder", "decoder.pt2")
    assert "holds more than weights, which is not opened" in refused("--pythae", tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_weights_of_a_data_set_are_not_anothers(refused, tmp_path):
    images = np.load(DATA / "images.npy")[:50, 0]
    (tmp_path / "some").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "some" / f"{i}.png")
    told = refused(*MODEL, "--data", tmp_path / "some", densities="second_stage")
    assert told.startswith("--densities: 'second_stage' has weights for digits, photos")


def test_a_folder_that_holds_something_is_left_alone(refused, tmp_path):
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "mine.txt").write_text("precious")
    assert "holds 1 files, as mine.txt; expected an empty folder, or none" in refused(*MODEL)
    assert [path.name for path in (tmp_path / "refused").iterdir()] == ["mine.txt"]
