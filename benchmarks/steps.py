"""Single updates of the suite's models on real digits, for benchmarks that time or watch them."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rae_bench.data import catalogue as sources
from rae_bench.models import objectives, training
from rae_bench.models.autoencoder import Autoencoder, build
from rae_bench.models.terms.specs import Objective
from rae_bench.study.config import load_study

BATCH = 100
Loss = Callable[[Autoencoder, Tensor, Objective, torch.Generator], Tensor]


def objective(network: Autoencoder, x: Tensor, spec: Objective, generator: torch.Generator) -> Tensor:
    """What `training.train` minimises."""
    return objectives.loss(network, x, spec, generator).total


def updates(model: str, width: int, loss: Loss = objective) -> tuple[Callable[[], None], Autoencoder]:
    """A function that makes one update of `model`, in the paper's 32x32 layout of `width`; and the model."""
    study = load_study("digits")
    data = sources.prepare(study.datasets["digits"].data)
    spec = study.training("digits", model)
    images = training.to_device(data.images[data.splits["train"]], "cpu")
    network = build(replace(spec.network, width=width, start_width=8 * width), spec.objective, 0)
    network.train()
    adam = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)

    def update() -> None:
        x = training.as_input(images[torch.randint(len(images), (BATCH,), generator=generator)])
        total = loss(network, x, spec.objective, generator)
        adam.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        adam.step()

    return update, network
