"""The public names: on arrays they are what a study's stages do."""

import runpy

import numpy as np
import pytest
from checkout import ROOT

from rae_bench import api
from rae_bench.base.plain import ConfigError
from rae_bench.data import catalogue as sources
from rae_bench.densities import catalogue as densities
from rae_bench.densities.codes import Posteriors
from rae_bench.scoring.catalogue import load_extractor
from rae_bench.study.config import load_study


def test_every_public_name_is_there_and_documented():
    for name in api.__all__:
        assert getattr(api, name).__doc__, name


def test_images_are_the_prepared_ones():
    prepared = sources.prepare(load_study("smoke").preparation("digits_mini"))
    for split, images in api.images("digits_mini").items():
        np.testing.assert_array_equal(images, prepared.images[prepared.splits[split]])


def test_a_fit_is_a_studys_and_features_are_the_networks():
    codes = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    spec = load_study("smoke").fit("digits_mini", "rae_l2", "gmm10").density
    expected = densities.fit(spec, Posteriors(codes, None), Posteriors(codes[:50], None), 3)
    found = api.fit("gmm10", codes, codes[:50], seed=3)
    for name, array in expected.state().items():
        np.testing.assert_array_equal(found.state()[name], array)
    images = api.images("digits_mini")["test"][:20]
    expected_features = load_extractor("digit_classifier")(images)
    np.testing.assert_array_equal(api.features(images, "digit_classifier"), expected_features)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: api.images("digit"), "images: unknown data set 'digit'; did you mean 'digits'?"),
        (lambda: api.fit("gmm11", np.zeros((9, 2)), np.zeros((9, 2))), "fit: unknown density 'gmm11'"),
        (lambda: api.features(np.zeros((1, 1, 32, 32)), "vgg"), "features: unknown feature network 'vgg'"),
        (lambda: api.measure(np.zeros((9, 2)), np.zeros((9, 2)), "x"), "measure: unknown settings of metrics 'x'"),
    ],
)
def test_a_name_that_is_none_is_one_line(call, told):
    with pytest.raises(ConfigError) as error:
        call()
    assert str(error.value).startswith(told)


def test_the_example_runs_and_a_mixture_is_better_than_a_gaussian(capsys):
    runpy.run_path(str(ROOT / "examples/in_python/ex_post.py"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    distances = {words[0]: float(words[2]) for words in lines}
    assert distances["gmm5"] < distances["gaussian"]
