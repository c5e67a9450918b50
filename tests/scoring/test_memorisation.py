"""The nearest-training-neighbour ratio: copies, fresh data, far away."""

import numpy as np
import pytest

from rae_bench.scoring.metrics.memorisation import Training
from rae_bench.scoring.metrics.reference import MetricError


def normals(n, seed, d=8):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


TRAIN, TEST = normals(500, 0), normals(200, 1)


def test_by_hand():
    train, reference = np.array([[0.0], [10]]), np.array([[2.0], [9]])  # 2 and 1 away: median 1.5
    found = Training.of(train, reference)
    assert found.typical == 1.5
    assert found.ratio(np.array([[3.0], [13], [13]])) == pytest.approx(2)


def test_fresh_data_are_at_one_and_copies_at_zero():
    training = Training.of(TRAIN, TEST)
    assert training.ratio(normals(2000, 2)) == pytest.approx(1, abs=0.05)
    assert training.ratio(TRAIN[:100]) == 0
    assert training.ratio(TRAIN[:100] + 1e-3) < 0.01
    assert training.ratio(TEST + 50) > 10


def test_the_ratio_of_fresh_images_varies_as_the_bootstrap_says():
    """The SD over 400 other samples of as many images; and it falls with the root of their number."""
    training = Training.of(TRAIN, TEST)
    found = np.std([training.ratio(normals(300, seed)) for seed in range(100, 500)])
    told = np.median([training.ratio_sd(normals(300, seed), seed=0) for seed in range(20)])
    assert told == pytest.approx(found, rel=0.25)  # of a median of 300 the bootstrap's is a fifth too large
    more = np.median([training.ratio_sd(normals(1200, seed), seed=0) for seed in range(20)])
    assert more == pytest.approx(told / 2, rel=0.2)
    assert training.ratio_sd(TEST, seed=0) == training.ratio_sd(TEST, seed=0) != training.ratio_sd(TEST, seed=1)


def test_references_that_are_training_images_are_refused():
    with pytest.raises(MetricError, match="most reference images are training images"):
        Training.of(TRAIN, TRAIN[:50])
