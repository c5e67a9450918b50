"""Tables from planted numbers: means, spreads, leaders and notes, in every format the same."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rae_bench.base import storage
from rae_bench.base.plain import parse, to_plain
from rae_bench.data.specs import FaceRenderer
from rae_bench.densities.specs import Density
from rae_bench.report.tables import catalogue as tables
from rae_bench.report.tables.cells import cell_values
from rae_bench.report.tables.wording import density_label
from rae_bench.scoring.specs import INCEPTION_LABEL, Protocol
from rae_bench.study import vocabulary
from rae_bench.study.config import CONFIG, load_study
from rae_bench.study.files import StudyFiles
from rae_bench.study.specs import Row

NET = "net@32/none/layer/0123abcd"
ROWS = {
    "vae": Row("VAE", "variational", "vae", "standard_normal", "gmm10"),
    "two": Row("2sVAE", "variational", "vae", "second_stage", "", "second_stage"),
    "rae": Row("RAE & co", "regularized", "rae_l2", "gaussian", "gmm10"),
}
FD = {
    # model, image set, density: a value for each of three training seeds
    ("vae", "reconstruction", ""): [10, 12, 14],
    ("vae", "reconstruction", "second_stage"): [20, 22, 24],
    ("vae", "interpolation", ""): [20, 24, 28],
    ("vae", "interpolation", "second_stage"): [21, 25, 29],
    ("vae", "sample", "standard_normal"): [4.0, 5.0, 6.0],
    ("vae", "sample", "gaussian"): [7.0, 8.0, 9.0],
    ("vae", "sample", "gmm10"): [40, 50, 60],
    ("vae", "sample", "second_stage"): [30, 32, 34],
    ("rae_l2", "reconstruction", ""): [1.0, 2.0, 3.0],
    ("rae_l2", "interpolation", ""): [1.0, 2.0, 3.0],
    ("rae_l2", "sample", "standard_normal"): [90, 91, 92],
    ("rae_l2", "sample", "gaussian"): [5.0, 6.0, 7.0],
    ("rae_l2", "sample", "gmm10"): [1.0, 2.0, 3.0],
}
TABLE1 = [
    # Rec., N, N(0,I), Gaussian, GMM, Interp.
    ["VAE", "12.0 ± 2.0", "5.00 ± 1.00", "5.00 ± 1.00", "8.00 ± 1.00", "50.0 ± 10.0", "24.0 ± 4.0"],
    ["2sVAE", "22.0 ± 2.0", "32.0 ± 2.0", "5.00 ± 1.00", "8.00 ± 1.00", "–", "25.0 ± 4.0"],
    ["RAE & co", "2.00 ± 1.00", "6.00 ± 1.00", "91.0 ± 1.0", "6.00 ± 1.00", "2.00 ± 1.00", "2.00 ± 1.00"],
]
LEADING = {(2, 1), (0, 2), (0, 3), (1, 3), (2, 4), (2, 5), (2, 6)}
"""Best of each column and what is not surely worse: 5 against 4, 6 against 5 and 7 against 6 are (paired, p 0.01)."""


def _records(values, metric, floor, sample_seed=0, floor_sd=np.nan):
    return [
        {
            "study": "smoke",
            "dataset": "digits_mini",
            "is_synthetic": False,
            "model": model,
            "train_seed": seed,
            "image_set": image_set,
            "density": density,
            "fit_seed": 0,
            "sample_seed": sample_seed,
            "n_generated": 1000,
            "n_reference": 1000,
            "n_features": 128,
            "reference_split": "test",
            "extractor": NET,
            "extractor_label": "Net",
            "metric": metric,
            "value": float(value),
            "floor": floor,
            "floor_sd": floor_sd,
        }
        for (model, image_set, density), series in values.items()
        for seed, value in enumerate(series)
    ]


def _scaled(factor):
    return {key: [factor * value for value in values] for key, values in FD.items()}


@pytest.fixture
def frame():
    rebuilt = {key: values for key, values in FD.items() if key[1] == "reconstruction"}
    return pd.DataFrame(
        _records(FD, "frechet_distance", 0.125, floor_sd=0.05)
        + _records(_scaled(0.5), "frechet_infinity", 0.0625)
        + _records(_scaled(0.001), "kernel_distance", 0.0005)
        + _records(_scaled(0.002), "kernel_mmd2", 0.0005)
        + _records(_scaled(0.01), "precision", 0.75)
        + _records(_scaled(0.01), "recall", 0.75)
        + _records(rebuilt, "squared_error", np.nan)
        + _records(rebuilt, "psnr", np.nan)
        + _records({key: [0.01 * value for value in values] for key, values in rebuilt.items()}, "ssim", np.nan)
    )


@pytest.fixture
def spec(smoke_spec):
    return replace(
        smoke_spec, rows=ROWS, order=tuple(ROWS), train_seeds=(0, 1, 2), tables=("table1", "claims", "details")
    )


@pytest.fixture
def written(spec, frame, tmp_path):
    """The folder of all tables."""
    return _written(spec, frame, tmp_path)


def _written(spec, frame, folder):
    tables.write(spec, frame, StudyFiles(folder, ""), folder / "index.json")
    return folder


def _build(spec, frame, root, *names):
    return {table.name: table for table in tables.build(replace(spec, tables=names), frame, StudyFiles(root, ""))}


def test_networks_are_those_that_the_study_trains(frame, tmp_path):
    """Their weights are counted in `tests/study/test_resources.py` as torch counts them; here those of dense layers."""
    table = _build(load_study("architectures").summary(), frame, tmp_path, "networks")["networks"]
    data = table.data.set_index("dataset")
    kinds = ["convolutional", "residual", "dense_images", "transformer"]
    assert list(data["network"]) == kinds
    assert [row[0] for row in table.rows] == list(data.index)
    assert data.loc["digits_dense", "weights"] == 2 * (1024 * 1024 + 1024**2) + 3 * 16 * 1024
    assert table.rows[2][1:3] == ["dense_images (width 1024, depth 2, latent_dim 16)", "4,243,456"]
    ratios = data["update_flops"] / data["update_flops"].iloc[0]
    assert [row[-1] for row in table.rows] == [f"{ratio:.2f}" for ratio in ratios]


def _listed(folder):
    return {table["name"]: table for table in json.loads((folder / "index.json").read_text())}


def test_the_notes_say_of_how_many_fits_and_draws_a_cell_is_the_mean(spec, frame, tmp_path):
    """Two fits of the mixture, two draws each, of ten times as many images as the reference has."""
    samples = frame[frame["image_set"] == "sample"].assign(n_generated=10_000)
    random = samples[samples["density"] == "gmm10"]
    more = [random.assign(fit_seed=fit, sample_seed=draw) for fit, draw in ((0, 1), (1, 0), (1, 1))]
    both = pd.concat([frame[frame["image_set"] != "sample"], samples, *more], ignore_index=True)
    text = " ".join(_listed(_written(spec, both, tmp_path))["table1_digits_mini"]["notes"])
    assert "each the mean of 2 x 2 values" in text
    assert "10,000 samples, or 1,000 reconstructions" in text
    # the bias is that of 1/1,000 + 1/10,000, the floor's of 2/1,000
    assert "Of equal laws about 0.069 is expected" in text


MIXED = "Mixed GPUs or versions, which may change last digits: A, driver 1; A, driver 2."


@pytest.mark.parametrize(
    ("gpu", "notes"),
    [(["A, driver 1", "A, driver 2", "A, driver 1; A, driver 2"], [MIXED]), (["A, driver 1"] * 3, []), ([""] * 3, [])],
)
def test_every_table_says_that_it_mixes_gpus_or_versions(spec, frame, tmp_path, gpu, notes):
    mixed = frame.assign(gpu=frame["train_seed"].map(dict(enumerate(gpu))))
    plain, found = (_listed(_written(spec, one, tmp_path)) for one in (frame, mixed))
    assert {"table1_digits_mini", "claims", "table1_precision_digits_mini"} < set(found)
    assert {name: {**table, "notes": [*table["notes"], *notes]} for name, table in plain.items()} == found


def test_a_table_says_so_of_its_own_data_sets_alone(spec, frame, tmp_path):
    other = frame.assign(dataset="elsewhere", gpu="B, driver 1")
    assert MIXED not in str(_listed(_written(spec, pd.concat([frame.assign(gpu="A, driver 1"), other]), tmp_path)))


def test_a_cell_averages_sample_seeds_within_a_training_seed(frame):
    other = _records({("vae", "sample", "gmm10"): [50, 70, 90]}, "frechet_distance", 0.125, sample_seed=1)
    values = cell_values(pd.concat([frame, pd.DataFrame(other)]), "digits_mini", ROWS["vae"], "gmm")
    assert values.to_dict() == {0: 45.0, 1: 60.0, 2: 75.0}


def test_a_cell_that_a_row_does_not_have_is_empty(frame):
    assert cell_values(frame, "digits_mini", ROWS["two"], "gmm").empty
    assert cell_values(frame, "elsewhere", ROWS["vae"], "gmm").empty


def test_table1_holds_what_was_worked_out_by_hand(written):
    table = _listed(written)["table1_digits_mini"]
    assert table["header"] == ["", "Rec.", "N", "N(0,I)", "Gaussian", "GMM", "Interp."]
    assert table["rows"] == TABLE1
    assert {tuple(cell) for cell in table["bold"]} == LEADING


def test_higher_is_better_for_precision(written):
    table = _listed(written)["table1_precision_digits_mini"]
    assert table["rows"][0][5] == "0.500 ± 0.100"
    assert [[i, j] for i, j in table["bold"] if j == 5] == [[0, 5]]
    assert table["title"].endswith("↑")


def test_kernel_distances_are_shown_times_a_thousand(written):
    table = _listed(written)["table1_kernel_distance_digits_mini"]
    assert table["rows"][0][1:] == TABLE1[0][1:]
    assert "x 1000" in table["title"]
    assert any(": 0.5." in note for note in table["notes"])  # the floor, 0.0005


def test_one_seed_has_no_spread_and_no_leader(spec, frame, tmp_path):
    folder = _written(replace(spec, train_seeds=(0,)), frame[frame["train_seed"] == 0], tmp_path)
    table = _listed(folder)["table1_digits_mini"]
    assert table["rows"][0] == ["VAE", "10.0", "4.00", "4.00", "7.00", "40.0", "20.0"]
    assert table["bold"] == []


def test_reconstructions_are_shown_with_three_errors(written):
    table = _listed(written)["reconstruction_digits_mini"]
    assert [head.split()[0] for head in table["header"][1:]] == ["‖x", "PSNR,", "SSIM"]
    assert table["rows"] == [
        ["VAE", "12.0 ± 2.0", "12.00", "0.120"],
        ["2sVAE", "22.0 ± 2.0", "22.00", "0.220"],
        ["RAE & co", "2.00 ± 1.00", "2.00", "0.020"],
    ]


def test_labels_that_survive_reconstruction_are_shown_where_they_are_known(spec, frame, tmp_path):
    kept = {("vae", "reconstruction", ""): [1.0, 0.9, 0.8]}
    frame = pd.concat([frame, pd.DataFrame(_records(kept, "label_agreement", np.nan))])
    table = _build(spec, frame, tmp_path, "details")["reconstruction_digits_mini"]
    assert table.header[-2:] == ["Label kept, % ↑", "worst seed"]
    assert table.rows[0][-2:] == ["90.0", "80.0"]


def test_the_notes_say_what_the_numbers_are(written):
    text = " ".join(_listed(written)["table1_digits_mini"]["notes"])
    for part in (
        "3 training seeds",
        "1,000 samples, or 1,000 reconstructions or mid-points, against 1,000 test images",
        NET,
        "Real against real (1,000 validation images against the reference): 0.125 ± 0.05 (half-sampling SD)",
        "VAE",
        "2sVAE",
    ):
        assert part in text
    assert "SYNTHETIC" not in text


def test_the_notes_say_in_words_which_density_stands_in_a_column(spec, frame, tmp_path):
    dirichlet = load_study("densities").fit("digits", "vae", "dp5").density
    fits = {"digits_mini": {**spec.fits["digits_mini"], "dp5": dirichlet}}

    def note(rows):
        built = _build(replace(spec, rows=rows, order=tuple(rows), fits=fits), frame, tmp_path, "table1")
        return next(text for text in built["table1_digits_mini"].notes if text.startswith("Column N"))

    mixture = "a mixture of 10 Gaussians with full covariances"
    assert note(ROWS) == (
        "Column N is N(0,I): VAE; second stage: 2sVAE; one fitted Gaussian: RAE & co."
        f" Column GMM is {mixture}. All fitted on training codes."
    )
    assert note({"two": ROWS["two"]}) == "Column N is second stage. All fitted on training codes."
    assert note({"vae": ROWS["vae"], "rae": replace(ROWS["rae"], n="standard_normal", gmm="dp5")}) == (
        f"Column N is N(0,I). Column GMM is {mixture}: VAE; a Dirichlet-process mixture of at most 5 Gaussians:"
        " RAE & co. All fitted on training codes."
    )


def test_csv_holds_the_same_numbers_in_full(written):
    data = pd.read_csv(written / "table1_digits_mini.csv").set_index(["row", "column"])
    assert len(data) == 17  # three rows of six cells but one
    assert data.loc[("vae", "gmm"), ["mean", "sd", "n_seeds"]].tolist() == [50.0, 10.0, 3]
    assert data.loc[("two", "n"), "density"] == "second_stage"
    for i, row in enumerate(ROWS):
        for j, column in enumerate(["reconstruction", "n", "standard_normal", "gaussian", "gmm", "interpolation"], 1):
            if (row, column) in data.index:
                mean, sd = map(float, TABLE1[i][j].split(" ± "))
                assert data.loc[(row, column), ["mean", "sd"]].tolist() == pytest.approx([mean, sd])
                assert data.loc[(row, column), "leads"] == ((i, j) in LEADING)


def test_markdown_and_latex_hold_the_same_cells(written):
    for name, table in _listed(written).items():
        lines = (written / f"{name}.md").read_text().splitlines()
        body = [line for line in lines if line.startswith("|")][2:]
        assert [[text.strip(" *") for text in line.strip("|").split("|")] for line in body] == table["rows"]
        tex = (written / f"{name}.tex").read_text()
        numbers = [text for row in table["rows"] for text in row if "±" in text]
        assert all(number.replace("±", r"$\pm$") in tex for number in numbers)


@pytest.mark.parametrize("label", ["Net", "inception-unverified", "pixels", "FIDO", INCEPTION_LABEL])
def test_distances_bear_the_name_of_their_features_and_inceptions_alone_are_fid_and_kid(label, spec, frame, tmp_path):
    """Heusel et al. 2017 define FID by the Inception network: other features give another distance."""
    listed = _listed(_written(spec, frame.assign(extractor_label=label), tmp_path))
    is_fid = label == INCEPTION_LABEL
    names = (
        ("FID", "FID∞", "KID", "MMD²-Inception") if is_fid else (f"{n}-{label}" for n in ("FD", "FD∞", "KD", "MMD²"))
    )
    for metric, name in zip(("", "frechet_infinity_", "kernel_distance_", "kernel_mmd2_"), names, strict=True):
        assert listed[f"table1_{metric}digits_mini"]["title"].endswith(f", {name} ↓")
    assert listed["table1_precision_digits_mini"]["title"].endswith(f"Precision ({label}) ↑")
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert ("Not comparable with FID." in text) != is_fid
    wrong = r"\b[FK]D-" if is_fid else r"\b[FK]ID\b"
    assert not re.findall(wrong, text.replace("Not comparable with FID", ""))


def test_the_claims_count_comparisons(written):
    counts = {tuple(row[:2]): [int(text) for text in row[2:]] for row in _listed(written)["claims"]["rows"]}
    assert sum(sum(value) for value in counts.values()) == len(pd.read_csv(written / "claims.csv"))
    helped = next(value for (text, _), value in counts.items() if "helps every model" in text)
    assert sum(helped) == 2  # VAE and RAE have a GMM, 2sVAE none


def test_a_search_chooses_the_point_with_the_least_geometric_mean(smoke_spec, tmp_path):
    """The cube roots of 3 x 4 x 18 and of 1 x 16 x 32 are 6 and 8."""
    points = {"vae_point0": (0.5, 3.0, 4.0, 18.0), "vae_point1": (0.25, 1.0, 16.0, 32.0)}
    rows = {name: replace(ROWS["vae"], model=name) for name in points}
    training = smoke_spec.trainings["digits_mini"]["vae"]
    trainings, values = {}, {}
    for name, (weight, rebuilt, n, gmm) in points.items():
        latent = replace(training.objective.latent, weight=weight)
        trainings[name] = replace(training, objective=replace(training.objective, latent=latent))
        values |= {(name, "reconstruction", ""): [rebuilt]}
        values |= {(name, "sample", "standard_normal"): [n], (name, "sample", "gmm10"): [gmm]}
    spec = replace(smoke_spec, rows=rows, order=tuple(rows), trainings={"digits_mini": trainings}, tables=("search",))
    spec = replace(spec, evaluations={"digits_mini": dict.fromkeys(points, "")})
    _written(spec, pd.DataFrame(_records(values, "frechet_distance", 0.1)), tmp_path)
    data = pd.read_csv(tmp_path / "search_digits_mini.csv")
    assert data["row"].tolist() == ["vae", "vae"]
    assert data["latent"].tolist() == [0.5, 0.25]
    assert data["regulariser"].isna().all()
    assert data["criterion"].tolist() == pytest.approx([6.0, 8.0])
    assert data["chosen"].tolist() == [True, False]
    assert data["noise"].tolist() == [0, 0]  # one fit of each


def test_a_searchs_noise_is_the_standard_error_over_fits(smoke_spec, tmp_path):
    """Of the three logarithms' mean: the mixture's four fits alone differ."""
    values = {("vae", "reconstruction", ""): [3.0], ("vae", "sample", "standard_normal"): [4.0]}
    frame = pd.DataFrame(_records(values, "frechet_distance", 0.1))
    fits = np.exp([0.0, 0.1, 0.3, 0.2])
    mixtures = [
        pd.DataFrame(_records({("vae", "sample", "gmm10"): [value]}, "frechet_distance", 0.1)).assign(fit_seed=seed)
        for seed, value in enumerate(fits)
    ]
    spec = replace(smoke_spec, rows={"vae": ROWS["vae"]}, order=("vae",), tables=("search",))
    _written(spec, pd.concat([frame, *mixtures]), tmp_path)
    (found,) = pd.read_csv(tmp_path / "search_digits_mini.csv").to_dict("records")
    assert found["noise"] == pytest.approx(np.std(np.log(fits), ddof=1) / 2 / 3)
    assert found["criterion"] == pytest.approx(np.cbrt(12 * fits.mean()))
    assert found["settings"] == spec.evaluations["digits_mini"]["vae"]


def test_the_noise_of_a_second_stage_counts_its_fits_in_both_columns_at_once(smoke_spec, tmp_path):
    """Rec. and N of a fit go together, and there is no GMM: the standard error is that of their mean logarithm."""
    rebuilt, sampled = np.exp([0.0, 0.2, 0.1]), np.exp([0.0, 0.4, 0.5])
    frames = [
        pd.DataFrame(_records({("vae", image_set, "second_stage"): [value]}, "frechet_distance", 0.1)).assign(
            fit_seed=i
        )
        for image_set, values in (("reconstruction", rebuilt), ("sample", sampled))
        for i, value in enumerate(values)
    ]
    spec = replace(smoke_spec, rows={"two": ROWS["two"]}, order=("two",), tables=("search",))
    spec = replace(spec, evaluations={"digits_mini": {"vae": ""}})
    _written(spec, pd.concat(frames), tmp_path)
    (found,) = pd.read_csv(tmp_path / "search_digits_mini.csv").to_dict("records")
    assert found["noise"] == pytest.approx(np.std([0.0, 0.3, 0.3], ddof=1) / np.sqrt(3))


def test_a_table_nobody_wrote_is_an_error(spec, frame, tmp_path):
    with pytest.raises(ValueError, match="no table is called 'table2'"):
        _written(replace(spec, tables=("table2",)), frame, tmp_path)


# --- warnings in the notes --------------------------------------------------------------------------------


def _warned(table):
    return [note for note in table.notes if "arning" in note]


def test_ordinary_numbers_have_no_warning(spec, frame, tmp_path):
    built = _build(spec, frame, tmp_path, "table1", "details")
    assert not any(_warned(table) for table in built.values())


def test_warnings_stand_below_the_table_they_are_about(spec, frame, tmp_path):
    one = frame[(frame["model"] == "vae") & (frame["density"] == "gmm10") & (frame["train_seed"] == 1)].index
    frame.loc[one.intersection(frame.index[frame["metric"] == "recall"]), "value"] = 1.0
    built = _build(spec, frame, tmp_path, "table1", "details")
    assert _warned(built["table1_recall_digits_mini"]) == [
        "Warning: vae seed 1, sample of gmm10: recall is saturated at 1."
    ]
    assert _warned(built["table1_digits_mini"]) == _warned(built["table1_precision_digits_mini"]) == []


def test_many_warnings_are_cut_short_and_counted(spec, frame, tmp_path):
    """All 13 planted cells of three seeds each: five are shown."""
    frame.loc[frame["metric"] == "precision", "value"] = 0.0
    notes = _warned(_build(spec, frame, tmp_path, "details")["table1_precision_digits_mini"])
    assert len(notes) == 6
    assert notes[-1].startswith(f"And {13 * 3 - 5} more warnings")


# --- rankings ---------------------------------------------------------------------------------------------

SAMPLERS = {
    # a hundred times the exponentials of planted logs, of two models whose seeds go together: a paired t-test's
    ("vae", "sample", "gmm10"): list(100 * np.exp([0.0, 0.5, -0.4, 0.1])),
    ("rae_l2", "sample", "gmm10"): list(100 * np.exp([-0.3, 0.2, -0.6, 0.11])),
}


@pytest.fixture
def rivals():
    """What `SAMPLERS` gives, and for the columns that no test here looks at, the same once more."""
    sets = [("reconstruction", ""), ("interpolation", ""), ("sample", "standard_normal"), ("sample", "gaussian")]
    others = {(model, *one): values for (model, *_), values in SAMPLERS.items() for one in sets}
    return pd.DataFrame(_records({**SAMPLERS, **others}, "frechet_distance", 0.125))


@pytest.fixture
def rival_spec(spec):
    rows = {name: ROWS[name] for name in ("vae", "rae")}
    return replace(spec, rows=rows, order=tuple(rows), train_seeds=(0, 1, 2, 3))


def test_a_ranking_tells_how_sure_and_how_stable_it_is(rival_spec, rivals, tmp_path):
    """RAE is first at three seeds of four: taus of 1 three times and of -1 three times."""
    table = _build(rival_spec, rivals, tmp_path, "comparisons")["ranking_digits_mini"]
    vae, rae = (np.log(SAMPLERS[model, "sample", "gmm10"]) for model in ("vae", "rae_l2"))
    bounds = stats.ttest_rel(vae, rae).confidence_interval(0.95)
    ratio = " ".join(
        ("{:.2f} ({:.2f} to {:.2f})".format(*np.exp([(vae - rae).mean(), bounds.low, bounds.high]))).split()
    )
    assert [row[2:] for row in table.rows] == [
        ["first", "–", "0", "0", "0", "1", "1.2 (1 to 2)"],
        [ratio, "undecided", "0", "0", "0", "1", "1.8 (1 to 2)"],
    ]
    assert [row[0] for row in table.rows] == ["RAE & co (GMM-10)", "VAE (GMM-10)"]
    assert "tau 0.00" in table.notes[-1]
    reach = np.exp(bounds.high - (vae - rae).mean())
    assert (
        f"A pair's ratio is known to within {100 * reach - 100:.0f} % (median of the pairs; at most"
        f" {100 * reach - 100:.0f} %)."
    ) in table.notes[1]
    assert table.title.endswith("by FD-Net")


@pytest.mark.parametrize(
    ("within", "said"),
    [
        (2.0, " every ratio is decided;"),
        (1.5, " a ratio is decided from {reach:.2f} on, and up to {equal:.2f} (as equal);"),
        (1.2, " a ratio is decided from {reach:.2f} on;"),
    ],
)
def test_a_ranking_tells_which_ratios_are_decided(rival_spec, rivals, tmp_path, within, said):
    """With the one pair that there is no correction: a ratio's half interval, here 1.26, off 1 or off the margin."""
    table = _build(replace(rival_spec, equal_within=within), rivals, tmp_path, "comparisons")["ranking_digits_mini"]
    vae, rae = (np.log(SAMPLERS[model, "sample", "gmm10"]) for model in ("vae", "rae_l2"))
    reach = np.exp(stats.ttest_rel(vae, rae).confidence_interval(0.95).high - (vae - rae).mean())
    assert f"Of two cells with this SD{said.format(reach=reach, equal=within / reach)}" in table.notes[1]


