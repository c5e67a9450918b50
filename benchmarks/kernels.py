"""FLOP/s of a training step against the same machine's convolution kernels called alone on the same shapes.

One step of the paper's 32x32 layout is watched: every convolution, forward and backward, with its shapes, memory
formats and arguments. Each is then called alone on tensors of that form. Both rates are of the same count of
multiplications and additions, in one process, two threads, rounds alternating. A profile says where the rest goes.

Run with [ROUNDS].
"""

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

THREADS, BATCH, STEPS = 2, 100, 10

from rae_bench import process, specs  # noqa: E402

COMPUTE = specs.Compute(device="cpu", threads=THREADS, tf32=False, precision="float32")
process.configure(COMPUTE)

import records  # noqa: E402  threads come first
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from rae_bench import datasets, objectives, training  # noqa: E402
from rae_bench.autoencoder import build  # noqa: E402
from rae_bench.config import load_study  # noqa: E402

aten = torch.ops.aten
CONVOLUTIONS = (aten.convolution.default, aten.convolution_backward.default)
KINDS = {
    "convolutions": ("convolution", "mkldnn", "thnn", "slow_conv"),
    "batch norm": ("batch_norm",),
    "ReLU": ("clamp_min", "threshold"),
    "dense layers": ("mm", "linear"),
    "Adam": ("adam", "Adam"),
}
"""What the names of a profile's operations contain."""


class Watch(TorchDispatchMode):
    """Keeps every convolution that passes: the operation and its arguments, tensors as copies."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in CONVOLUTIONS:
            copies = tuple(arg.detach().clone() if isinstance(arg, Tensor) else arg for arg in args)
            self.calls.append((func, copies))
        return func(*args, **(kwargs or {}))


def stepper(model: str, width: int) -> Callable[[], None]:
    """A function that makes one update of `model` as `training.train` does, on real digits."""
    study = load_study("digits")
    data = datasets.prepare(study.datasets["digits"].data)
    spec = study.training("digits", model)
    images = training.to_device(data.images[data.splits["train"]], "cpu")
    network = build(replace(spec.network, width=width, start_width=8 * width), spec.objective, 0)
    network.train()
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        loss = objectives.loss(network, training.as_input(images[chosen]), spec.objective, generator)
        adam.zero_grad(set_to_none=True)
        loss.total.backward()
        adam.step()

    return step


def seconds(call: Callable[[], Any], times: int) -> float:
    """Of one call, the mean of `times`."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def shares(step: Callable[[], None]) -> dict[str, float]:
    """The share of a step's time that each kind of operation takes, and "other" (losses, batches, dispatch)."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(STEPS):
            step()
    spent: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), "other")
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: spent[kind] / total for kind in (*KINDS, "other")}


def main(rounds: int) -> None:
    process.configure_torch(COMPUTE)
    ratios, rows = [], []
    for model in ("rae_l2", "vae"):
        for width in (16, 32):
            step = stepper(model, width)
            for _ in range(3):
                step()
            with Watch() as watch:
                step()
            with FlopCounterMode(display=False) as counter:
                step()
            counts = {str(name): n for name, n in counter.get_flop_counts()["Global"].items()}
            convolutions = sum(n for name, n in counts.items() if "convolution" in name)
            whole, alone = [], []
            for _ in range(rounds):
                whole.append(seconds(step, STEPS))
                alone.append(sum(seconds(lambda f=f, a=a: f(*a), STEPS) for f, a in watch.calls))  # type: ignore[misc]
            ours = convolutions / statistics.median(whole) / 1e9
            other = convolutions / statistics.median(alone) / 1e9
            name = f"{model}, width {width}"
            ratios.append(records.Ratio(name, ours, other, "GFLOP/s", ours / other, 0.7))
            parts = shares(step)
            milliseconds = 1e3 * statistics.median(whole)
            rows.append(
                (
                    name,
                    *(f"{value:.1f}" for value in (convolutions / 1e9, milliseconds, 1e3 * statistics.median(alone))),
                    *(f"{100 * parts[kind]:.1f}" for kind in (*KINDS, "other")),
                )
            )
            print(*rows[-1], flush=True)
    columns = ("", "GFLOP a step", "ms a step", "ms, convolutions alone", *(f"{kind}, %" for kind in KINDS), "other, %")
    title = "Where a step's time goes: a profile's shares of it. A kernel alone finds its tensors in the cache."
    records.write(
        "kernels",
        "A training step against its convolutions alone (two threads, batch 100, float32)",
        ratios,
        tables=[records.Table(title, columns, rows)],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5)
