"""A study of a user's own: a file anywhere, laid over one of the suite's by one rule, with entries of its own."""

import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from checkout import ROOT, environment

from rae_bench import cli
from rae_bench.base.plain import ConfigError
from rae_bench.study.config import load_study
from rae_bench.study.stated import laid


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes mylab/study.yaml below the working folder, and says what to call it."""
    monkeypatch.chdir(tmp_path)

    def write(**settings):
        (tmp_path / "mylab").mkdir(exist_ok=True)
        (tmp_path / "mylab/study.yaml").write_text(yaml.safe_dump({"extends": "digits", **settings}))
        return "mylab/study.yaml"

    return write


@pytest.fixture
def code(tmp_path):
    (tmp_path / "mylab").mkdir(exist_ok=True)
    (tmp_path / "mylab/mine.py").write_text("class Mine: ...\n")


# --- the rule ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}}, {"a": 1, "b": {"c": 4, "d": 3}}),
        ([1, 2], [3], [3]),
        ([1, 2], {"add": [3]}, [1, 2, 3]),
        ({"a": [1], "b": 2}, {"a": {"add": [3]}, "b": None}, {"a": [1, 3]}),
        ({"a": {"kind": "x", "p": 1}}, {"a": {"kind": "y", "q": 2}}, {"a": {"kind": "y", "q": 2}}),
        ({"a": {"kind": "x", "p": 1, "q": 2}}, {"a": {"kind": "x", "q": 3}}, {"a": {"kind": "x", "p": 1, "q": 3}}),
        ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        (1, {"a": 1}, {"a": 1}),
    ],
)
def test_mappings_merge_lists_replace_add_appends_and_null_removes(base, over, expected):
    before = repr(base)
    assert laid(base, over, "x") == expected
    assert repr(base) == before


@pytest.mark.parametrize(
    ("base", "over", "told"),
    [
        ({"a": 1}, {"b": None}, "x.b: null takes a key out: unknown key 'b'. Known: a"),
        ({"a": 1}, {"a": {"add": [2]}}, "x.a.add: appends a list to a list; found [2] for 1"),
        ({"a": [1]}, {"a": {"add": 2}}, "x.a.add: appends a list to a list; found 2 for [1]"),
    ],
)
def test_what_the_rule_cannot_do_is_one_line(base, over, told):
    with pytest.raises(ConfigError) as error:
        laid(base, over, "x")
    assert str(error.value) == told


# --- a file anywhere --------------------------------------------------------------------------------------


def test_a_file_is_the_study_that_it_extends_but_for_what_it_says(written):
    found, digits = load_study(written(title="Mine", rows={"add": ["pca"]}, own=OWN)), load_study("digits")
    assert (found.name, found.source, found.file.title) == ("mylab", "mylab/study.yaml", "Mine")
    assert list(found.rows) == [*digits.rows, "pca"]
    assert found.training("digits", "vae") == digits.training("digits", "vae")
    assert found.evaluation("digits", "vae") == digits.evaluation("digits", "vae")


OWN = {
    "models": {
        "pca": {
            **{"label": "PCA", "family": "baseline", "network": "linear", "n": "gaussian", "gmm": "gmm10"},
            **{"posterior": {"kind": "deterministic"}, "latent": {"kind": "none"}, "regulariser": {"kind": "none"}},
            "weights": {},
        }
    }
}


def test_a_file_has_one_spelling_from_wherever_it_is_named(written, tmp_path, monkeypatch):
    """Paths are part of settings: another would train again."""
    written()
    for source in ("mylab/study.yaml", "./mylab/../mylab/study.yaml", str(tmp_path / "mylab/study.yaml")):
        assert load_study(source).source == "mylab/study.yaml"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_study("../mylab/study.yaml").source == str(tmp_path / "mylab/study.yaml")


def test_an_entry_extends_one_of_its_section(written):
    densities = {"gmm7": {"extends": "gmm10", "n_components": 7}}
    found = load_study(written(densities={"add": ["gmm7"]}, own={"densities": densities}))
    ten, seven = (found.fit("digits", "rae", name).density for name in ("gmm10", "gmm7"))
    assert (seven.n_components, seven.kind, seven.tolerance) == (7, ten.kind, ten.tolerance)


def test_a_relative_path_starts_at_the_studys_file(written, tmp_path):
    data = {
        "source": {"kind": "folder", "path": "images", "split": "seeded", "filter": "lanczos", "crop": 32, "padding": 0}
    }
    entry = {"extends": "photos", "data": {"label": "Mine", **data}}
    source = written(datasets={"digits": None, "mine": "photos_quick"}, own={"datasets": {"mine": entry}})
    path = load_study(source).preparation("mine").source.path
    assert path == str(tmp_path / "mylab/images")


def test_given_images_and_baselines_alone_are_refused(written, tmp_path):
    (tmp_path / "mylab/made").mkdir(parents=True)
    (tmp_path / "mylab/made/0.png").write_bytes(b"an image")
    row = {"label": "My GAN", "family": "own", "generated": {"gmm": {"file": "made"}}}
    with pytest.raises(ConfigError, match="are all baselines or given images; name a model that is held against them"):
        load_study(written(rows=["my_gan", "linear"], own={"rows": {"my_gan": row}}))


def test_a_row_of_generated_images_is_scored_and_held_against_as_a_baseline(written, tmp_path):
    (tmp_path / "mylab/made").mkdir(parents=True)
    (tmp_path / "mylab/made/0.png").write_bytes(b"an image")
    row = {"label": "My GAN", "family": "own", "generated": {"gmm": {"file": "made"}}}
    found = load_study(written(rows={"add": ["my_gan"]}, own={"rows": {"my_gan": row}}))
    assert "my_gan" in found.scored
    assert "my_gan" not in found.models
    spec = found.evaluation("digits", "my_gan")
    assert spec.generated["generated_gmm"].file == "mylab/made"
    summary = found.summary()
    assert list(summary.baselines) == ["linear", "training_images", "my_gan"]
    assert "my_gan" not in summary.competing
    (tmp_path / "mylab/made/0.png").write_bytes(b"another")
    assert load_study("mylab/study.yaml").evaluation("digits", "my_gan").generated != spec.generated


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"extends": "digit"}, "mylab/study.yaml.extends: unknown study 'digit'; did you mean 'digits'?"),
        ({"name": "digits"}, "mylab/study.yaml.name: 'digits' is a study of the suite"),
        ({"name": "../x"}, "mylab/study.yaml.name: '../x' is not a name"),
        ({"rowz": []}, "mylab/study.yaml.rowz: unknown key 'rowz'; did you mean 'rows'?"),
        ({"rows": {"add": ["vee"]}}, "mylab/study.yaml.rows: unknown row 'vee'"),
        ({"own": {"model": {}}}, "mylab/study.yaml.own.model: unknown section 'model'; did you mean 'models'?"),
        ({"own": {"models": {"vae": {}}}}, "mylab/study.yaml.own.models: 'vae' is one of the suite's"),
        ({"own": {"densities": {"a b": {"kind": "x"}}}}, "mylab/study.yaml.own.densities: 'a b' is not a name"),
        (
            {"densities": {"add": ["g"]}, "own": {"densities": {"g": {"extends": "gmm10", "n_component": 7}}}},
            "mylab/study.yaml.own.densities.g.n_component: unknown key 'n_component'; did you mean 'n_components'?",
        ),
        (
            {"own": {"densities": {"g": {"extends": "gmm11"}}}},
            "mylab/study.yaml.own.densities.g.extends: unknown entry 'gmm11'; did you mean 'gmm1'?",
        ),
    ],
)
def test_a_mistake_in_a_file_of_ones_own_is_one_line_that_names_it(settings, told, written):
    with pytest.raises(ConfigError) as error:
        load_study(written(**settings))
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


MODEL = {"mine": {"code": "mine.py:Mine"}}


@pytest.mark.usefixtures("code")
def test_settings_of_a_protocol_leave_what_is_a_users_own(written):
    """The official code's batch norm, schedule and weights: of them its schedule is there to be changed."""
    found = load_study(written(protocol="as_released", rows=["vae", "mine"], own={"models": MODEL}))
    mine, clean = found.training("digits", "mine"), load_study("digits").training("digits", "vae")
    assert mine.network.kind == "own_model"
    assert mine.objective is None
    assert (clean.optimisation.schedule.kind, mine.optimisation.schedule.kind) == ("cosine", "plateau")