def test_a_clear_lead_is_called_from_both_sides(spec, frame, tmp_path):
    built = _build(spec, frame, tmp_path, "comparisons")
    ranking = built["ranking_digits_mini"]
    assert [(row[0], *row[3:8]) for row in ranking.rows] == [
        ("RAE & co (GMM-10)", "–", "1", "0", "0", "0"),
        ("VAE (GMM-10)", "worse", "0", "0", "1", "0"),
    ]
    table = built["comparisons_digits_mini"]
    assert table.header == ["", "VAE", "RAE & co"]  # 2sVAE has no GMM
    assert [[text.split()[-1] for text in row[1:]] for row in table.rows] == [["–", "worse"], ["better", "–"]]
    columns = table.data.groupby("column").size().to_dict()
    assert columns == {"reconstruction": 3, "n": 3, "standard_normal": 3, "gaussian": 3, "gmm": 1, "interpolation": 3}


def test_a_single_row_is_first_and_nothing_is_decided(spec, frame, tmp_path):
    one = replace(spec, rows={"vae": ROWS["vae"]}, order=("vae",))
    built = _build(one, frame, tmp_path, "comparisons")
    assert built["ranking_digits_mini"].rows == [
        ["VAE (GMM-10)", "50.0 ± 10.0", "first", "–", "0", "0", "0", "0", "1.0 (1 to 1)"]
    ]
    assert built["ranking_digits_mini"].notes[0] == "One row or one training seed: nothing is decided."
    assert built["comparisons_digits_mini"].rows == [["VAE", "–"]]


