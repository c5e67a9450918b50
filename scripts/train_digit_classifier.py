"""Train the digits' feature network again: rae_bench/scoring/weights/digit_classifier.safetensors.

The committed file is the ruler of every digits result: to replace it is to make all earlier distances incomparable.
The new SHA-256 is printed; it goes into rae_bench/scoring/features.py. `tests/scoring/test_features.py` checks that
retraining agrees.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save

from rae_bench.base.storage import read_npy, write_bytes
from rae_bench.data import catalogue as sources
from rae_bench.data import store
from rae_bench.scoring.digit_classifier import accuracy, train_digit_classifier
from rae_bench.study.config import load_study

SEED = 0


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
    model = train_digit_classifier(images["train"], labels["train"], SEED)
    print(f"validation accuracy {accuracy(model, images['validation'], labels['validation']):.4f}")
    data = save(model.state_dict(), metadata={"about": "trained on the train split of digits"})
    write_bytes(target, data)
    print(f"{target}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
