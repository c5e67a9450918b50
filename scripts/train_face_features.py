"""Train the faces' feature network again: rae_bench/scoring/weights/face_features.safetensors.

The committed file is the ruler of every faces result: to replace it is to make all earlier distances incomparable.
It learns to tell all factors of a sharp face, so that what a face lost, or shows that no face has, moves its features.
The new SHA-256 is printed; it goes into rae_bench/scoring/classifiers.py. No face of the data set is among those
drawn here.
"""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from rae_bench.base import rng
from rae_bench.base.rng import numpy_generator
from rae_bench.base.storage import write_bytes
from rae_bench.data import faces
from rae_bench.scoring.classifiers import FACE_OUTPUTS, Ruler

SEED, SIZE = 0, 32
N_TRAIN, N_HELD_OUT = 20_000, 2_000
EPOCHS, BATCH, RATE, DECAY, SMOOTHING = 12, 50, 2e-3, 1e-2, 0.1
COUNTS = {"hair": len(faces.HAIR), "long_hair": 2, "glasses": 2, "iris": len(faces.IRIS)}
"""How many classes each factor has that is one of a few."""
HUE = "background_hue"
"""An angle: told by its cosine and its sine."""


@dataclass(frozen=True)
class Targets:
    """What the network tells of n faces: `numbers` (n, 24), mean 0 and variance 1, and class indices (n,) by factor."""

    numbers: Tensor
    classes: dict[str, Tensor]

    def of(self, which: Tensor) -> "Targets":
        """Those of some of the faces."""
        return Targets(self.numbers[which], {name: values[which] for name, values in self.classes.items()})


def targets(factors: faces.Factors) -> Targets:
    """The factors as the network tells them."""
    angle = 2 * np.pi * factors[HUE]
    numbers = {name: values for name, values in factors.items() if name not in (*COUNTS, HUE)}
    columns = np.stack([*numbers.values(), np.cos(angle), np.sin(angle)], axis=1)
    columns = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return Targets(
        torch.from_numpy(columns.astype(np.float32)),
        {name: torch.from_numpy(factors[name].astype(np.int64)) for name in COUNTS},
    )


def parts(told: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What the network tells (n, 36), cut into numbers (n, 24) and the logits (n, k) of each factor's classes."""
    numbers, *logits = told.split([FACE_OUTPUTS - sum(COUNTS.values()), *COUNTS.values()], dim=1)
    return numbers, dict(zip(COUNTS, logits, strict=True))


def loss(told: Tensor, wanted: Targets) -> Tensor:
    """The squared error of a number, in units of its variance, and the mean cross-entropy of a factor with classes."""
    numbers, logits = parts(told)
    entropies = [
        functional.cross_entropy(logits[name], wanted.classes[name], label_smoothing=SMOOTHING) for name in COUNTS
    ]
    return functional.mse_loss(numbers, wanted.numbers) + torch.stack(entropies).mean()


def train(images: npt.NDArray[np.uint8], wanted: Targets, seed: int) -> Ruler:
    """Train on uint8 images (n, 3, 32, 32) and what is to be told of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(seed, "initialise"))
        model = Ruler(3, FACE_OUTPUTS)
    order = rng.torch_generator(seed, "order")
    x = torch.from_numpy(images)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=EPOCHS * (len(x) // BATCH))
    model.train()
    for _ in range(EPOCHS):
        permutation = torch.randperm(len(x), generator=order)
        for start in range(0, len(x) - BATCH + 1, BATCH):
            chosen = permutation[start : start + BATCH]
            value = loss(model(x[chosen].float() / 255), wanted.of(chosen))
            optimiser.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.eval()


def told(model: Ruler, images: npt.NDArray[np.uint8], wanted: Targets) -> dict[str, float]:
    """How well `model` tells each factor: the share of right classes, and the mean share of a number's variance."""
    with torch.no_grad():
        numbers, logits = parts(model(torch.from_numpy(images).float() / 255))
    found = {name: float((logits[name].argmax(dim=1) == wanted.classes[name]).float().mean()) for name in COUNTS}
    return {**found, "numbers": 1 - float((numbers - wanted.numbers).square().mean())}


def drawn(n: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], Targets]:
    """N faces, and what is to be told of them."""
    factors = faces.draw_factors(n, rng)
    return faces.render(factors, SIZE), targets(factors)


def main(target: Path) -> None:
    """Train on 20,000 faces, report how well factors of 2,000 fresh faces are told, write the weights."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = train(*drawn(N_TRAIN, numpy_generator(SEED, "face_features")), SEED)
    print("held out:", told(model, *drawn(N_HELD_OUT, numpy_generator(SEED, "face_features", "held out"))))
    data = save(model.state_dict(), metadata={"about": "trained on sharp faces drawn from known factors"})
    write_bytes(target, data)
    print(f"{target}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
