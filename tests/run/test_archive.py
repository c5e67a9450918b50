"""A study in one file and back; and every way in which such a file may be damaged or mean harm."""

import contextlib
import hashlib
import json
import shutil
import stat
import subprocess
import sys
import zipfile
from datetime import UTC, datetime

import numpy as np
import pytest
from checkout import Checkout, put

from rae_bench.base.storage import StorageError
from rae_bench.run import archive
from rae_bench.run.archive import ArchiveError, pack, unpack
from rae_bench.run.jobs import study_jobs
from rae_bench.run.verification import verify
from rae_bench.study.config import load_study

STUDY = load_study("smoke")
RUN = "smoke/digits_mini/vae/seed0"
TABLE = "smoke/tables/claims.csv"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("archives")


@pytest.fixture(scope="module")
def packed(smoke, folder):
    """The smoke study without weights and codes."""
    pack(STUDY, smoke.results, folder / "smoke.zip", weights=False, codes=False)
    return folder / "smoke.zip"


@pytest.fixture(scope="module")
def members(packed):
    with zipfile.ZipFile(packed) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture(scope="module")
def imported(packed, tmp_path_factory):
    """A copy of the repository in which nothing has run, and the study was imported."""
    checkout = Checkout(tmp_path_factory.mktemp("imported"))
    ended = checkout.run("rae_bench", "import", str(packed))
    assert ended.returncode == 0, ended.stderr
    return checkout, ended


# --- export -----------------------------------------------------------------------------------------------


def test_the_index_comes_first_and_lists_every_other_member(members):
    index = json.loads(members["index.json"])
    assert next(iter(members)) == "index.json"
    assert list(members)[1:] == ["ro-crate-metadata.json", *sorted(index["members"])]
    assert index["crate"] == hashlib.sha256(members["ro-crate-metadata.json"]).hexdigest()
    for name, sha256 in index["members"].items():
        assert sha256 == hashlib.sha256(members[name]).hexdigest()
    assert (index["study"], index["format"]) == ("smoke", 2)
    assert index["packages"]["numpy"] == np.__version__


def test_other_programs_find_the_archive_whole_and_its_members_plain(packed):
    """Python's own command; times and owners are nobody's."""
    assert subprocess.run([sys.executable, "-m", "zipfile", "-t", packed], capture_output=True).returncode == 0
    with zipfile.ZipFile(packed) as file:
        for info in file.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.external_attr >> 16 == stat.S_IFREG | 0o644
            assert info.compress_type == zipfile.ZIP_STORED


def test_it_holds_tables_figures_report_metrics_settings_and_provenance(members, smoke):
    kinds = ("tables/claims.csv", "figures/samples_digits_mini.png", "report.html", "metrics.parquet", "costs.csv")
    of_a_run = ("sheets.safetensors", "history.parquet", "model.record.json", "model.job.json")
    expected = {"datasets/digits_mini/manifest.json", *(f"smoke/{name}" for name in kinds)}
    assert expected | {f"{RUN}/{name}" for name in of_a_run} <= set(members)
    assert members["smoke/settings/studies/smoke.yaml"] == (smoke.config / "studies" / "smoke.yaml").read_bytes()
    resolved = json.loads(members["smoke/settings/resolved.json"])
    training = resolved["jobs"]["train digits_mini/vae/seed0"]
    assert training["optimisation"]["learning_rate"] == 0.004
    assert len(resolved["jobs"]) == len(study_jobs(STUDY, smoke.results))
    assert "torch==" in members["smoke/settings/requirements.lock"].decode()
    assert not [name for name in members if name.endswith((".npy", "model.safetensors", "codes.safetensors"))]


def test_its_description_for_other_programs_names_every_member_and_no_time_of_its_own(members):
    crate = json.loads(members["ro-crate-metadata.json"])
    entities = {entity["@id"]: entity for entity in crate["@graph"]}
    parts = [part["@id"] for part in entities["./"]["hasPart"]]
    assert set(parts) == set(members) - {"index.json", "ro-crate-metadata.json"}
    assert all(int(entities[name]["contentSize"]) == len(members[name]) for name in parts)
    assert entities["./"]["datePublished"] <= datetime.now(UTC).date().isoformat()


