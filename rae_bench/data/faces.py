"""Faces drawn from known factors: square RGB images of any size, synthetic, any number of them.

A face is a stack of soft-edged shapes given by signed distances (ellipses, capsules, half planes), painted back to
front over a background gradient. Everything is vectorised over images and done in float64, so the same factors
give the same bytes. The factors of each image are kept: their law is known, which photographs never offer.
"""

import numpy as np
import numpy.typing as npt

Factors = dict[str, npt.NDArray[np.float64]]
Classes = dict[str, npt.NDArray[np.int64]]
Field = npt.NDArray[np.float64]
"""(n, size, size): a value per image and pixel."""

SKIN = np.array([[255, 224, 196], [241, 194, 150], [208, 150, 106], [150, 98, 62], [96, 60, 38]]) / 255.0
HAIR = np.array([[28, 22, 20], [84, 54, 34], [150, 100, 52], [222, 186, 112], [172, 70, 36]]) / 255.0
IRIS = np.array([[74, 48, 30], [60, 110, 160], [70, 120, 72]]) / 255.0
LONG_HAIR, GLASSES = 0.45, 0.25
"""Shares of the faces that have them."""

LAW = {
    "hair": np.full(len(HAIR), 1 / len(HAIR)),
    "long_hair": np.array([1 - LONG_HAIR, LONG_HAIR]),
    "glasses": np.array([1 - GLASSES, GLASSES]),
}
"""The factors that are classes a blurred image still shows (of 64 pixels an iris is three, and lost), with each class's
probability. All factors are independent."""

_BATCH = 100


def draw_factors(n: int, rng: np.random.Generator) -> Factors:
    """N independent faces' factors, each a float64 (n,) array.

    Positions, sizes and gaze are in units of half the image's width; angles in radians; `skin` runs along the five
    tones of SKIN; `hair` and `iris` are indices; `long_hair`, `glasses` are 0 or 1.
    """

    def uniform(low: float, high: float) -> npt.NDArray[np.float64]:
        return rng.uniform(low, high, n)

    return {
        "background_hue": uniform(0, 1),
        "background_light": uniform(0.35, 0.9),
        "background_slope": uniform(-0.25, 0.25),
        "head_x": uniform(-0.12, 0.12),
        "head_y": uniform(-0.08, 0.12),
        "tilt": uniform(-0.25, 0.25),
        "turn": uniform(-1, 1),
        "face_width": uniform(0.42, 0.54),
        "face_height": uniform(0.56, 0.70),
        "skin": uniform(0, len(SKIN) - 1),
        "light": uniform(-0.25, 0.25),
        "hair": rng.integers(0, len(HAIR), n).astype(np.float64),
        "hair_shade": uniform(0.85, 1.15),
        "hair_line": uniform(0.18, 0.40),
        "long_hair": (uniform(0, 1) < LONG_HAIR).astype(np.float64),
        "eye_distance": uniform(0.17, 0.23),
        "eye_size": uniform(0.065, 0.095),
        "eye_open": uniform(0.45, 0.85),
        "iris": rng.integers(0, len(IRIS), n).astype(np.float64),
        "gaze": uniform(-0.03, 0.03),
        "brow_height": uniform(0.11, 0.17),
        "brow_angle": uniform(-0.35, 0.35),
        "nose_length": uniform(0.12, 0.22),
        "mouth_width": uniform(0.12, 0.22),
        "mouth_curve": uniform(-0.10, 0.07),
        "mouth_open": uniform(0.02, 0.055),
        "glasses": (uniform(0, 1) < GLASSES).astype(np.float64),
    }


COLUMNS = "columns of factors: "
"""Begins the part of a data set's note that names the factors, in the order of their columns."""


def named(note: str, columns: npt.NDArray[np.float64]) -> Factors:
    """The factors by name, each (n,), of a prepared data set's `factors` (n, columns) and its note."""
    return dict(zip(note.split(COLUMNS)[1].split(", "), columns.T, strict=True))


def classes(factors: Factors) -> Classes:
    """The factors of LAW as class indices, each int64 (n,)."""
    return {name: factors[name].astype(np.int64) for name in LAW}


def render(factors: Factors, size: int) -> npt.NDArray[np.uint8]:
    """The faces as uint8 (n, 3, size, size), drawn in batches."""
    n = len(factors["skin"])
    parts = [
        _render_batch({name: values[start : start + _BATCH] for name, values in factors.items()}, size)
        for start in range(0, n, _BATCH)
    ]
    return np.concatenate(parts)


