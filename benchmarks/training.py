"""Training images/s of this suite against Pythae's public trainers and against a bare PyTorch loop.

The sides train the same encoder and decoder modules (the paper's layout, 32x32), each in its own process as its users
start it, two threads, batch 100, Adam, the same real digits. Pythae's trainers are also given these modules with
torch's own transposed convolutions, as a user would write them: where freed pages are not kept, ours are slower.
Rounds alternate between the sides; medians. Against Pythae whole epochs count, validation included on both sides;
against the bare loop the updates alone, all it has.

Run with [ROUNDS]; Pythae is looked for in .bench/ (`make bench` puts it there) or in the environment.
"""

import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import records

THREADS, BATCH, N_TRAIN, N_VALIDATION = 2, 100, 3000, 200
EPOCHS = 4  # the first is not counted: memory is first touched in it
HERE = Path(__file__).parent


def data_and_specs(model: str, width: int) -> tuple[Any, Any, Any, Any]:
    """Digits (n, 1, 32, 32) uint8 for training and validation, and the digits' specs of `model` at `width`."""
    from rae_bench.data import catalogue as sources
    from rae_bench.study.config import load_study

    study = load_study("digits")
    data = sources.prepare(study.datasets["digits"].data)
    spec = study.training("digits", model)
    network = replace(spec.network, width=width, start_width=8 * width)
    optimisation = replace(spec.optimisation, epochs=EPOCHS, batch_size=BATCH)
    train, validation = (data.images[data.splits[split]] for split in ("train", "validation"))
    spec = replace(spec, network=network, optimisation=optimisation)
    return train[:N_TRAIN], validation[:N_VALIDATION], spec


def rates(seconds: list[float]) -> list[float]:
    """Images/s of each counted epoch, from the times at which all epochs ended."""
    return [N_TRAIN / (end - start) for start, end in itertools.pairwise(seconds)]


def ours(model: str, width: int, precision: str) -> dict[str, Any]:
    """`training.train` in a process set up as every stage's is."""
    from rae_bench.base.specs import Compute
    from rae_bench.run import process

    compute = Compute(device="cpu", threads=THREADS, tf32=False, precision=precision)  # type: ignore[arg-type]
    process.configure(compute)
    from rae_bench.models import optimisation, training

    process.configure_torch(compute)
    train, validation, spec = data_and_specs(model, width)
    ends: list[float] = []
    validating: list[float] = []
    plain = optimisation.validate

    def timed(*arguments: Any) -> dict[str, float]:
        started = time.perf_counter()
        found = plain(*arguments)
        validating.append(time.perf_counter() - started)
        return found

    optimisation.validate = timed  # only to know its share
    images = training.to_device(train, "cpu"), training.to_device(validation, "cpu")
    spec = replace(spec, compute=compute)
    training.train(spec, *images, seed=0, progress=lambda *_: ends.append(time.perf_counter()))
    whole = rates(ends)
    updates = [1 / (1 / rate - spent / N_TRAIN) for rate, spent in zip(whole, validating[1:], strict=True)]
    return {"whole": whole, "updates": updates}