@pytest.mark.parametrize(("weights", "codes"), [(True, False), (False, True), (True, True)])
def test_weights_and_codes_are_packed_when_asked_for(smoke, tmp_path, weights, codes):
    index = pack(STUDY, smoke.results, tmp_path / "a.zip", weights, codes)
    assert (f"{RUN}/model.safetensors" in index.members) == weights
    assert (f"{RUN}/densities/gmm10.safetensors" in index.members) == weights
    assert (f"{RUN}/codes.safetensors" in index.members) == codes
    assert (f"{RUN}/codes.safetensors" in index.left_out) != codes
    assert not set(index.members) & set(index.left_out)


@pytest.mark.parametrize(
    ("how", "said"), [("altered", ": altered since tables wrote it"), ("missing", ": no such file")]
)
def test_a_study_that_is_not_as_it_was_made_is_not_exported(smoke, tmp_path, how, said):
    shutil.copytree(smoke.results, tmp_path / "results")
    table = tmp_path / "results" / TABLE
    if how == "altered":
        table.write_text(table.read_text().replace("0", "9", 1))
    else:
        table.unlink()
    with pytest.raises(ArchiveError, match=f"^{table}{said}"):
        pack(STUDY, tmp_path / "results", tmp_path / "a.zip", weights=False, codes=False)
    assert not (tmp_path / "a.zip").exists()


def test_a_full_disk_leaves_no_half_archive(smoke, small_disk):
    with pytest.raises(StorageError, match=f"^{small_disk / 'a.zip'}: cannot be written"):
        pack(STUDY, smoke.results, small_disk / "a.zip", weights=False, codes=False)
    assert not any(small_disk.iterdir())


# --- import -----------------------------------------------------------------------------------------------


def test_an_imported_study_is_verified_without_what_was_left_out(imported):
    checkout, ended = imported
    assert "were left out" in ended.stdout
    assert len(ended.stdout.splitlines()) == 1  # nothing differs from the study as configured there
    verdict = verify(STUDY, checkout.results)
    assert verdict.problems == []
    names = {path.name for path in verdict.left_out}
    assert {"model.safetensors", "codes.safetensors", "images.npy", "gmm10.safetensors"} <= names
    assert not any((checkout.results / "smoke").rglob("model.safetensors"))


def test_nothing_is_left_to_do_after_an_import(imported):
    """Weights, codes, densities, images and references are not there, and Snakemake does not ask for them."""
    checkout, _ = imported
    assert checkout.plan() == {}


def test_tables_are_made_again_without_training(imported, smoke, tmp_path):
    checkout = imported[0].copy(tmp_path)
    tables = sorted((smoke.results / "smoke" / "tables").glob("*.csv"))
    assert len(tables) > 15
    made = ["metrics.parquet", "protocols.parquet", *("tables/" + path.name for path in tables)]
    for name in (*made, "report.html"):
        (checkout.results / "smoke" / name).unlink()
    ended = checkout.run("rae_bench", "rebuild", "smoke")
    assert ended.returncode == 0, ended.stderr
    for name in made:
        assert (checkout.results / "smoke" / name).read_bytes() == (smoke.results / "smoke" / name).read_bytes()
    assert "Table" in (checkout.results / "smoke" / "report.html").read_text()
    assert verify(STUDY, checkout.results).problems == []
    shutil.rmtree(checkout.results / "smoke" / "tables")
    assert sorted(checkout.plan()) == ["report", "tables"]


def test_images_that_are_prepared_after_an_import_have_nothing_made_again(imported, smoke, tmp_path):
    """For another study, say: the manifest is newer than all the imported files, and says what theirs said."""
    checkout = imported[0].copy(tmp_path)
    shutil.copytree(
        smoke.results / "datasets", checkout.results / "datasets", copy_function=shutil.copyfile, dirs_exist_ok=True
    )
    assert checkout.plan() == {}


def test_what_is_added_to_an_imported_study_has_the_images_made_again(imported):
    """Only the manifest was packed; a training must not start without the images it lists."""
    checkout, _ = imported
    with checkout.edited("studies/smoke.yaml", lambda data: put(data, ["train_seeds"], [0, 1, 7])):
        plan = checkout.plan(arguments=["--forcerun", "collect"])
    assert "prepare digits_mini" in plan
    assert "train digits_mini vae 7" in plan


