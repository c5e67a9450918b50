"""What decoder regularisers cost a training step, and three estimates of ‖J‖²_F: their cost and how right they are.

Steps: digits, the paper's 32x32 layout, width 16, batch 100, two threads, float32; rounds alternate between the models.
Estimates: of a decoder in evaluation mode at 20 codes, against ‖J‖²_F by 16 forward derivatives along the axes; 200
draws each. A bias is told in standard errors of the mean, which only a bias of more than 2 or 3 of them survives.
"""

import statistics
import sys
import time
from collections.abc import Callable

from rae_bench.base.specs import Compute
from rae_bench.models.terms.specs import GradientPenalty, Objective
from rae_bench.run import process

COMPUTE = Compute(device="cpu", threads=2, tf32=False, precision="float32")
process.configure(COMPUTE)

import records  # noqa: E402  threads come first
import steps  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402

from rae_bench.models.autoencoder import Autoencoder  # noqa: E402
from rae_bench.models.terms import reconstruction, regularisers  # noqa: E402

WIDTH, STEPS, DRAWS, CODES = 16, 10, 200, 20
Estimate = Callable[[nn.Module, Tensor, torch.Generator], tuple[Tensor, Tensor]]


def forward_derivative(decoder: nn.Module, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x_hat and the suite's penalty."""
    noise = {"direction": torch.randn(z.shape, generator=generator)}
    return regularisers.decode(decoder, z, GradientPenalty(kind="gradient_penalty", weight=1.0), noise)


def double_backward(decoder: nn.Module, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x_hat and ‖Jᵀ v‖², v ~ N(0, I) in image space, averaged over the batch."""
    z = z if z.requires_grad else z.detach().requires_grad_()
    x_hat = decoder(z)
    v = torch.randn(x_hat.shape, generator=generator)
    (g,) = torch.autograd.grad((x_hat * v).sum(), z, create_graph=True)
    return x_hat, g.square().sum(dim=1).mean()


def finite_difference(decoder: nn.Module, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """x_hat and ‖(D(z + hu) − D(z)) / h‖², u ~ N(0, I), h = 0.01, averaged over the batch."""
    step = 0.01
    moved, x_hat = decoder(z + step * torch.randn(z.shape, generator=generator)), decoder(z)
    return x_hat, ((moved - x_hat) / step).square().flatten(1).sum(dim=1).mean()


ESTIMATES: dict[str, Estimate] = {
    "forward derivative (the suite's)": forward_derivative,
    "double backward": double_backward,
    "finite difference": finite_difference,
}


def penalised(estimate: Estimate) -> steps.Loss:
    """The loss of RAE-GP on digits with another estimate of its penalty."""

    def loss(network: Autoencoder, x: Tensor, _: Objective, generator: torch.Generator) -> Tensor:
        z = network.encode(x).mean
        x_hat, penalty = estimate(network.decoder, z, generator)
        return reconstruction.half_squared_error(x, x_hat) + 0.5e-2 * z.square().sum(dim=1).mean() + 1e-6 * penalty

    return loss


def exact(decoder: nn.Module, z: Tensor) -> float:
    """The mean of ‖J‖²_F over codes z (n, d)."""
    total = 0.0
    for axis in torch.eye(z.shape[1]):
        with torch.no_grad(), forward_ad.dual_level():
            image = decoder(forward_ad.make_dual(z, axis.expand_as(z).contiguous()))
            tangent = forward_ad.unpack_dual(image).tangent  # type: ignore[no-untyped-call]
            total += float(tangent.double().square().flatten(1).sum(dim=1).mean())
    return total


def main(rounds: int) -> None:
    process.configure_torch(COMPUTE)
    sides = {model: steps.updates(model, WIDTH)[0] for model in ("rae", "rae_gp", "rae_sn", "rae_l2")}
    sides |= {name: steps.updates("rae", WIDTH, penalised(estimate))[0] for name, estimate in ESTIMATES.items()}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):  # the first warms up
        for name, update in sides.items():
            started = time.perf_counter()
            for _ in range(STEPS):
                update()
            if round_:
                spent[name].append((time.perf_counter() - started) / STEPS * 1e3)
    middle = {name: statistics.median(values) for name, values in spent.items()}
    plain = middle["rae"]
    ratios = [
        records.Ratio(
            f"a step of {model}, against one of rae", middle[model], plain, "ms", middle[model] / plain, bar, True
        )
        for model, bar in (("rae_gp", 3.7), ("rae_sn", 1.3), ("rae_l2", None))
    ]
    update, network = steps.updates("rae", WIDTH)
    for _ in range(100):
        update()
    network.eval()
    z = torch.randn(CODES, 16, generator=torch.Generator().manual_seed(1))
    truth, rows = exact(network.decoder, z), []
    for name, estimate in ESTIMATES.items():
        generator = torch.Generator().manual_seed(2)
        found = [float(estimate(network.decoder, z, generator)[1]) / truth for _ in range(DRAWS)]
        mean, sd = statistics.mean(found), statistics.stdev(found)
        bias = (mean - 1) / sd * DRAWS**0.5
        rows.append((name, f"{middle[name] / plain:.2f}", f"{mean:.4f}", f"{sd:.3f}", f"{bias:.1f}"))
    columns = ("estimate of ‖J‖²_F", "time of a step / plain", "mean / exact", "SD / exact", "bias, standard errors")
    records.write(
        "regularisers",
        "Decoder regularisers (two threads, batch 100, width 16, float32)",
        ratios,
        tables=[records.Table(f"Estimates of the gradient penalty, {DRAWS} draws of {CODES} codes.", columns, rows)],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 7)
