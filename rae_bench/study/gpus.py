"""What GPUs are said to compute: peaks of their maker's data sheets, for `cost` where no GPU was timed.

Nothing here is measured. A training reaches a share of a peak that depends on its layers and its batch: UTILISATION
stands for it until a GPU is timed (`cost STUDY --calibrate`, there).
"""

from dataclasses import dataclass

UTILISATION = 0.35
"""The share of its peak in float32 that a GPU is taken to reach in convolutions. Assumed, not measured."""


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet: the year it came, and its peak in float32, TFLOP/s, without tensor cores."""

    year: int
    teraflops: float
    source: str


GPUS = {
    "V100": Gpu(2017, 15.7, "NVIDIA V100 data sheet, SXM2"),
    "T4": Gpu(2018, 8.1, "NVIDIA T4 data sheet"),
    "A100": Gpu(2020, 19.5, "NVIDIA A100 data sheet"),
    "RTX 3090": Gpu(2020, 35.6, "NVIDIA GA102 white paper"),
    "H100": Gpu(2022, 66.9, "NVIDIA H100 white paper, SXM5"),
    "RTX 4090": Gpu(2022, 82.6, "NVIDIA Ada white paper"),
}
"""By the name that `cost --device` takes; an H200 computes as an H100.

TF32 and bfloat16 have higher peaks, of which less is reached.
"""
