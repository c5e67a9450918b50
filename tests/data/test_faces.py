"""Drawn faces: the same factors give the same bytes, and each factor moves what it names."""

import numpy as np
import pytest

from rae_bench.data import faces

SIZE = 64


def drawn(n=40, seed=0):
    return faces.draw_factors(n, np.random.default_rng(seed))


def plain(n, **changes):
    """`n` upright, frontal, evenly lit faces in the middle, but for `changes`."""
    centre = ("head_x", "head_y", "tilt", "turn", "light", "glasses", "long_hair", "mouth_curve", "gaze", "brow_angle")
    factors = {name: np.full(n, values.mean()) for name, values in drawn().items()}
    factors |= {name: np.zeros(n) for name in (*centre, "hair", "iris")}
    return factors | {
        name: np.broadcast_to(np.asarray(value, dtype=float), n).copy() for name, value in changes.items()
    }


def page():
    """The coordinates of pixel centres, from -1 to 1, down and across."""
    axis = (np.arange(SIZE) - (SIZE - 1) / 2) / (SIZE / 2)
    return np.meshgrid(axis, axis, indexing="ij")


def changed(name, before, after, base=None):
    """Where an image changes when one factor does: (n, size, size)."""
    base = drawn() if base is None else base
    n = len(base["skin"])
    one, two = (faces.render({**base, name: np.full(n, float(value))}, SIZE) for value in (before, after))
    return (one != two).any(axis=1)


def test_faces_are_uint8_colour_images():
    images = faces.render(drawn(3), SIZE)
    assert images.shape == (3, 3, SIZE, SIZE)
    assert images.dtype == np.uint8
    assert images.std() > 20
    assert faces.render(drawn(3), 32).shape == (3, 3, 32, 32)


def test_the_same_factors_give_the_same_bytes_in_any_batch():
    factors = drawn(230)  # three batches of the renderer
    images = faces.render(factors, SIZE)
    alone = faces.render({name: values[150:153] for name, values in factors.items()}, SIZE)
    np.testing.assert_array_equal(images[150:153], alone)
    np.testing.assert_array_equal(images, faces.render(factors, SIZE))


def test_a_seed_draws_its_own_factors():
    one, again, other = drawn(seed=0), drawn(seed=0), drawn(seed=1)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert all(not np.array_equal(one[name], other[name]) for name in one)


def test_factors_are_independent():
    n = 5000
    table = np.stack(list(drawn(n).values()))
    correlation = np.corrcoef(table) - np.eye(len(table))
    assert np.abs(correlation).max() < 5 / np.sqrt(n)  # of 351 pairs


def test_faces_differ():
    images = faces.render(drawn(200), SIZE)
    assert len(np.unique(images.reshape(200, -1), axis=0)) == 200


def test_glasses_change_pixels_near_the_eyes_and_only_those():
    factors = drawn()
    for image, places in enumerate(changed("glasses", 0, 1)):
        f = {name: values[image] for name, values in factors.items()}
        down, across = page()
        down, across = down - f["head_y"], across - f["head_x"]
        # turn the page back by the head's tilt
        x = np.cos(f["tilt"]) * across + np.sin(f["tilt"]) * down
        y = np.cos(f["tilt"]) * down - np.sin(f["tilt"]) * across
        sides = [np.hypot(x - side * f["eye_distance"] - 0.07 * f["turn"], y + 0.08) for side in (-1, 1)]
        near = np.minimum(*sides) < 0.25  # a lens has half axes of 0.135; the bridge lies between them
        assert places.sum() > 30  # two rings of some 25 pixels each
        assert not (places & ~near).any()


@pytest.mark.parametrize(
    ("skin", "colour"),
    [(0, (255, 224, 196)), (1, (241, 194, 150)), (4, (96, 60, 38)), (1.5, (224.5, 172, 128)), (3.5, (123, 79, 50))],
)
def test_the_cheeks_have_the_colour_of_the_skin_factor(skin, colour):
    """Tones and their half-way mixtures, in evenly lit faces."""
    down, across = page()
    cheeks = (np.abs(np.abs(across) - 0.28) < 0.04) & (np.abs(down - 0.12) < 0.04)
    (image,) = faces.render(plain(1, skin=skin), SIZE)
    np.testing.assert_allclose(image[:, cheeks].mean(axis=1), colour, atol=0.51)  # rounding to levels


def test_the_mean_face_darkens_along_the_skin_factor():
    down, across = page()
    middle = np.hypot(down, across) < 0.4
    tones = np.linspace(0, 4, 9)
    brightness = faces.render(plain(9, skin=tones), SIZE)[:, :, middle].mean(axis=(1, 2))
    assert np.all(np.diff(brightness) < 0)


def test_a_background_change_leaves_the_face_alone():
    places = changed("background_hue", 0.1, 0.6, plain(1))[0]
    down, across = page()
    assert places[np.hypot(down, across) > 1.2].all()
    assert not places[np.hypot(down, across) < 0.35].any()


def test_a_mouth_change_stays_in_the_lower_face():
    places = changed("mouth_width", 0.13, 0.21, plain(1))[0]
    down, _ = page()
    assert places.any()
    assert not places[(down < 0.2) | (down > 0.5)].any()


def test_a_head_moves_as_its_position_says():
    step = 4 / (SIZE / 2)  # four pixels
    here, there = faces.render(plain(2, head_x=[0, step]), SIZE)
    inner = slice(12, 52)  # the background has no horizontal slope
    np.testing.assert_array_equal(there[:, inner, 16:52], here[:, inner, 12:48])


def test_a_frontal_face_is_symmetric():
    (image,) = faces.render(plain(1), SIZE)
    np.testing.assert_array_equal(image, image[:, :, ::-1])


def test_the_law_is_that_of_the_draws():
    n = 20_000
    found = faces.classes(drawn(n))
    assert set(found) == set(faces.LAW)
    for factor, p in faces.LAW.items():
        shares = np.bincount(found[factor], minlength=len(p)) / n
        assert p.sum() == pytest.approx(1)
        assert np.all(np.abs(shares - p) < 4 * np.sqrt(p * (1 - p) / n)), factor
