"""Published beside ours: a study of the paper's data sets with planted results, whole, in part, and without any."""

import csv
import json
import shutil
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from checkout import unshared
from scipy import stats

from rae_bench import cli
from rae_bench.base import storage
from rae_bench.base.plain import ConfigError, fingerprint
from rae_bench.report.plots import catalogue as plots
from rae_bench.report.plots.published import compared_cells, published_against_ours
from rae_bench.report.published.numbers import FOLDER
from rae_bench.report.tables import catalogue as tables
from rae_bench.report.tables.published import obstacles, prediction_half_width
from rae_bench.run import commands
from rae_bench.study import config, results, vocabulary
from rae_bench.study.config import load_study, resolve_study

NAMES = {"planted_mnist": "MNIST", "planted_celeba": "CelebA"}
COLUMNS = {"rec": "Rec.", "n": "N", "gmm": "GMM", "interp": "Interp."}
PLACES = {"Rec.": "reconstruction", "N": "n", "GMM": "gmm", "Interp.": "interpolation"}
SEEDS = (0, 1, 2)
OURS = ([-0.5, 0.0, 0.5], [-0.25, 0.5, 2.25], [2.75, 3.0, 3.25])
"""What each third cell has beside the published value, by seed: means 0, 5/6, 3 and SDs 1/2, 1.28, 1/4."""


def _published():
    """(data set, row, printed column) to the published value, as the file has it."""
    with (FOLDER / "table1_fid.csv").open(newline="") as file:
        return {
            (line["dataset"], line["model"], COLUMNS[line["column"]]): (float(line["value"]), line["status"])
            for line in csv.DictReader(file)
        }


