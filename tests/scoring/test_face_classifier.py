"""The reader of the faces' factors: the committed weights read fresh faces, sharp and blurred, and only faces."""

import hashlib

import numpy as np
import pytest
import torch

from rae_bench.data import faces
from rae_bench.scoring import features
from rae_bench.scoring.face_classifier import (
    FaceImageError,
    accuracies,
    blurred,
    draw_means,
    read_classes,
    train_face_classifier,
)
from rae_bench.scoring.features import FeatureError, load_face_classifier


@pytest.fixture(scope="module")
def drawn():
    """500 faces, drawn with a seed that training never saw, and their classes."""
    factors = faces.draw_factors(500, np.random.default_rng(20_260_101))
    return faces.render(factors, 64), faces.classes(factors)


def test_the_committed_weights_read_fresh_faces(drawn):
    found = accuracies(load_face_classifier(), *drawn)
    assert set(found) == set(faces.LAW)
    assert min(found.values()) >= 0.98, found


def test_they_read_blurred_faces(drawn):
    images, classes = drawn
    soft = blurred(torch.from_numpy(images).float(), 2.0).round().to(torch.uint8).numpy()
    found = accuracies(load_face_classifier(), soft, classes)
    assert min(found.values()) >= 0.98, found


def test_they_see_in_a_mean_of_faces_what_most_of_these_have():
    """What a decoder makes of a code that does not hold the glasses is no face with glasses."""
    images, shares = draw_means(200, 8, np.random.default_rng(2))
    read = read_classes(load_face_classifier(), images)
    glasses = shares["glasses"][:, 1]
    assert read["glasses"][glasses <= 0.25].mean() <= 0.05
    assert read["glasses"][glasses >= 0.75].mean() >= 0.95
    for factor in ("hair", "long_hair"):
        assert (read[factor] == shares[factor].argmax(axis=1)).mean() >= 0.95, factor


def test_a_factor_read_is_the_one_that_was_changed():
    factors = faces.draw_factors(50, np.random.default_rng(1))
    model = load_face_classifier()
    for factor, law in faces.LAW.items():
        for value in range(len(law)):
            images = faces.render({**factors, factor: np.full(50, float(value))}, 64)
            assert (read_classes(model, images)[factor] == value).mean() >= 0.9, (factor, value)


def test_accuracy_is_the_share_of_right_answers(drawn):
    model = load_face_classifier()
    images = drawn[0][:50]
    answers = read_classes(model, images)
    assert set(accuracies(model, images, answers).values()) == {1}
    answers["glasses"][:10] = 1 - answers["glasses"][:10]
    assert accuracies(model, images, answers) == {factor: 0.8 if factor == "glasses" else 1 for factor in faces.LAW}


def test_classes_do_not_depend_on_the_batch_size(drawn, monkeypatch):
    model = load_face_classifier()
    whole = read_classes(model, drawn[0][:60])
    monkeypatch.setattr("rae_bench.scoring.face_classifier.READ_AT_ONCE", 7)
    for factor, values in read_classes(model, drawn[0][:60]).items():
        assert values.dtype == np.int64
        np.testing.assert_array_equal(values, whole[factor])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 64, 64), dtype=np.float32),
        np.zeros((3, 64, 64), dtype=np.uint8),
        np.zeros((2, 1, 64, 64), dtype=np.uint8),
        np.zeros((2, 3, 32, 32), dtype=np.uint8),
        np.zeros((2, 64, 64, 3), dtype=np.uint8),
        np.zeros((0, 3, 64, 64), dtype=np.uint8),
    ],
)
def test_only_faces_of_its_size_are_read(images):
    with pytest.raises(FaceImageError, match=r"images are \w+ \(.*\), expected uint8 \(n, 3, 64, 64\) with n at least"):
        read_classes(load_face_classifier(), images)


def test_blurring_keeps_flat_images_and_spreads_a_point_as_a_gaussian():
    torch.testing.assert_close(blurred(torch.full((1, 3, 9, 9), 0.7), 1.0), torch.full((1, 3, 9, 9), 0.7))
    point = torch.zeros(1, 3, 9, 9)
    point[:, :, 4, 4] = 1
    spread = blurred(point, 1.0)
    ratios = spread[0, 0, 4, 4] / torch.stack([spread[0, 0, 4, 5], spread[0, 0, 2, 4], spread[0, 0, 3, 3]])
    torch.testing.assert_close(ratios, torch.exp(torch.tensor([0.5, 2.0, 1.0])))


def test_means_of_one_are_faces_of_one_class():
    images, shares = draw_means(20, 1, np.random.default_rng(0))
    assert all(np.array_equal(np.sort(share, axis=1)[:, -1], np.ones(20)) for share in shares.values())
    found = accuracies(load_face_classifier(), images, {f: share.argmax(axis=1) for f, share in shares.items()})
    assert set(found.values()) == {1}


def test_means_agree_in_hair_and_differ_in_glasses():
    images, shares = draw_means(40, 4, np.random.default_rng(0))
    assert images.shape == (40, 3, 64, 64)
    assert images.dtype == np.uint8
    for factor, law in faces.LAW.items():
        assert shares[factor].shape == (40, len(law))
        np.testing.assert_allclose(shares[factor].sum(axis=1), 1, rtol=1e-6)
    assert set(shares["hair"].ravel()) == set(shares["long_hair"].ravel()) == {0, 1}
    assert set(shares["glasses"].ravel()) == {0, 0.25, 0.5, 0.75, 1}
    # details cancel: the eyes' region varies less from pixel to pixel than in single faces
    single = draw_means(40, 1, np.random.default_rng(0))[0]
    rough, fine = (np.abs(np.diff(x[:, :, 24:36, 16:48].astype(float), axis=3)).mean() for x in (images, single))
    assert rough < 0.7 * fine


def test_training_repeats_itself_and_leaves_the_global_generator():
    images, shares = draw_means(100, 1, np.random.default_rng(0))
    before = torch.get_rng_state()
    one, two, other = (train_face_classifier(images, shares, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["heads.hair.weight"], other["heads.hair.weight"])


def test_the_weights_are_those_pinned_and_small():
    data = features.FACE_WEIGHTS.read_bytes()
    assert hashlib.sha256(data).hexdigest() == features.FACE_SHA256
    assert len(data) < 300_000


def test_other_weights_are_an_error_with_the_remedy(tmp_path, monkeypatch):
    altered = bytearray(features.FACE_WEIGHTS.read_bytes())
    altered[-1] ^= 1
    (tmp_path / "weights").write_bytes(altered)
    monkeypatch.setattr(features, "FACE_WEIGHTS", tmp_path / "weights")
    with pytest.raises(FeatureError, match=r"SHA-256 is .*, expected .*; restore it from version control"):
        load_face_classifier()