def test_baselines_are_held_against_and_change_nothing_between_the_others(rival_spec, rivals, tmp_path):
    """One five times as far as both rows, on whose weights seeds do nothing; and copies, with no other column."""
    rows = {
        **rival_spec.rows,
        "linear": Row("Linear", "baseline", "linear", "gaussian", "gmm10"),
        "copies": Row("Copies", "baseline", "copies", given={"gmm": "train"}),
    }
    spec = replace(rival_spec, rows=rows, order=tuple(rows))
    far = {("linear", image_set, density): [500.0] * 4 for _, image_set, density in _sets(rivals, "vae")}
    more = _records({**far, ("copies", "sample", "train_images"): [1.0] * 4}, "frechet_distance", 0.125)
    both = pd.concat([rivals, pd.DataFrame(more)], ignore_index=True)
    names = ("table1", "comparisons", "claims")
    before = _build(rival_spec, rivals, tmp_path, *names)
    after = _build(spec, both, tmp_path, *names)
    for name in ("comparisons_digits_mini", "claims"):
        assert (after[name].rows, after[name].notes) == (before[name].rows, before[name].notes)
    ranking = after["ranking_digits_mini"]
    assert [row[:-2] for row in ranking.rows] == before["ranking_digits_mini"].rows
    assert ranking.header[-2:] == ["Over Linear", "Over Copies"]
    table1 = after["table1_digits_mini"]
    assert table1.rows[:2] == before["table1_digits_mini"].rows
    assert table1.rows[2] == ["Linear", *["500 ± 0"] * 6]
    assert table1.rows[3] == ["Copies", "–", "–", "–", "–", "1.00 ± 0.00", "–"]
    assert table1.bold == before["table1_digits_mini"].bold
    assert "Copies: train images as they are, in column GMM." in table1.notes
    # the baseline does not vary here: the ratio is that of the row's geometric mean to it
    data = ranking.data.set_index("row")
    logs = pd.DataFrame(
        {row: np.log(SAMPLERS[model, "sample", "gmm10"]) for row, model in (("vae", "vae"), ("rae", "rae_l2"))}
    )
    np.testing.assert_allclose(data["linear_ratio"], np.exp(logs.mean()).reindex(data.index) / 500)
    assert set(data["linear_verdict"]) == {"better"}
    assert set(data["copies_verdict"]) == {"worse"}