@pytest.mark.usefixtures("code")
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"search": {"mine": [{"latent": 1.0}]}}, r"\.search\.mine: a loss of one's own has no weights to search"),
        ({"tables": ["search"]}, r"\.rows: 'mine' is a row whose loss is its own, which has nothing to search for"),
    ],
)
def test_a_loss_of_ones_own_cannot_be_searched(settings, told, written):
    with pytest.raises(ConfigError, match=told):
        load_study(written(rows=["vae", "mine"], own={"models": MODEL}, **settings))


@pytest.mark.usefixtures("written")
def test_no_such_file_is_one_line():
    with pytest.raises(ConfigError, match=r"^mylab/other\.yaml: no such file$"):
        load_study("mylab/other.yaml")


@pytest.mark.usefixtures("code")
def test_settings_prints_what_can_be_read_again(written, capsys, tmp_path):
    densities = {"gmm7": {"extends": "gmm10"}, "mine": {"code": "mine.py:Mine", "settings": {"n": 3}}}
    measures = {"number": {"code": "mine.py:Mine", "better": "lower", "label": "Mine"}}
    source = written(title="Mine", densities={"add": ["gmm7", "mine"]}, own={"densities": densities}, measures=measures)
    cli.main(["settings", source])
    printed = capsys.readouterr().out
    (tmp_path / "mylab/merged.yaml").write_text(printed)
    expected = replace(load_study(source).summary(), source="mylab/merged.yaml")
    assert load_study("mylab/merged.yaml").summary() == expected


@pytest.mark.workflow
def test_the_workflow_plans_it_and_leaves_the_checkout_alone(written, tmp_path):
    source = written(extends="smoke", name="mine", train_seeds=[7])
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--dry-run"]
    ended = subprocess.run(
        [*command, "--config", f"study={source}"],
        cwd=tmp_path,
        env=environment(ROOT),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "\ntrain  " in ended.stdout
