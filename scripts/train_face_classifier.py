"""Train the reader of the faces' factors again: rae_bench/scoring/weights/face_classifier.safetensors.

The committed file reads the attributes of every faces result: to replace it is to make earlier ones incomparable.
The new SHA-256 is printed; it goes into rae_bench/scoring/features.py. No face of the data set is among those
drawn here.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from rae_bench.base.rng import numpy_generator
from rae_bench.base.storage import write_bytes
from rae_bench.data import faces
from rae_bench.scoring.face_classifier import SIZE, accuracies, blurred, draw_means, train_face_classifier

SEED = 0
COUNTS = {1: 10_000, 3: 5_000, 8: 5_000}
"""Training images by how many faces each is the mean of."""
N_HELD_OUT = 2_000
BLURS = (0, 1, 2, 3)


def main(target: Path) -> None:
    """Train on 20,000 faces and means of faces, report the accuracies on 2,000 fresh faces, write the weights."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    drawn = [draw_means(n, copies, numpy_generator(SEED, "face_classifier", copies)) for copies, n in COUNTS.items()]
    images = np.concatenate([one[0] for one in drawn])
    shares = {factor: np.concatenate([one[1][factor] for one in drawn]) for factor in faces.LAW}
    model = train_face_classifier(images, shares, SEED)
    factors = faces.draw_factors(N_HELD_OUT, numpy_generator(SEED, "face_classifier", "held out"))
    held_out, classes = torch.from_numpy(faces.render(factors, SIZE)), faces.classes(factors)
    for sd in BLURS:
        soft = blurred(held_out.float(), sd).round().to(torch.uint8).numpy() if sd else held_out.numpy()
        print(f"held out, blurred by {sd} pixels:", accuracies(model, soft, classes))
    data = save(model.state_dict(), metadata={"about": "trained on faces drawn from known factors"})
    write_bytes(target, data)
    print(f"{target}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
