"""What the process of each stage imports for its work, and how: before it, so that it counts as imports in the costs.

Only what that stage needs: torch takes a second of a core, scikit-learn another, torch's compiler half a second. Who
needs one of them in one function only imports it there.
"""

import gc
import importlib

from rae_bench.densities.specs import Density
from rae_bench.models.layouts.specs import LinearNetwork
from rae_bench.models.specs import TrainingSpec
from rae_bench.scoring.specs import EvaluationSpec, FloorSpec, is_fid

Modules = tuple[str, ...]

# torch's optimisers load the compiler, which nobody here asks for, at their first step
LEARNING: Modules = ("rae_bench.models.training", "torch._dynamo")
FRAMES: Modules = ("pandas", "pyarrow.parquet")
READING: Modules = ("rae_bench.scoring.catalogue", "rae_bench.scoring.metrics.measure")
SCORING: Modules = ("rae_bench.scoring.catalogue", "rae_bench.scoring.evaluation", "sklearn.cluster")
# brings torchvision and torch's compiler along, three quarters of a second
FIDELITY: Modules = ("torch_fidelity.metric_kid",)

STAGES: dict[str, Modules] = {
    "prepare": ("rae_bench.data.catalogue",),
    "reference": ("rae_bench.data.catalogue", *READING),
    "floor": ("rae_bench.data.catalogue", *SCORING),
    "tryout": ("rae_bench.data.catalogue", "rae_bench.run.tryouts", *LEARNING),
    "train": ("rae_bench.data.catalogue", *LEARNING, *FRAMES),
    "decode": (
        "rae_bench.data.catalogue",
        "rae_bench.scoring.catalogue",
        "rae_bench.scoring.decoded",
        "scipy",
        "skimage.metrics",
    ),
    "evaluate": ("rae_bench.data.catalogue", "rae_bench.study.results", *SCORING, "skimage.metrics", *FRAMES),
    "protocols": ("rae_bench.scoring.catalogue", "rae_bench.scoring.evaluation", *FRAMES),
    "collect": ("rae_bench.study.results", *FRAMES),
    "tables": ("rae_bench.report.tables.catalogue", "scipy.stats", *FRAMES),
    "figures": ("rae_bench.report.plots.catalogue", "matplotlib.backends.backend_pdf", *FRAMES),
    "report": ("rae_bench.report.page", "scipy.stats", *FRAMES),
}
"""What each stage imports; `fit` adds what its density needs, a linear `train` and metrics what they need."""


def of_training(spec: TrainingSpec) -> Modules:
    """What `train` imports."""
    return (*STAGES["train"], "scipy.linalg") if isinstance(spec.network, LinearNetwork) else STAGES["train"]


def of_scoring(stage: str, spec: EvaluationSpec | FloorSpec) -> Modules:
    """What `evaluate` and `floor` import: torch-fidelity only where it is asked."""
    counts = {spec.n_images, getattr(spec, "n_generated", spec.n_images)}
    overlap = all(spec.metrics.has_overlapping_subsets(spec.n_images, n) for n in counts)
    return STAGES[stage] if overlap and not is_fid(spec.extractor) else (*STAGES[stage], *FIDELITY)


def of_density(spec: Density) -> Modules:
    """What `fit` imports."""
    return (*spec.modules, *LEARNING) if spec.is_network else spec.modules


def load(modules: Modules) -> None:
    """Import `modules`, after the number of threads has been set.

    Thousands of modules make millions of objects, all there to stay: looking among them for garbage meanwhile, and at
    each collection afterwards, took a fifth of the time.
    """
    gc.disable()
    try:
        for name in modules:
            importlib.import_module(name)
    finally:
        gc.enable()
    gc.freeze()
