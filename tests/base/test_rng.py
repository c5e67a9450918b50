"""Every purpose has a seed of its own, the same on every machine."""

import hashlib
import itertools

import numpy as np
import pytest
import torch

from rae_bench.base import rng

PURPOSES = [(0, "order"), (0, "noise"), (1, "order"), (0, "sample", "gmm10", 0), (0, "sample", "gmm10", 1)]


def test_a_seed_is_the_first_63_bits_of_a_sha256_of_seed_and_purpose():
    digest = hashlib.sha256(b"3/sample/gmm10/7").hexdigest()
    bits = bin(int(digest, 16))[2:].zfill(256)
    assert rng.derive(3, "sample", "gmm10", 7) == int(bits[:63], 2)


def test_seeds_fit_into_63_bits():
    seeds = [rng.derive(seed, "x") for seed in range(2000)]
    assert len(set(seeds)) == 2000
    assert 2**62 < max(seeds) < 2**63  # the top bit is used, the sign bit is not


@pytest.mark.parametrize(("a", "b"), list(itertools.combinations(PURPOSES, 2)))
def test_purposes_are_uncorrelated(a, b):
    n = 10_000
    for make in (_numpy_normals, _torch_normals):
        correlation = np.corrcoef(make(a, n), make(b, n))[0, 1]
        assert abs(correlation) < 4.5 / np.sqrt(n)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_same_purpose_draws_the_same_numbers(purpose):
    np.testing.assert_array_equal(_numpy_normals(purpose, 50), _numpy_normals(purpose, 50))
    np.testing.assert_array_equal(_torch_normals(purpose, 50), _torch_normals(purpose, 50))


def test_the_global_generators_stay_as_they_were():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    _numpy_normals((0, "x"), 10), _torch_normals((0, "x"), 10)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def _numpy_normals(purpose, n):
    return rng.numpy_generator(*purpose).standard_normal(n)


def _torch_normals(purpose, n):
    return torch.randn(n, generator=rng.torch_generator(*purpose)).numpy()