def _bytes(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_there_already_stays_as_it_is(packed, smoke, tmp_path):
    """A data set that another study had prepared; and then all of it, imported once more."""
    shutil.copytree(smoke.results / "datasets", tmp_path / "datasets")
    state = tmp_path / "datasets" / "digits_mini" / "manifest.job.json"
    state.write_text(state.read_text().replace('"pid"', ' "pid"'))
    before = _bytes(tmp_path / "datasets")
    unpack(packed, tmp_path)
    assert _bytes(tmp_path / "datasets") == before
    assert verify(STUDY, tmp_path).problems == []
    whole = _bytes(tmp_path)
    unpack(packed, tmp_path)
    assert _bytes(tmp_path) == whole


def test_a_study_that_differs_is_not_overwritten(packed, tmp_path):
    unpack(packed, tmp_path)
    (tmp_path / TABLE).write_text("mine")
    (tmp_path / "smoke" / "metrics.parquet").unlink()
    before = _bytes(tmp_path)
    told = f"^{tmp_path / TABLE}: is there already and differs from the archive's; move [^\n]*$"
    with pytest.raises(ArchiveError, match=told):
        unpack(packed, tmp_path)
    assert _bytes(tmp_path) == before


def test_an_imported_study_can_be_exported_again(packed, tmp_path):
    unpack(packed, tmp_path / "results")
    pack(STUDY, tmp_path / "results", tmp_path / "again.zip", weights=True, codes=True)
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


# --- archives that are damaged or mean harm ---------------------------------------------------------------


def _write(path, members, edit=None):
    """Write an archive of `members` as they are; `edit` may change each entry."""
    with zipfile.ZipFile(path, "w") as file, contextlib.suppress(StopIteration):
        for name, data in members.items():
            info = zipfile.ZipInfo(name, archive.EPOCH)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            if edit is not None:
                edit(info)
            file.writestr(info, data)


def _listed(members, name, data):
    """The members with one more, which the index lists as it should."""
    index = json.loads(members["index.json"])
    index["members"][name] = hashlib.sha256(data).hexdigest()
    return {**members, "index.json": json.dumps(index).encode(), name: data}


def _with_index(packed, **changes):
    return {**packed, "index.json": json.dumps({**json.loads(packed["index.json"]), **changes}).encode()}


PLACES = [
    *(
        "/evil",
        "../evil",
        "smoke/../../evil",
        "smoke/./evil",
        "smoke//evil",
        "smoke\\..\\evil",
        "C:/evil",
        "~/evil",
    ),
    *("evil", "digits/evil", ".driver.lock", "smoke/.hidden", "smoke/", "smoke/a\nb", "smoke/archive.json", "smoke"),
]


def _refused(path, results):
    """The message of an archive that is refused; nothing has come of it."""
    with pytest.raises((ArchiveError, StorageError)) as error:
        unpack(path, results)
    assert not results.exists() or not list(results.iterdir())
    message = str(error.value)
    assert str(path) in message
    return message


def test_a_file_that_is_no_archive_is_one_line(tmp_path):
    path, results = tmp_path / "a.zip", tmp_path / "results"
    assert _refused(path, results) == f"{path}: cannot be read: No such file or directory"
    path.mkdir()
    assert _refused(path, results) == f"{path}: cannot be read: Is a directory"
    path.rmdir()
    for content in (b"", b"1,2\n", b"\x89PNG\r\n", b"PK\x05\x06" + bytes(8)):
        path.write_bytes(content)
        message = _refused(path, results)
        assert (
            message == f"{path}: not a whole archive: File is not a zip file; expected a file that export has written"
        )


@pytest.mark.parametrize("place", PLACES)
def test_a_member_without_a_place_below_the_results_is_refused(members, tmp_path, place):
    path = tmp_path / "a.zip"
    _write(path, _listed(members, place, b"evil"))
    message = _refused(path, tmp_path / "results")
    assert repr(place) in message
    assert not (tmp_path / "evil").exists()


KINDS = {"a link": stat.S_IFLNK, "a device": stat.S_IFCHR, "a pipe": stat.S_IFIFO, "a folder": stat.S_IFDIR}
ENTRIES = {
    **{name: ({"external_attr": (kind | 0o777) << 16}, "not a plain file") for name, kind in KINDS.items()},
    "a bomb, before it is read": ({"compress_type": zipfile.ZIP_DEFLATED}, "compressed or encrypted"),
    "another member again": ({"filename": "smoke/report.html"}, "stands twice"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("case", ENTRIES)
def test_an_entry_that_is_no_plain_file_of_its_own_is_refused(members, tmp_path, case):
    """Ten megabytes of zeros in ten kilobytes, were they written: the index says so, and so does the archive."""
    path, (changes, expected) = tmp_path / "a.zip", ENTRIES[case]

    def edit(info):
        if info.filename == TABLE:
            for name, value in changes.items():
                setattr(info, name, value)

    _write(path, _listed(members, TABLE, bytes(10**7)), edit)
    assert f": {expected}" in _refused(path, tmp_path / "results")


def test_members_that_share_their_bytes_are_refused(members, tmp_path):
    """A bomb of stored members: many entries of the directory name the same bytes."""
    path, data = tmp_path / "a.zip", bytes(10**6)
    names = [f"smoke/{number}" for number in range(100)]
    for name in names:
        members = _listed(members, name, data)
    with zipfile.ZipFile(path, "w") as file:
        for name in members.keys() - set(names):
            file.writestr(zipfile.ZipInfo(name), members[name])
        file.writestr(zipfile.ZipInfo(names[0]), data)
        first = file.getinfo(names[0])
        for name in names[1:]:
            info = zipfile.ZipInfo(name)
            info.file_size = info.compress_size = len(data)
            info.CRC, info.header_offset = first.CRC, first.header_offset
            file.filelist.append(info)
    assert "its members are larger than the file itself" in _refused(path, tmp_path / "results")


BAD_INDICES = {
    "not JSON": (lambda members: {**members, "index.json": b"{"}, "index.json cannot be read"),
    "not text": (lambda members: {**members, "index.json": b"\xff\xfe"}, "index.json cannot be read"),
    "a list": (lambda members: {**members, "index.json": b"[]"}, "index.json cannot be read: index.json: expected"),
    "deep": (lambda members: {**members, "index.json": b"[" * 100_000}, "index.json cannot be read"),
    "none": (lambda members: {name: data for name, data in members.items() if name != "index.json"}, "holds no index"),
    "format": (
        lambda members: _with_index(members, format=1, members={"x": {"size": 1}}),
        "of format 1; this version reads 2",
    ),
    "study": (lambda members: _with_index(members, study="../smoke"), "names the study '../smoke'"),
    "shared": (lambda members: _with_index(members, study="datasets"), "names the study 'datasets'"),
    "other": (lambda members: _with_index(members, study="digits"), "does not belong to the study 'digits'"),
    "key": (lambda members: _with_index(members, more=1), "unknown key 'more'"),
    "unlisted": (lambda members: {**members, "smoke/x": b""}, "member 'smoke/x': the index does not list it"),
    "lacking": (
        lambda members: {name: data for name, data in members.items() if name != TABLE},
        f"member {TABLE!r}: the index lists it, the archive lacks it",
    ),
    "size": (lambda members: {**members, TABLE: members[TABLE] + b"\n"}, f"member {TABLE!r}: "),
    "bytes": (
        lambda members: {**members, TABLE: members[TABLE][:-1] + b"x"},
        f"member {TABLE!r}: its bytes are not those the index says",
    ),
}


@pytest.mark.parametrize("case", BAD_INDICES)
def test_an_index_that_does_not_fit_is_refused(members, tmp_path, case):
    change, expected = BAD_INDICES[case]
    path = tmp_path / "a.zip"
    _write(path, change(members))
    assert expected in _refused(path, tmp_path / "results")


def test_a_byte_flipped_anywhere_is_refused_or_harmless(packed, tmp_path):
    """What is taken is exactly what was packed."""
    rng, whole, taken = np.random.default_rng(0), packed.read_bytes(), 0
    path, results = tmp_path / "a.zip", tmp_path / "results"
    for _ in range(20):
        data = bytearray(whole)
        data[rng.integers(len(data)) if rng.random() < 0.3 else -rng.integers(1, 20_000)] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        try:
            unpack(path, results)
        except (ArchiveError, StorageError):
            assert not list(results.glob("*"))
        else:
            taken += 1
            assert verify(STUDY, results).problems == []
            shutil.rmtree(results)
    assert taken < 15


def test_a_full_disk_leaves_nothing_of_an_import(packed, small_disk):
    with pytest.raises(StorageError, match="cannot be written"):
        unpack(packed, small_disk / "results")
    assert not list((small_disk / "results").glob("*"))


def test_an_import_waits_for_no_one(imported, packed):
    """While a command is at work on the results, importing is refused."""
    from rae_bench.run.jobs import claim

    checkout, _ = imported
    with claim(checkout.results):
        ended = checkout.run("rae_bench", "import", str(packed))
    assert ended.returncode == 1
    assert ended.stderr.startswith("rae_bench import: results/ is in use by another command")
