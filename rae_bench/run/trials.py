"""Whether bfloat16 pays on this machine: seconds of updates of a study's own networks, in each precision in turn.

It halves the bytes that pass between layers. Where a processor multiplies in it, or waits for memory, that saves time;
where it converts back and forth, it costs some.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import get_args

from rae_bench.base.specs import Precision
from rae_bench.models.specs import TrainingSpec
from rae_bench.study.study import Study

SECONDS = 10.0
"""How long a trial takes, all data sets of a study together."""


@dataclass(frozen=True)
class Trial:
    """What a data set's network was found to do here: images a second, by precision."""

    dataset: str
    model: str
    rates: dict[Precision, float]

    @property
    def ratio(self) -> float:
        """How many times as fast as float32 bfloat16 is."""
        return self.rates["bfloat16"] / self.rates["float32"]

    @property
    def is_slower(self) -> bool:
        """Whether bfloat16 costs time here."""
        return self.ratio < 1

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in self.rates.items())
        told = f"bfloat16 is {self.ratio:.2f} times as fast as float32 here ({rates} images/s)"
        return f"{self.dataset}, {self.model}: {told}"


def trials(study: Study, seconds: float = SECONDS) -> Iterator[Trial]:
    """A trial of each data set, of its first model that is trained under an objective of the suite."""
    found = []
    for dataset in study.datasets:
        specs = {model: study.training(dataset, model) for model in study.models}
        found += [(dataset, *one) for one in specs.items() if one[1].objective and one[1].network.is_optimised][:1]
    for dataset, model, spec in found:
        yield Trial(dataset, model, images_a_second(spec, seconds / len(found)))


def images_a_second(spec: TrainingSpec, seconds: float) -> dict[Precision, float]:
    """The images a second of the quickest update in so many `seconds`, by precision; at least two updates of each.

    Precisions take turns, so that what else runs here hinders both.
    """
    import torch

    from rae_bench.models.catalogue import build
    from rae_bench.models.networks import placed
    from rae_bench.models.training import learning

    network, batch, device = spec.network, spec.optimisation.batch_size, spec.compute.device
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (batch, *network.sample_shape), dtype=torch.uint8, generator=generator).to(device)
    tasks = {}
    for precision in get_args(Precision):
        model = placed(build(network, spec.objective, seed=0), device).train()
        task = learning(replace(spec, compute=replace(spec.compute, precision=precision)), model)
        tasks[precision] = task, torch.optim.Adam(model.parameters(), fused=True)
    taken: dict[Precision, list[float]] = {precision: [] for precision in tasks}
    ends = perf_counter() + seconds
    while perf_counter() < ends or min(map(len, taken.values())) < 3:  # the first warms up
        for precision, (task, adam) in tasks.items():
            started = perf_counter()
            adam.zero_grad(set_to_none=True)
            task.loss(x, generator)[-1].backward()  # type: ignore[no-untyped-call]
            adam.step()
            if device == "cuda":
                torch.cuda.synchronize()
            taken[precision].append(perf_counter() - started)
    return {precision: batch / min(times[1:]) for precision, times in taken.items()}
