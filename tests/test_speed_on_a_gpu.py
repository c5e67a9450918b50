"""How fast updates are on a GPU, kept in the JSON of `make test-gpu`; on the CPU that the benchmark runs at all."""

import pytest
from checkout import script

gpu = script("gpu", "benchmarks")
WIDTH = 128
"""The paper's."""


@pytest.mark.slow
def test_a_tiny_one_runs_on_the_cpu():
    """As the suite does it, and as a CUDA graph, which a CPU has not: that is told in a line."""
    assert gpu.one("ours", "rae_gp", "float32", "cpu", width=2, updates=2)["images_per_second"] > 0
    assert gpu.one("plain", "vae", "float32", "cpu", width=2, updates=2)["images_per_second"] > 0
    assert gpu.one("bare", "vae", "bfloat16", "cpu", width=2, updates=2)["images_per_second"] > 0
    assert set(gpu.one("graph", "vae", "float32", "cpu", width=2, updates=2)) == {"failed"}


@pytest.mark.gpu
@pytest.mark.parametrize("way", gpu.WAYS)
@pytest.mark.parametrize("precision", gpu.PRECISIONS)
@pytest.mark.parametrize("model", gpu.MODELS)
def test_updates_of_the_papers_width(model, precision, way, record_property):
    """A graph or a compiler may fail, which is a finding; the suite's own updates and the bare loops may not."""
    found = gpu.one(way, model, precision, "cuda", WIDTH, updates=30)
    for name, value in found.items():
        record_property(name, value)
    assert "failed" not in found or way in ("graph", "compiled"), found
