"""What GPUs are said to compute: peaks of their maker's data sheets, for `cost` where no GPU was timed.

Nothing here is measured, and the sheets were read at second hand. A training reaches a share of a peak that depends on
its layers and its batch: UTILISATION stands for it until a GPU is timed (`cost STUDY --calibrate`, there).
"""

from dataclasses import dataclass

UTILISATION = 0.35
"""The share of its peak in float32 that a GPU is taken to reach in convolutions. Assumed, not measured."""


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet: its peak in float32 without tensor cores, TFLOP/s, and which sheet says so."""

    teraflops: float
    source: str


GPUS = {
    "V100": Gpu(15.7, "NVIDIA V100 data sheet, SXM2"),
    "T4": Gpu(8.1, "NVIDIA T4 data sheet"),
    "A100": Gpu(19.5, "NVIDIA A100 data sheet"),
    "RTX 3090": Gpu(35.6, "NVIDIA GA102 white paper"),
    "H100": Gpu(66.9, "NVIDIA H100 white paper, SXM5"),
    "RTX 4090": Gpu(82.6, "NVIDIA Ada white paper"),
}
"""The GPUs that `cost --device` knows, by name. TF32 and bfloat16 have higher peaks, of which less is reached."""
