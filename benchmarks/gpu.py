"""Updates of the paper's networks on a GPU: images/s in each precision, against loops that do less or other things.

ours      the suite's own updates, in a process set up as a stage's: deterministic, noise drawn on the CPU
bare      the loop a careful user writes around the same modules and loss, in a process set up the same way
plain     the suite's own, images and layers in torch's usual order of memory instead of channels-last
free      bare, not deterministic, with the algorithms that cuDNN finds fastest
graph     the same as `bare`, an update captured once as a CUDA graph and replayed; noise drawn on the GPU
compiled  the same as `bare` through torch.compile; noise drawn on the GPU

Each in a process of its own, batch 100, digits in the 32x32 layout; a way that fails is reported with its reason. On a
GPU, memory and the share of the time in which no kernel runs are told too.

Run with [--device cuda] [--width 128] [--models NAME ...] [--ways NAME ...] [--precisions NAME ...] [--updates N].
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

BATCH, ROUNDS = 100, 3
MODELS = ("vae", "rae_l2", "rae_gp")
WAYS = ("ours", "plain", "bare", "free", "graph", "compiled")
PRECISIONS = ("float32", "tf32", "bfloat16")
Found = dict[str, float | str]


def measure(way: str, model: str, precision: str, device: str, width: int, updates: int) -> Found:
    """What this process finds: `images_per_second`; on a GPU `peak_mib` and `idle`, a share of the time."""
    from rae_bench.base.specs import Compute
    from rae_bench.run import process

    layers = "bfloat16" if precision == "bfloat16" else "float32"
    compute = Compute(device=device, threads=1, tf32=precision == "tf32", precision=layers)  # type: ignore[arg-type]
    process.configure(compute)
    import torch

    from rae_bench.base import rng
    from rae_bench.data import catalogue as sources
    from rae_bench.models import networks, training
    from rae_bench.models.autoencoder import build
    from rae_bench.study.config import load_study

    process.configure_torch(compute)
    if way == "free":
        torch.set_deterministic_debug_mode("default")
        torch.backends.cudnn.benchmark = True
    if way in ("graph", "compiled"):
        rng.normal = lambda shape, _, device: torch.randn(shape, device=device)
    if way == "plain":
        networks.MEMORY_ORDER[device] = torch.contiguous_format
    study = load_study("digits")
    data, spec = sources.prepare(study.datasets["digits"].data), study.training("digits", model)
    images = training.to_device(data.images[data.splits["train"]][: updates * BATCH], device)[:]
    layout = replace(spec.network, width=width, start_width=8 * width)
    network = networks.placed(build(layout, spec.objective, 0), device)
    task = training.task_of(network, spec.objective, precision=compute.precision)
    settings = replace(spec.optimisation, batch_size=BATCH)
    epoch = ours(task, settings, images) if way in ("ours", "plain") else bare(task, settings, images, way)
    seconds = []
    for _ in range(1 + ROUNDS):  # the first warms up
        started = time.perf_counter()
        epoch()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    taken = statistics.median(seconds[1:])
    found: Found = {"images_per_second": len(images) / taken}
    if device == "cuda":
        found["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
            epoch()
            torch.cuda.synchronize()
        found["idle"] = 1 - sum(one.self_device_time_total for one in seen.key_averages()) / 1e6 / taken
    return found


def ours(task: Any, settings: Any, images: Any) -> Callable[[], None]:
    """An epoch of `optimise`, without its validation."""
    from rae_bench.models.optimisation import Loop

    loop = Loop.start(task.model, replace(settings, epochs=1 + 2 * ROUNDS), len(images), seed=0)

    def epoch() -> None:
        loop.train_epoch(task, settings, images)
        loop.batch, loop.losses = 0, []

    return epoch


def bare(task: Any, settings: Any, images: Any, way: str) -> Callable[[], None]:
    """An epoch of a loop of one's own, in one of its ways."""
    import torch

    parameters, generator = list(task.model.parameters()), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(parameters, lr=settings.learning_rate, fused=True, capturable=way == "graph")
    loss = torch.compile(task.loss) if way == "compiled" else task.loss
    task.model.train()

    def update(batch: Any) -> None:
        adam.zero_grad(set_to_none=True)
        loss(batch, generator)[-1].backward()
        adam.step()

    step = captured(update, images[:BATCH].clone()) if way == "graph" else update

    def epoch() -> None:
        for indices in torch.randperm(len(images), generator=generator).to(images.device).split(BATCH):
            step(images[indices])

    return epoch


def captured(update: Callable[[Any], None], batch: Any) -> Callable[[Any], None]:
    """`update` as a CUDA graph, which reads `batch`: others are copied there before it is replayed."""
    import torch

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # as torch asks: what is made at first use is not captured
        for _ in range(3):
            update(batch)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update(batch)

    def replay(other: Any) -> None:
        batch.copy_(other)
        graph.replay()

    return replay


def one(way: str, model: str, precision: str, device: str, width: int, updates: int) -> Found:
    """What a process of its own finds; `failed`, a line, where it does not come to its end."""
    command = [sys.executable, "-W", "ignore", __file__, "--one", way, model, precision, device, str(width)]
    done = subprocess.run([*command, str(updates)], capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:300]}
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--updates", type=int, default=30)
    for name, known in (("models", MODELS), ("ways", WAYS), ("precisions", PRECISIONS)):
        parser.add_argument(f"--{name}", nargs="+", choices=known, default=known)
    asked = parser.parse_args()
    found = {}
    for key in itertools.product(asked.models, asked.precisions, asked.ways):
        model, precision, way = key
        found[key] = one(way, model, precision, asked.device, asked.width, asked.updates)
        print(*key, found[key], flush=True)
    if asked.device == "cuda":
        keep(found, asked.width)


def keep(found: dict[tuple[str, str, str], Found], width: int) -> None:
    """Write benchmarks/found/gpu.json, from which `table.py` makes its tables."""
    import records
    import torch

    ratios, rows = [], []
    for (model, precision, way), one in found.items():
        told = one.get("failed") or f"{one['images_per_second']:.0f}"
        rows.append((model, precision, way, told, *(f"{one[key]:.2f}" if key in one else "" for key in ("idle",))))
        for against, named, bar in (("bare", "a bare loop", 0.97), ("plain", "the usual order of memory", 1.0)):
            theirs, mine = (
                found.get((model, precision, against), {}).get("images_per_second"),
                one.get("images_per_second"),
            )
            if way == "ours" and mine and theirs:
                what = f"{model}, width {width}, {precision}: against {named}"
                ratios.append(
                    records.Ratio(what, float(mine), float(theirs), "images/s", float(mine) / float(theirs), bar)
                )
    columns = ("model", "precision", "way", "images/s, or why not", "share of the time without a kernel")
    title = f"Training on a GPU ({torch.cuda.get_device_name()}, batch {BATCH}, digits, width {width})"
    records.write("gpu", title, ratios, tables=[records.Table("Ways to make an update.", columns, rows)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(*sys.argv[2:6], *map(int, sys.argv[6:]))))  # type: ignore[arg-type]
    else:
        main()