def _sets(frame, model):
    mine = frame[frame["model"] == model]
    return sorted(set(zip(mine["model"], mine["image_set"], mine["density"], strict=True)))


def test_rows_nearer_to_training_images_than_fresh_ones_are_named(spec, frame, tmp_path):
    """Fresh images at 1.1 ± 0.05: below 1.002 is nearer; the mean over seeds counts, of samples alone."""
    near = {("vae", "sample", "gmm10"): [0.9, 1.0, 1.1], ("rae_l2", "sample", "gmm10"): [0.9, 1.1, 1.1]}
    near |= {("vae", "reconstruction", ""): [0.1] * 3, ("rae_l2", "sample", "gaussian"): [1.2] * 3}
    ratios = _records(near, "nearest_training_ratio", 1.1, floor_sd=0.05)
    table = _build(spec, pd.concat([frame, pd.DataFrame(ratios)]), tmp_path, "details")
    notes = table["table1_nearest_training_ratio_digits_mini"].notes
    assert (
        "Fresh real images lie within 1.002 to 1.198 (95 %). Samples nearer to training images than that: VAE (GMM)."
        in notes
    )
    assert any("1.1 ± 0.05 (SD by bootstrap)" in note for note in notes)


def test_densities_nearer_to_training_images_than_fresh_ones_are_counted(spec, grid, tmp_path):
    near = {("vae", "sample", "gmm10"): [0.9, 1.0, 1.1], ("rae_l2", "sample", "gmm10"): [0.9, 1.0, 1.0]}
    near |= {("vae", "sample", "gaussian"): [0.9, 1.0, 1.0], ("rae_l2", "sample", "gaussian"): [1.2] * 3}
    near |= {("vae", "reconstruction", ""): [0.1] * 3, ("vae", "sample", "standard_normal"): [1.0, 1.1, 1.1]}
    others = grid[0][grid[0]["metric"] != "nearest_training_ratio"]
    ratios = pd.DataFrame(_records(near, "nearest_training_ratio", 1.1, floor_sd=0.05))
    table = _build(spec, pd.concat([others, ratios]), tmp_path, "densities")[
        "densities_nearest_training_ratio_digits_mini"
    ]
    assert (
        "Fresh real images lie within 1.002 to 1.198 (95 %). Samples nearer to training images than that: Gaussian"
        " (1 of 2 models), GMM-10 (2 of 2 models)." in table.notes
    )


