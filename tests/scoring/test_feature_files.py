"""What users hand to `score`: scored, or one line that says what the file is, and never to delete or to trust it."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from scipy import linalg

from rae_bench import cli

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(60, 4)).astype(np.float32)
FAKE = (RNG.normal(size=(50, 4)) * [1, 2, 3, 4] + 1).astype(np.float32)
SMALL = ["--prd-clusters", "8", "--kernel-subset-size", "50"]
ADVICE = ("delete", "again", "stage", "pickle=", "allow_pickle", "weights_only", "unsafe", "trust")
"""What no message about a user's own file may hold."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("real.npy", REAL)
    return tmp_path


@pytest.fixture
def score(capsys):
    """Score two files; the values of the printed JSON, and its notes."""

    def run(*arguments):
        cli.main(["score", *arguments, "--json", *SMALL])
        found = json.loads(capsys.readouterr().out)
        return found["values"], found["notes"]

    return run


def refused(*arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(["score", *map(str, arguments)])
    message = end.value.code
    assert isinstance(message, str)
    assert message.startswith("rae_bench score: ")
    assert "\n" not in message
    assert not [advice for advice in ADVICE if advice in message]
    return message.removeprefix("rae_bench score: ")


def frechet(real, fake):
    """The distance by its definition, with SciPy's matrix root; of features or (mean, covariance)."""
    (m1, s1), (m2, s2) = (
        side if isinstance(side, tuple) else (side.mean(axis=0, dtype=np.float64), np.cov(side.astype(np.float64).T))
        for side in (real, fake)
    )
    return ((m1 - m2) ** 2).sum() + np.trace(s1 + s2 - 2 * linalg.sqrtm(s1 @ s2).real)


# --- archives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_one_array_is_scored_as_the_array(score, save):
    np.save("fake.npy", FAKE)
    save("fake.npz", FAKE)
    assert score("real.npy", "fake.npz")[0] == score("real.npy", "fake.npy")[0]


def test_of_several_arrays_one_is_chosen_by_name(score):
    np.savez("both.npz", real=REAL, fake=FAKE, labels=np.arange(50))
    np.save("fake.npy", FAKE)
    named = score("both.npz", "both.npz", "--real-array", "real", "--fake-array", "fake")
    assert named[0] == score("real.npy", "fake.npy")[0]
    expected = "both.npz: holds 3 arrays (real, fake, labels); choose one with --fake-array NAME"
    assert refused("real.npy", "both.npz") == expected
    expected = "both.npz: holds no array 'reel'; give --real-array one of real, fake, labels"
    assert refused("both.npz", "real.npy", "--real-array", "reel") == expected
    assert refused("real.npy", "real.npy", "--real-array", "a").endswith(
        "so it has no array 'a'; leave out --real-array"
    )


@pytest.mark.parametrize("change", ["float64", ">f4", "fortran", "version 2"])
def test_however_an_array_is_saved_its_numbers_are_the_same(score, change):
    if change == "version 2":
        with Path("fake.npy").open("wb") as file:
            np.lib.format.write_array(file, FAKE, version=(2, 0))
    else:
        np.save("fake.npy", np.asfortranarray(FAKE) if change == "fortran" else FAKE.astype(change))
    assert score("real.npy", "fake.npy")[0]["frechet_distance"] == pytest.approx(frechet(REAL, FAKE), rel=1e-5)


# --- moments ----------------------------------------------------------------------------------------------


def moments(features):
    """As pytorch-fid computes and saves them."""
    return {"mu": np.mean(features, axis=0), "sigma": np.cov(features, rowvar=False)}


@pytest.mark.parametrize("sides", [("real",), ("fake",), ("real", "fake")])
def test_of_moments_the_frechet_distance_alone_is_given(score, sides):
    for side, features in (("real", REAL), ("fake", FAKE)):
        np.save(f"{side}.npy", features)
        np.savez(f"{side}.npz", **moments(features))
    files = [f"{side}.npz" if side in sides else f"{side}.npy" for side in ("real", "fake")]
    values, said = score(*files)
    assert values == {"frechet_distance": pytest.approx(frechet(REAL, FAKE), rel=1e-5)}
    assert said[0].endswith("moments (mu, sigma) allow the Fréchet distance alone; all other metrics need the features")
    assert [f"{side}.npz" in said[0] for side in ("real", "fake")] == [side in sides for side in ("real", "fake")]


def test_moments_of_fewer_images_than_features_are_those_of_the_features(score):
    """Their covariance is singular, as with 50 images of 2048 features."""
    np.save("real.npy", REAL[:3])
    np.savez("fake.npz", **moments(FAKE[:3].astype(np.float64)))
    expected = frechet(REAL[:3], FAKE[:3])
    assert score("real.npy", "fake.npz")[0]["frechet_distance"] == pytest.approx(expected, rel=1e-5)


def test_without_json_the_note_stands_below_the_number(capsys):
    np.savez("real.npz", **moments(REAL))
    cli.main(["score", "real.npz", "real.npy"])
    _, number, note, _ = capsys.readouterr().out.splitlines()
    assert number.split()[0] == "frechet_distance"
    assert note.startswith("real.npz: moments (mu, sigma) allow")


MEAN, COVARIANCE = np.zeros(4), np.eye(4)
WRONG_MOMENTS = {
    "a matrix as mean": (COVARIANCE, COVARIANCE, "mu has shape (4, 4), sigma (4, 4); expected (d,) and (d, d)"),
    "of other sizes": (MEAN, np.eye(3), "mu has shape (4,), sigma (3, 3); expected (d,) and (d, d)"),
    "empty": (MEAN[:0], COVARIANCE[:0, :0], "mu has shape (0,), sigma (0, 0)"),
    "whole numbers": (MEAN, np.eye(4, dtype=int), "sigma is int64; expected floating point"),
    "not finite": (MEAN, COVARIANCE * np.nan, "sigma holds values that are not finite"),
    "infinite mean": (MEAN + np.inf, COVARIANCE, "mu holds values that are not finite"),
    "not symmetric": (MEAN, np.triu(np.ones((4, 4))), "sigma is not symmetric; expected a covariance"),
    "negative": (MEAN, np.diag([1.0, 1, 1, -0.5]), "sigma has the negative eigenvalue -0.5; expected a covariance"),
    "of other features": (np.zeros(3), np.eye(3), "fake features have dimension 3, real ones 4; both must come from"),
}


@pytest.mark.parametrize("kind", WRONG_MOMENTS)
def test_moments_that_cannot_be_are_one_line(kind):
    mean, covariance, expected = WRONG_MOMENTS[kind]
    np.savez("fake.npz", mu=mean, sigma=covariance)
    assert expected in refused("real.npy", "fake.npz")


def test_a_covariance_rounded_to_single_precision_is_one(score):
    """One of 300 features and 50 images has 251 eigenvalues that are zero but for rounding, half of them negative."""
    features = RNG.normal(size=(50, 300))
    np.save("real.npy", features)
    np.savez("fake.npz", **{name: array.astype(np.float32) for name, array in moments(features).items()})
    assert score("real.npy", "fake.npz")[0]["frechet_distance"] == pytest.approx(0, abs=1e-3)


def test_moments_and_features_of_one_file_are_two_sides(score):
    features = RNG.normal(size=(200, 4))
    np.savez("both.npz", features=features + 3, **moments(features))
    found, *_ = score("both.npz", "both.npz", "--fake-array", "features")
    assert found["frechet_distance"] == pytest.approx(4 * 3**2)


# --- what is no file of features --------------------------------------------------------------------------


def _bytes(save, *values, **named):
    file = io.BytesIO()
    save(file, *values, **named)
    return file.getvalue()


def _zip(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _image(kind):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, kind)
    return file.getvalue()


def _safetensors():
    save_file({"features": REAL}, "x.safetensors")
    return Path("x.safetensors").read_bytes()


NPY, NPZ = _bytes(np.save, REAL), _bytes(np.savez, REAL)
HEADER = NPY.index(b"\n") + 1
FOREIGN = {
    "empty": (b"", "an empty file"),
    "text": (b"1,2,3\n", "a text file"),
    "text in UTF-8": ("µ;σ\n".encode(), "a text file"),
    "one byte": (b"\0", "no file of NumPy's"),
    "magic alone": (NPY[:6], "an .npy file whose header is cut off or damaged"),
    "cut header": (NPY[:40], "an .npy file whose header is cut off or damaged"),
    "no header": (NPY[:10] + b"x" * 500, "an .npy file whose header is cut off or damaged"),
    "huge header": (b"\x93NUMPY\2\0\0\0\1\0" + b" " * 65536, "an .npy file whose header is cut off or damaged"),
    "version 9": (b"\x93NUMPY\t\0" + NPY[8:], "an .npy file whose header is cut off or damaged"),
    "negative": (NPY.replace(b"(60, 4), ", b"(-60,-4),"), "an .npy file whose header is cut off or damaged"),
    "cut": (NPY[:500], f"500 bytes, but an array (60, 4) of float32 takes {len(NPY):,}: cut off"),
    "no values": (NPY[:HEADER], f"{HEADER} bytes, but an array (60, 4) of float32 takes {len(NPY):,}: cut off"),
    "impossible": (NPY.replace(b"(60, 4)", b"(9**9,)"), "an .npy file whose header is cut off or damaged"),
    "twice": (NPY + NPY, f"{2 * len(NPY):,} bytes, but an array (60, 4) of float32 takes {len(NPY):,}: more than"),
    "objects": (_bytes(np.save, REAL.astype(object), allow_pickle=True), "an array of Python objects; expected num"),
    "words": (_bytes(np.save, np.array([["a"]])), "an array of <U1; expected numbers in floating point"),
    "records": (_bytes(np.save, np.zeros(3, "f4,i4")), "an array of [('f0', '<f4'), ('f1', '<i4')]; expected numbers"),
    "objects in an archive": (_bytes(np.savez, a=REAL.astype(object)), "a: an array of Python objects; expected"),
    "cut archive": (NPZ[: len(NPZ) // 2], "an archive that is cut off or damaged"),
    "damaged archive": (NPZ.replace(REAL[3].tobytes(), b"\0" * 16), "an archive that is cut off or damaged"),
    "archive of text": (_zip(readme=b"1, 2"), "an archive without arrays of NumPy's"),
    "empty archive": (_zip(), "an archive without arrays of NumPy's"),
    "torch": (_bytes(lambda file: torch.save(torch.zeros(3, 2), file)), "a file of torch.save without arrays"),
    "pickle": (b"\x80\4]\x94.", "a Python pickle"),
    "parquet": (_bytes(lambda file: pd.DataFrame({"a": [1.0]}).to_parquet(file)), "a parquet file"),
    "safetensors": (_safetensors, "a safetensors file"),
    "PNG": (_image("PNG"), "an image"),
    "JPEG": (_image("JPEG"), "an image"),
    "TIFF": (_image("TIFF"), "an image"),
    "BMP": (_image("BMP"), "an image"),
    "integers": (_bytes(np.save, np.zeros((9, 4), np.int64)), " features are int64; expected floating point"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("side", ["real", "fake"])
def test_a_file_without_features_is_one_line_that_says_what_it_is(folder, kind, side):
    content, expected = FOREIGN[kind]
    (folder / "mine.npy").write_bytes(content() if callable(content) else content)
    message = refused(*(["mine.npy", "real.npy"] if side == "real" else ["real.npy", "mine.npy"]))
    separator = ":" if kind == "integers" else ": "
    assert message.startswith(f"mine.npy{separator}{expected}")
    assert "expected " in message
    assert (folder / "mine.npy").exists()


def test_what_is_no_file_at_all_is_one_line(folder):
    assert refused("real.npy", "none.npy") == "none.npy: no such file"
    (folder / "folder.npy").mkdir()
    assert refused("folder.npy", "real.npy").startswith("folder.npy: no images; expected files of the kinds PNG")
    assert refused("real.npy", "/dev/null").startswith("/dev/null: not a regular file; expected")
    assert refused("real.npy", "real.npy/x") == "real.npy/x: cannot be read: Not a directory"
    assert refused("real.npy", "x" * 300).endswith(": cannot be read: File name too long")


@pytest.mark.parametrize("n", [3, 5, 8])
def test_too_few_images_are_one_line_with_every_option_that_asks_for_more(n):
    """Each with the largest number that would do: n - 1 neighbours, n in a subset, 2 n clusters of both sets."""
    np.save("few.npy", REAL[:n])
    options = {"--coverage-neighbours 4": n == 5, f"--kernel-subset-size {n}": True, f"--prd-clusters {2 * n}": True}
    for files in (("few.npy", "real.npy"), ("real.npy", "few.npy")):
        message = refused(*files)
        assert message.startswith(f"few.npy: {n} images; expected at least 500: give more")
        assert {option: option in message for option in options} == (
            options if n > 3 else dict.fromkeys(options, False)
        )
