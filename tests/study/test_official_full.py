"""One optimisation step of every official configuration at full size: images and networks of the released ones."""

import dataclasses

import data_files
import numpy as np
import pytest
import torch
from keras import Keras, official_terms
from PIL import Image
from test_official import CASES, drawing

from rae_bench.data import catalogue as sources
from rae_bench.data import celeba, cifar, idx, store
from rae_bench.models import objectives, training
from rae_bench.models.autoencoder import build
from rae_bench.study import official
from rae_bench.study.config import load_study

pytestmark = pytest.mark.slow
SEEN = [(row, key) for row, key in CASES if key[1] not in ("two_stage_vae", "vae_2d")]
"""2sVAE trains the VAE."""
KEYS = ("mnist", "cifar10", "celeba")


SIZES = {"n_train": 100, "n_validation": 10, "n_test": 10}


@pytest.fixture(scope="module")
def images(digit_images, tmp_path_factory):
    """100 training images of each data set, read from files in its true format as `train` reads them.

    The files hold digits, patches of photographs, and drawn faces as JPEGs of CelebA's size.
    """
    folder = tmp_path_factory.mktemp("data")
    labels = {"train": np.arange(110) % 10, "test": np.arange(10)}
    photos = _images("photos", n_train=110, n_test=10)
    faces = _images("faces", n_train=120, n_test=1)["train"]
    parts = [0] * 100 + [1] * 10 + [2] * 10
    data_files.write_idx(
        folder / "mnist", {part: digit_images[: len(of), 0, 2:-2, 2:-2] for part, of in labels.items()}, labels
    )
    data_files.write_cifar(folder / "cifar10", photos, labels, "binary archive")
    data_files.write_celeba(
        folder / "celeba", {f"{i + 1:06d}.jpg": _jpeg(x) for i, x in enumerate(faces)}, "zip", parts
    )
    counts = {part: (parts.count(i),) for i, part in enumerate(("train", "validation", "test"))}
    entries = {name: dataclasses.replace(load_study("paper_clean").preparation(name), **SIZES) for name in KEYS}
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAE_BENCH_DATA", str(folder))
        prepared = {
            "mnist": idx.prepare(entries["mnist"], 2, data_files.release_of(idx.mnist(), labels)),
            "cifar10": cifar.prepare(entries["cifar10"], data_files.release_of(cifar.release(), labels)),
            "celeba": celeba.prepare(
                entries["celeba"],
                entries["celeba"].source,
                dataclasses.replace(celeba.release(), counts=counts, md5={}),
            ),
        }
        for name, one in prepared.items():
            store.save(one, entries[name], folder / "prepared" / name)
            found[name] = store.load_split(folder / "prepared" / name, "train")
    return found


def _images(name, **sizes):
    spec = load_study("embedded").preparation(name)
    prepared = sources.prepare(dataclasses.replace(spec, n_validation=1, **sizes))
    return {part: prepared.images[prepared.splits[part]] for part in ("train", "test")}


def _jpeg(face):
    """A 64x64 face in the middle of a JPEG of 178x218, where CelebA's crop finds it."""
    frame = Image.new("RGB", (178, 218))
    frame.paste(Image.fromarray(face.transpose(1, 2, 0)).resize((140, 140)), (19, 39))
    return data_files.jpeg(frame)


@pytest.mark.parametrize(("row", "key"), SEEN, ids=["-".join(key) for _, key in SEEN])
def test_a_step_at_full_size_is_finite_and_of_the_official_loss(row, key, images):
    """Each term is the independent one, as coded: float32 against float64, of sums over up to 20 x 12,288 pixels.

    A fifth of the official batch: what float64 takes grows with it, and what is coded does not.
    """
    one = official.configurations()[key]
    objective, optimisation = one.objective(), one.optimisation()
    data = training.to_device(images[key[0]][:20], "cpu")
    x = training.as_input(data)
    assert x.shape == (20, one.network().channels, one.network().size, one.network().size)
    model = build(one.network(), objective, seed=0).train()
    draw = drawing(torch.Generator().manual_seed(1))
    expected = official_terms(row, Keras(model, one.network().size), x.double().numpy().transpose(0, 2, 3, 1), draw)

    optimiser = torch.optim.Adam(
        model.parameters(), lr=optimisation.learning_rate, eps=optimisation.adam_epsilon, fused=True
    )
    before = [value.detach().clone() for value in model.parameters()]
    loss = objectives.loss(model, x, objective, torch.Generator().manual_seed(1))
    loss.total.backward()
    optimiser.step()
    weights = [1.0, *(objectives.weight(term) for term in (objective.latent, objective.regulariser))]
    found = [loss.reconstruction, loss.latent, loss.regulariser]
    for term, weight, coded in zip(found, weights, expected, strict=True):
        assert one.scale * weight * term.item() == pytest.approx(coded, rel=1e-4)
    assert one.scale * loss.total.item() == pytest.approx(sum(expected), rel=1e-4)
    for value, old in zip(model.parameters(), before, strict=True):
        assert torch.isfinite(value).all()
        assert not torch.equal(value, old)