def test_rows_are_listed_in_the_studys_order(rival_spec, rivals, tmp_path):
    shuffled = replace(rival_spec, rows=dict(sorted(rival_spec.rows.items())))  # as JSON hands them over
    assert list(shuffled.rows) != list(rival_spec.order)
    table = _build(shuffled, rivals, tmp_path, "comparisons")["comparisons_digits_mini"]
    assert table.header == ["", "VAE", "RAE & co"]


# --- the grid of densities --------------------------------------------------------------------------------

LIKELIHOODS = {
    ("vae", "codes", "standard_normal"): [-53, -52, -51],
    ("vae", "codes", "gaussian"): [-11, -8, -11],
    ("vae", "codes", "gmm10"): [-10, -9, -8],
    ("rae_l2", "codes", "standard_normal"): [-22, -21, -20],
    ("rae_l2", "codes", "gmm10"): [-16, -15, -14],
}


@pytest.fixture
def grid(spec, frame, tmp_path):
    """The frame of all tables with likelihoods and nearness to training images; the grid built from it."""
    more = _records(LIKELIHOODS, "log_likelihood_validation", np.nan)
    more += _records(_scaled(0.01), "nearest_training_ratio", 1.0)
    frame = pd.concat([frame, pd.DataFrame(more)], ignore_index=True)
    return frame, _build(spec, frame, tmp_path, "densities")