PUBLISHED = _published()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the configuration with the study `planted`: every row of the paper, two of its data sets."""
    copy = shutil.copytree(config.CONFIG, tmp_path_factory.mktemp("paper") / "config")

    def edit(file, change):
        data = unshared(yaml.safe_load((copy / file).read_text()))
        (copy / file).write_text(yaml.safe_dump(change(data) or data, sort_keys=False))

    def datasets(data):
        for name, follows in (("planted_mnist", "mnist"), ("planted_celeba", "celeba")):
            entry = unshared(data["digits"])
            entry["data"] |= {"label": f"Planted {follows}", "n_test": 10000, "n_validation": 10000}
            own = {"extractor": "inception_v3_compat", "follows": follows, "is_the_papers": True}
            data[name] = entry | own

    edit("datasets.yaml", datasets)
    study = yaml.safe_load((copy / "studies" / "embedded.yaml").read_text())
    study |= {
        "datasets": dict.fromkeys(NAMES, "digits_quick"),
        "n_images": 10000,
        "n_generated": 10000,
        "train_seeds": list(SEEDS),
    }
    (copy / "studies" / "planted.yaml").write_text(yaml.safe_dump(study | {"tables": ["table1", "published"]}))
    return copy


@pytest.fixture(scope="module")
def study(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "CONFIG", folder)
        yield load_study("planted")


@pytest.fixture(scope="module")
def spec(study):
    return replace(study.summary(), tables=("published",))


def _run(study, dataset, model, seed):
    """One run's metrics in their true form: every cell of the model's rows, planted beside the published values."""
    cells = {}
    for place, (label, row) in enumerate((row.label, row) for row in study.rows.values() if row.model == model):
        for number, (printed, column) in enumerate(PLACES.items()):
            if column == "gmm" and not row.gmm:
                continue
            image_set = column if column in ("reconstruction", "interpolation") else "sample"
            density = row.through if image_set == column else {"n": row.n, "gmm": row.gmm}[column]
            value, _ = PUBLISHED.get((NAMES[dataset], label, printed), (20.0, ""))
            cells[image_set, density] = value + OURS[(place + number) % 3][seed]
    for density in study.densities_of(model):
        cells.setdefault(("sample", density), 30.0 + seed)
    fits = {"": "", **{name: fingerprint(study.fit(dataset, model, name)) for name in study.densities_of(model)}}
    rows = [
        {
            **{"study": study.name, "dataset": dataset, "model": model, "train_seed": seed},
            **{
                "image_set": image_set,
                "density": density,
                "fit_seed": 0,
                "sample_seed": 0,
                "metric": "frechet_distance",
            },
            **{"n_generated": 10000, "n_reference": 10000, "n_features": 2048, "reference_split": "test"},
            **{"extractor": "inception@299", "extractor_label": "Inception", "value": value, "is_synthetic": False},
            **{"floor": 1.0, "floor_sd": 0.1, "package_version": "0"},
            "evaluate_fingerprint": fingerprint(study.evaluation(dataset, model)),
            "fit_fingerprint": fits[density],
        }
        for (image_set, density), value in cells.items()
    ]
    return pd.DataFrame(rows).reindex(columns=results.COLUMNS)


def _frame(study, seeds=SEEDS, models=None):
    runs = [(name, model, seed) for name in study.datasets for model in models or study.models for seed in seeds]
    return results.collect([_run(study, *run) for run in runs])


@pytest.fixture(scope="module")
def frame(study):
    return _frame(study)


def _tables(spec, frame):
    return {table.name: table for table in tables.build(spec, frame, None)}


def _cells(table):
    """(row, column) to the texts behind it."""
    return {(row[0], row[1]): row[2:] for row in table.rows}


# --- the tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", NAMES)
@pytest.mark.parametrize("run", [True, False])
def test_every_published_value_stands_in_the_table_with_its_mark(spec, frame, dataset, run):
    marks = {"confirmed": "c", "approx_confirmed": "a", "single_source": "u"}
    cells = _cells(_tables(spec, frame if run else frame[:0])[f"published_{dataset}"])
    for (row, column), texts in cells.items():
        if row == "AE-L2":
            assert texts[0] == "no published value"
            continue
        value, status = PUBLISHED[NAMES[dataset], row, column]
        assert texts[0] == f"{value:.2f} ({marks[status]})"
    here = {key[1:] for key in PUBLISHED if key[0] == NAMES[dataset]}
    assert set(cells) == here | {("AE-L2", column) for column in PLACES}


def test_differences_and_noise_are_those_worked_out_by_hand(spec, frame):
    """The 97.5 % point of t with two degrees of freedom is 4.3027; times sqrt(1 + 1/3) is 4.9683 SDs."""
    table = _tables(spec, frame)["published_planted_mnist"]
    assert table.header[2:] == ["Published FID", "Our FID", "Seeds", "Difference", "Noise", "Inside"]
    cells = _cells(table)
    expected = {
        ("VAE", "Rec."): ["18.26 (u)", "18.26 ± 0.50", "3 of 3", "+0.00", "2.48", "yes"],
        ("VAE", "N"): ["19.21 (c)", "20.04 ± 1.28", "3 of 3", "+0.83", "6.37", "yes"],
        ("VAE", "GMM"): ["17.66 (c)", "20.66 ± 0.25", "3 of 3", "+3.00", "1.24", "no"],
        ("AE-L2", "Rec."): ["no published value", "20.00 ± 0.50", "3 of 3", "–", "–", "–"],
    }
    assert {place: cells[place] for place in expected} == expected
    bold = {(table.rows[i][0], table.rows[i][1]) for i, j in table.bold if j == 5}
    assert bold == {cell for cell, texts in cells.items() if texts[-1] == "no"} != set()


def test_inside_is_what_a_t_test_of_one_new_run_cannot_reject(spec, frame):
    """Two samples of equal variance, one of them a single value: the pooled t-test has n − 1 degrees of freedom."""
    data = _tables(spec, frame)["published_planted_celeba"].data
    compared = data[data["status"] != "no published value"]
    assert len(compared) == 35
    for cell in compared.itertuples():
        p = stats.ttest_ind_from_stats(cell.mean, cell.sd, 3, cell.published, 0, 1, equal_var=True).pvalue
        assert cell.inside == ("yes" if p >= 0.05 else "no")
    assert {"yes", "no"} == set(compared["inside"])


def test_a_lower_value_has_a_minus(spec, frame):
    lower = frame.assign(value=frame["value"] - 5)
    assert _cells(_tables(spec, lower)["published_planted_mnist"])["VAE", "GMM"][3] == "−2.00"


def test_the_notes_say_what_is_compared_and_how(spec, frame):
    table = _tables(replace(spec, notes=dict.fromkeys(NAMES, ("A quirk.",))), frame)["published_planted_mnist"]
    text = " ".join(table.notes)
    inside = sum(row[-1] == "yes" for row in table.rows)
    for part in (
        *("single runs without error bars", "t(0.975, n − 1)·s·√(1 + 1/n)", f"{inside} of 35 cells are."),
        *("117 of 117 in all cells", "10,000 generated images", "10,000 test images", "inception@299"),
        *("Column N is N(0,I): VAE, WAE", "A quirk."),
    ):
        assert part in text
    assert "(MNIST)" in table.title
    assert table.title.endswith("protocol clean")


def test_without_any_run_every_cell_says_so(spec, frame):
    for dataset in NAMES:
        table = _tables(spec, frame[:0])[f"published_{dataset}"]
        assert {tuple(row[3:]) for row in table.rows} == {("not run", "0 of 3", "–", "–", "–")}
        assert "Ours: not run." in table.notes
        assert all(text for row in table.rows for text in row)
        assert table.data[["mean", "sd", "difference", "noise"]].isna().all(axis=None)


def test_seeds_that_have_not_run_are_counted(study, spec):
    """Two values 0.25 apart: SD 0.25/√2, t with one degree of freedom 12.706, times sqrt(3/2): 2.75."""
    table = _tables(spec, _frame(study, seeds=(1, 2)))["published_planted_mnist"]
    assert _cells(table)["VAE", "GMM"] == ["17.66 (c)", "20.79 ± 0.18", "2 of 3", "+3.12", "2.75", "no"]
    assert any("78 of 117 in all cells" in note for note in table.notes)


def test_a_published_run_is_held_against_single_draws(spec, frame):
    """Averages over sample seeds would vary less than the single draw that the paper's value is."""
    more = frame.assign(sample_seed=7, value=frame["value"] + 100)
    both = pd.concat([more, frame], ignore_index=True)
    assert _tables(spec, both)["published_planted_mnist"].rows == _tables(spec, frame)["published_planted_mnist"].rows


