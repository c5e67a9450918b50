"""What the process of each stage imports for its work, and how: before it, so that it counts as imports in the costs.

Only what that stage needs: torch takes a second of a core, scikit-learn another, torch's compiler half a second. Who
needs one of them in one function only imports it there.
"""

import gc
import importlib

from rae_bench import specs

Modules = tuple[str, ...]

# torch's optimisers load the compiler, which nobody here asks for, at their first step
LEARNING: Modules = ("rae_bench.training", "torch._dynamo")
FRAMES: Modules = ("pandas", "pyarrow.parquet")
READING: Modules = ("rae_bench.features", "rae_bench.metrics")
SCORING: Modules = ("rae_bench.evaluation", "sklearn.cluster")
# brings torchvision and torch's compiler along, three quarters of a second
FIDELITY: Modules = ("torch_fidelity.metric_kid",)

STAGES: dict[str, Modules] = {
    "prepare": ("rae_bench.datasets",),
    "reference": ("rae_bench.datasets", *READING),
    "floor": ("rae_bench.datasets", *SCORING, "scipy.linalg"),
    "train": ("rae_bench.datasets", *LEARNING, *FRAMES),
    "evaluate": ("rae_bench.datasets", "rae_bench.results", *SCORING, "skimage.metrics", *FRAMES),
    "protocols": ("rae_bench.evaluation", *FRAMES),
    "collect": ("rae_bench.results", *FRAMES),
    "tables": ("rae_bench.tables", "scipy.stats", *FRAMES),
    "figures": ("rae_bench.plots", "matplotlib.backends.backend_pdf", *FRAMES),
    "report": ("rae_bench.report", *FRAMES),
}
"""By stage; of `fit` it is a question of the density, of what is scored also one of the metrics."""


def of_scoring(stage: str, spec: specs.EvaluationSpec | specs.FloorSpec) -> Modules:
    """What `evaluate` and `floor` import: torch-fidelity only where it is asked."""
    overlap = spec.metrics.has_overlapping_subsets(spec.n_images, spec.n_images)
    return STAGES[stage] if overlap and not specs.is_fid(spec.extractor) else (*STAGES[stage], *FIDELITY)


def of_density(spec: specs.Density) -> Modules:
    """What `fit` imports."""
    match spec:
        case specs.GaussianMixture() | specs.DirichletMixture():
            return ("rae_bench.densities", "sklearn.mixture")
        case specs.SplineFlow():
            return ("rae_bench.densities.flow", "zuko", *LEARNING)
        case specs.FlowMatching():
            return ("rae_bench.densities.flow_matching", *LEARNING)
        case specs.SecondStage():
            return ("rae_bench.densities.second_stage", *LEARNING)
        case specs.DaiWipfSecondStage():
            return ("rae_bench.densities.dai_wipf", *LEARNING)
        case _:
            return ("rae_bench.densities",)


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
