"""Seeds of one model trained together (`rae_bench.together`) against the same one after another, and side by side.

One process trains S models by one batched computation, or each by `training.train`; and two processes of one thread
share the S models, which is how a study is run on two cores. Images (of dense networks vectors) a second in the second
epoch of a VAE, all models counted: start-up is left out, a small validation is not. Batches of 100, float32. Then the
operators that one update calls, views apart, which on a GPU are kernels to launch; there was no GPU to time them on.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from records import Ratio, Table, write
from torch.utils._python_dispatch import TorchDispatchMode

from rae_bench import process, specs, training
from rae_bench.together import train_together

BATCH, ROUNDS = 100, 3
TOGETHER = (1, 2, 4, 8)
VAE = specs.Objective(specs.Gaussian("gaussian", 5.0), specs.GaussianKL("kl", 0.1), specs.NoRegulariser("none"))


def convolutional(width: int) -> specs.Network:
    """The 32x32 layout at a width."""
    return specs.ConvolutionalNetwork("convolutional", 1, 32, 4, width, 8 * width, 16, 0.1)


NETWORKS: dict[str, tuple[specs.Network, int]] = {  # and the updates of an epoch
    "dense, 3 x 64": (specs.DenseNetwork("dense", 16, 64, 3, 16), 40),
    "dense, 2 x 512": (specs.DenseNetwork("dense", 16, 512, 2, 16), 10),
    "width 4": (convolutional(4), 2),
    "width 8": (convolutional(8), 2),
    "width 16": (convolutional(16), 2),
}


def settings(name: str, updates: int = 0, epochs: int = 2) -> tuple[Any, ...]:
    """Network, objective, optimisation, data and validation."""
    network, usual = NETWORKS[name]
    generator, n = torch.Generator().manual_seed(0), (updates or usual) * BATCH
    if isinstance(network, specs.ConvolutionalNetwork):
        images = torch.randint(0, 256, (n, 1, 32, 32), generator=generator, dtype=torch.uint8)
        data = images.contiguous(memory_format=torch.channels_last)
    else:
        data = torch.randn(n, 16, generator=generator)
    optimisation = specs.Optimisation(epochs, BATCH, "shuffled", 1e-3, 1e-7, specs.Cosine("cosine"))
    return network, VAE, optimisation, data, data[:BATCH]


def second_epoch(train: Callable[[training.Progress], object]) -> float:
    """Seconds between the ends of the two epochs of a training, which is given its `progress`."""
    ends: list[float] = []
    train(lambda *_: ends.append(time.perf_counter()))
    first, second = ends
    return second - first


def together(name: str, seeds: Sequence[int]) -> float:
    """Seconds of an epoch of all, at once."""
    return second_epoch(lambda progress: train_together(*settings(name), seeds, progress))


def one_after_another(name: str, seeds: Sequence[int]) -> float:
    """Seconds of an epoch of each, added up."""
    return sum(
        second_epoch(lambda progress, seed=seed: training.train(*settings(name), seed, progress)) for seed in seeds
    )


def serve(asked: Connection) -> None:
    """A process of one thread that trains what it is asked to, one after another, until it is told to end."""
    process.configure(specs.Compute("cpu", 1, False, "float32"))
    process.configure_torch(specs.Compute("cpu", 1, False, "float32"))
    for name, seeds in iter(asked.recv, None):
        asked.send(one_after_another(name, seeds))


def in_two_processes(name: str, seeds: Sequence[int], ends: Sequence[Connection]) -> float:
    """Seconds of an epoch of all, half of them in each process."""
    for index, end in enumerate(ends):
        end.send((name, seeds[index::2]))
    return max(end.recv() for end in ends)


class Counting(TorchDispatchMode):
    """Counts operators that compute; views only describe memory."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += not func.is_view
        return func(*args, **kwargs or {})


def operators(name: str, seeds: Sequence[int], at_once: bool) -> int:
    """Calls in one update of all seeds: what two updates take more than one."""
    counts = []
    for updates in (1, 2):
        with Counting() as counted:
            if at_once:
                train_together(*settings(name, updates, epochs=1), seeds)
            else:
                _ = [training.train(*settings(name, updates, epochs=1), seed) for seed in seeds]
        counts.append(counted.calls)
    return counts[1] - counts[0]


def main(names: Sequence[str]) -> None:
    process.configure(specs.Compute("cpu", 2, False, "float32"))  # pages are kept, as in every stage
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    sides = [context.Process(target=serve, args=(there,), daemon=True) for _, there in pipes]
    for one in sides:
        one.start()
    ends = [here for here, _ in pipes]
    ratios, rows = [], []
    for name in names:
        for n in TOGETHER:
            seeds = range(n)
            found: dict[str, list[float]] = {}
            for _ in range(ROUNDS):
                for threads in (1, 2):
                    process.configure_torch(specs.Compute("cpu", threads, False, "float32"))
                    found.setdefault(f"together {threads}", []).append(together(name, seeds))
                    found.setdefault(f"apart {threads}", []).append(one_after_another(name, seeds))
                if n > 1:
                    found.setdefault("processes", []).append(in_two_processes(name, seeds, ends))
            samples = n * NETWORKS[name][1] * BATCH
            rate = {side: samples / statistics.median(seconds) for side, seconds in found.items()}
            one, two = (rate[f"together {threads}"] / rate[f"apart {threads}"] for threads in (1, 2))
            beside = f"{rate['processes']:.0f}" if n > 1 else ""
            each = [f"{rate[side]:.0f}" for side in ("together 1", "apart 1", "together 2", "apart 2")]
            rows.append((name, n, *each[:2], f"{one:.2f}", *each[2:], f"{two:.2f}", beside))
            print(*rows[-1], flush=True)
            if n == TOGETHER[-1]:
                for threads, ratio in ((1, one), (2, two)):
                    ours, other = rate[f"together {threads}"], rate[f"apart {threads}"]
                    what = f"{n} models together against one after another: {name}, threads: {threads}"
                    ratios.append(Ratio(what, ours, other, "images/s", ratio))
                ours, other = rate["together 2"], rate["processes"]
                what = f"{n} models together, 2 threads, against two processes of one thread: {name}"
                ratios.append(Ratio(what, ours, other, "images/s", ours / other))
    for end in ends:
        end.send(None)
    calls = [(n, operators("width 8", range(n), True), operators("width 8", range(n), False)) for n in TOGETHER]
    write(
        "together",
        "Seeds of one model trained together",
        ratios,
        tables=[
            Table(
                "Images/s of all models; two processes have one thread each.",
                (
                    "network",
                    "models",
                    *("together, 1 thread", "apart", "ratio", "together, 2 threads", "apart", "ratio"),
                    "two processes",
                ),
                rows,
            ),
            Table(
                "Operators an update of all models calls (width 8), not timed.", ("models", "together", "apart"), calls
            ),
        ],
    )


if __name__ == "__main__":
    main(sys.argv[1:] or list(NETWORKS))