def test_the_grid_holds_every_model_under_every_density(grid):
    table = grid[1]["densities_frechet_distance_digits_mini"]
    assert table.header == ["", "VAE", "RAE & co"]
    assert table.rows == [
        ["N(0,I)", "5.00 ± 1.00", "91.0 ± 1.0"],
        ["Gaussian", "8.00 ± 1.00", "6.00 ± 1.00"],
        ["GMM-10", "50.0 ± 10.0", "2.00 ± 1.00"],
        ["second stage", "32.0 ± 2.0", "–"],
    ]
    assert table.bold == {(0, 1), (2, 2)}  # the least of each column; 8 and 6 lie beyond two pooled SDs


def test_every_density_is_held_against_the_mixture_model_by_model(spec, grid, tmp_path):
    """Ratios of 0.5 and 1, of 4 for one that lacks the other, each known to a per cent; 2sVAE has no mixture."""
    mixture = {"vae": [1.0, 1.01, 0.99], "rae_l2": [2.01, 2.0, 1.98]}
    factors = {"standard_normal": {"vae": 0.5, "rae_l2": 1.0}, "gaussian": {"vae": 4.0}}
    wobble = {"standard_normal": [0.99, 1.0, 1.0], "gaussian": [1.0, 1.0, 1.02]}
    planted = {(model, "sample", "gmm10"): values for model, values in mixture.items()}
    planted |= {
        (model, "sample", density): [factor * one * by for one, by in zip(mixture[model], wobble[density], strict=True)]
        for density, models in factors.items()
        for model, factor in models.items()
    }
    others = grid[0][(grid[0]["image_set"] != "sample") | (grid[0]["metric"] != "frechet_distance")]
    frame = pd.concat([others, pd.DataFrame(_records(planted, "frechet_distance", 0.1))], ignore_index=True)
    table = _build(spec, frame, tmp_path, "densities")["densities_verdicts_digits_mini"]
    assert table.header == ["", "Ratio to GMM-10", "better for", "equal for", "worse for", "undecided for"]
    assert table.rows == [
        ["N(0,I)", "0.70 (0.50 to 1.00)", "1", "1", "0", "0"],  # the root of 0.5 and 1, less a third of a per cent
        ["Gaussian", "4.03 (4.03 to 4.03)", "0", "0", "1", "0"],
    ]
    assert set(table.data["row"]) == {"vae", "rae"}
    assert "over all 3 comparisons, over 3 training seeds." in table.notes[-1]


