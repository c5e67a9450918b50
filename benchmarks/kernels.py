"""FLOP/s of a training step against the same machine's convolution kernels called alone on the same shapes.

One step of the paper's 32x32 layout is watched: every convolution, forward and backward, with its shapes, memory
formats and arguments. Each is then called alone on tensors of that form. Both rates are of the same count of
multiplications and additions, in one process, two threads, rounds alternating. Then every operation of a step is timed.

Run with [ROUNDS].
"""

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

THREADS, STEPS = 2, 10

from rae_bench.base.specs import Compute  # noqa: E402
from rae_bench.run import process  # noqa: E402

COMPUTE = Compute(device="cpu", threads=THREADS, tf32=False, precision="float32")
process.configure(COMPUTE)

import records  # noqa: E402  threads come first
import steps  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

BATCH = steps.BATCH

aten = torch.ops.aten
CONVOLUTIONS = (aten.convolution.default, aten.convolution_backward.default)
KINDS = {
    "convolutions": ("convolution",),
    "batch norm": ("batch_norm",),
    "biases": ("add.Tensor", "sum.dim_IntList"),
    "ReLU": ("relu", "threshold"),
    "dense layers": ("mm.default",),
    "Adam": ("adam",),
}
"""What the names of their operations contain."""


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


def seconds(call: Callable[[], Any], times: int) -> float:
    """Of one call, the mean of `times`."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


class Clock(TorchDispatchMode):
    """Seconds of every operation that passes, by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = time.perf_counter()
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.spent[str(func)] += time.perf_counter() - started


def by_kind(step: Callable[[], None]) -> dict[str, float]:
    """Milliseconds of a step in each kind of operation."""
    with Clock() as clock:
        for _ in range(STEPS):
            step()
    spent = dict.fromkeys(KINDS, 0.0)
    for name, each in clock.spent.items():
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), None)
        if kind:
            spent[kind] += 1e3 * each / STEPS
    return spent


def weight_gradients(width: int, dtype: torch.dtype) -> tuple[str | float, ...]:
    """Milliseconds of the gradients of the decoder's widest layer: weight, weight and bias, and the bias as a sum."""
    x = torch.randn(BATCH, 2 * width, 16, 16, dtype=dtype).to(memory_format=torch.channels_last)
    g = torch.randn(BATCH, width, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
    w = torch.randn(2 * width, width, 4, 4, dtype=dtype)
    layer = ([2, 2], [1, 1], [1, 1], True, [0, 0], 1)
    calls: list[Callable[[], Any]] = [
        lambda: aten.convolution_backward(g, x, w, [width], *layer, [False, True, False]),
        lambda: aten.convolution_backward(g, x, w, [width], *layer, [False, True, True]),
        lambda: g.sum((0, 2, 3)),
    ]
    found = [min(seconds(call, STEPS) for _ in range(4)) for call in calls]
    return (f"{2 * width} to {width}, {str(dtype).removeprefix('torch.')}", *(f"{1e3 * each:.2f}" for each in found))


def main(rounds: int) -> None:
    process.configure_torch(COMPUTE)
    ratios, rows = [], []
    for model in ("rae_l2", "vae"):
        for width in (16, 32):
            step, _ = steps.updates(model, width)
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
            parts = by_kind(step)
            milliseconds = 1e3 * statistics.median(whole)
            parts["other"] = milliseconds - sum(parts.values())
            rows.append(
                (
                    name,
                    *(f"{value:.1f}" for value in (convolutions / 1e9, milliseconds, 1e3 * statistics.median(alone))),
                    *(f"{value:.1f}" for value in parts.values()),
                )
            )
            print(*rows[-1], flush=True)
    columns = ("", "GFLOP", "a step", "convolutions alone", *KINDS, "other")
    title = (
        "Where a step's time goes, ms: each operation timed in its place. A kernel alone finds its tensors in the "
        "cache. Other: losses, batches, and what lies between operations."
    )
    gradients = [weight_gradients(width, dtype) for dtype in (torch.float32, torch.bfloat16) for width in (16, 32)]
    records.write(
        "kernels",
        "A training step against its convolutions alone (two threads, batch 100, float32)",
        ratios,
        tables=[
            records.Table(title, columns, rows),
            records.Table(
                "Why transposed convolutions add their bias afterwards: ms of their gradients.",
                ("channels, of 32x32 images", "weight", "weight and bias at once", "bias as a sum"),
                gradients,
            ),
        ],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 5)
