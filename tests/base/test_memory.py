"""A full memory, really full: one line with the batch size, the memory and what would be right."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import ROOT, environment

from rae_bench.base import memory
from rae_bench.base.plain import to_json
from rae_bench.study.config import load_study

STUDY = load_study("smoke")
TOO_MANY = 2**45
"""Floats: 128 TiB, the whole address space."""
SIZES = r"[\d,]+ MiB in all, [\d,]+ free"

LIMITED = """
import resource, sys
import pandas, torch
from rae_bench import cli
from rae_bench.data import catalogue
from rae_bench.models import training
from rae_bench.run import jobs
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
cli.main(sys.argv[2:])
"""


def _numpy():
    return np.empty(TOO_MANY, dtype=np.float32)


def _torch():
    return torch.empty(TOO_MANY)


@pytest.mark.parametrize(
    ("allocate", "asked"),
    [
        (_numpy, r"Unable to allocate 128\. TiB for an array with shape .*"),
        (_torch, ".*you tried to allocate 140737488355328 bytes.*"),
    ],
)
@pytest.mark.parametrize(
    ("change", "remedy"), [("", "a machine with more memory"), ("less", "less or a machine with more memory")]
)
def test_what_cannot_be_allocated_is_one_line(allocate, asked, change, remedy):
    with (
        pytest.raises(
            memory.OutOfMemoryError,
            match=rf"^out of memory on the CPU: batches of 9; {SIZES}; use {remedy} \({asked}\)$",
        ),
        memory.explained("batches of 9", change),
    ):
        allocate()


def test_the_memory_told_is_the_machines():
    total = int(re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[1]) / 1024
    with pytest.raises(memory.OutOfMemoryError) as error, memory.explained("x"):
        _torch()
    told, free = (
        float(text.replace(",", ""))
        for text in re.search(r"([\d,]+) MiB in all, ([\d,]+) free", str(error.value)).groups()
    )
    assert told == pytest.approx(total, abs=1)
    assert 0 < free < told


ASKED = (
    "CUDA out of memory. Tried to allocate 1.70 GiB. GPU 0 has a total capacity of 6.00 GiB of which 12.50 MiB is free."
    " Including non-PyTorch memory, this process has 5.93 GiB memory in use. Of the allocated memory 2.93 GiB is"
    " allocated by PyTorch, and 2.30 GiB is reserved by PyTorch but unallocated."
)
ADVICE = (
    " If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid"
    " fragmentation.  See documentation for Memory Management  (https://docs.pytorch.org/docs/stable/notes/cuda.html)"
)
KERNELS = "\nCUDA kernel errors might be asynchronously reported at some other API call."
SCRIPT = "The following operation failed in the TorchScript interpreter.\nTraceback (most recent call last):\n"


@pytest.mark.parametrize(
    ("before", "told", "after"),
    [
        ("", ASKED, ADVICE),
        (SCRIPT, ASKED, ""),
        ("", "CUDA error: out of memory", KERNELS),
        ("", "CUDA driver error: out of memory", ""),
    ],
)
def test_what_torch_says_of_a_full_gpu_is_kept_and_its_advice_is_not(before, told, after):
    """Where CUDA cannot be asked how full it is, as here, or on a GPU too full to begin with, torch's words are all."""
    with pytest.raises(memory.OutOfMemoryError) as error, memory.explained("batch_size 64", "less"):
        raise torch.OutOfMemoryError(before + told + after)
    place = torch.cuda.get_device_name() if torch.cuda.is_available() else "the GPU"
    assert str(error.value).startswith(f"out of memory on {place}: batch_size 64; ")
    assert str(error.value).endswith(f"; use less or another GPU ({told})")


def test_pythons_own_full_memory_says_nothing_more():
    with pytest.raises(memory.OutOfMemoryError, match=r"; use a machine with more memory$"), memory.explained("x"):
        raise MemoryError


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("x")])
def test_other_errors_are_left_as_they_are(error):
    with pytest.raises(type(error)) as raised, memory.explained("x"):
        raise error
    assert raised.value is error


def _train(data, run, spec, allowed):
    one = {"MALLOC_ARENA_MAX": "1"}  # else each thread may take 64 MB of addresses, or not
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(allowed), "train", "--spec", to_json(spec), "--data", str(data),
         "--run", str(run)],
        cwd=ROOT, env=environment(ROOT) | one, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_training_that_fills_the_memory_it_may_have_says_so_and_ends(prepared, tmp_path):
    spec = STUDY.training("digits_mini", "rae_l2")
    wide = dataclasses.replace(
        spec,
        network=dataclasses.replace(spec.network, width=32),
        optimisation=dataclasses.replace(spec.optimisation, batch_size=256),
    )
    run = tmp_path / "smoke" / "digits_mini" / "rae_l2" / "seed0"
    ended = _train(prepared, run, wide, allowed=260)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    line = ended.stderr.splitlines()[-1]
    assert re.fullmatch(
        rf"rae_bench train: out of memory on the CPU: batch_size 256 \(validation: at most 500\); {SIZES}; use"
        r" a smaller batch_size in budgets\.yaml, which changes the study, or a machine with more memory( \(.+\))?",
        line,
    ), ended.stderr  # fmt: skip
    state = json.loads((run / "model.job.json").read_text())
    assert state["status"] == "failed"
    assert f"rae_bench train: {state['error']}" == line
    assert not (run / "model.safetensors").exists()
    narrow = dataclasses.replace(spec, optimisation=dataclasses.replace(spec.optimisation, epochs=1))
    assert _train(prepared, run, narrow, allowed=260).returncode == 0  # what is right is right


@pytest.mark.gpu
def test_a_full_gpu_is_one_line():
    name = re.escape(torch.cuda.get_device_name())
    sizes = rf"{SIZES}, [\d,]+ in use by this process"
    told = r"CUDA out of memory\. Tried to allocate 131072\.00 GiB\. .* is free\. .*"
    line = rf"^out of memory on {name}: x; {sizes}; use less or another GPU \({told}\)$"
    with pytest.raises(memory.OutOfMemoryError, match=line), memory.explained("x", "less"):
        torch.empty(TOO_MANY, device="cuda")


GIVING_BACK = """
import ctypes, sys
from pathlib import Path
from rae_bench.base import memory
from rae_bench.run import process
process._keep_pages()
def own():
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) // 1024
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
before = own()
places = [libc.malloc(16 * 2**20) for _ in range(int(sys.argv[1]))]
for place in places:
    ctypes.memset(place, 1, 16 * 2**20)
last = libc.malloc(64)  # a heap gives back its end by itself
for place in places:
    libc.free(place)
kept = own() - before
memory.give_back()
print(kept, own() - before)
"""


@pytest.mark.parametrize(("blocks", "is_much"), [(20, False), (70, True)])
def test_much_freed_memory_goes_back_and_a_little_stays(blocks, is_much):
    """The allocator is told to keep what is freed; of more than a gigabyte that would add to the next peak."""
    ended = subprocess.run(
        [sys.executable, "-c", GIVING_BACK, str(blocks)],
        capture_output=True,
        text=True,
        check=True,
        env=environment(ROOT),
    )
    kept, left = map(int, ended.stdout.split())
    assert kept >= 16 * blocks
    assert (left < 32) if is_much else (left >= 16 * blocks)