def test_a_row_whose_column_the_study_leaves_out_says_so(spec, frame):
    rows = {**spec.rows, "vae": replace(spec.rows["vae"], gmm="")}
    cells = _cells(_tables(replace(spec, rows=rows), frame)["published_planted_mnist"])
    assert cells["VAE", "GMM"] == ["17.66 (c)", "not in this study", "–", "–", "–", "–"]


@pytest.mark.parametrize(
    ("change", "columns", "reasons"),
    [
        ({}, {"extractor_label": "DigitCNN"}, ["FD-DigitCNN is not FID"]),
        ({}, {"extractor_label": "inception-unverified"}, ["FD-inception-unverified is not FID"]),
        ({}, {"n_generated": 5000}, ["5,000 images are not 10,000"]),
        ({}, {"n_reference": 9900}, ["9,900 images are not 10,000"]),
        ({"n_images": 1000}, {}, ["1,000 images are not 10,000"]),
        ({"reference_split": "validation"}, {}, ["validation images are not test images"]),
        (
            {"n_images": 300},
            {"extractor_label": "Net", "n_generated": 300, "n_reference": 300},
            ["FD-Net is not FID", "300 images are not 10,000"],
        ),
    ],
)
def test_unlike_numbers_stand_side_by_side_without_a_difference(spec, frame, change, columns, reasons):
    spec, frame = replace(spec, **change), frame.assign(**columns)
    assert obstacles(spec, frame, "planted_mnist") == reasons
    table = _tables(spec, frame)["published_planted_mnist"]
    cells = _cells(table)
    assert cells["VAE", "Rec."][0] == "18.26 (u)"
    assert cells["VAE", "Rec."][1].startswith("18.3 ± 0.5")
    assert {tuple(texts[3:]) for (row, _), texts in cells.items() if row != "AE-L2"} == {("withheld", "–", "–")}
    assert table.bold == set()
    assert any(note == f"Not comparable, so no difference is given: {'; '.join(reasons)}." for note in table.notes)
    assert table.data[["difference", "noise"]].isna().all(axis=None)
    assert not any("Noise:" in note for note in table.notes)


def test_before_anything_has_run_the_planned_network_tells(spec, frame):
    planned = replace(spec, extractors=dict.fromkeys(NAMES, "efficientnet_lite0"))
    assert obstacles(planned, frame[:0], "planted_mnist") == ["FD-efficientnet_lite0 is not FID"]
    table = _tables(planned, frame[:0])["published_planted_mnist"]
    assert _cells(table)["VAE", "Rec."] == ["18.26 (u)", "not run", "0 of 3", "–", "–", "–"]
    assert any(note.startswith("Not comparable") for note in table.notes)