def _render_batch(factors: Factors, size: int) -> npt.NDArray[np.uint8]:
    f = {name: values[:, None, None] for name, values in factors.items()}
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    page_y, page_x = (grid[None] for grid in np.meshgrid(axis, axis, indexing="ij"))
    soft = 1.5 / size  # half the width of an edge's ramp: about one pixel

    cos, sin = np.cos(f["tilt"]), np.sin(f["tilt"])
    x = cos * (page_x - f["head_x"]) + sin * (page_y - f["head_y"])
    y = -sin * (page_x - f["head_x"]) + cos * (page_y - f["head_y"])
    shift = 0.07 * f["turn"]  # a turned head moves its features sideways, not its outline

    image = _background(f, page_y)
    skin = _skin(f)
    hair = HAIR[factors["hair"].astype(int)][:, :, None, None] * f["hair_shade"][:, None]
    width, height = f["face_width"], f["face_height"]

    def paint(distance: Field, colour: npt.NDArray[np.float64], opacity: Field | float = 1.0) -> None:
        nonlocal image
        cover = (np.clip(0.5 - distance / (2 * soft), 0, 1) * opacity)[:, None]
        image = image * (1 - cover) + colour * cover

    back = np.minimum(_ellipse(x, y + 0.10, width + 0.10, height + 0.02), _box(x, y - 0.45, width + 0.09, 0.5))
    paint(np.where(f["long_hair"] > 0, back, _ellipse(x, y + 0.14, width + 0.06, height - 0.02)), hair)
    paint(_box(x, y - 0.75, 0.17, 0.35), skin * 0.82)
    paint(_ellipse(page_x - f["head_x"], page_y - 1.12, 0.75, 0.28), 0.35 + 0.4 * hair[:, ::-1])
    face = _ellipse(x, y, width, height)
    shade = 1 + f["light"][:, None] * x[:, None] / width[:, None]
    paint(face, np.clip(skin * shade, 0, 1))
    paint(np.maximum(face - 0.02, y + height * (1 - f["hair_line"]) - 0.22 * x**2), hair)

    dark = np.array([0.13, 0.10, 0.10])[None, :, None, None]
    iris = IRIS[factors["iris"].astype(int)][:, :, None, None]
    for side in (-1, 1):
        eye_x, eye_y = x - side * f["eye_distance"] - shift, y + 0.08
        opening = f["eye_size"] * f["eye_open"]
        white = _ellipse(eye_x, eye_y, f["eye_size"], opening)
        paint(white, np.array(0.96))
        paint(np.maximum(white, _ellipse(eye_x - f["gaze"], eye_y, 0.045, 0.045)), iris)
        paint(np.maximum(white, _ellipse(eye_x - f["gaze"], eye_y, 0.02, 0.02)), dark)
        slope = np.tan(f["brow_angle"]) * side
        brow_y = eye_y + f["brow_height"] - slope * eye_x * 0.5
        paint(_box(eye_x, brow_y, f["eye_size"] + 0.02, 0.018), hair * 0.7)
        ring = np.abs(_ellipse(eye_x, eye_y, 0.135, 0.12)) - 0.016
        paint(ring, dark, f["glasses"])
    paint(_box(x - shift, y + 0.10, 0.05, 0.014), dark, f["glasses"])

    nose_y = y + 0.03 - f["nose_length"]
    paint(_ellipse(x - 1.6 * shift, nose_y, 0.055, 0.038), np.clip(skin * 0.78, 0, 1))
    mouth_y = y - 0.33 + f["mouth_curve"] * (1 - ((x - shift) / f["mouth_width"]) ** 2) * -1
    lips = np.clip(skin * np.array([0.92, 0.52, 0.52])[None, :, None, None], 0, 1)
    paint(np.maximum(np.abs(mouth_y) - f["mouth_open"], np.abs(x - shift) - f["mouth_width"]), lips)

    pixels: npt.NDArray[np.uint8] = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return pixels


def _background(f: Factors, page_y: Field) -> npt.NDArray[np.float64]:
    hue = f["background_hue"] * 2 * np.pi
    tint = np.stack([np.cos(hue), np.cos(hue - 2 * np.pi / 3), np.cos(hue + 2 * np.pi / 3)], axis=1)
    light = f["background_light"] + f["background_slope"] * page_y
    background: npt.NDArray[np.float64] = np.clip(light[:, None] + 0.12 * tint, 0, 1)
    return background


def _skin(f: Factors) -> npt.NDArray[np.float64]:
    tone = f["skin"][:, 0, 0]
    low = np.minimum(tone.astype(int), len(SKIN) - 2)
    part = (tone - low)[:, None]
    skin: npt.NDArray[np.float64] = (SKIN[low] * (1 - part) + SKIN[low + 1] * part)[:, :, None, None]
    return skin


def _ellipse(x: Field, y: Field, a: Field | float, b: Field | float) -> Field:
    """Signed distance to an ellipse with half axes a, b (exact on circles, close elsewhere)."""
    radius = np.sqrt((x / a) ** 2 + (y / b) ** 2)
    distance: Field = (radius - 1) * np.minimum(a, b)
    return distance


def _box(x: Field, y: Field, a: Field | float, b: Field | float) -> Field:
    """Signed distance (in the larger coordinate) to a box with half sides a, b."""
    distance: Field = np.maximum(np.abs(x) - a, np.abs(y) - b)
    return distance
