"""Tables from planted numbers: means, spreads, leaders and notes, in every format the same."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from rae_bench import specs, tables
from rae_bench.tables import cell_values, leaders

NET = "net@32/none/layer/0123abcd"
ROWS = {
    "vae": specs.Row("VAE", "variational", "vae", "standard_normal", "gmm10", ""),
    "two": specs.Row("2sVAE", "variational", "vae", "second_stage", "", "second_stage"),
    "rae": specs.Row("RAE & co", "regularized", "rae_l2", "gaussian", "gmm10", ""),
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
LEADING = {(2, 1), (0, 2), (2, 2), (0, 3), (1, 3), (2, 5), (2, 6), (0, 4), (1, 4), (2, 4)}
"""Best of each column and what lies within two pooled SDs: N, 5 and 6 +- 1; Gaussian, 6 and 8 +- 1, just so."""


def _records(values, metric, floor, sample_seed=0):
    return [
        {
            "study": "smoke",
            "dataset": "digits_mini",
            "is_synthetic": False,
            "model": model,
            "train_seed": seed,
            "image_set": image_set,
            "density": density,
            "sample_seed": sample_seed,
            "n_generated": 1000,
            "n_reference": 1000,
            "reference_split": "test",
            "extractor": NET,
            "extractor_label": "Net",
            "metric": metric,
            "value": float(value),
            "floor": floor,
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
        _records(FD, "frechet_distance", 0.125)
        + _records(_scaled(0.001), "kernel_distance", 0.0005)
        + _records(_scaled(0.01), "precision", 0.75)
        + _records(_scaled(0.01), "recall", 0.75)
        + _records(rebuilt, "squared_error", np.nan)
        + _records({("vae", "reconstruction", ""): [30.5]}, "pca_squared_error", np.nan)
    )


@pytest.fixture
def spec(smoke_spec):
    return replace(
        smoke_spec, rows=ROWS, order=tuple(ROWS), train_seeds=(0, 1, 2), tables=("table1", "claims", "details")
    )


@pytest.fixture
def written(spec, frame, tmp_path):
    """The folder of all tables."""
    tables.write(spec, frame, tmp_path / "index.json")
    return tmp_path


def _listed(folder):
    return {table["name"]: table for table in json.loads((folder / "index.json").read_text())}


@pytest.mark.parametrize(
    ("mean", "sd", "better", "expected"),
    [
        ([5.0, 6.0, 9.0], [1.0, 1.0, 1.0], "lower", [0, 1]),
        ([5.0, 6.0, 9.0], [1.0, 1.0, 1.0], "higher", [2]),
        ([0.0, 2.0], [1.0, 1.0], "lower", [0, 1]),  # at two pooled SDs, a tie
        ([0.0, 2.01], [1.0, 1.0], "lower", [0]),
        ([0.0, 1.0], [0.0, 0.8], "lower", [0, 1]),  # pooled sqrt(0.32) = 0.566
        ([0.0, 1.0], [0.0, 0.7], "lower", [0]),  # pooled sqrt(0.245) = 0.495
        ([0.3, 0.3, 0.4], [0.0, 0.0, 0.0], "lower", [0, 1]),
        ([5.0, 6.0], [1.0, np.nan], "lower", []),
        ([5.0], [0.1], "higher", [0]),
    ],
)
def test_leaders_are_the_best_and_what_two_pooled_sds_cannot_tell_from_it(mean, sd, better, expected):
    assert list(leaders(pd.Series(mean), pd.Series(sd), better).index) == expected


def test_a_cell_averages_sample_seeds_within_a_training_seed(frame):
    other = _records({("vae", "sample", "gmm10"): [50, 70, 90]}, "frechet_distance", 0.125, sample_seed=1)
    values = cell_values(pd.concat([frame, pd.DataFrame(other)]), "digits_mini", ROWS["vae"], "gmm")
    assert values.to_dict() == {0: 45.0, 1: 60.0, 2: 75.0}


def test_a_cell_that_a_row_does_not_have_is_empty(frame):
    assert cell_values(frame, "digits_mini", ROWS["two"], "gmm").empty
    assert cell_values(frame, "elsewhere", ROWS["vae"], "gmm").empty


def test_table1_holds_the_means_and_spreads_worked_out_by_hand(written):
    table = _listed(written)["table1_digits_mini"]
    assert table["header"] == ["", "Rec.", "N", "N(0,I)", "Gaussian", "GMM", "Interp."]
    assert table["rows"] == TABLE1


def test_table1_sets_leaders_and_ties_in_bold(written):
    assert {tuple(cell) for cell in _listed(written)["table1_digits_mini"]["bold"]} == LEADING


def test_higher_is_better_for_precision_and_recall(written):
    for name in ("table1_precision_digits_mini", "table1_recall_digits_mini"):
        table = _listed(written)[name]
        assert table["rows"][0][5] == "0.500 ± 0.100"
        assert [0, 5] in table["bold"]
        assert [2, 5] not in table["bold"]
        assert "↑" in table["title"]


def test_kernel_distances_are_shown_times_a_thousand(written):
    table = _listed(written)["table1_kernel_distance_digits_mini"]
    assert table["rows"][0][1:] == TABLE1[0][1:]
    assert "x 1000" in table["title"]
    assert any(": 0.5." in note for note in table["notes"])  # the floor, 0.0005


def test_one_seed_has_no_spread_and_no_leader(spec, frame, tmp_path):
    tables.write(replace(spec, train_seeds=(0,)), frame[frame["train_seed"] == 0], tmp_path / "index.json")
    table = _listed(tmp_path)["table1_digits_mini"]
    assert table["rows"][0] == ["VAE", "10.0", "4.00", "4.00", "7.00", "40.0", "20.0"]
    assert table["bold"] == []


def test_reconstructions_stand_beside_pca(written):
    rows = _listed(written)["reconstruction_digits_mini"]["rows"]
    assert [row[:2] for row in rows] == [
        ["VAE", "12.0 ± 2.0"],
        ["2sVAE", "22.0 ± 2.0"],
        ["RAE & co", "2.00 ± 1.00"],
        ["PCA", rows[3][1]],
    ]
    assert float(rows[3][1]) == 30.5


def test_the_notes_say_what_the_numbers_are(written):
    text = " ".join(_listed(written)["table1_digits_mini"]["notes"])
    for part in (
        "3 training seeds",
        "1,000 generated images",
        "1,000 test images",
        NET,
        "Real against real (validation against test, same counts): 0.125",
        "VAE",
        "2sVAE",
    ):
        assert part in text
    assert "SYNTHETIC" not in text


def test_tables_of_drawn_images_say_so_first(spec, frame, tmp_path):
    drawn = replace(spec.datasets["digits_mini"], source=specs.FaceRenderer("face_renderer"))
    tables.write(replace(spec, datasets={"digits_mini": drawn}), frame, tmp_path / "index.json")
    assert "SYNTHETIC" in _listed(tmp_path)["table1_digits_mini"]["notes"][0]


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


def test_names_are_escaped_for_tex(written):
    text = (written / "table1_digits_mini.tex").read_text()
    assert r"RAE \& co & " in text
    assert r"digits\_mini" not in text.split(r"\caption")[0]


def test_nothing_is_called_fid_or_kid_but_by_inception(written):
    """Heusel et al. 2017 define FID by the Inception network: other features give another distance."""
    for path in written.iterdir():
        assert not re.findall(r"\b[FK]ID\b", path.read_text().replace("Not comparable with FID", "")), path.name
    title = _listed(written)["table1_digits_mini"]["title"]
    assert "FD-Net" in title
    assert any("Not comparable with FID" in note for note in _listed(written)["table1_digits_mini"]["notes"])


@pytest.mark.parametrize("label", ["inception-unverified", "DINOv2", "EffLite0-bicubic", "pixels", "FIDO"])
def test_distances_in_other_features_bear_their_name(label, spec, frame, tmp_path):
    tables.write(spec, frame.assign(extractor_label=label), tmp_path / "index.json")
    listed = _listed(tmp_path)
    assert listed["table1_digits_mini"]["title"].endswith(f"Fréchet distance, FD-{label} ↓")
    assert listed["table1_kernel_distance_digits_mini"]["title"].endswith(f"Kernel distance x 1000, KD-{label} ↓")
    assert any("Not comparable with FID." in note for note in listed["table1_digits_mini"]["notes"])
    for path in tmp_path.iterdir():
        assert not re.findall(r"\b[FK]ID\b", path.read_text().replace("Not comparable with FID", "")), path.name


def test_distances_in_verified_inceptions_features_are_fid_and_kid(spec, frame, tmp_path):
    tables.write(spec, frame.assign(extractor_label=specs.INCEPTION_LABEL), tmp_path / "index.json")
    listed = _listed(tmp_path)
    assert listed["table1_digits_mini"]["title"].endswith("Fréchet distance, FID ↓")
    assert listed["table1_kernel_distance_digits_mini"]["title"].endswith("Kernel distance x 1000, KID ↓")
    assert listed["table1_precision_digits_mini"]["title"].endswith("Precision (Inception) ↑")
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "Not comparable" not in text
    assert "FD-" not in text
    assert "KD-" not in text


def test_the_claims_count_comparisons(written):
    counts = {tuple(row[:2]): [int(text) for text in row[2:]] for row in _listed(written)["claims"]["rows"]}
    helped = next(value for (text, _), value in counts.items() if "helps every model" in text)
    # VAE: 50 - 5, SDs 10 and 1, each seed's difference 36, 45, 54; RAE: 2 - 6, the same at every seed
    assert helped == [1, 0, 1]
    assert sum(map(sum, counts.values())) == len(pd.read_csv(written / "claims.csv"))


def test_a_search_chooses_the_point_with_the_least_geometric_mean(smoke_spec, tmp_path):
    """The cube roots of 3 x 4 x 18 and of 1 x 16 x 32 are 6 and 8."""
    rows = {f"vae_point{i}": replace(ROWS["vae"], model=f"vae_point{i}") for i in range(2)}
    training = smoke_spec.trainings["digits_mini"]["vae"]
    trainings = {}
    for i, weight in enumerate([0.5, 0.25]):
        latent = replace(training.objective.latent, weight=weight)
        trainings[f"vae_point{i}"] = replace(training, objective=replace(training.objective, latent=latent))
    values = {
        ("vae_point0", "sample", "standard_normal"): [4.0],
        ("vae_point0", "sample", "gmm10"): [18.0],
        ("vae_point0", "reconstruction", ""): [3.0],
        ("vae_point1", "sample", "standard_normal"): [16.0],
        ("vae_point1", "sample", "gmm10"): [32.0],
        ("vae_point1", "reconstruction", ""): [1.0],
    }
    spec = replace(smoke_spec, rows=rows, order=tuple(rows), trainings={"digits_mini": trainings}, tables=("search",))
    tables.write(spec, pd.DataFrame(_records(values, "frechet_distance", 0.1)), tmp_path / "index.json")
    data = pd.read_csv(tmp_path / "search_digits_mini.csv")
    assert data["row"].tolist() == ["vae", "vae"]
    assert data["latent"].tolist() == [0.5, 0.25]
    assert data["regulariser"].isna().all()
    assert data["criterion"].tolist() == pytest.approx([6.0, 8.0])
    assert data["chosen"].tolist() == [True, False]


def test_a_table_nobody_wrote_is_an_error(spec, frame, tmp_path):
    with pytest.raises(ValueError, match="no table is called 'table2'"):
        tables.write(replace(spec, tables=("table2",)), frame, tmp_path / "index.json")
