"""The Vendi score of generated images: how many different ones there are, in effect (Friedman and Dieng 2023)."""

import numpy as np


def vendi_score(real, fake, real_images, fake_images):
    """Exp of the entropy of the eigenvalues of K / n, with K the cosine similarities of the features; 1 to n."""
    unit = fake / np.linalg.norm(fake, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit.T @ unit / len(unit))  # as of K / n, but for zeros
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))
