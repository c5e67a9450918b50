"""The published data sets, read from small files in their true formats: values, splits, a message for each fault."""

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import pickle
import re
import shutil
import threading
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import urlopen

import data_files
import numpy as np
import pytest
import yaml
from data_files import FILES, put
from PIL import Image
from torchvision.datasets import CIFAR10, MNIST, SVHN, FashionMNIST

from rae_bench import cli
from rae_bench.base.plain import parse, to_json
from rae_bench.data import celeba, cifar, files, idx, prepared, store, svhn
from rae_bench.data.prepared import DataError
from rae_bench.run import origins
from rae_bench.study.config import CONFIG
from rae_bench.study.study import DatasetEntry

ENTRIES = parse(dict[str, DatasetEntry], yaml.safe_load((CONFIG / "datasets.yaml").read_text()), "datasets.yaml")
NAMES = ("mnist", "fashion_mnist", "cifar10", "svhn", "celeba")
SIZES = {"n_train": 40, "n_validation": 10, "n_test": 20}


def spec(name, **changes):
    return dataclasses.replace(ENTRIES[name].data, **{**SIZES, **changes})


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """An empty folder of data; and no network: only this machine's own addresses open."""

    def open_here(request):
        assert request.host.startswith("127.0.0.1:"), f"{request.full_url}: the network was touched"
        return urlopen(request)

    monkeypatch.setattr(urllib.request, "urlopen", open_here)
    monkeypatch.setenv("RAE_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("RAE_BENCH_DOWNLOAD", raising=False)
    return tmp_path / "data"


def drawn(shape, seed=0):
    """60 training and 20 test images with labels."""
    both = {part: data_files.drawn(n, shape, seed + n) for part, n in (("train", 60), ("test", 20))}
    return {part: one[0] for part, one in both.items()}, {part: one[1] for part, one in both.items()}


def command(name, folder, **changes):
    """Run the stage as the rule calls it; the message it ends with, or None."""
    chosen = to_json(dataclasses.replace(ENTRIES[name].data, **changes))
    try:
        cli.main(["prepare", "--spec", chosen, "--data", str(folder)])
    except SystemExit as ended:
        return ended.code
    return None


def left(folder):
    """What lies in a folder, beside what tells of the job."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("manifest.job.json", "manifest.lock"))


def check_whole(prepared, images, labels):
    every = np.concatenate([images["train"], images["test"]])
    np.testing.assert_array_equal(prepared.images, every)
    np.testing.assert_array_equal(prepared.extras["labels"], np.concatenate([labels["train"], labels["test"]]))
    np.testing.assert_array_equal(prepared.splits["train"], np.arange(40))
    np.testing.assert_array_equal(prepared.splits["validation"], np.arange(50, 60))
    np.testing.assert_array_equal(prepared.splits["test"], np.arange(60, 80))


# --- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mnist", (50_000, 10_000, 10_000, 60_000, 10_000)),
        ("fashion_mnist", (50_000, 10_000, 10_000, 60_000, 10_000)),
        ("cifar10", (40_000, 10_000, 10_000, 50_000, 10_000)),
        ("svhn", (63_257, 10_000, 26_032, 73_257, 26_032)),
    ],
)
def test_splits_and_counts_are_the_official_ones(name, counts):
    chosen = ENTRIES[name].data
    release = {"mnist": idx.mnist, "fashion_mnist": idx.fashion_mnist, "cifar10": cifar.release, "svhn": svhn.release}
    found = release[name]().n_images
    assert (chosen.n_train, chosen.n_validation, chosen.n_test, found["train"], found["test"]) == counts
    splits = prepared.official_splits(chosen, found)
    assert len(np.intersect1d(splits["train"], splits["validation"])) == 0
    assert splits["train"][0] == 0
    assert splits["validation"][-1] + 1 == splits["test"][0] == counts[3]


def test_celebas_splits_are_the_official_partition():
    chosen, found = ENTRIES["celeba"].data, celeba.release().n_images
    assert {"train": chosen.n_train, "validation": chosen.n_validation, "test": chosen.n_test} == found
    assert sum(found.values()) == 202_599


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_fid(name):
    assert ENTRIES[name].extractor == "inception_v3_compat"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("permission", [None, "0", "yes"])
def test_without_files_nothing_is_fetched_and_the_message_says_what_to_do(
    name, permission, data, tmp_path, monkeypatch
):
    if permission is not None:
        monkeypatch.setenv("RAE_BENCH_DOWNLOAD", permission)
    message = command(name, tmp_path / "out")
    assert re.fullmatch(
        rf"rae_bench prepare: \S+: none of .* in {data}/{name}.*; get it from http\S+ and put it into {data}/{name},"
        r" name another folder with RAE_BENCH_DATA=FOLDER, or allow the download with RAE_BENCH_DOWNLOAD=1",
        message,
    )
    assert not data.exists()
    assert left(tmp_path / "out") == []


def test_data_lie_in_data_where_no_variable_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("RAE_BENCH_DATA")
    monkeypatch.chdir(tmp_path)
    assert " in data/mnist, data/mnist/MNIST/raw, data/MNIST/raw;" in command("mnist", tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_train": 51}, "51 training and 10 validation images of 60 official training images, 20 of 20 test images"),
        ({"n_test": 21}, "21 of 20 test images; ask for fewer"),
    ],
)
def test_more_images_than_there_are_is_an_error(changes, message, data):
    images, labels = drawn((28, 28))
    data_files.write_idx(data / "mnist", images, labels)
    with pytest.raises(DataError, match=message):
        idx.prepare(spec("mnist", **changes), 2, data_files.release_of(idx.mnist(), labels))


def test_parts_of_a_data_set_are_an_error_naming_what_is_missing(data):
    images, labels = drawn((28, 28))
    data_files.write_idx(data / "mnist", images, labels)
    (data / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: missing beside train-images-idx3-ubyte\.gz; get"):
        idx.prepare(spec("mnist"), 2, data_files.release_of(idx.mnist(), labels))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mnist", sorted(idx.FORMS[1])),
        ("cifar10", ["cifar-10-python.tar.gz"]),
        ("svhn", ["test_32x32.mat", "train_32x32.mat"]),
        ("celeba", ["img_align_celeba.zip", "list_eval_partition.txt"]),
    ],
)
def test_a_pipe_in_place_of_a_file_is_refused_at_once(name, files, data, tmp_path):
    """Reading it would never end."""
    for file in files:
        put(data / name / file, b"")
    (data / name / files[0]).unlink()
    os.mkfifo(data / name / files[0])
    message = command(name, tmp_path / "out")
    assert f"{data / name / files[0]}: is a named pipe, not a regular file; get it from http" in message


# --- files that change after they were read ---------------------------------------------------------------


def written_mnist(folder):
    images, labels = drawn((28, 28))
    data_files.write_idx(folder / "mnist", images, labels)
    return (
        "mnist",
        idx.prepare(spec("mnist"), 2, data_files.release_of(idx.mnist(), labels)),
        "t10k-labels-idx1-ubyte.gz",
    )


def written_cifar(folder):
    images, labels = drawn((3, 32, 32))
    data_files.write_cifar(folder / "cifar10", images, labels, "binary")
    release = data_files.release_of(cifar.release(), labels)
    return "cifar10", cifar.prepare(spec("cifar10"), release), "test_batch.bin"


def written_photographs(folder, form="folder"):
    data_files.write_celeba(folder / "celeba", data_files.photographs(), form)
    chosen = spec("celeba", n_train=6, n_validation=2, n_test=2)
    name = {"folder": "img_align_celeba/000003.jpg", "original layout": "Img/img_align_celeba.zip"}[form]
    return "celeba", celeba.prepare(chosen, chosen.source, celeba_release()), name


WRITTEN = {
    "mnist": written_mnist,
    "cifar10": written_cifar,
    "photographs": written_photographs,
    "zip": partial(written_photographs, form="original layout"),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_published_file_that_changes_after_it_was_read_is_found(kind, data, tmp_path):
    name, made, file = WRITTEN[kind](data)
    chosen = spec(name, **({"n_train": 6, "n_validation": 2, "n_test": 2} if name == "celeba" else {}))
    store.save(made, chosen, tmp_path / "out")

    def said(is_thorough=True):
        return origins.look(chosen, tmp_path / "out", is_thorough)

    assert said() == said(False) == origins.Finding()
    path = Path(made.origin.folder) / file
    content = path.read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    assert said() == origins.Finding()
    assert "have other times than when they were read" in said(False).text
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(2, 2))
    assert re.search(rf"not what was prepared: 1 of \d+ files are of other content, first {file}$", said().text)
    shutil.rmtree(data)
    assert said() == said(False)
    assert "not there now, moved or not mounted; what was prepared from it stays valid" in said().text
    assert not said().is_changed


# --- MNIST, Fashion-MNIST ---------------------------------------------------------------------------------

IDX = {"mnist": idx.mnist, "fashion_mnist": idx.fashion_mnist}


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "mnist"),
        ("mnist", "mnist/MNIST/raw"),
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "fashion_mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
    ],
)
def test_idx_files_are_read_as_they_were_written(name, folder, compressed, data):
    images, labels = drawn((28, 28))
    data_files.write_idx(data / folder, images, labels, compressed)
    prepared = idx.prepare(spec(name), 2, data_files.release_of(IDX[name](), labels))
    padded = {part: np.zeros((len(of), 1, 32, 32), np.uint8) for part, of in images.items()}
    for part, of in images.items():
        padded[part][:, 0, 2:30, 2:30] = of
    check_whole(prepared, padded, labels)


def test_the_manifest_names_the_files_that_were_read(data, tmp_path):
    images, labels = drawn((28, 28))
    data_files.write_idx(data / "mnist", images, labels)
    prepared = idx.prepare(spec("mnist"), 2, data_files.release_of(idx.mnist(), labels))
    store.save(prepared, spec("mnist"), tmp_path / "out")
    sources = json.loads((tmp_path / "out" / "manifest.json").read_text())["sources"]
    assert {source["path"]: source["sha256"] for source in sources} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (data / "mnist").iterdir()
    }
    assert {source["licence"] for source in sources} == {"CC BY-SA 3.0 by convention"}


def test_fashion_among_mnists_files_is_told_by_its_checksum(data):
    """Same shapes, same counts: nothing else tells them apart."""
    images, labels = drawn((28, 28))
    others, _ = drawn((28, 28), seed=1)
    written = {
        f"{FILES[part]}-images-idx3-ubyte": hashlib.md5(data_files.idx(of)).hexdigest() for part, of in images.items()
    }
    release = data_files.release_of(idx.mnist(), labels, written)
    for compressed in (True, False):
        data_files.write_idx(data / "mnist", images, labels, compressed)
    idx.prepare(spec("mnist"), 2, release)
    found = hashlib.md5(data_files.idx(others["train"])).hexdigest()
    expected = written["train-images-idx3-ubyte"]
    message = rf"47,056 bytes with MD5 {found}, expected MD5 {expected}: truncated, altered or of another data set"
    for compressed in (True, False):
        shutil.rmtree(data)
        data_files.write_idx(data / "mnist", others, labels, compressed)
        with pytest.raises(DataError, match=message):
            idx.prepare(spec("mnist"), 2, release)


def test_mnists_small_copy_has_the_official_class_counts_and_other_checksums(data, tmp_path):
    """60,000 black images with the official labels: only the MD5, typed into the suite, says they are not MNIST."""
    labels = {part: np.repeat(np.arange(10), counts) for part, counts in idx.mnist().counts.items()}
    images = {part: np.zeros((len(of), 28, 28), np.uint8) for part, of in labels.items()}
    data_files.write_idx(data / "mnist", images, labels, compressed=False)
    found = data_files.md5(data / "mnist" / "train-images-idx3-ubyte")
    assert f"47,040,016 bytes with MD5 {found}, expected MD5 6bbc9ace898e44ae57da46a324031adb" in command(
        "mnist", tmp_path / "out"
    )
    assert left(tmp_path / "out") == []


def cut(share):
    return lambda content: content[: int(share * len(content))]


def instead(content):
    return lambda *_: content


IDX_FAULTS = {
    "cut in the header": (lambda content: content[:10], "10 bytes, truncated in its header"),
    "cut in the middle": (cut(0.5), r"23,528 bytes, expected 47,056 of an array of 60 x 28 x 28"),
    "cut at the end": (lambda content: content[:-1], r"47,055 bytes, expected 47,056 .*truncated or altered"),
    "one byte more": (lambda content: content + b"\0", r"more bytes, expected 47,056 of an array of 60 x 28 x 28"),
    "empty": (instead(b""), r"begins with bytes \(none\), expected 00 00 08 03"),
    "labels for images": (
        instead(data_files.idx(np.zeros(60, np.uint8))),
        "begins with bytes 00 00 08 01, expected 00 00 08 03, an IDX file of 3 dimensions",
    ),
    "other entries": (lambda content: b"\0\0\x0d" + content[3:], "begins with bytes 00 00 0d 03"),
    "fewer images": (
        instead(data_files.idx(np.zeros((59, 28, 28), np.uint8))),
        "an array of 59 x 28 x 28, expected 60 x 28 x 28",
    ),
    "another size": (
        instead(data_files.idx(np.zeros((60, 32, 32), np.uint8))),
        "an array of 60 x 32 x 32, expected 60 x 28 x 28",
    ),
    "a web page": (instead(b"<html>404 Not Found</html>"), "begins with bytes 3c 68 74 6d"),
}


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("fault", IDX_FAULTS)
def test_a_faulty_idx_file_has_its_message(fault, compressed, data):
    spoil, message = IDX_FAULTS[fault]
    images, labels = drawn((28, 28))
    data_files.write_idx(data / "mnist", images, labels, compressed)
    content = spoil(data_files.idx(images["train"]))
    put(
        data / "mnist" / f"train-images-idx3-ubyte{'.gz' if compressed else ''}",
        gzip.compress(content) if compressed else content,
    )
    release = data_files.release_of(idx.mnist(), labels)
    with pytest.raises(DataError, match=rf"mnist/train-images-idx3-ubyte\S*: {message}.*; get it from http\S+ and put"):
        idx.prepare(spec("mnist"), 2, release)


@pytest.mark.parametrize("share", [0, 0.0001, 0.3, 0.999])
def test_a_truncated_gzip_file_has_its_message(share, data):
    images, labels = drawn((28, 28))
    data_files.write_idx(data / "mnist", images, labels)
    path = data / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(cut(share)(path.read_bytes()))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: ") as caught:
        idx.prepare(spec("mnist"), 2, data_files.release_of(idx.mnist(), labels))
    assert "not a whole gzip file" in str(caught.value) or "(none)" in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda labels: np.where(labels == 9, 11, labels), "labels 0 to 11, expected 0 to 9"),
        (lambda labels: np.where(labels == 9, 8, labels), r"\[6, .*, 12, 0\] labels of each class, expected \[6, "),
    ],
)
def test_labels_of_another_data_set_have_their_message(spoil, message, data):
    images, labels = drawn((28, 28))
    data_files.write_idx(data / "mnist", images, {**labels, "train": spoil(labels["train"])})
    with pytest.raises(DataError, match=rf"train-labels-idx1-ubyte\.gz: {message}"):
        idx.prepare(spec("mnist"), 2, data_files.release_of(idx.mnist(), labels))


def test_the_command_prepares_small_idx_files_or_says_how_many_there_should_be(data, tmp_path, monkeypatch):
    images, labels = drawn((28, 28))
    data_files.write_idx(data / "mnist", images, labels)
    message = command("mnist", tmp_path / "out")
    path = data / "mnist" / "train-images-idx3-ubyte.gz"
    assert message == (
        f"rae_bench prepare: {path}: an array of 60 x 28 x 28, expected 60,000 x 28 x 28; get it from"
        f" http://yann.lecun.com/exdb/mnist/ and put it into {data}/mnist"
    )
    assert left(tmp_path / "out") == []
    small = data_files.release_of(idx.mnist(), labels)
    monkeypatch.setattr(idx, "mnist", lambda: small)
    assert command("mnist", tmp_path / "out", **SIZES) is None
    found = store.load_split(tmp_path / "out", "validation")
    np.testing.assert_array_equal(found[:, 0, 2:30, 2:30], images["train"][50:])
    np.testing.assert_array_equal(store.load_digits(tmp_path / "out", "test"), labels["test"])


def test_only_digits_are_judged_by_the_digit_classifier(data, tmp_path):
    images, labels = drawn((28, 28))
    data_files.write_idx(data / "fashion_mnist", images, labels)
    prepared = idx.prepare(spec("fashion_mnist"), 2, data_files.release_of(idx.fashion_mnist(), labels))
    store.save(prepared, spec("fashion_mnist"), tmp_path / "out")
    assert store.load_digits(tmp_path / "out", "test") is None


# --- CIFAR-10 ---------------------------------------------------------------------------------------------

CIFAR_FORMS = ("binary", "binary archive", "python", "python archive")


def cifar_release(labels, md5=None):
    return data_files.release_of(cifar.release(), labels, md5)


@pytest.mark.parametrize("folder", ["cifar10", "."])
@pytest.mark.parametrize("form", CIFAR_FORMS)
def test_cifar_is_read_as_it_was_written(form, folder, data):
    images, labels = drawn((3, 32, 32))
    data_files.write_cifar(data / folder, images, labels, form)
    check_whole(cifar.prepare(spec("cifar10"), cifar_release(labels)), images, labels)


def test_the_binary_version_is_preferred(data):
    """The pickles are never opened where they need not be."""
    images, labels = drawn((3, 32, 32))
    data_files.write_cifar(data / "cifar10", images, labels, "binary")
    for name in ("data_batch_1", "test_batch"):
        put(data / "cifar10" / "cifar-10-batches-py" / name, b"garbage")
    put(data / "cifar10" / "cifar-10-python.tar.gz", b"garbage")
    check_whole(cifar.prepare(spec("cifar10"), cifar_release(labels)), images, labels)


def test_the_pickles_are_what_python_2_wrote():
    """They name numpy's functions as numpy 1 did, and the real unpickler makes the same of them."""
    images, labels = drawn((3, 32, 32))
    name, pixels, of = next(data_files.cifar_batches(images, labels))
    content = data_files.python_batch(name, pixels, of)
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    with contextlib.suppress(DeprecationWarning):
        batch = pickle.loads(content.replace(b"numpy.core", b"numpy._core"), encoding="bytes")
        np.testing.assert_array_equal(batch[b"data"], pixels)
        assert batch[b"labels"] == of.tolist()
        return
    raise AssertionError("not read")


class Bomb:
    """What an attacker pickles: a shell command that runs while it is read."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["python", "python archive"])
@pytest.mark.parametrize("place", ["alone", "in a batch"])
def test_a_pickle_bomb_does_not_run(place, form, data, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    images, labels = drawn((3, 32, 32))
    content = pickle.dumps(Bomb(f"touch {ran}"), protocol=2)
    if place == "in a batch":
        content = b"\x80\x02}(U\x04data" + content[2:-1] + b"U\x06labels](K\x01eu."
    contents = data_files.cifar_contents(images, labels, "python")
    contents["cifar-10-batches-py/data_batch_2"] = content
    if form == "python":
        for name, one in contents.items():
            put(data / "cifar10" / name, one)
    else:
        put(data / "cifar10" / "cifar-10-python.tar.gz", data_files.archive(contents))
    release = cifar_release(labels)
    with pytest.raises(DataError, match=r"data_batch_2: not a pickled batch .*: it asks for posix\.system\); get it"):
        cifar.prepare(spec("cifar10"), release)
    assert not ran.exists()
    monkeypatch.setattr(cifar, "release", lambda: release)
    assert "it asks for posix.system" in command("cifar10", tmp_path / "out", **SIZES)
    assert not ran.exists()
    pickle.loads(content, encoding="bytes")
    assert ran.exists()  # the file does hold what would run


HOSTILE = {
    "a global": b"\x80\x02cbuiltins\neval\n.",
    "numpy's other functions": b"\x80\x02cnumpy\nload\n.",
    "an attribute of an allowed name": b"\x80\x04\x8c\x05numpy\x8c\x14ndarray.__reduce_ex__\x93.",
    "an instance without its state": b"\x80\x02}(U\x04datacnumpy\nndarray\n)\x81U\x06labels](K\x01eu.",
    "a huge array": b"\x80\x02}(U\x04datacnumpy\nndarray\n(J\xff\xff\xff\x7ftRU\x06labels](K\x01eu.",
    "a persistent object": b"\x80\x02Pos\n.",
    "nothing": b"",
    "no pickle": b"garbage",
    "another thing": pickle.dumps([1, 2]),
    "CIFAR-100": data_files.python2_pickle({"fine_labels": [1], "data": np.zeros((1, 3072), np.uint8)}),
    "wide numbers": data_files.python2_pickle({"labels": [1], "data": np.zeros((1, 3072), np.uint8)}).replace(
        b"U\x02u1", b"U\x02i8"
    ),
    "labels of another kind": data_files.python2_pickle({"labels": ["a"] * 12, "data": np.zeros((12, 3072), np.uint8)}),
    "fewer images": data_files.python2_pickle({"labels": [1] * 11, "data": np.zeros((11, 3072), np.uint8)}),
    "fewer labels": data_files.python2_pickle({"labels": [1] * 11, "data": np.zeros((12, 3072), np.uint8)}),
    "grey images": data_files.python2_pickle({"labels": [1] * 12, "data": np.zeros((12, 1024), np.uint8)}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_batch_is_refused(kind, data):
    images, labels = drawn((3, 32, 32))
    data_files.write_cifar(data / "cifar10", images, labels, "python")
    path = put(data / "cifar10" / "cifar-10-batches-py" / "data_batch_1", HOSTILE[kind])
    with pytest.raises(DataError, match=rf"{path}: .*; get it from https://www.cs.toronto.edu/~kriz/cifar\.html"):
        cifar.prepare(spec("cifar10"), cifar_release(labels))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("form", CIFAR_FORMS)
def test_truncated_cifar_has_its_message(form, share, data):
    images, labels = drawn((3, 32, 32))
    data_files.write_cifar(data / "cifar10", images, labels, form)
    path = max((path for path in (data / "cifar10").rglob("*") if path.is_file()), key=lambda path: path.name)
    path.write_bytes(cut(share)(path.read_bytes()))
    expected = {
        "binary": r"bytes, expected 61,460, 20 images of 3,073 each",
        "python": "not a pickled batch of images and labels alone",
    }.get(form, "not a whole tar.gz file")
    with pytest.raises(DataError, match=f"{path}: .*{expected}"):
        cifar.prepare(spec("cifar10"), cifar_release(labels))


def test_an_archive_without_a_batch_or_with_a_link_for_it_is_refused(data):
    images, labels = drawn((3, 32, 32))
    contents = data_files.cifar_contents(images, labels, "binary")
    contents["../cifar-10-batches-bin/test_batch.bin"] = contents.pop("cifar-10-batches-bin/test_batch.bin")
    put(data / "cifar10" / "cifar-10-binary.tar.gz", data_files.archive(contents))
    with pytest.raises(
        DataError, match=r"cifar-10-binary\.tar\.gz: holds no cifar-10-batches-bin/test_batch\.bin; get"
    ):
        cifar.prepare(spec("cifar10"), cifar_release(labels))


@pytest.mark.parametrize("form", ["binary archive", "python", "python archive"])
def test_cifar_of_another_checksum_is_refused_before_it_is_read(form, data, tmp_path):
    """What is no pickle and no archive at all: the official checksum comes first."""
    images, labels = drawn((3, 32, 32))
    data_files.write_cifar(data / "cifar10", images, labels, form)
    path = sorted(path for path in (data / "cifar10").rglob("*") if path.is_file())[0]
    path.write_bytes(b"garbage")
    expected = cifar.release().md5[path.name]
    message = command("cifar10", tmp_path / "out")
    assert f"{path}: 7 bytes with MD5 {data_files.md5(path)}, expected MD5 {expected}: truncated, altered" in message
    assert left(tmp_path / "out") == []


def test_binary_batches_without_a_checksum_are_told_by_their_class_counts(data):
    images, labels = drawn((3, 32, 32))
    others = {**labels, "train": np.where(labels["train"] == 3, 4, labels["train"])}
    data_files.write_cifar(data / "cifar10", images, others, "binary")
    with pytest.raises(DataError, match=r"\[6, 6, 6, 0, 12, .*\] labels of each class, expected \[6, 6, 6, 6"):
        cifar.prepare(spec("cifar10"), cifar_release(labels))


# --- SVHN -------------------------------------------------------------------------------------------------


def svhn_release(labels, md5=None):
    return data_files.release_of(svhn.release(), labels, md5)


@pytest.mark.parametrize("folder", ["svhn", "."])
def test_svhn_is_read_as_it_was_written(folder, data):
    images, labels = drawn((3, 32, 32))
    data_files.write_svhn(data / folder, images, labels)
    md5 = {f"{part}_32x32.mat": data_files.md5(data / folder / f"{part}_32x32.mat") for part in FILES}
    check_whole(svhn.prepare(spec("svhn"), svhn_release(labels, md5)), images, labels)


def test_svhns_extra_images_are_left_alone(data):
    images, labels = drawn((3, 32, 32))
    data_files.write_svhn(data / "svhn", images, labels)
    put(data / "svhn" / "extra_32x32.mat", b"garbage")
    check_whole(svhn.prepare(spec("svhn"), svhn_release(labels)), images, labels)


SVHN_FAULTS = {
    "empty": (instead(b""), "not a whole Matlab 5 file"),
    "a web page": (instead(b"<html>" * 100), "not a whole Matlab 5 file"),
    "cut in the header": (lambda images, labels: cut(0.001)(data_files.mat(images, labels)), "not a whole Matlab 5"),
    "cut in the middle": (lambda images, labels: cut(0.5)(data_files.mat(images, labels)), "not a whole Matlab 5 file"),
    "no labels": (lambda images, labels: data_files.mat(images, labels, y=None), "holds no 'y', expected X and y"),
    "grey": (
        lambda images, labels: data_files.mat(images[:, :1], labels),
        r"X is uint8 \(32, 32, 1, 60\), expected uint8 \(32, 32, 3, n\)",
    ),
    "real numbers": (
        lambda images, labels: data_files.mat(images / 255, labels),
        r"X is float64 \(32, 32, 3, 60\), expected uint8",
    ),
    "fewer labels": (
        lambda images, labels: data_files.mat(images, labels[1:]),
        r"y is uint8 \(59, 1\), expected a column of 60",
    ),
    "fewer images": (lambda images, labels: data_files.mat(images[1:], labels[1:]), "59 labels, expected 60"),
    "digit 0 as 0": (
        lambda images, labels: data_files.mat(images, labels, y=labels[:, None].astype(np.uint8)),
        "y holds 0, expected 1 to 10",
    ),
    "other classes": (
        lambda images, labels: data_files.mat(images, np.where(labels == 9, 8, labels)),
        "labels of each class, expected",
    ),
}


@pytest.mark.parametrize("fault", SVHN_FAULTS)
def test_a_faulty_matlab_file_has_its_message(fault, data):
    spoil, message = SVHN_FAULTS[fault]
    images, labels = drawn((3, 32, 32))
    data_files.write_svhn(data / "svhn", images, labels)
    path = put(data / "svhn" / "train_32x32.mat", spoil(images["train"], labels["train"]))
    with pytest.raises(DataError, match=rf"{path}: .*{message}.*; get it from http\S+ and put it into {data}/svhn"):
        svhn.prepare(spec("svhn"), svhn_release(labels))


def test_svhns_test_set_in_place_of_its_training_set_is_refused(data, tmp_path):
    images, labels = drawn((3, 32, 32))
    data_files.write_svhn(data / "svhn", images, labels)
    path = data / "svhn" / "train_32x32.mat"
    shutil.copy(data / "svhn" / "test_32x32.mat", path)
    with pytest.raises(DataError, match=r"train_32x32\.mat: 20 labels, expected 60"):
        svhn.prepare(spec("svhn"), svhn_release(labels))
    expected = svhn.release().md5["train_32x32.mat"]
    assert f"{path}: {path.stat().st_size:,} bytes with MD5 {data_files.md5(path)}, expected MD5 {expected}" in command(
        "svhn", tmp_path / "out"
    )
    assert left(tmp_path / "out") == []


# --- CelebA -----------------------------------------------------------------------------------------------

FEW = {"n_train": 6, "n_validation": 2, "n_test": 2}


def celeba_release(md5=None):
    return dataclasses.replace(
        celeba.release(), counts={"train": (6,), "validation": (2,), "test": (2,)}, md5=md5 or {}
    )


def saved_celeba(tmp_path, release=None, **changes):
    chosen = spec("celeba", **FEW, **changes)
    store.save(celeba.prepare(chosen, chosen.source, release or celeba_release()), chosen, tmp_path / "out")
    return tmp_path / "out"


def lanczos(image, out):
    """A square image (H, W, C) at a smaller size, by the definition: sinc(x) sinc(x/3), as wide as the scale asks."""
    n = image.shape[0]
    scale = n / out
    distance = ((np.arange(n) + 0.5) - (np.arange(out)[:, None] + 0.5) * scale) / scale
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ih,jw,hwc->ijc", weights, weights, image.astype(np.float64), optimize=True)


@pytest.mark.parametrize("form", ["zip", "folder", "original layout"])
def test_photographs_are_cropped_and_resized_in_file_order(form, data, tmp_path):
    photos = data_files.photographs()
    data_files.write_celeba(data / "celeba", photos, form)
    out = saved_celeba(tmp_path)
    images = np.load(out / "images.npy")
    assert images.shape == (10, 3, 64, 64)
    for number, name in enumerate(photos):
        path = put(tmp_path / "one.jpg", photos[name])
        square = np.asarray(Image.open(path))[39 : 39 + 140, 19 : 19 + 140]
        expected = np.clip(lanczos(square, 64), 0, 255)
        assert np.abs(images[number].transpose(1, 2, 0) - expected).max() <= 1.5  # Pillow rounds after each direction
    assert np.load(out / "train.npy").tolist() == [0, 1, 3, 5, 6, 9]
    assert np.load(out / "validation.npy").tolist() == [4, 8]
    assert np.load(out / "test.npy").tolist() == [2, 7]
    np.testing.assert_array_equal(store.load_split(out, "test"), images[[2, 7]])


def test_the_filter_antialiases(data, tmp_path):
    """Stripes one pixel wide are grey at less than half the size; without antialiasing they would be other stripes."""
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[:, ::2] = 255
    photos = dict.fromkeys(data_files.photographs(), data_files.jpeg(Image.fromarray(pixels), quality=100))
    data_files.write_celeba(data / "celeba", photos, "zip")
    images = np.load(saved_celeba(tmp_path) / "images.npy")
    assert np.abs(images[:, :, 8:-8, 8:-8].astype(float) - 127.5).max() < 12


def test_the_content_of_every_photograph_is_on_record(data, tmp_path):
    photos = data_files.photographs()
    data_files.write_celeba(data / "celeba", photos, "zip")
    out = saved_celeba(tmp_path)
    lines = [f"{hashlib.sha256(content).hexdigest()}  img_align_celeba/{name}" for name, content in photos.items()]
    assert (out / "files.sha256").read_text().splitlines() == lines
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["sha256"]["files"] == hashlib.sha256((out / "files.sha256").read_bytes()).hexdigest()
    assert manifest["shape"] == [10, 3, 64, 64]
    assert [source["path"] for source in manifest["sources"]] == ["list_eval_partition.txt", "img_align_celeba.zip"]


def test_a_folder_and_a_zip_of_the_same_photographs_give_the_same_bytes(data, tmp_path):
    photos = data_files.photographs()
    found = []
    for form in ("zip", "folder"):
        data_files.write_celeba(data / "celeba", photos, form)
        out = saved_celeba(tmp_path)
        found.append([(out / name).read_bytes() for name in ("images.npy", "files.sha256", "train.npy")])
        shutil.rmtree(data)
    assert found[0] == found[1]


def spoiled(photos, name, spoil):
    return {**photos, name: spoil(photos[name])}


PHOTO_FAULTS = {
    "cut early": (cut(0.05), "cannot be decoded|not an image of the kinds JPEG"),
    "cut in the middle": (cut(0.5), r"bytes, cannot be decoded: image file is truncated \(\d+ bytes not processed\)"),
    "cut late": (cut(0.9), "bytes, cannot be decoded: image file is truncated"),
    "empty": (instead(b""), "0 bytes, not an image of the kinds JPEG"),
    "not aligned": (
        instead(data_files.jpeg(Image.new("RGB", (409, 687)))),
        "is RGB 409x687, expected RGB 178x218",
    ),
    "grey": (instead(data_files.jpeg(Image.new("L", (178, 218)))), "is L 178x218, expected RGB 178x218"),
    "a web page": (instead(b"<html></html>"), "13 bytes, not an image of the kinds JPEG"),
}


@pytest.mark.parametrize("form", ["zip", "folder"])
@pytest.mark.parametrize("fault", PHOTO_FAULTS)
def test_a_faulty_photograph_has_its_message_and_leaves_nothing(fault, form, data, tmp_path, monkeypatch):
    spoil, message = PHOTO_FAULTS[fault]
    data_files.write_celeba(data / "celeba", spoiled(data_files.photographs(), "000007.jpg", spoil), form)
    release = celeba_release()
    monkeypatch.setattr(celeba, "release", lambda: release)
    found = command("celeba", tmp_path / "out", **FEW)
    assert re.search(rf"{data}/celeba\S*:? ?\S*img_align_celeba/000007\.jpg: .*({message}).*; get it from http", found)
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_a_missing_or_an_unknown_photograph_has_its_message(form, data, tmp_path):
    photos = data_files.photographs()
    data_files.write_celeba(data / "celeba", photos, form)
    extended = {**photos, "000011.jpg": photos["000001.jpg"]}
    for held, message in (
        ({name: content for name, content in photos.items() if name != "000004.jpg"}, "9 .*000004.jpg is missing"),
        (extended, r"11 photographs, expected 10: 000011\.jpg is not in list_eval_partition\.txt"),
    ):
        partition = (data / "celeba" / "list_eval_partition.txt").read_bytes()
        shutil.rmtree(data)
        data_files.write_celeba(data / "celeba", held, form, (0,) * len(held))
        put(data / "celeba" / "list_eval_partition.txt", partition)
        with pytest.raises(DataError, match=message):
            saved_celeba(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[: 13 * 5 + 6], r"line 6 is '000006', expected a file name and 0, 1 or 2"),
        (lambda text: text[: 13 * 8], r"\{'train': 5, 'validation': 1, 'test': 2\} images, expected \{'train': 6,"),
        (lambda text: text.replace(b" 1", b" 0"), r"\{'train': 8, 'validation': 0, 'test': 2\} images, expected"),
        (lambda text: text.replace(b" 1", b" 3"), r"line 5 is '000005\.jpg 3', expected a file name and 0, 1 or 2"),
        (lambda text: text.replace(b"000002", b"000001"), "1 names stand twice"),
        (lambda text: text.replace(b"000002.jpg", b"../etc.jpg"), r"line 2 is '\.\./etc\.jpg 0', expected a file name"),
        (instead(b"image_id,partition\n"), "line 1 is 'image_id,partition', expected a file name"),
        (instead(b"\xff\xfe\0"), "line 1 is "),
        (instead(b""), r"\{'train': 0, 'validation': 0, 'test': 0\} images, expected"),
    ],
)
def test_a_faulty_partition_has_its_message(spoil, message, data, tmp_path):
    data_files.write_celeba(data / "celeba", data_files.photographs(), "zip")
    path = data / "celeba" / "list_eval_partition.txt"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{path}: {message}"):
        saved_celeba(tmp_path)


@pytest.mark.parametrize("name", ["list_eval_partition.txt", "img_align_celeba.zip"])
def test_celeba_of_another_checksum_is_refused(name, data, tmp_path):
    data_files.write_celeba(data / "celeba", data_files.photographs(), "zip")
    path = data / "celeba" / name
    found, expected = data_files.md5(path), "0" * 32
    with pytest.raises(DataError, match=rf"{path}: [\d,]+ bytes with MD5 {found}, expected MD5 {expected}"):
        saved_celeba(tmp_path, celeba_release({name: expected}))
    saved_celeba(tmp_path, celeba_release({name: found}))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_truncated_zip_has_its_message(share, data, tmp_path):
    data_files.write_celeba(data / "celeba", data_files.photographs(), "zip")
    path = data / "celeba" / "img_align_celeba.zip"
    path.write_bytes(cut(share)(path.read_bytes()))
    with pytest.raises(DataError, match=rf"{path}: not a whole zip file \(.*\); get it from"):
        saved_celeba(tmp_path)


def test_a_photograph_altered_inside_the_zip_is_told_by_its_crc(data, tmp_path):
    data_files.write_celeba(data / "celeba", data_files.photographs(), "zip")
    path = data / "celeba" / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    content[content.index(b"000003.jpg") + 300] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path}: img_align_celeba/000003\.jpg cannot be read: "):
        saved_celeba(tmp_path)


def test_a_zip_member_that_swells_is_not_read(data, tmp_path):
    data_files.write_celeba(
        data / "celeba", spoiled(data_files.photographs(), "000002.jpg", instead(bytes(2**23))), "zip"
    )
    with pytest.raises(DataError, match=r"000002\.jpg has 8,388,608 bytes, expected some ten thousand"):
        saved_celeba(tmp_path)


def test_the_command_refuses_a_small_celeba_by_its_counts(data, tmp_path):
    data_files.write_celeba(data / "celeba", data_files.photographs(), "zip")
    message = command("celeba", tmp_path / "out")
    assert message == (
        f"rae_bench prepare: {data}/celeba/list_eval_partition.txt: {{'train': 6, 'validation': 2, 'test': 2}} images,"
        " expected {'train': 162770, 'validation': 19867, 'test': 19962}; get it from"
        f" https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put it into {data}/celeba"
    )
    assert left(tmp_path / "out") == []


# --- fetching ---------------------------------------------------------------------------------------------


def test_addresses_and_checksums_are_torchvisions():
    assert [(file.name, file.md5) for file in idx.mnist().downloads()] == MNIST.resources
    assert [(file.name, file.md5) for file in idx.fashion_mnist().downloads()] == FashionMNIST.resources
    assert idx.mnist().downloads()[0].urls == tuple(mirror + MNIST.resources[0][0] for mirror in MNIST.mirrors)
    batches = dict((*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.filename, CIFAR10.tgz_md5)))
    assert {name: md5 for name, md5 in cifar.release().md5.items() if name != "cifar-10-binary.tar.gz"} == batches
    assert [(file.urls, file.md5) for file in cifar.release().downloads()] == [((CIFAR10.url,), CIFAR10.tgz_md5)]
    for release in (svhn.release(), celeba.release()):
        assert {file.name: file.md5 for file in release.downloads()} == release.md5
    assert {url for file in svhn.release().downloads() for url in file.urls} == {
        SVHN.split_list[part][0] for part in ("train", "test")
    }


class Silent(SimpleHTTPRequestHandler):
    """A web server that logs nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path):
    """MNIST of 60 images on a web server of this machine, and a release that knows its address after a dead one."""
    images, labels = drawn((28, 28))
    data_files.write_idx(tmp_path / "mirror", images, labels)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=tmp_path / "mirror")) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        top = f"http://127.0.0.1:{server.server_port}"
        downloads = tuple(
            files.Download(path.name, data_files.md5(path), (f"{top}/gone/{path.name}", f"{top}/{path.name}"))
            for path in sorted((tmp_path / "mirror").iterdir())
        )
        yield dataclasses.replace(data_files.release_of(idx.mnist(), labels), downloads=lambda: downloads), images
        server.shutdown()


