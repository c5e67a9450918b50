"""Networks trained elsewhere: what is read from files codes and decodes as what was saved; what is none is a line."""

import importlib
import json
import pickle
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest
import torch
from checkout import Bomb
from saved_elsewhere import pythae_folder
from torch import nn

from rae_bench.base.own import OwnCodeError
from rae_bench.base.plain import ConfigError
from rae_bench.models.elsewhere import exported, pythae

IMAGES = torch.rand(7, 1, 32, 32, generator=torch.Generator().manual_seed(0))
LATENT = 5


class Encoder(nn.Module):
    """Convolutions, a norm whose mode matters, and a flattening whose memory order does."""

    def __init__(self, has_posterior=False):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(1, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(1024, LATENT))
        )
        self.has_posterior = has_posterior

    def forward(self, x):
        mean = self.layers(x)
        return (mean, 0.1 * mean) if self.has_posterior else mean


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(LATENT, 1024), nn.Sigmoid(), nn.Unflatten(1, (1, 32, 32)))

    def forward(self, z):
        return self.layers(z)


def network(made):
    """A network with weights of its own, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.1)
    return made.eval()


def export(path, made, example, batch=None):
    """Save a network as its user would; `batch`: a torch.export.Dim, or None for the example's."""
    shapes = None if batch is None else ({0: batch},)
    torch.export.save(torch.export.export(made, (example,), dynamic_shapes=shapes), path)
    return path


ANY = torch.export.Dim("batch")
BATCHES = {
    "any": ANY,
    "at least two": torch.export.Dim("batch", min=2),
    "three to five": torch.export.Dim("batch", min=3, max=5),
    "four": None,
}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return export(tmp_path_factory.mktemp("decoder") / "decoder.pt2", network(Decoder()), torch.rand(4, LATENT), ANY)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_an_export_codes_as_the_network_it_was_made_of(tmp_path, decoder, batch, n):
    saved = network(Encoder())
    made = exported(export(tmp_path / "encoder.pt2", saved, IMAGES[:4], BATCHES[batch]), decoder)
    made = made.eval().to(memory_format=torch.channels_last)  # as the suite does
    x = IMAGES[:n].to(memory_format=torch.channels_last)
    with torch.no_grad():
        z = made.encode(x)
        torch.testing.assert_close(z, saved(IMAGES[:n]), atol=1e-6, rtol=0)
        torch.testing.assert_close(made.decode(z), network(Decoder())(z), atol=1e-6, rtol=0)


def test_an_export_of_a_posterior_gives_both_its_parts(tmp_path, decoder):
    saved = network(Encoder(has_posterior=True))
    made = exported(export(tmp_path / "encoder.pt2", saved, IMAGES[:4]), decoder)
    with torch.no_grad():
        for found, expected in zip(made.encode(IMAGES), saved(IMAGES), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_an_export_keeps_its_weights_in_its_state(tmp_path, decoder):
    """Which is all that a study keeps of a model."""
    made = exported(export(tmp_path / "encoder.pt2", network(Encoder()), IMAGES[:4], ANY), decoder)
    other = exported(export(tmp_path / "other.pt2", Encoder().eval(), IMAGES[:4], ANY), decoder)
    other.load_state_dict(made.state_dict())
    with torch.no_grad():
        assert torch.equal(made.encode(IMAGES), other.encode(IMAGES))


def test_an_export_says_what_it_reads(tmp_path, decoder):
    made = exported(export(tmp_path / "encoder.pt2", network(Encoder()), IMAGES[:4], ANY), decoder)
    with pytest.raises(OwnCodeError, match=r"encoder.pt2: reads images \(1, 32, 32\), found \(3, 32, 32\)$"):
        made.encode(IMAGES.expand(-1, 3, -1, -1))
    with pytest.raises(OwnCodeError, match=r"decoder.pt2: reads codes \(5\), found \(8\)$"):
        made.decode(torch.zeros(2, 8))
    with pytest.raises(OwnCodeError, match="a decoder alone encodes nothing; give an encoder, too"):
        exported(None, decoder).encode(IMAGES)


def _write(path, kind):
    match kind:
        case "pickle":
            path.write_bytes(pickle.dumps(Bomb(path.parent / "exploded")))
        case "torch.save":
            torch.save(Bomb(path.parent / "exploded"), path)
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("notes.txt", "hello")
        case "hollow":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("x/archive_format", "pt2")
        case "folder":
            path.mkdir()


NO_EXPORT = {
    "missing": "no such file; expected an archive of torch.export.save",
    "folder": "cannot be read: Is a directory; expected an archive",
    "pickle": "bytes that are no archive; expected",
    "torch.save": "a file of torch.save or torch.jit.save; expected",
    "zip": "a zip file; expected",
    "hollow": "cannot be read: ",
}


@pytest.mark.parametrize("kind", NO_EXPORT)
def test_what_is_no_export_is_one_line(tmp_path, decoder, capfd, kind):
    _write(tmp_path / "encoder.pt2", kind)
    with pytest.raises(OwnCodeError) as refused:
        exported(tmp_path / "encoder.pt2", decoder)
    assert NO_EXPORT[kind] in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / 'encoder.pt2'}: ")
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "exploded").exists()