def test_what_others_report_stands_beside(spec, frame):
    built = _tables(spec, frame)
    assert list(built) == [f"published_{kind}{name}" for name in NAMES for kind in ("", "reproductions_")]
    rows = built["published_reproductions_planted_celeba"].rows
    assert rows[0][:3] == ["RAE (variants not named)", "ex-post samples", "~60"]
    assert len(rows) == 3


# --- the study --------------------------------------------------------------------------------------------


def test_a_data_set_that_the_paper_does_not_have_is_refused(study):
    datasets = {**study.file.datasets, "digits": "digits_quick"}
    with pytest.raises(ConfigError) as refused:
        resolve_study("planted", replace(study.file, datasets=datasets, n_images=1000, n_generated=1000))
    assert str(refused.value) == (
        "studies/planted.yaml.tables: 'published' compares with the paper, which has no data set 'digits'"
        " (datasets.yaml.digits.is_the_papers is false)"
    )


def test_every_row_of_the_paper_is_a_row_of_the_suite():
    """A label finds the published values: one spelt otherwise would find none."""
    rows = vocabulary.read(config.CONFIG).rows.values()
    assert {row for _, row, _ in PUBLISHED} <= {row.label for row in rows}


# --- the figure -------------------------------------------------------------------------------------------


@pytest.fixture
def panels(spec, frame):
    cells, missing = compared_cells(spec, frame)
    assert missing == ""
    yield published_against_ours(spec, cells).axes, cells
    plt.close("all")


def test_every_compared_cell_is_a_point_at_published_and_ours(panels, spec, frame):
    axes, _ = panels
    assert [axis.get_title() for axis in axes] == ["MNIST", "CelebA"]
    for axis, dataset in zip(axes, NAMES, strict=True):
        data = _tables(spec, frame)[f"published_{dataset}"].data.dropna(subset="difference")
        drawn = sorted((bar.lines[0].get_xdata()[0], bar.lines[0].get_ydata()[0]) for bar in axis.containers)
        assert len(drawn) == 35
        np.testing.assert_allclose(drawn, sorted(zip(data["published"], data["mean"], strict=True)))
        (line,) = [line for line in axis.lines if len(line.get_xdata()) == 2]
        np.testing.assert_array_equal(line.get_xdata(), line.get_ydata())
        assert axis.get_xlim() == axis.get_ylim() == tuple(line.get_xdata())
        assert axis.get_xlim()[0] < min(*data["published"], *data["mean"])
        assert axis.get_xlim()[1] > max(*data["published"], *data["mean"])


def test_a_bar_crosses_the_line_where_the_difference_is_inside(panels):
    axes, cells = panels
    bars = [bar for axis in axes for bar in axis.containers]
    for bar, cell in zip(bars, cells.itertuples(), strict=True):
        ((x, low), (_, high)) = bar.lines[2][0].get_segments()[0]
        assert (low, high) == pytest.approx((cell.mean - cell.noise, cell.mean + cell.noise))
        assert (low <= x <= high) == (cell.inside == "yes")
        assert (bar.lines[0].get_markeredgecolor() == "black") == (cell.inside == "no")


def test_a_single_seed_is_hollow_and_has_no_bar(study, spec):
    cells, _ = compared_cells(spec, _frame(study, seeds=(0,)))
    axis = published_against_ours(spec, cells).axes[0]
    assert {bar.lines[0].get_markerfacecolor() for bar in axis.containers} == {"white"}
    ends = [segment.ravel() for bar in axis.containers for segment in bar.lines[2][0].get_segments()]
    assert not np.isfinite(np.concatenate(ends)[1::2]).any()
    plt.close("all")


@pytest.mark.parametrize(
    ("columns", "rows", "expected"),
    [
        ({}, 0, "not run"),
        ({"extractor_label": "Net"}, None, "FD-Net is not FID"),
        ({"n_generated": 500}, None, "500 images are not 10,000"),
    ],
)
def test_without_a_cell_to_compare_nothing_is_drawn_and_the_index_says_why(
    spec, frame, columns, rows, expected, tmp_path
):
    plots.write_published(spec, frame.assign(**columns)[:rows], tmp_path / "index.json")
    (entry,) = json.loads((tmp_path / "index.json").read_text())
    assert (entry["name"], entry["missing"]) == ("published", expected)
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]