def test_no_density_is_held_against_a_mixture_that_no_row_has(spec, grid, tmp_path):
    alone = {name: replace(row, gmm="") for name, row in ROWS.items()}
    built = _build(replace(spec, rows=alone), grid[0], tmp_path, "densities")
    assert built
    assert not any("verdicts" in name for name in built)


def test_reconstructions_through_a_second_stage_are_none_of_its_samples(spec, grid, tmp_path):
    """Bold and its pool are of samples, however near the reconstructions that bear the second stage's name."""
    near = {("vae", image_set, "second_stage"): [0.1, 0.2, 0.1] for image_set in ("reconstruction", "interpolation")}
    frame = pd.concat([grid[0], pd.DataFrame(_records(near, "frechet_distance", 1.0))], ignore_index=True)
    table = _build(spec, frame, tmp_path, "densities")["densities_frechet_distance_digits_mini"]
    assert table.bold == grid[1]["densities_frechet_distance_digits_mini"].bold


def test_the_most_likely_densities_of_each_model_are_bold(grid):
    """VAE's mixture is better than its Gaussian by 1, -1 and 3: not surely; than N(0, I) by 43 at every seed."""
    table = grid[1]["densities_log_likelihood_validation_digits_mini"]
    assert table.rows == [
        ["N(0,I)", "-52.0 ± 1.0", "-21.0 ± 1.0"],
        ["Gaussian", "-10.0 ± 1.7", "–"],
        ["GMM-10", "-9.00 ± 1.00", "-15.0 ± 1.0"],
    ]
    assert table.bold == {(1, 1), (2, 1), (2, 2)}
    assert table.title.endswith("↑")


def test_likelihoods_of_other_codes_or_of_entries_are_held_against_their_own_kind(spec, grid, tmp_path):
    """A draw's, and an entry's, are none of a mean's or a vector's: alone of their kind they lead nobody."""
    kinds = {
        "drawn": {**to_plain(spec.fits["digits_mini"]["gmm10"]), "codes": "sample"},
        "uniform_indices": {"kind": "uniform_indices", "codes": "mean"},
        "categorical_indices": {"kind": "categorical_indices", "codes": "mean", "pseudo_count": 0.1},
    }
    others = {name: parse(Density, stated, "x") for name, stated in kinds.items()}
    spec = replace(
        spec,
        densities=(*spec.densities, *others),
        fits={"digits_mini": {**spec.fits["digits_mini"], **others}},
    )
    more = {
        ("vae", "codes", "drawn"): [10, 11, 12],
        ("vae", "codes", "uniform_indices"): [-39, -39, -39],
        ("vae", "codes", "categorical_indices"): [-37, -36, -37],
    }
    frame = pd.concat([grid[0], pd.DataFrame(_records(more, "log_likelihood_validation", np.nan))], ignore_index=True)
    table = _build(spec, frame, tmp_path, "densities")["densities_log_likelihood_validation_digits_mini"]
    bold = {table.rows[i][0] for i, j in table.bold if j == 1}
    assert bold == {"Gaussian", "GMM-10", "categorical indices"}


def test_shares_have_three_decimals_and_no_leader(grid):
    for metric in ("precision", "recall", "nearest_training_ratio"):
        table = grid[1][f"densities_{metric}_digits_mini"]
        assert table.rows[2] == ["GMM-10", "0.500 ± 0.100", "0.020 ± 0.010"]
        assert table.bold == set()
        assert not any("Bold" in note for note in table.notes)


def test_the_grids_notes_say_each_thing_once(grid):
    grids = {name: table for name, table in grid[1].items() if "verdicts" not in name}
    assert len(grids) == 5
    for name, table in grids.items():
        is_measured = "log_likelihood" not in name
        leads = name.split("_digits")[0] in ("densities_frechet_distance", "densities_log_likelihood_validation")
        for part, times in (
            *(("Real against real", is_measured), ("1,000 samples", is_measured), ("Bold:", leads)),
            *(("Mean ± SD over 3 training seeds", True), ("600 training images", True)),
        ):
            assert sum(part in note for note in table.notes) == times, (name, part)


def test_tables_of_drawn_images_say_so_first(grid, spec, tmp_path):
    drawn = replace(spec.datasets["digits_mini"], channels=3, size=64, source=FaceRenderer("face_renderer"))
    built = _build(replace(spec, datasets={"digits_mini": drawn}), grid[0], tmp_path, "table1", "densities")
    assert len(built) == 7
    assert all("SYNTHETIC" in table.notes[0] for table in built.values())


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *(("standard_normal", "N(0,I)"), ("gmm200", "GMM-200"), ("dp5", "DP-5"), ("kde", "KDE")),
        *(("gmm10_sampled", "GMM-10 of draws"), ("aggregate_posterior", "aggregate posterior"), ("flow", "flow")),
        ("second_stage_dai_wipf", "second stage (Dai and Wipf)"),
        ("gmm_selected", "GMM, selected K"),
    ],
)
def test_densities_have_printed_names(name, label):
    assert density_label(name) == label