# --- Pythae -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_posterior", [False, True])
def test_a_folder_of_pythaes_is_its_two_networks(tmp_path, has_posterior):
    folder, state = pythae_folder(tmp_path / "theirs", has_posterior=has_posterior)
    made = pythae(folder)

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    with torch.no_grad():
        found = made.encode(IMAGES)
        hidden = linear("encoder.layers.0.0", IMAGES.flatten(1)).relu()
        mean = found[0] if has_posterior else found
        torch.testing.assert_close(mean, linear("encoder.embedding", hidden), atol=1e-6, rtol=1e-6)
        if has_posterior:
            torch.testing.assert_close(found[1], linear("encoder.log_var", hidden) / 2, atol=1e-6, rtol=1e-6)
        x_hat = linear("decoder.layers.1.0", linear("decoder.layers.0.0", mean).relu()).sigmoid()
        torch.testing.assert_close(made.decode(mean), x_hat.reshape(-1, 1, 32, 32), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Pythae's own package, in a folder of its own: it asks for other versions than ours, and runs with these."""
    target = str(tmp_path_factory.mktemp("pythae"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, "pythae==0.1.2"]
    installed = subprocess.run(command, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"Pythae cannot be had: {installed.stderr.strip().splitlines()[-1]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(target)
        yield SimpleNamespace(**{name: importlib.import_module(f"pythae.{name}") for name in PARTS})


PARTS = ("models", "trainers", "pipelines")
KINDS = ("AE", "VAE", "BetaVAE", "WAE_MMD", "RAE_L2", "RAE_GP", "VAEGAN")


@pytest.mark.workflow
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_pythae_saved_reconstructs_as_pythae_does(theirs, tmp_path, kind):
    models = theirs.models
    config = getattr(models, f"{kind}_Config", None) or getattr(models, f"{kind}Config")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(models, kind)(config(input_dim=(1, 32, 32), latent_dim=LATENT)).eval()
    model.save(str(tmp_path / "theirs"))
    _agree(model, pythae(tmp_path / "theirs"))


@pytest.mark.workflow
def test_a_model_that_pythae_trained_reconstructs_as_pythae_does(theirs, tmp_path, digit_images):
    models = theirs.models
    model = models.RAE_L2(models.RAE_L2_Config(input_dim=(1, 32, 32), latent_dim=LATENT))
    settings = theirs.trainers.CoupledOptimizerTrainerConfig(output_dir=str(tmp_path), num_epochs=3, no_cuda=True)
    theirs.pipelines.TrainingPipeline(training_config=settings, model=model)(train_data=digit_images[:500] / 255)
    (folder,) = tmp_path.glob("*/final_model")
    _agree(models.RAE_L2.load_from_folder(str(folder)).eval(), pythae(folder))


def _agree(theirs, ours):
    with torch.no_grad():
        expected = theirs.encoder(IMAGES).embedding
        found = ours.encode(IMAGES)
        found = found[0] if isinstance(found, tuple) else found
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.decode(found), theirs.decoder(expected).reconstruction, atol=1e-6, rtol=0)


def _change(folder, **changed):
    path = folder / "model_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def _save(folder, **changed):
    state = torch.load(folder / "model.pt", weights_only=True)["model_state_dict"]
    torch.save({"model_state_dict": {**state, **changed}}, folder / "model.pt")


NO_PYTHAE = {
    "no config": (lambda folder: (folder / "model_config.json").unlink(), "model_config.json: no such file; expected"),
    "no weights": (lambda folder: (folder / "model.pt").unlink(), "model.pt: no such file; expected a folder as"),
    "config of nothing": (lambda folder: (folder / "model_config.json").write_text("{"), "not JSON"),
    "own encoder": (lambda folder: _change(folder, uses_default_encoder=False), "its encoder is a class of its own"),
    "own decoder": (lambda folder: (folder / "decoder.pkl").write_bytes(b""), "pickled in decoder.pkl, which is not"),
    "quantised": (lambda folder: _save(folder, **{"quantizer.w": IMAGES}), "holds 'quantizer.w'; expected a model"),
    "wider": (lambda folder: _change(folder, latent_dim=9), "encoder.embedding.weight is (5, 512), by model_config"),
    "no weights in it": (lambda folder: torch.save({"a": 1}, folder / "model.pt"), "holds no model_state_dict"),
    "text": (lambda folder: (folder / "model.pt").write_text("hello"), "model.pt: "),
}


@pytest.mark.parametrize("kind", NO_PYTHAE)
def test_what_is_no_such_folder_is_one_line(tmp_path, kind):
    folder, _ = pythae_folder(tmp_path / "theirs")
    spoil, message = NO_PYTHAE[kind]
    spoil(folder)
    with pytest.raises(OwnCodeError) as refused:
        pythae(folder)
    assert message in str(refused.value)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_config_without_sizes_is_one_line(tmp_path):
    folder, _ = pythae_folder(tmp_path / "theirs")
    _change(folder, input_dim=None)
    with pytest.raises(ConfigError, match=r"model_config.json.input_dim: expected a list, found None"):
        pythae(folder)


@pytest.mark.parametrize("file", ["model.pt", "encoder.pkl"])
def test_a_pickle_of_a_folder_is_never_opened(tmp_path, file):
    folder, _ = pythae_folder(tmp_path / "theirs")
    for write in (
        lambda bomb: torch.save(bomb, folder / file),
        lambda bomb: (folder / file).write_bytes(pickle.dumps(bomb)),
    ):
        write(Bomb(tmp_path / "exploded"))
        with pytest.raises(OwnCodeError, match="which is not opened"):
            pythae(folder)
        assert not (tmp_path / "exploded").exists()