def bare(model: str, width: int, precision: str) -> dict[str, Any]:
    """The loop a careful user writes around the same modules and loss, in a process set up the same way."""
    from rae_bench.base.specs import Compute
    from rae_bench.run import process

    compute = Compute(device="cpu", threads=THREADS, tf32=False, precision=precision)  # type: ignore[arg-type]
    process.configure(compute)
    import torch

    from rae_bench.models import objectives, training
    from rae_bench.models.autoencoder import build

    process.configure_torch(compute)
    train, _, spec = data_and_specs(model, width)
    images = torch.from_numpy(train).contiguous(memory_format=torch.channels_last)
    network = build(spec.network, spec.objective, 0)
    adam = torch.optim.Adam(network.parameters(), lr=spec.optimisation.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(0)
    network.train()
    ends = []
    for _ in range(EPOCHS):
        for indices in torch.randperm(len(images), generator=generator).split(BATCH):
            with training.computing_in(compute.precision, network, "cpu"):
                loss = objectives.loss(network, images[indices].float() / 255, spec.objective, generator)
            adam.zero_grad(set_to_none=True)
            loss.total.backward()
            adam.step()
        ends.append(time.perf_counter())
    return {"updates": rates(ends)}


def pythae(model: str, width: int, _: str, *, own_layers: bool = True) -> dict[str, Any]:
    """Pythae's model and trainer of that name with its default settings, but for batch, threads and Adam's rate.

    Without `own_layers` the transposed convolutions are torch's, which add their bias themselves.
    """
    import torch

    torch.set_num_threads(THREADS)
    from pythae.models import RAE_L2, VAE, RAE_L2_Config, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig, CoupledOptimizerTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    from rae_bench.models.layouts import catalogue as layouts

    train, validation, spec = data_and_specs(model, width)

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.features, length = layouts.features(spec.network)
            self.mean = torch.nn.Linear(length, spec.network.latent_dim)
            self.log_variance = torch.nn.Linear(length, spec.network.latent_dim) if model == "vae" else None

        def forward(self, x: torch.Tensor) -> Any:
            features = self.features(x)
            found = ModelOutput(embedding=self.mean(features))
            if self.log_variance is not None:
                found["log_covariance"] = self.log_variance(features)
            return found

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = layouts.decoder(spec.network)
            for layer in self.layers if not own_layers else ():
                if isinstance(layer, torch.nn.ConvTranspose2d):
                    layer.forward = functools.partial(torch.nn.ConvTranspose2d.forward, layer)

        def forward(self, z: torch.Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z))

    ends: list[float] = []

    class Ends(TrainingCallback):  # type: ignore[misc]
        """Keeps the times at which epochs end."""

        def on_log(self, *_: Any, **named: Any) -> None:  # noqa: ARG002  Pythae's signature
            ends.append(time.perf_counter())

    shape, latent = train.shape[1:], spec.network.latent_dim
    torch.manual_seed(0)
    common = {"num_epochs": EPOCHS, "per_device_train_batch_size": BATCH, "per_device_eval_batch_size": BATCH}
    with tempfile.TemporaryDirectory() as folder:
        if model == "vae":
            network = VAE(VAEConfig(input_dim=shape, latent_dim=latent), encoder=Encoder(), decoder=Decoder())
            config = BaseTrainerConfig(output_dir=folder, learning_rate=spec.optimisation.learning_rate, **common)
        else:
            rate = spec.optimisation.learning_rate
            network = RAE_L2(RAE_L2_Config(input_dim=shape, latent_dim=latent), encoder=Encoder(), decoder=Decoder())
            config = CoupledOptimizerTrainerConfig(
                output_dir=folder, encoder_learning_rate=rate, decoder_learning_rate=rate, **common
            )
        sets = [images.astype("float32") / 255 for images in (train, validation)]
        TrainingPipeline(training_config=config, model=network)(*sets, callbacks=[Ends()])
    return {"whole": rates(ends)}


SIDES = {"ours": ours, "bare": bare, "pythae": pythae, "torch_layers": functools.partial(pythae, own_layers=False)}


def measure(side: str, model: str, width: int, precision: str) -> dict[str, list[float]]:
    """What one process of `side` finds; Pythae's has nothing of our environment, as its users' has not."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "OMP_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent / ".bench"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, "--side", side, model, str(width), precision]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} {model} {width} {precision} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


BARS = {("rae_l2", "float32"): 2.0, ("vae", "float32"): 1.35, ("rae_l2", "bfloat16"): 2.9, ("vae", "bfloat16"): 2.0}
"""What was asked of our images/s over Pythae's."""
TURNS = [
    ("pythae", "float32"),
    ("torch_layers", "float32"),
    *((side, kind) for kind in ("float32", "bfloat16") for side in ("ours", "bare")),
]


def main(rounds: int) -> None:
    ratios, spread = [], []
    for model in ("rae_l2", "vae"):
        for width in (16, 32):
            found: dict[tuple[str, str, str], list[float]] = {}
            for _ in range(rounds):
                for side, precision in TURNS:
                    for kind, values in measure(side, model, width, precision).items():
                        found.setdefault((side, precision, kind), []).extend(values)
            middle = {key: statistics.median(values) for key, values in found.items()}
            for precision in ("float32", "bfloat16"):
                name, remark = f"{model}, width {width}, {precision}", ""
                if precision == "bfloat16":
                    remark = "Pythae's in float32"
                mine, theirs = middle["ours", precision, "whole"], middle["pythae", "float32", "whole"]
                bar = BARS[model, precision]
                what = f"{name}: against Pythae"
                ratios.append(records.Ratio(what, mine, theirs, "images/s", mine / theirs, bar, remark=remark))
                theirs = middle["torch_layers", "float32", "whole"]
                what = f"{name}: against Pythae with torch's own transposed convolutions"
                ratios.append(records.Ratio(what, mine, theirs, "images/s", mine / theirs, remark=remark))
                mine, theirs = middle["ours", precision, "updates"], middle["bare", precision, "updates"]
                what = f"{name}: against a bare loop"
                ratios.append(records.Ratio(what, mine, theirs, "images/s", mine / theirs, 0.97))
            for (side, precision, kind), values in found.items():
                row = (f"{model}, width {width}", side, precision, kind, min(values), middle[side, precision, kind])
                spread.append((*row, max(values)))
                print(*spread[-1], flush=True)
    records.write(
        "training",
        "Training against Pythae and a bare loop (two threads, batch 100, digits)",
        ratios,
        tables=[
            records.Table(
                f"Images/s of single epochs, {rounds} rounds of {EPOCHS - 1}.",
                ("", "side", "precision", "of", "least", "median", "most"),
                spread,
            )
        ],
        packages=("torch", "numpy"),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        print(json.dumps(SIDES[sys.argv[2]](sys.argv[3], int(sys.argv[4]), sys.argv[5])))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 3)
