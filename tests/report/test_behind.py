"""What stands behind the cells of the report's Table 1, against the values and the commands themselves."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from planted_distances import gmm, planted, planted_study

from rae_bench.base import storage
from rae_bench.report.behind import SHOWN, table1_rows
from rae_bench.report.tables.cells import COLUMNS, cell_values, compared
from rae_bench.report.verdicts import leaders
from rae_bench.run.cells import parse_cell
from rae_bench.study.config import load_study
from rae_bench.study.files import StudyFiles


def test_bold_is_whom_no_other_beats_for_sure():
    """RAE-GP is the lowest and unsure, RAE-L2 sure: against the second AE is surely worse."""
    study = planted_study()

    def bold(frame, column):
        found = leaders(compared(study, frame, "digits", column), "lower", study.equal_within)
        return {row for row, _ in found}

    frame = planted(gmm(9.0, (4.9, 0.15), 5.0, 7.0))
    assert bold(frame, "gmm") == {"rae_gp", "rae_l2"}
    unsure = planted({cell: (value, 0.4) for cell, value in gmm(9.0, 4.9, 5.0, 7.0).items()})
    assert bold(unsure, "gmm") == {"cv_vae", "rae_gp", "rae_l2", "ae"}  # never a baseline
    assert bold(planted(gmm(9, 5, 6, 7), seeds=1), "gmm") == set()
    assert bold(frame, "n") == set()


@pytest.fixture(scope="module")
def rows(smoke, smoke_spec, smoke_frame):
    texts = [[row.label, *([name] * len(COLUMNS))] for name, row in smoke_spec.ordered_rows.items()]
    files = StudyFiles(smoke.results, "smoke")
    return table1_rows(smoke_spec, smoke_frame, files, {"digits_mini": [["", *COLUMNS.values()], *texts]})


def test_values_by_seed_are_those_of_the_cell(rows, smoke_spec, smoke_frame):
    assert [row["name"] for row in rows] == list(smoke_spec.order)
    for row in rows:
        for cell in row["cells"]:
            values = cell_values(smoke_frame, "digits_mini", smoke_spec.rows[row["name"]], cell["column"])
            assert cell["text"] == row["name"]
            if not len(values):
                assert cell["behind"] is None
                continue
            assert cell["behind"]["mean"] == pytest.approx(values.mean())
            assert [seed for seed, _ in cell["behind"]["seeds"]] == list(values.index)
            assert [float(value) for _, value in cell["behind"]["seeds"]] == pytest.approx(list(values), rel=1e-5)


def test_the_command_of_every_cell_is_understood(rows):
    """`verify --cell` knows the cell, and would make the values that stand there."""
    study, found = load_study("smoke"), 0
    for row in rows:
        for cell in row["cells"]:
            if cell["behind"]:
                *command, text = cell["behind"]["command"].split()
                assert command == ["python", "-m", "rae_bench", "verify", "smoke", "--cell"]
                parsed = parse_cell(study, text)
                assert (parsed.model, parsed.seed) == (study.rows[row["name"]].model, 0)
                found += 1
    assert found == 24


def test_counts_and_reference_are_told(rows):
    cells = {(row["name"], cell["column"]): cell["behind"] for row in rows for cell in row["cells"]}
    assert cells["vae", "gmm"]["counts"] == "600 images a value; a seed is the mean of 4 (fits: 2, draws of each: 2)"
    assert cells["vae", "reconstruction"]["counts"] == "300 images; one value a seed"
    assert cells["vae", "gmm"]["reference"].startswith("300 test images in features digit_classifier")
    assert cells["vae", "gmm"]["fingerprints"].startswith("train ")


@pytest.mark.parametrize(
    ("name", "column", "key"),
    [
        ("vae", "reconstruction", "reconstruction"),
        ("vae", "gmm", "sample.gmm10"),
        ("two_stage_vae", "n", "sample.second_stage"),
        ("linear", "gaussian", "sample.gaussian"),
        ("training_images", "reconstruction", None),
    ],
)
def test_its_images_are_the_first_of_its_sheet(rows, smoke, name, column, key):
    (row,) = (row for row in rows if row["name"] == name)
    (cell,) = (cell for cell in row["cells"] if cell["column"] == column)
    if key is None:
        assert cell["behind"] is None
        return
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(cell["behind"]["picture"]))))
    run = "vae" if name == "two_stage_vae" else name
    sheets = StudyFiles(smoke.results, "smoke").run("digits_mini", run, 0).sheets
    images = storage.read_arrays(sheets, key)[0][key]
    assert shown.shape == (32, 33 * SHOWN - 1, 3)
    for i, image in enumerate(images[:SHOWN]):
        assert (shown[:, 33 * i : 33 * i + 32] == image[0][..., None]).all()
