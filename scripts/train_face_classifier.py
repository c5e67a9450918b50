"""Train the reader of the faces' factors again: rae_bench/scoring/weights/face_classifier.safetensors.

The committed file reads the attributes of every faces result: to replace it is to make earlier ones incomparable.
The new SHA-256 is printed; it goes into rae_bench/scoring/classifiers.py. No face of the data set is among those
drawn here.
"""

import hashlib
import sys
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
from rae_bench.data.specs import FACE_SIZES
from rae_bench.scoring.classifiers import FaceClassifier, Images, read_classes

SEED, FACE_SIZE = 0, FACE_SIZES[-1]
COUNTS = {1: 10_000, 3: 5_000, 8: 5_000}
"""Training images by how many faces each is the mean of."""
N_HELD_OUT = 2_000
BLURS = (0, 1, 2, 3)


EPOCHS, BATCH, RATE, DECAY = 6, 50, 2e-3, 1e-2
BLUR, BLUR_RADIUS, NOISE = 2.5, 6, 0.03
"""Largest SD of the blur, in pixels, and the reach of its kernel; largest SD of the noise, of images in [0, 1]."""
FREE = (
    *["turn", "light", "hair_shade", "hair_line", "eye_distance", "eye_size", "eye_open", "iris", "gaze"],
    *["brow_height", "brow_angle", "nose_length", "mouth_width", "mouth_curve", "mouth_open"],
)
"""Factors in which the faces of one mean differ freely ..."""
LOOSE = ("background_hue", "head_x", "head_y", "tilt", "face_width", "face_height", "skin")
LOOSENESS = 0.3
"""... and those in which they differ by this part of the whole range."""

Shares = dict[str, npt.NDArray[np.float32]]
"""(n, k) by factor: how much of an image belongs to each of the factor's k classes; rows sum to 1."""


def draw_means(n: int, copies: int, rng: np.random.Generator) -> tuple[Images, Shares]:
    """N means of `copies` faces that agree in coarse factors, as uint8 (n, 3, 64, 64), and the classes' shares in them.

    Each mean has a probability of glasses of its own, uniform: whether a mean is smeared says nothing about them.
    With one copy these are faces.
    """
    coarse, glasses = faces.draw_factors(n, rng), rng.uniform(size=n)
    total = np.zeros((n, 3, FACE_SIZE, FACE_SIZE), dtype=np.float32)
    shares = {factor: np.zeros((n, len(law)), dtype=np.float32) for factor, law in faces.LAW.items()}
    for _ in range(copies):
        other = faces.draw_factors(n, rng)
        own = {
            **coarse,
            **{name: other[name] for name in FREE},
            "glasses": (rng.uniform(size=n) < glasses).astype(float),
        }
        own |= {name: (1 - LOOSENESS) * coarse[name] + LOOSENESS * other[name] for name in LOOSE}
        total += faces.render(own, FACE_SIZE)
        for factor, values in faces.classes(own).items():
            shares[factor][np.arange(n), values] += 1 / copies
    return np.rint(total / copies).astype(np.uint8), shares


def train(images: Images, shares: Shares, seed: int) -> FaceClassifier:
    """Train on uint8 images (n, 3, 64, 64): the sum of the factors' cross-entropies with their shares (n, k)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(seed, "initialise"))
        model = FaceClassifier()
    generator = rng.torch_generator(seed, "order")
    x, y = torch.from_numpy(images), {factor: torch.from_numpy(shares[factor]) for factor in faces.LAW}
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=EPOCHS * (len(x) // BATCH))
    model.train()
    for _ in range(EPOCHS):
        permutation = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - BATCH + 1, BATCH):
            chosen = permutation[start : start + BATCH]
            logits = model(_spoilt(x[chosen].float() / 255, generator))
            loss = torch.stack([functional.cross_entropy(logits[factor], y[factor][chosen]) for factor in y]).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.eval()


def accuracies(model: FaceClassifier, images: Images, classes: faces.Classes) -> dict[str, float]:
    """Share of images (n, 3, 64, 64) whose class (n,) is read rightly, by factor."""
    read = read_classes(model, images)
    return {factor: float((read[factor] == classes[factor]).mean()) for factor in read}


def blurred(x: Tensor, sd: float) -> Tensor:
    """Images (B, C, H, W) under a Gaussian of `sd` pixels, cut off at six; edges are repeated."""
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    weights = torch.exp(-0.5 * (offsets / sd) ** 2)
    weights = (weights / weights.sum()).expand(x.shape[1], 1, -1)  # (C, 1, 13)
    x = functional.pad(x, (BLUR_RADIUS,) * 4, mode="replicate")
    x = functional.conv2d(x, weights[:, :, :, None], groups=x.shape[1])
    result: Tensor = functional.conv2d(x, weights[:, :, None, :], groups=x.shape[1])
    return result


def _spoilt(x: Tensor, generator: torch.Generator) -> Tensor:
    """A batch as a decoder might give it: blurred, then noisy, each by a random amount."""
    blur, noise = torch.rand(2, generator=generator).tolist()
    grain: Tensor = noise * NOISE * torch.randn(x.shape, generator=generator)
    return blurred(x, max(blur * BLUR, 0.01)) + grain


def main(target: Path) -> None:
    """Train on 20,000 faces and means of faces, report the accuracies on 2,000 fresh faces, write the weights."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    drawn = [draw_means(n, copies, numpy_generator(SEED, "face_classifier", copies)) for copies, n in COUNTS.items()]
    images = np.concatenate([one[0] for one in drawn])
    shares = {factor: np.concatenate([one[1][factor] for one in drawn]) for factor in faces.LAW}
    model = train(images, shares, SEED)
    factors = faces.draw_factors(N_HELD_OUT, numpy_generator(SEED, "face_classifier", "held out"))
    held_out, classes = torch.from_numpy(faces.render(factors, FACE_SIZE)), faces.classes(factors)
    for sd in BLURS:
        soft = blurred(held_out.float(), sd).round().to(torch.uint8).numpy() if sd else held_out.numpy()
        print(f"held out, blurred by {sd} pixels:", accuracies(model, soft, classes))
    data = save(model.state_dict(), metadata={"about": "trained on faces drawn from known factors"})
    write_bytes(target, data)
    print(f"{target}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
