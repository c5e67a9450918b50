"""Three small networks of our own with committed weights: the rulers of digits and of faces, and a reader of faces.

Rulers: three 3x3 convolutions with batch norm, ReLU and 2x2 max-pooling; a dense layer to 128; the features, divided by
their norm; a linear layer to ten classes, or to all factors of a drawn face. Unit norms make their distances put lost
classes first and keep their noise floor steady, which plain ReLU features and ImageNet features do not
(docs/methods.md).

Reader: four strided convolutions with batch norm and ReLU; a dense layer; a linear layer for each factor of
`faces.LAW`. It will read what decoders make, which is no sharp face but, at least squares, the mean of all faces that a
code cannot tell apart: so it learnt from such means too. On 2,000 fresh faces it reads 99.65 % of hair colours, 99.9 %
of long hair and of glasses rightly; blurred by 2 pixels 99.5, 99.9 and 99.9 %; by 3 pixels 94.7, 98.9 and 99.9 %.

`scripts/train_digit_classifier.py`, `scripts/train_face_features.py` and `scripts/train_face_classifier.py` made the
weights.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from rae_bench.data import faces
from rae_bench.data.specs import FACE_SIZES
from rae_bench.scoring.pretrained import FeatureError, checked

SCALE = 16.0
"""Cosine similarities are at most 1; scaled, a softmax over them can be confident."""
DIGIT_OUTPUTS, FACE_OUTPUTS = 10, 36
READ_AT_ONCE = 250

Images = npt.NDArray[np.uint8]


class MaxOfFour(nn.Module):
    """The 2x2 max-pooling of (B, C, H, W), H and W even; in evaluation by two maxima of halves, twice as fast.

    In training torch's own, whose gradient goes to one of equal values, not to all.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The largest of each four, (B, C, H/2, W/2)."""
        if self.training:
            return functional.max_pool2d(x, 2)
        rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


class Ruler(nn.Module):
    """Images (B, channels, 32, 32) in [0, 1] to what was learnt (B, n_outputs); `features` to unit vectors (B, 128)."""

    def __init__(self, channels: int, n_outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((channels, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), MaxOfFour()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 128), nn.ReLU())
        self.head = nn.Linear(128, n_outputs)

    def features(self, x: Tensor) -> Tensor:
        """Unit vectors (B, 128)."""
        return functional.normalize(self.body(x), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of digits (B, 10), or the factors of faces (B, 36): scripts/train_face_features.py names them."""
        found: Tensor = self.head(SCALE * self.features(x))
        return found


class FaceClassifier(nn.Module):
    """Images (B, 3, 64, 64) in [0, 1] to the logits (B, k) of each factor's k classes."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, kernel in ((3, 16, 5), (16, 32, 3), (32, 32, 3), (32, 48, 3)):
            convolution = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(48 * 4 * 4, 48), nn.ReLU())
        self.heads = nn.ModuleDict({factor: nn.Linear(48, len(law)) for factor, law in faces.LAW.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The logits (B, k) by factor."""
        features = self.body(x)
        return {factor: head(features) for factor, head in self.heads.items()}


WEIGHTS = Path(__file__).parent / "weights"
DIGITS = (WEIGHTS / "digit_classifier.safetensors", "5182624d08b1c3de524587f453dc46544c12fdec373de632253abc568fd317c5")
FACE_FEATURES = (
    WEIGHTS / "face_features.safetensors",
    "9ed09706780a938a3028d90fbbc8f5457e188a6a536b4dd871e7b69de0f310dd",
)
FACES = (WEIGHTS / "face_classifier.safetensors", "985f61c7fdaeb285f8ad449f7cdc81a84d11a2acf1c5574ef7d3c5a200a43951")
"""Where each one's weights are, and their SHA-256."""


def digit_classifier() -> Ruler:
    """The committed classifier of digits, in evaluation mode.

    Raises:
        FeatureError: its file is missing or has other bytes.
    """
    model = Ruler(1, DIGIT_OUTPUTS)
    model.load_state_dict(load(checked(*DIGITS, "restore it from version control")))
    return model.eval()


def face_features() -> Ruler:
    """The committed ruler of faces, in evaluation mode.

    Raises:
        FeatureError: its file is missing or has other bytes.
    """
    model = Ruler(3, FACE_OUTPUTS)
    model.load_state_dict(load(checked(*FACE_FEATURES, "restore it from version control")))
    return model.eval()


def face_classifier() -> FaceClassifier:
    """The committed reader of the faces' factors, in evaluation mode.

    Raises:
        FeatureError: its file is missing or has other bytes.
    """
    model = FaceClassifier()
    model.load_state_dict(load(checked(*FACES, "restore it from version control")))
    return model.eval()


def accuracy(model: Ruler, images: Images, labels: npt.NDArray[np.int64]) -> float:
    """Share of images (n, 1, 32, 32) given their own label."""
    with torch.no_grad():
        predicted = model(torch.from_numpy(images).float() / 255).argmax(dim=1).numpy()
    return float((predicted == labels).mean())


def read_classes(model: FaceClassifier, images: Images) -> faces.Classes:
    """The class of every factor in uint8 images (n, 3, s, s), each int64 (n,); the same for every batch size.

    The side s is 64, or 32: these are enlarged, bilinearly.

    Raises:
        FeatureError: not uint8, of another shape, or none at all.
    """
    if images.dtype != np.uint8 or images.shape[1:] not in [(3, s, s) for s in FACE_SIZES] or len(images) == 0:
        raise FeatureError(
            f"face_classifier: images are {images.dtype} {images.shape}, expected uint8"
            f" (n, 3, s, s) with s in {list(FACE_SIZES)} and n at least 1"
        )
    parts: dict[str, list[npt.NDArray[np.int64]]] = {factor: [] for factor in faces.LAW}
    with torch.no_grad():
        for start in range(0, len(images), READ_AT_ONCE):
            batch = torch.from_numpy(images[start : start + READ_AT_ONCE]).float() / 255
            if batch.shape[2] != FACE_SIZES[-1]:
                batch = functional.interpolate(batch, size=FACE_SIZES[-1:] * 2, mode="bilinear")
            for factor, logits in model(batch).items():
                parts[factor].append(logits.argmax(dim=1).numpy())
    return {factor: np.concatenate(part) for factor, part in parts.items()}
