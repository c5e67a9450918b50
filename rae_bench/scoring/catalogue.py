"""Extractors by the names that studies give them: where the settings of scoring meet its code."""

from collections.abc import Callable
from functools import partial

from rae_bench.scoring import features
from rae_bench.scoring.features import FrozenExtractor, efficientnet_lite0
from rae_bench.scoring.specs import Extractor

EXTRACTORS: dict[Extractor, Callable[[str], FrozenExtractor]] = {
    "digit_classifier": features.digit_classifier,
    "face_features": features.face_features,
    "efficientnet_lite0": partial(efficientnet_lite0, "EffLite0", 96, "bilinear-antialias"),
    "efficientnet_lite0_bicubic": partial(efficientnet_lite0, "EffLite0-bicubic", 96, "bicubic-antialias-clipped"),
    "efficientnet_lite0_nearest": partial(efficientnet_lite0, "EffLite0-nearest", 96, "nearest-exact"),
    "efficientnet_lite0_128": partial(efficientnet_lite0, "EffLite0-128", 128, "bilinear-antialias"),
    "pixels": features.pixels,
    "inception_v3_compat": features.inception_v3_compat,
    "dinov2_vit_l_14": features.dinov2_vit_l_14,
}


def load_extractor(name: Extractor, device: str = "cpu") -> FrozenExtractor:
    """The extractor `name` on `device`, its weights checked against their SHA-256.

    Raises:
        FeatureError: the weight file is missing or has other bytes.
    """
    return EXTRACTORS[name](device)
