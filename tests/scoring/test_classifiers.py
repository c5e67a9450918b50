"""Our own networks: the committed weights read digits and fresh faces, sharp and blurred; scripts make them."""

import hashlib
import sys

import numpy as np
import pytest
import torch
from checkout import ROOT

from rae_bench.data import faces
from rae_bench.scoring import classifiers
from rae_bench.scoring.classifiers import MaxOfFour, accuracy, read_classes
from rae_bench.scoring.pretrained import FeatureError

sys.path.insert(0, str(ROOT / "scripts"))
import train_digit_classifier
import train_face_classifier
import train_face_features
from train_face_classifier import accuracies, blurred, draw_means

# --- digits -----------------------------------------------------------------------------------------------


def test_the_committed_weights_classify_the_validation_split(digit_images, digit_labels):
    assert accuracy(classifiers.digit_classifier(), digit_images, digit_labels) >= 0.97


def test_accuracy_is_the_share_of_right_answers(digit_images):
    model = classifiers.digit_classifier()
    with torch.no_grad():
        answers = model(torch.from_numpy(digit_images[:50]).float() / 255).argmax(dim=1).numpy()
    assert accuracy(model, digit_images[:50], answers) == 1
    answers[:10] = (answers[:10] + 1) % 10
    assert accuracy(model, digit_images[:50], answers) == 0.8


def test_features_are_unit_vectors_and_decide_the_class(digit_images):
    model = classifiers.digit_classifier()
    x = torch.from_numpy(digit_images[:50]).float() / 255
    with torch.no_grad():
        features, logits = model.features(x), model(x)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(50))
    expected = 16 * features @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(logits, expected.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_the_max_of_four_is_torchs_pooling(training):
    x = torch.randn(3, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(MaxOfFour().train(training)(x), torch.nn.functional.max_pool2d(x, 2))


def test_in_training_the_gradient_goes_to_one_of_equal_values():
    x = torch.ones(1, 1, 2, 2, requires_grad=True)
    MaxOfFour()(x).sum().backward()
    assert sorted(x.grad.flatten().tolist()) == [0, 0, 0, 1]


@pytest.mark.slow
def test_training_again_gives_as_good_a_classifier(digits):
    images, labels = (
        {split: array[indices] for split, indices in digits.splits.items()}
        for array in (digits.images, digits.extras["labels"])
    )
    again = train_digit_classifier.train(images["train"], labels["train"], seed=0)
    ours = accuracy(again, images["validation"], labels["validation"])
    committed = accuracy(classifiers.digit_classifier(), images["validation"], labels["validation"])
    assert ours >= 0.97
    assert abs(ours - committed) <= 0.015  # some two standard errors of a difference at 1,000 images


# --- faces ------------------------------------------------------------------------------------------------


def test_the_committed_features_tell_the_factors_of_fresh_faces():
    found = train_face_features.told(
        classifiers.face_features(), *train_face_features.drawn(500, np.random.default_rng(20_260_102))
    )
    assert min(found[name] for name in train_face_features.COUNTS) >= 0.99, found
    assert found["numbers"] >= 0.78, found  # two of 24, hardly visible at this size, are not told at all


def test_every_factor_is_told_once():
    factors = faces.draw_factors(300, np.random.default_rng(0))
    wanted = train_face_features.targets(factors)
    numbers, logits = train_face_features.parts(torch.zeros(300, classifiers.FACE_OUTPUTS))
    assert wanted.numbers.shape == numbers.shape
    assert numbers.shape[1] - 1 + len(wanted.classes) == len(factors)  # the hue is two numbers
    for name, classes in wanted.classes.items():
        assert set(classes.tolist()) == set(range(logits[name].shape[1])), name
    torch.testing.assert_close(wanted.numbers.mean(dim=0), torch.zeros(numbers.shape[1]), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def drawn():
    """500 faces, drawn with a seed that training never saw, and their classes."""
    factors = faces.draw_factors(500, np.random.default_rng(20_260_101))
    return faces.render(factors, 64), faces.classes(factors)


def test_the_committed_weights_read_fresh_faces(drawn):
    found = accuracies(classifiers.face_classifier(), *drawn)
    assert set(found) == set(faces.LAW)
    assert min(found.values()) >= 0.98, found


def test_they_read_blurred_faces(drawn):
    images, classes = drawn
    soft = blurred(torch.from_numpy(images).float(), 2.0).round().to(torch.uint8).numpy()
    found = accuracies(classifiers.face_classifier(), soft, classes)
    assert min(found.values()) >= 0.98, found


def test_they_see_in_a_mean_of_faces_what_most_of_these_have():
    """What a decoder makes of a code that does not hold the glasses is no face with glasses."""
    images, shares = draw_means(200, 8, np.random.default_rng(2))
    read = read_classes(classifiers.face_classifier(), images)
    glasses = shares["glasses"][:, 1]
    assert read["glasses"][glasses <= 0.25].mean() <= 0.05
    assert read["glasses"][glasses >= 0.75].mean() >= 0.95
    for factor in ("hair", "long_hair"):
        assert (read[factor] == shares[factor].argmax(axis=1)).mean() >= 0.95, factor


def test_smaller_faces_are_read_enlarged():
    factors = faces.draw_factors(500, np.random.default_rng(20_260_101))
    found = accuracies(classifiers.face_classifier(), faces.render(factors, 32), faces.classes(factors))
    assert min(found.values()) >= 0.98, found


def test_classes_do_not_depend_on_the_batch_size(drawn, monkeypatch):
    model = classifiers.face_classifier()
    whole = read_classes(model, drawn[0][:60])
    monkeypatch.setattr("rae_bench.scoring.classifiers.READ_AT_ONCE", 7)
    for factor, values in read_classes(model, drawn[0][:60]).items():
        assert values.dtype == np.int64
        np.testing.assert_array_equal(values, whole[factor])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 64, 64), dtype=np.float32),
        np.zeros((3, 64, 64), dtype=np.uint8),
        np.zeros((2, 1, 64, 64), dtype=np.uint8),
        np.zeros((2, 3, 48, 48), dtype=np.uint8),
        np.zeros((2, 3, 32, 64), dtype=np.uint8),
        np.zeros((2, 64, 64, 3), dtype=np.uint8),
        np.zeros((0, 3, 64, 64), dtype=np.uint8),
    ],
)
def test_only_faces_of_its_size_are_read(images):
    with pytest.raises(
        FeatureError, match=r"images are \w+ \(.*\), expected uint8 \(n, 3, s, s\) with s in \[32, 64\] and n"
    ):
        read_classes(classifiers.face_classifier(), images)