def test_files_are_fetched_where_allowed_and_then_found(mirror, data, monkeypatch):
    release, images = mirror
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    prepared = idx.prepare(spec("mnist"), 2, release)
    np.testing.assert_array_equal(prepared.images[:60, 0, 2:30, 2:30], images["train"])
    assert len(list((data / "mnist").iterdir())) == 4
    monkeypatch.delenv("RAE_BENCH_DOWNLOAD")
    idx.prepare(spec("mnist"), 2, release)


@pytest.mark.parametrize("fault", ["gone", "another checksum"])
def test_a_fetch_that_fails_says_why_and_keeps_nothing(fault, mirror, data, tmp_path, monkeypatch):
    release, _ = mirror
    *others, last = release.downloads()
    spoiled = dataclasses.replace(last, **({"urls": last.urls[:1]} if fault == "gone" else {"md5": "0" * 32}))
    monkeypatch.setattr(idx, "mnist", lambda: dataclasses.replace(release, downloads=lambda: (*others, spoiled)))
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    message = command("mnist", tmp_path / "out", **SIZES)
    assert message.startswith(f"rae_bench prepare: MNIST: {last.name} cannot be fetched (http://127.0.0.1")
    assert message.endswith(f"; get it from http://yann.lecun.com/exdb/mnist/ and put it into {data}/mnist")
    assert list((data / "mnist").iterdir()) == []
    assert left(tmp_path / "out") == []


def test_nothing_is_fetched_where_files_lie(mirror, data, monkeypatch):
    """Faulty files are the user's to take away."""
    release, _ = mirror
    put(data / "mnist" / "train-images-idx3-ubyte.gz", b"mine")
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    with pytest.raises(DataError, match=r"missing beside train-images-idx3-ubyte\.gz"):
        idx.prepare(spec("mnist"), 2, release)
    assert [path.read_bytes() for path in (data / "mnist").iterdir()] == [b"mine"]


def test_google_drive_without_its_package_is_told_with_what_to_do_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    message = command("celeba", tmp_path / "out")
    assert re.search(
        r"CelebA: \S+ cannot be fetched \(https://drive\.google\.com/\S+: .*gdown.*\); get it from", message
    )
    assert left(tmp_path / "out") == []
