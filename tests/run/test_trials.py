"""Whether bfloat16 pays here: both precisions are timed on a study's own networks, and a slower one is warned of."""

import contextlib

import pytest
import yaml
from checkout import Checkout, our_lines, put

from rae_bench import cli
from rae_bench.base.plain import ConfigError
from rae_bench.models import training
from rae_bench.run import commands, trials
from rae_bench.study.config import load_study


@pytest.fixture
def takes(monkeypatch):
    """A clock that only updates move, by so many seconds each in a precision."""
    now = [0.0]
    plain = training.computing_in

    def make(**seconds):
        @contextlib.contextmanager
        def timed(precision, model, device):
            with plain(precision, model, device):
                now[0] += seconds[precision]
                yield

        monkeypatch.setattr(training, "computing_in", timed)

    monkeypatch.setattr(trials, "perf_counter", lambda: now[0])
    return make


@pytest.fixture
def study(tmp_path):
    """A study that asks for bfloat16."""
    path = tmp_path / "half.yaml"
    compute = {"device": "cpu", "threads": 1, "tf32": False, "precision": "bfloat16"}
    path.write_text(yaml.safe_dump({"extends": "smoke", "name": "half", "compute": compute}))
    return str(path)


def test_the_quicker_precision_is_told_and_the_slower_warned_of(takes, study, capsys):
    takes(float32=2.0, bfloat16=1.0)
    cli.main(["cost", study, "--precisions"])
    said = capsys.readouterr()
    assert said.out == (
        "digits_mini, vae: bfloat16 is 2.00 times as fast as float32 here (float32 16, bfloat16 32 images/s)\n"
    )
    assert said.err == ""
    takes(float32=1.0, bfloat16=4.0)
    cli.main(["cost", "smoke", "--precisions"])  # which does not ask for it
    assert capsys.readouterr().err == ""
    cli.main(["cost", study, "--precisions"])
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = our_lines(said.err)
    assert line == (
        "rae_bench: digits_mini, vae: bfloat16 is 0.25 times as fast as float32 here (float32 32, bfloat16 8 images/s);"
        " precision: float32 would save time, and is another study"
    )


def test_other_options_beside_it_are_refused(study):
    with pytest.raises(ConfigError, match=r"^--precisions: prints the two speeds and nothing else; leave out --slurm$"):
        commands.cost(study, precisions=True, slurm=True)


def test_it_takes_the_seconds_given_and_three_updates_of_each_at_least(takes):
    spec = load_study("smoke").training("digits_mini", "vae")
    takes(float32=1.0, bfloat16=1.0)
    before = trials.perf_counter()
    trials.images_a_second(spec, seconds=1.0)
    assert trials.perf_counter() - before == 6
    trials.images_a_second(spec, seconds=13.0)
    assert trials.perf_counter() - before == 6 + 14


def test_the_workflow_tries_it_before_anything_runs_where_a_study_asks_for_it(tmp_path):
    checkout = Checkout(tmp_path)
    with checkout.edited("studies/smoke.yaml", lambda data: put(data, ["compute", "precision"], "bfloat16")):
        dry = checkout.snakemake("--dry-run")
        assert "as fast as float32" not in dry.stdout + dry.stderr
        ended = checkout.snakemake("--", "results/datasets/digits_mini/manifest.json")
    assert ended.returncode == 0, ended.stderr
    assert (ended.stdout + ended.stderr).count(": bfloat16 is ") == 1
