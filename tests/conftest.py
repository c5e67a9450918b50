"""What all tests share: one thread, and the real digits, prepared once."""

import pytest
import torch

from rae_bench import datasets
from rae_bench.config import load_study

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    return datasets.prepare(load_study("digits").preparation("digits"))


@pytest.fixture(scope="session")
def digit_images(digits):
    return digits.images[digits.splits["validation"]]


@pytest.fixture(scope="session")
def digit_labels(digits):
    return digits.extras["labels"][digits.splits["validation"]]
