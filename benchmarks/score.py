"""Time and memory of `python -m rae_bench score` on large sets: 10,000 x 10,000 images of 2,048 features by default.

Run with [N D]. Features are correlated and not negative, as after a ReLU.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main(n: int, d: int) -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((d, d), dtype=np.float32) * np.linspace(1, 0.02, d, dtype=np.float32) / np.sqrt(d)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.npy" for name in ("real", "fake")]
        for path, scale in zip(paths, (1.0, 1.1), strict=True):
            np.save(path, scale * np.maximum(rng.standard_normal((n, d), dtype=np.float32) @ mixing, 0))
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "rae_bench", "score", *map(str, paths)])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    if status:
        sys.exit(f"score ended with status {status}")
    print(f"{n} x {n} x {d}, {os.cpu_count()} cores: {seconds:.0f} s, largest memory {usage.ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    main(*(map(int, sys.argv[1:]) if len(sys.argv) > 1 else (10_000, 2048)))
