"""The digits' ruler: a small classifier whose unit-norm penultimate features measure distances between digits.

Three 3x3 convolutions with batch norm, ReLU and 2x2 max-pooling; a dense layer to 128; the features, divided by
their norm; a linear layer to ten classes. Unit norms make its distances put lost classes first and keep their
noise floor steady, which plain ReLU features and ImageNet features do not (docs/methods.md). Its weights are
committed; `scripts/train_digit_classifier.py` made them.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from rae_bench.base import rng

FEATURES = 128
CLASSES = 10
EPOCHS, BATCH, RATE, DECAY, SMOOTHING = 12, 50, 2e-3, 1e-2, 0.1
LOGIT_SCALE = 16.0
"""Cosine similarities are at most 1; scaled, a softmax over them can be confident."""


class MaxOfFour(nn.Module):
    """The 2x2 max-pooling of (B, C, H, W), H and W even; in evaluation by two maxima of halves, twice as fast.

    In training torch's own, whose gradient goes to one of equal values, not to all.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return functional.max_pool2d(x, 2)
        rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


class DigitClassifier(nn.Module):
    """Images (B, 1, 32, 32) in [0, 1] to ten logits; `features` to unit vectors (B, 128)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), MaxOfFour()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """Unit vectors (B, 128)."""
        return functional.normalize(self.body(x), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(LOGIT_SCALE * self.features(x))
        return logits


def train_digit_classifier(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], seed: int) -> DigitClassifier:
    """Train on uint8 images (n, 1, 32, 32), shifted at random by up to two pixels, and labels (n,)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(seed, "initialise"))
        model = DigitClassifier()
    order = rng.torch_generator(seed, "order")
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=EPOCHS * (len(x) // BATCH))
    model.train()
    for _ in range(EPOCHS):
        permutation = torch.randperm(len(x), generator=order)
        for start in range(0, len(x) - BATCH + 1, BATCH):
            chosen = permutation[start : start + BATCH]
            shift = torch.randint(-2, 3, (2,), generator=order).tolist()
            batch = torch.roll(x[chosen], shifts=shift, dims=(2, 3))
            loss = functional.cross_entropy(model(batch), y[chosen], label_smoothing=SMOOTHING)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.eval()


def accuracy(model: DigitClassifier, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> float:
    """Share of images (n, 1, 32, 32) given their own label."""
    with torch.no_grad():
        predicted = model(torch.from_numpy(images).float() / 255).argmax(dim=1).numpy()
    return float((predicted == labels).mean())