# --- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def here(study, tmp_path, monkeypatch):  # noqa: ARG001  under the configuration that has the study
    """An empty folder to run the command in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _finish(study, *runs):
    for dataset, model, seed in runs:
        path = commands.RESULTS / "planted" / dataset / model / f"seed{seed}" / "metrics.parquet"
        storage.write_frame(path, _run(study, dataset, model, seed))


def _rows(folder, dataset):
    index = json.loads((folder / "tables" / "index.json").read_text())
    return {(row[0], row[1]): row[2:] for table in index if table["name"] == f"published_{dataset}"
            for row in table["rows"]}  # fmt: skip


def test_the_command_needs_no_results(here, capsys):
    (here / "Snakefile").touch()  # a fresh checkout
    cli.main(["published", "planted", "--out", "made"])
    assert capsys.readouterr().out == "0 of 66 runs have finished; written to made\n"
    assert {tuple(texts[1:3]) for texts in _rows(here / "made", "planted_celeba").values()} == {("not run", "0 of 3")}
    assert "| VAE | N | 19.21 (c) | not run | 0 of 3 |" in (here / "made/tables/published_planted_mnist.md").read_text()
    assert json.loads((here / "made/figures/index.json").read_text())[0]["missing"] == "not run"
    assert not commands.RESULTS.exists()


def test_the_command_shows_what_has_finished(here, study, capsys):
    _finish(study, *(("planted_mnist", "rae", seed) for seed in SEEDS), ("planted_celeba", "ae", 1))
    cli.main(["published", "planted", "--out", "made"])
    assert capsys.readouterr().out.startswith("4 of 66 runs")
    mnist, celeba = _rows(here / "made", "planted_mnist"), _rows(here / "made", "planted_celeba")
    assert mnist["RAE", "GMM"] == ["9.81 (c)", "12.81 ± 0.25", "3 of 3", "+3.00", "1.24", "no"]
    assert mnist["AE", "N"][1:3] == ["not run", "0 of 3"]
    assert celeba["AE", "Rec."] == ["40.79 (u)", "40.79", "1 of 3", "+0.00", "–", "not decidable"]
    assert (here / "made" / "figures" / "published.png").exists()


def test_a_run_under_other_settings_counts_as_not_run(here, study, caplog):
    _finish(study, ("planted_mnist", "rae", 0), ("planted_mnist", "rae", 1))
    path = commands.RESULTS / "planted/planted_mnist/rae/seed1/metrics.parquet"
    frame = storage.read_frame(path)
    storage.write_frame(path, frame.assign(evaluate_fingerprint="0"))
    cli.main(["published", "planted", "--out", "made"])
    assert _rows(here / "made", "planted_mnist")["RAE", "N"][2] == "1 of 3"
    assert caplog.messages == [f"{path}: made with other settings than the study's; counted as not run"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", "digits: none of its data sets is the paper's: digits"),
        ("plante", "study: unknown study 'plante'; did you mean 'planted'?"),
    ],
)
def test_a_study_that_cannot_be_compared_is_one_line(here, name, expected):
    with pytest.raises(SystemExit) as end:
        cli.main(["published", name, "--out", "made"])
    assert str(end.value.code).startswith(f"rae_bench published: {expected}")
    assert not any(here.iterdir())


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_a_new_run_is_as_far_as_a_pooled_t_test_allows(n):
    """A value at exactly that distance, as a sample of one beside the n, has p 0.05."""
    values = pd.Series(np.random.default_rng(n).normal(size=n))
    there = values.mean() + prediction_half_width(values)
    test = stats.ttest_ind_from_stats(values.mean(), values.std(ddof=1), n, there, 0, 1, equal_var=True)
    assert test.pvalue == pytest.approx(0.05)


def test_the_half_width_of_two_runs_is_the_tables():
    """The 97.5 % point of t with one degree of freedom, 12.7062; SD √½ of 0 and 1; √(3/2)."""
    assert prediction_half_width(pd.Series([0.0, 1.0])) == pytest.approx(12.7062 * np.sqrt(0.75), rel=1e-5)
    assert prediction_half_width(pd.Series([3.0, 3.0, 3.0])) == 0
    assert np.isnan(prediction_half_width(pd.Series([1.0])))
    assert np.isnan(prediction_half_width(pd.Series([], dtype=float)))
