"""The paper's second contribution on arrays: densities fitted ex post to the codes of a model, sampled and scored.

The model here is principal components, the best that a linear autoencoder can be: two matrices. A network has the same
two methods.
"""

import numpy as np
import torch
from torch import nn

from rae_bench import api


class Components(nn.Module):
    """Codes of 16 principal components, decoded by their transpose."""

    def __init__(self, images):
        super().__init__()
        flat = torch.from_numpy(images).flatten(1).float() / 255
        self.shape, self.mean = images.shape[1:], flat.mean(dim=0)
        self.directions = torch.linalg.svd(flat - self.mean, full_matrices=False).Vh[:16]

    def encode(self, x):
        return (x.flatten(1) - self.mean) @ self.directions.T

    def decode(self, z):
        return (self.mean + z @ self.directions).clamp(0, 1).unflatten(1, self.shape)


images = api.images("digits_mini")  # train, validation and test: uint8 (n, C, H, W)
model = Components(images["train"])
codes = {split: api.encode(model, images[split]) for split in ("train", "validation")}
real = api.features(images["test"], "digit_classifier")

for name in ("gaussian", "gmm5", "kde"):
    density = api.fit(name, codes["train"], codes["validation"])
    made = api.decode(model, density.sample(300, np.random.default_rng(0)))
    found = api.measure(real, api.features(made, "digit_classifier"), "smoke")
    held_out = density.log_density(codes["validation"]).mean()
    print(
        f"{name:9} Frechet {found['frechet_distance']:.3f}  coverage {found['coverage']:.2f}  log p(z) {held_out:.1f}"
    )
