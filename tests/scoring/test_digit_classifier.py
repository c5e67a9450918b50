"""The digits' ruler: the committed weights classify, and training them again gives as good ones."""

import pytest
import torch

from rae_bench.scoring.digit_classifier import MaxOfFour, accuracy, train_digit_classifier
from rae_bench.scoring.features import load_digit_classifier


def test_the_committed_weights_classify_the_validation_split(digit_images, digit_labels):
    assert accuracy(load_digit_classifier(), digit_images, digit_labels) >= 0.97


def test_accuracy_is_the_share_of_right_answers(digit_images):
    model = load_digit_classifier()
    with torch.no_grad():
        answers = model(torch.from_numpy(digit_images[:50]).float() / 255).argmax(dim=1).numpy()
    assert accuracy(model, digit_images[:50], answers) == 1
    answers[:10] = (answers[:10] + 1) % 10
    assert accuracy(model, digit_images[:50], answers) == 0.8


def test_features_are_unit_vectors_and_decide_the_class(digit_images):
    model = load_digit_classifier()
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


def test_training_repeats_itself_and_leaves_the_global_generator(digit_images, digit_labels):
    before = torch.get_rng_state()
    one, two, other = (
        train_digit_classifier(digit_images[:50], digit_labels[:50], seed).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


@pytest.mark.slow
def test_training_again_gives_as_good_a_classifier(digits):
    images, labels = (
        {split: array[indices] for split, indices in digits.splits.items()}
        for array in (digits.images, digits.extras["labels"])
    )
    again = train_digit_classifier(images["train"], labels["train"], seed=0)
    ours = accuracy(again, images["validation"], labels["validation"])
    committed = accuracy(load_digit_classifier(), images["validation"], labels["validation"])
    assert ours >= 0.97
    assert abs(ours - committed) <= 0.015  # some two standard errors of a difference at 1,000 images
