"""Train the digits' feature network again: rae_bench/scoring/weights/digit_classifier.safetensors.

The committed file is the ruler of every digits result: to replace it is to make all earlier distances incomparable.
The new SHA-256 is printed; it goes into rae_bench/scoring/classifiers.py. `tests/scoring/test_classifiers.py`
checks that retraining agrees.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from torch.nn import functional

from rae_bench.base import rng
from rae_bench.base.storage import read_npy, write_bytes
from rae_bench.data import catalogue as sources
from rae_bench.data import store
from rae_bench.scoring.classifiers import DIGIT_OUTPUTS, Ruler, accuracy
from rae_bench.study.config import load_study

SEED = 0
EPOCHS, BATCH, RATE, DECAY, SMOOTHING = 12, 50, 2e-3, 1e-2, 0.1


def train(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], seed: int) -> Ruler:
    """Train on uint8 images (n, 1, 32, 32), shifted at random by up to two pixels, and labels (n,)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.derive(seed, "initialise"))
        model = Ruler(1, DIGIT_OUTPUTS)
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


def main(target: Path) -> None:
    """Train on the training split of `digits`, report the accuracy on the validation split, write the weights."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    spec = load_study("digits").preparation("digits")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store.save(sources.prepare(spec), spec, folder)
        images = {split: store.load_split(folder, split) for split in ("train", "validation")}
        labels = {split: read_npy(folder / "labels.npy")[read_npy(folder / f"{split}.npy")] for split in images}
    model = train(images["train"], labels["train"], SEED)
    print(f"validation accuracy {accuracy(model, images['validation'], labels['validation']):.4f}")
    data = save(model.state_dict(), metadata={"about": "trained on the train split of digits"})
    write_bytes(target, data)
    print(f"{target}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