def test_a_selected_mixture_shows_its_grid_and_how_many_fits_chose_each_number(spec, grid, tmp_path):
    density = parse(Density, vocabulary.read(CONFIG).densities["gmm_selected"], "gmm_selected")
    fits = {"digits_mini": {**spec.fits["digits_mini"], "gmm_selected": density}}
    values = {1: {"vae": [-9, -8, -7], "rae_l2": [-5, -5, -5]}, 10: {"vae": [-8, -7, -9], "rae_l2": [-4, -4, -4]}}
    more = [
        record
        for n_components, found in values.items()
        for model, series in found.items()
        for record in _records(
            {(model, "codes", "gmm_selected"): series}, f"log_likelihood_validation_{n_components}", np.nan
        )
    ]
    frame, _ = grid
    both = pd.concat([frame, pd.DataFrame(more)], ignore_index=True)
    built = _build(replace(spec, fits=fits), both, tmp_path, "details", "densities")
    table = built["selection_gmm_selected_digits_mini"]
    assert table.header == ["", "VAE", "RAE & co"]
    # VAE's seeds chose 10, 10 and 1
    assert table.rows == [
        ["K = 1", "-8.00 ± 1.00 (1)", "-5.00 ± 0.00 (0)"],
        ["K = 10", "-8.00 ± 1.00 (2)", "-4.00 ± 0.00 (3)"],
    ]
    assert any("best of a few" in note for note in table.notes)
    notes = built["densities_log_likelihood_validation_digits_mini"].notes
    assert any("Selected mixtures chose" in note for note in notes)
    assert not [name for name in _build(spec, frame, tmp_path, "details") if "selection" in name]


# --- likelihoods of images --------------------------------------------------------------------------------


def test_likelihoods_of_images_are_shown_for_models_that_have_them(spec, frame, tmp_path):
    bound = {("vae", "reference", ""): [-100, -110, -120]}
    estimates = {
        ("vae", "reference", "gmm10"): [-79, -80, -81],
        ("vae", "reference", "standard_normal"): [-90, -95, -100],
    }
    more = _records(bound, "evidence_bound", np.nan) + _records(estimates, "log_likelihood_images", np.nan)
    parts = {
        "doubling": ([0.5] * 3, [0.5, 3.5, 0.5]),
        "half_width": ([3] * 3, [3] * 3),
        "effective_share": ([0.5] * 3,) * 2,
    }
    for part, (gmm, prior) in parts.items():
        values = dict(zip(estimates, (gmm, prior), strict=True))
        more += _records(values, f"log_likelihood_images_{part}", np.nan)
    built = _build(spec, pd.concat([frame, pd.DataFrame(more)]), tmp_path, "details")
    table = built["likelihood_digits_mini"]
    assert table.header == ["", "VAE"]
    assert table.rows == [
        ["evidence bound, prior N(0,I)", "-110 ± 10"],
        ["estimate, prior N(0,I)", "not converged"],  # one of its seeds is not
        ["estimate, prior GMM-10", "-80.0 ± 1.0 (50 %)"],
    ]
    assert table.data["is_converged"].tolist() == [True, True, False]
    assert "nats an image" in table.title
    assert "likelihood_digits_mini" not in _build(spec, frame, tmp_path, "details")


# --- protocols --------------------------------------------------------------------------------------------

PANEL = {
    # protocol: distances of VAE's N(0, I), 2sVAE's second stage and RAE's Gaussian; of VAE's and RAE's mixtures
    "own": ([1, 2, 3], [5, 6]),
    "truncated": ([10, 20, 30], [0.5, 0.6]),
    "validation": ([3, 2, 1], [6, 5]),
    "half": ([1, 3, 2], [50, 60]),  # two of three pairs agree: tau (2 - 1) / 3
    "both": ([1, 2, 3], [6, 5]),
}
SHOWN = [
    ("vae", "standard_normal"),
    ("vae", "second_stage"),
    ("rae_l2", "gaussian"),
    ("vae", "gmm10"),
    ("rae_l2", "gmm10"),
]


@pytest.fixture
def panelled(spec, tmp_path):
    """The study with its own protocol and four others, and their panel in `tmp_path`."""
    records = [
        {
            "dataset": "digits_mini",
            "model": model,
            "train_seed": seed,
            "density": density,
            "fit_seed": 0,
            "sample_seed": 0,
            "protocol": protocol,
            "value": value + shift,  # which changes sides at one seed, not in the mean
        }
        for protocol, (n, gmm) in PANEL.items()
        for (model, density), value in zip(SHOWN, [*n, *gmm], strict=True)
        for seed, shift in enumerate([0.0, 9.0 * value, -9.0 * value])
    ]
    storage.write_frame(tmp_path / "protocols.parquet", pd.DataFrame(records))
    own = Protocol("test", "round", "digit_classifier", 300, 300)
    changed = {
        "own": own,
        "truncated": replace(own, rounding="truncate"),
        "validation": replace(own, reference_split="validation"),
        "half": replace(own, n_images=150),
        "both": replace(own, reference_split="validation", rounding="truncate"),
    }
    return replace(spec, protocols={"digits_mini": dict(sorted(changed.items()))})


def test_protocols_say_what_they_change_and_which_rankings_they_keep(panelled, frame, tmp_path):
    table = _build(panelled, frame, tmp_path, "protocols")["protocols_digits_mini"]
    assert table.rows == [
        ["own", "–", "1.00", "VAE", "1.00", "VAE"],
        ["both", "reference_split validation, rounding truncate", "1.00", "VAE", "-1.00", "RAE & co"],
        ["half", "n_images 150", "0.33", "VAE", "1.00", "VAE"],
        ["truncated", "rounding truncate", "1.00", "VAE", "1.00", "VAE"],
        ["validation", "reference_split validation", "-1.00", "RAE & co", "-1.00", "RAE & co"],
    ]
    assert table.notes[-1] == (
        "Own: reference_split test, rounding round, extractor digit_classifier, n_images 300, n_generated 300."
    )


def test_a_column_that_no_row_has_is_a_dash_under_every_protocol(panelled, frame, tmp_path):
    alone = replace(panelled, rows={"two": ROWS["two"]}, order=("two",))
    rows = _build(alone, frame, tmp_path, "protocols")["protocols_digits_mini"].rows
    assert [row[2:] for row in rows] == [["–", "2sVAE", "–", "–"]] * 5
