"""Where files of pretrained weights lie and where they come from, told without loading torch.

The machine's environment, not the study, says where they are: a file of its own for Inception, else torch.hub's cache.
"""

import os
from pathlib import Path

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d"
# Of the 64 digits the eight in the file's name (the hub's convention): the file was out of reach where this was
# written, so the whole hash could not be confirmed. Eight catch every accident, but not a forger.
INCEPTION_VARIABLE = "RAE_BENCH_INCEPTION_WEIGHTS"
DINO_CODE = "facebookresearch_dinov2_main"
DINO_FILE = "dinov2_vitl14_pretrain.pth"
"""The names that torch.hub gives them in its cache."""
DINO_URL = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/{DINO_FILE}"
DINO_CODE_URL = "https://github.com/facebookresearch/dinov2/archive/main.zip"


def hub() -> Path:
    """The folder of torch.hub's cache, as torch itself finds it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(os.environ.get("TORCH_HOME", cache)).expanduser() / "hub"


def inception_file(url: str = INCEPTION_URL) -> Path:
    """The file that RAE_BENCH_INCEPTION_WEIGHTS names, else torch.hub's copy of `url`, there or not."""
    named = os.environ.get(INCEPTION_VARIABLE)
    return Path(named) if named else hub() / "checkpoints" / url.rpartition("/")[2]


def dino_files() -> tuple[Path, Path]:
    """Where torch.hub keeps, or will keep, the code of DINOv2 and its weights."""
    return hub() / DINO_CODE, hub() / "checkpoints" / DINO_FILE


def missing(extractor: str) -> list[Path]:
    """The files of `extractor` that do not come with the packages and are not there."""
    needed = {"inception_v3_compat": (inception_file(),), "dinov2_vit_l_14": dino_files()}
    return [path for path in needed.get(extractor, ()) if not path.exists()]