def test_blurring_keeps_flat_images_and_spreads_a_point_as_a_gaussian():
    torch.testing.assert_close(blurred(torch.full((1, 3, 9, 9), 0.7), 1.0), torch.full((1, 3, 9, 9), 0.7))
    point = torch.zeros(1, 3, 9, 9)
    point[:, :, 4, 4] = 1
    spread = blurred(point, 1.0)
    ratios = spread[0, 0, 4, 4] / torch.stack([spread[0, 0, 4, 5], spread[0, 0, 2, 4], spread[0, 0, 3, 3]])
    torch.testing.assert_close(ratios, torch.exp(torch.tensor([0.5, 2.0, 1.0])))


# --- all --------------------------------------------------------------------------------------------------


def test_training_repeats_itself_and_leaves_the_global_generator(digit_images, digit_labels):
    before = torch.get_rng_state()
    means = draw_means(100, 1, np.random.default_rng(0))
    for train, data in (
        (train_digit_classifier.train, (digit_images[:50], digit_labels[:50])),
        (train_face_classifier.train, means),
        (train_face_features.train, train_face_features.drawn(50, np.random.default_rng(0))),
    ):
        one, two, other = (train(*data, seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert not all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("DIGITS", classifiers.digit_classifier),
        ("FACE_FEATURES", classifiers.face_features),
        ("FACES", classifiers.face_classifier),
    ],
)
def test_other_weights_are_an_error_with_the_remedy(name, load, tmp_path, monkeypatch):
    path, sha256 = getattr(classifiers, name)
    content = path.read_bytes()
    assert hashlib.sha256(content).hexdigest() == sha256
    assert len(content) < 700_000
    (tmp_path / "weights").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr(classifiers, name, (tmp_path / "weights", sha256))
    with pytest.raises(FeatureError, match=r"SHA-256 is .*, expected .*; restore it from version control"):
        load()
    monkeypatch.setattr(classifiers, name, (tmp_path / "gone", sha256))
    with pytest.raises(FeatureError, match=r"gone: the weight file is missing; restore it"):
        load()
