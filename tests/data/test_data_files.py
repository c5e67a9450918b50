"""The published data sets, read from small files in their true formats: values, splits, a message for each fault."""

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
from data_files import put
from PIL import Image
from torchvision.datasets import CIFAR10, MNIST, SVHN, CelebA, FashionMNIST

from rae_bench import cli
from rae_bench.base.plain import parse, to_json
from rae_bench.data import catalogue as sources
from rae_bench.data import labelled, store
from rae_bench.data.files import Download
from rae_bench.data.prepared import DataError
from rae_bench.data.releases import RELEASES
from rae_bench.run import origins
from rae_bench.study.config import CONFIG, load_study
from rae_bench.study.study import DatasetEntry

ENTRIES = parse(dict[str, DatasetEntry], yaml.safe_load((CONFIG / "datasets.yaml").read_text()), "datasets.yaml")
SIZES = {"n_train": 40, "n_validation": 10, "n_test": 20}
FEW = {"n_train": 6, "n_validation": 2, "n_test": 2}
GREY, LABELS = data_files.drawn((28, 28))
COLOUR, _ = data_files.drawn((3, 32, 32))
PHOTOS = data_files.photographs()
OFFICIAL = dict(RELEASES)
CIFAR_FORMS = ("binary", "binary archive", "python", "python archive")


def spec(name, **changes):
    return dataclasses.replace(ENTRIES[name].data, **{**(FEW if name == "celeba" else SIZES), **changes})


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


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The suite takes small copies for the published data sets."""

    def take(name, **changes):
        counts = {"train": (6,), "validation": (2,), "test": (2,)}
        release = data_files.release_of(OFFICIAL[name], LABELS)
        release = dataclasses.replace(release, counts=counts) if name == "celeba" else release
        monkeypatch.setitem(RELEASES, name, dataclasses.replace(release, **changes))

    for name in RELEASES:
        take(name)
    return take


def write(name, form, folder):
    """A small copy of a data set below `folder`."""
    match name:
        case "mnist" | "fashion_mnist":
            data_files.write_idx(folder, GREY, LABELS, form == "gzip")
        case "cifar10":
            data_files.write_cifar(folder, COLOUR, LABELS, form)
        case "svhn":
            for part in data_files.FILES:
                put(folder / f"{part}_32x32.mat", data_files.mat(COLOUR[part], LABELS[part]))
        case "celeba":
            data_files.write_celeba(folder, PHOTOS, form)


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


def saved(name, folder):
    store.save(sources.prepare(spec(name)), spec(name), folder)
    return folder


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
    chosen, found = ENTRIES[name].data, OFFICIAL[name].n_images
    assert (chosen.n_train, chosen.n_validation, chosen.n_test, found["train"], found["test"]) == counts
    splits = labelled.official_splits(chosen, found["train"], found["test"])
    assert len(np.intersect1d(splits["train"], splits["validation"])) == 0
    assert splits["train"][0] == 0
    assert splits["validation"][-1] + 1 == splits["test"][0] == counts[3]


def test_celebas_splits_are_the_official_partition():
    chosen, found = ENTRIES["celeba"].data, OFFICIAL["celeba"].n_images
    assert {"train": chosen.n_train, "validation": chosen.n_validation, "test": chosen.n_test} == found
    assert sum(found.values()) == 202_599
    assert {ENTRIES[name].extractor for name in RELEASES} == {"inception_v3_compat"}  # as FID needs


@pytest.mark.parametrize("name", RELEASES)
@pytest.mark.parametrize("permission", [None, "yes"])
def test_without_files_nothing_is_fetched_and_the_message_says_what_to_do(name, permission, data, monkeypatch):
    if permission:
        monkeypatch.setenv("RAE_BENCH_DOWNLOAD", permission)
    with pytest.raises(
        DataError,
        match=rf"^\S+: none of .* in {data}/{name}.*; get it from http\S+ and put it into {data}/{name},"
        r" name another folder with RAE_BENCH_DATA=FOLDER, or allow the download with RAE_BENCH_DOWNLOAD=1$",
    ):
        sources.prepare(spec(name))
    assert not data.exists()


def test_data_lie_in_data_where_no_variable_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("RAE_BENCH_DATA")
    monkeypatch.chdir(tmp_path)
    assert " in data/mnist, data/mnist/MNIST/raw, data/MNIST/raw;" in command("mnist", tmp_path / "out")


PLACES = [
    *[("mnist", "gzip", "mnist"), ("mnist", "plain", "mnist/MNIST/raw"), ("mnist", "gzip", "MNIST/raw")],
    *[("fashion_mnist", "plain", "fashion_mnist"), ("fashion_mnist", "gzip", "FashionMNIST/raw")],
    *[("cifar10", form, folder) for form, folder in zip(CIFAR_FORMS, ("cifar10", ".", ".", "cifar10"), strict=True)],
    *[("svhn", "mat", "svhn"), ("svhn", "mat", ".")],
]


@pytest.mark.parametrize(("name", "form", "folder"), PLACES)
def test_files_are_read_as_they_were_written(name, form, folder, data):
    write(name, form, data / folder)
    put(data / folder / "extra_32x32.mat", b"garbage, which is left alone")
    found = sources.prepare(spec(name))
    if name in ("svhn", "cifar10"):
        expected = np.concatenate(list(COLOUR.values()))
    else:
        expected = np.zeros((80, 1, 32, 32), np.uint8)
        expected[:, 0, 2:30, 2:30] = np.concatenate(list(GREY.values()))
    np.testing.assert_array_equal(found.images, expected)
    np.testing.assert_array_equal(found.extras["labels"], np.concatenate(list(LABELS.values())))
    for split, places in {"train": range(40), "validation": range(50, 60), "test": range(60, 80)}.items():
        np.testing.assert_array_equal(found.splits[split], places)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_train": 51}, "51 training and 10 validation images of 60 official training images, 20 of 20 test images"),
        ({"n_test": 21}, "21 of 20 test images; ask for fewer"),
    ],
)
def test_more_images_than_there_are_is_an_error(changes, message, data):
    write("mnist", "gzip", data / "mnist")
    with pytest.raises(DataError, match=message):
        sources.prepare(spec("mnist", **changes))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mnist", sorted(RELEASES["mnist"].forms[1])),
        ("cifar10", ["cifar-10-python.tar.gz"]),
        ("svhn", ["test_32x32.mat", "train_32x32.mat"]),
        ("celeba", ["img_align_celeba.zip", "list_eval_partition.txt"]),
    ],
)
def test_a_pipe_in_place_of_a_file_is_refused_at_once(name, files, data):
    """Reading it would never end."""
    for file in files[1:]:
        put(data / name / file, b"")
    (data / name).mkdir(parents=True, exist_ok=True)
    os.mkfifo(data / name / files[0])
    message = f"{data / name / files[0]}: is a named pipe, not a regular file; get it from http"
    with pytest.raises(DataError, match=message):
        sources.prepare(spec(name))


@pytest.mark.parametrize(
    ("name", "form", "file"),
    [
        ("mnist", "gzip", "t10k-labels-idx1-ubyte.gz"),
        ("cifar10", "binary", "test_batch.bin"),
        ("celeba", "folder", "img_align_celeba/000003.jpg"),
        ("celeba", "original layout", "img_align_celeba.zip"),
        ("celeba", "original layout", "../Eval/list_eval_partition.txt"),
    ],
)
def test_a_published_file_that_changes_after_it_was_read_is_found(name, form, file, data, tmp_path):
    write(name, form, data / name)
    folder = saved(name, tmp_path / "out")

    def said(is_thorough=True):
        return origins.look(spec(name), folder, is_thorough)

    assert said() == said(False) == origins.Finding()
    path = Path(json.loads((folder / "source.json").read_text())["folder"]) / file
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


@pytest.mark.parametrize(
    ("name", "form", "file", "key", "content"),
    [
        # of an archive or a pickle the checksum comes first: what is no such thing at all is not even opened
        ("mnist", "gzip", "train-images-idx3-ubyte.gz", "train-images-idx3-ubyte", None),
        ("mnist", "plain", "train-images-idx3-ubyte", "train-images-idx3-ubyte", None),
        ("cifar10", "binary archive", "cifar-10-binary.tar.gz", "cifar-10-binary.tar.gz", b"garbage"),
        ("cifar10", "python archive", "cifar-10-python.tar.gz", "cifar-10-python.tar.gz", b"garbage"),
        ("cifar10", "python", "cifar-10-batches-py/data_batch_2", "data_batch_2", b"garbage"),
        ("svhn", "mat", "test_32x32.mat", "test_32x32.mat", b"garbage"),
        ("celeba", "zip", "img_align_celeba.zip", "img_align_celeba.zip", b"garbage"),
        ("celeba", "zip", "list_eval_partition.txt", "list_eval_partition.txt", None),
    ],
)
def test_another_checksum_than_the_published_one_is_refused(name, form, file, key, content, data, small):
    """Fashion-MNIST among MNIST's files has the same shapes and counts: nothing else tells them apart."""
    write(name, form, data / name)
    path = data / name / file
    of_content = gzip.decompress if form == "gzip" else bytes
    right = hashlib.md5(of_content(path.read_bytes())).hexdigest()
    small(name, md5={key: right})
    sources.prepare(spec(name))
    wrong = "0" * 32
    small(name, md5={key: right if content else wrong})
    path.write_bytes(content or path.read_bytes())
    found = hashlib.md5(of_content(path.read_bytes())).hexdigest()
    message = rf"{path}: [\d,]+ bytes with MD5 {found}, expected MD5 {right if content else wrong}: truncated, altered"
    with pytest.raises(DataError, match=message):
        sources.prepare(spec(name))
    assert re.fullmatch("[0-9a-f]{32}", RELEASES[name].md5[key])


# --- faults -----------------------------------------------------------------------------------------------


def cut(share):
    return lambda content: content[: int(share * len(content))]


def instead(content):
    return lambda _: content


def within_gzip(spoil):
    return lambda content: gzip.compress(spoil(gzip.decompress(content)))


IDX_FAULTS = {
    "cut in the header": (lambda content: content[:10], "10 bytes, expected 47,056 .*: truncated or altered"),
    "cut in the middle": (cut(0.5), r"23,528 bytes, expected 47,056 of an array of 60 x 28 x 28"),
    "one byte more": (lambda content: content + b"\0", r"more bytes, expected 47,056 of an array of 60 x 28 x 28"),
    "empty": (instead(b""), r"begins with bytes \(none\), expected 00 00 08 03"),
    "labels for images": (
        instead(data_files.idx(np.zeros(60, np.uint8))),
        "begins with bytes 00 00 08 01, expected 00 00 08 03, an IDX file of 3 dimensions",
    ),
    "other entries": (lambda content: b"\0\0\x0d" + content[3:], "begins with bytes 00 00 0d 03"),
    "another size": (
        instead(data_files.idx(np.zeros((59, 32, 28), np.uint8))),
        "an array of 59 x 32 x 28, expected 60 x 28 x 28",
    ),
}
OTHER_LABELS = {
    "labels of another data set": (np.where(LABELS["train"] == 9, 11, LABELS["train"]), "labels 0 to 11, expected 0 t"),
    "other numbers of each class": (
        np.where(LABELS["train"] == 9, 8, LABELS["train"]),
        r"\[6, .*, 12, 0\] labels of each class, expected \[6, ",
    ),
}


def pickled(n_labels, n_images, width=3072, **more):
    entries = {"labels": [1] * n_labels, "data": np.zeros((n_images, width), np.uint8)}
    return data_files.python2_pickle({**entries, **more})


PICKLES = {
    "a global": b"\x80\x02cbuiltins\neval\n.",
    "numpy's other functions": b"\x80\x02cnumpy\nload\n.",
    "an attribute of an allowed name": b"\x80\x04\x8c\x05numpy\x8c\x14ndarray.__reduce_ex__\x93.",
    "an instance without its state": b"\x80\x02}(U\x04datacnumpy\nndarray\n)\x81U\x06labels](K\x01eu.",
    "a huge array": b"\x80\x02}(U\x04datacnumpy\nndarray\n(J\xff\xff\xff\x7ftRU\x06labels](K\x01eu.",
    "a negative shape": pickled(12, 12).replace(b"(K\x0cJ\x00\x0c\x00\x00t", b"(J\xf4\xff\xff\xffJ\x00\xf4\xff\xfft"),
    "a persistent object": b"\x80\x02Pos\n.",
    "nothing": b"",
    "no pickle": b"garbage",
    "another thing": pickle.dumps([1, 2]),
    "CIFAR-100": data_files.python2_pickle({"fine_labels": [1], "data": np.zeros((1, 3072), np.uint8)}),
    "wide numbers": pickled(1, 1).replace(b"U\x02u1", b"U\x02i8"),
    "labels of another kind": pickled(12, 12, labels=["a"] * 12),
    "fewer images": pickled(11, 11),
    "fewer labels": pickled(11, 12),
    "grey images": pickled(12, 12, width=1024),
}
MATLAB_FAULTS = {
    "empty": (b"", "not a whole Matlab 5 file"),
    "a web page": (b"<html>" * 100, "not a whole Matlab 5 file"),
    "cut in the header": (cut(0.001)(data_files.mat(COLOUR["train"], LABELS["train"])), "not a whole Matlab 5 file"),
    "cut in the middle": (cut(0.5)(data_files.mat(COLOUR["train"], LABELS["train"])), "not a whole Matlab 5 file"),
    "no labels": (data_files.mat(COLOUR["train"], LABELS["train"], y=None), "holds no 'y', expected X and y"),
    "grey": (
        data_files.mat(COLOUR["train"][:, :1], LABELS["train"]),
        r"X is uint8 \(32, 32, 1, 60\), expected uint8 \(32, 32, 3, n\)",
    ),
    "real numbers": (data_files.mat(COLOUR["train"] / 255, LABELS["train"]), r"X is float64 \(32, 32, 3, 60\), expect"),
    "fewer labels": (
        data_files.mat(COLOUR["train"], LABELS["train"][1:]),
        r"y is uint8 \(59, 1\), expected a column of 60",
    ),
    "fewer images": (data_files.mat(COLOUR["test"], LABELS["test"]), "20 labels, expected 60"),
    "digit 0 as 0": (
        data_files.mat(COLOUR["train"], LABELS["train"], y=LABELS["train"][:, None].astype(np.uint8)),
        "y holds 0, expected 1 to 10",
    ),
    "other classes": (
        data_files.mat(COLOUR["train"], OTHER_LABELS["other numbers of each class"][0]),
        "labels of each class",
    ),
}
PHOTO_FAULTS = {
    "cut early": (cut(0.05), "cannot be decoded|not an image of 8 bits a channel of the kinds JPEG"),
    "cut in the middle": (cut(0.5), r"bytes, cannot be decoded: image file is truncated \(\d+ bytes not processed\)"),
    "cut late": (cut(0.9), "bytes, cannot be decoded: image file is truncated"),
    "empty": (instead(b""), "0 bytes, not an image of 8 bits a channel of the kinds JPEG"),
    "not aligned": (instead(data_files.jpeg(Image.new("RGB", (409, 687)))), "is RGB 409x687, expected RGB 178x218"),
    "grey": (instead(data_files.jpeg(Image.new("L", (178, 218)))), "is L 178x218, expected RGB 178x218"),
    "a web page": (instead(b"<html></html>"), "13 bytes, not an image of 8 bits a channel of the kinds JPEG"),
}
PARTITION_FAULTS = {
    "cut in a line": (lambda text: text[: 13 * 5 + 6], r"line 6 is '000006', expected a file name and 0, 1 or 2"),
    "cut after a line": (
        lambda text: text[: 13 * 8],
        r"\{'train': 5, 'validation': 1, 'test': 2\} images, expected \{",
    ),
    "another partition": (lambda text: text.replace(b" 1", b" 0"), r"\{'train': 8, 'validation': 0, 'test': 2\} image"),
    "another part": (lambda text: text.replace(b" 1", b" 3"), r"line 5 is '000005\.jpg 3', expected a file name and 0"),
    "twice": (lambda text: text.replace(b"000002", b"000001"), "1 names stand twice"),
    "a path": (lambda text: text.replace(b"000002.jpg", b"../etc.jpg"), r"line 2 is '\.\./etc\.jpg 0', expected a fil"),
    "a header": (instead(b"image_id,partition\n"), "line 1 is 'image_id,partition', expected a file name"),
    "no text": (instead(b"\xff\xfe\0"), "line 1 is "),
    "empty": (instead(b""), r"\{'train': 0, 'validation': 0, 'test': 0\} images, expected"),
}
BATCH, MATLAB, ZIP = "cifar-10-batches-py/data_batch_1", "train_32x32.mat", "img_align_celeba.zip"
LISTING, PHOTO = "list_eval_partition.txt", "img_align_celeba/000007.jpg"
EXTENDED = {**PHOTOS, "000011.jpg": PHOTOS["000001.jpg"]}
LESS = {name: content for name, content in PHOTOS.items() if name != "000004.jpg"}


def altered_photograph(content):
    place = content.index(b"000003.jpg") + 300
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


ESCAPING = {
    f"../{name}" if name.endswith("test_batch.bin") else name: content
    for name, content in data_files.cifar_contents(COLOUR, LABELS, "binary").items()
}


OTHERS = next(data_files.cifar_batches(COLOUR, {**LABELS, "train": np.where(LABELS["train"] == 3, 4, LABELS["train"])}))
ABSENT = "missing beside "
FAULTS = {
    "mnist, a file is missing": ("mnist", "gzip", "t10k-labels-idx1-ubyte.gz", None, ABSENT),
    "cifar10, a file is missing": ("cifar10", "python", "cifar-10-batches-py/data_batch_3", None, ABSENT),
    "svhn, a file is missing": ("svhn", "mat", "test_32x32.mat", None, ABSENT),
    "celeba, a photograph is missing": (
        *("celeba", "folder", "img_align_celeba/000004.jpg", None),
        r"9 photographs, expected 10: 000004\.jpg is missing",
    ),
    "cifar10, binary batches, which have no checksum": (
        *("cifar10", "binary", "cifar-10-batches-bin/data_batch_1.bin"),
        *(instead(data_files.binary_batch(*OTHERS[1:])), r"\] labels of each class, expected \[6, 6, 6, 6"),
    ),
    **{
        f"idx, {fault}": ("mnist", "plain", "train-images-idx3-ubyte", spoil, message)
        for fault, (spoil, message) in IDX_FAULTS.items()
    },
    **{
        f"idx, compressed, {fault}": ("mnist", "gzip", "train-images-idx3-ubyte.gz", within_gzip(spoil), message)
        for fault, (spoil, message) in IDX_FAULTS.items()
    },
    **{
        f"gzip, cut at {share}": ("mnist", "gzip", "t10k-images-idx3-ubyte.gz", cut(share), r"a whole gzip|\(none\)")
        for share in (0, 0.0001, 0.3, 0.999)
    },
    **{
        f"idx, {fault}": ("mnist", "plain", "train-labels-idx1-ubyte", instead(data_files.idx(np.uint8(of))), message)
        for fault, (of, message) in OTHER_LABELS.items()
    },
    **{f"pickle, {fault}": ("cifar10", "python", BATCH, instead(of), "") for fault, of in PICKLES.items()},
    **{
        f"{form}, cut at {share}": ("cifar10", form, file, cut(share), message)
        for share in (0.01, 0.5, 0.999)
        for form, file, message in (
            ("binary", "cifar-10-batches-bin/test_batch.bin", "bytes, expected 61,460, 20 images of 3,073 each"),
            ("python", "cifar-10-batches-py/test_batch", "not a pickled batch of images and labels alone"),
            ("binary archive", "cifar-10-binary.tar.gz", "not a whole tar.gz file"),
        )
    },
    "archive, a batch is missing": (
        *("cifar10", "binary archive", "cifar-10-binary.tar.gz", instead(data_files.archive(ESCAPING))),
        r"holds no cifar-10-batches-bin/test_batch\.bin",
    ),
    **{f"svhn, {fault}": ("svhn", "mat", MATLAB, instead(of), told) for fault, (of, told) in MATLAB_FAULTS.items()},
    **{f"photo, {fault}": ("celeba", "folder", PHOTO, *of) for fault, of in PHOTO_FAULTS.items()},
    **{
        f"zip, photo, {fault}": (
            *("celeba", "zip", ZIP, instead(data_files.zipped({**PHOTOS, "000007.jpg": spoil(PHOTOS["000007.jpg"])}))),
            rf"img_align_celeba/000007\.jpg: .*({message})",
        )
        for fault, (spoil, message) in PHOTO_FAULTS.items()
    },
    **{f"partition, {fault}": ("celeba", "zip", LISTING, *of) for fault, of in PARTITION_FAULTS.items()},
    **{f"zip, cut at {share}": ("celeba", "zip", ZIP, cut(share), "not a whole zip file") for share in (0.1, 0.999)},
    "zip, altered": ("celeba", "zip", ZIP, altered_photograph, r"img_align_celeba/000003\.jpg cannot be read: "),
    "zip, a member that swells": (
        *("celeba", "zip", ZIP, instead(data_files.zipped({**PHOTOS, "000002.jpg": bytes(2**23)}))),
        r"000002\.jpg has 8,388,608 bytes, expected at most 4,194,304",
    ),
    "zip, a photograph less": (
        *("celeba", "zip", ZIP, instead(data_files.zipped(LESS))),
        "9 photographs, expected 10: 000004.jpg is missing",
    ),
    "zip, a photograph more": (
        *("celeba", "zip", ZIP, instead(data_files.zipped(EXTENDED))),
        r"11 photographs, expected 10: 000011\.jpg is not in list_eval_partition\.txt",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_has_its_message_and_leaves_nothing(fault, data, tmp_path):
    name, form, file, spoil, message = FAULTS[fault]
    write(name, form, data / name)
    path = data / name / file
    if spoil is None:
        path.unlink()
    else:
        put(path, spoil(path.read_bytes()))
    # of a folder of files that belong together, the folder is named
    where = rf"({path}|{path.parent})"
    with pytest.raises(
        DataError, match=rf"^{where}: .*({message}).*; get it from http\S+ and put it into {data}/{name}"
    ):
        saved(name, tmp_path / "out")
    assert not (tmp_path / "out").exists() or left(tmp_path / "out") == []


# --- the command, and what it writes ----------------------------------------------------------------------


def test_the_command_prepares_small_files_and_keeps_their_hashes(data, tmp_path):
    write("mnist", "gzip", data / "mnist")
    out = tmp_path / "out"
    assert command("mnist", out, **SIZES) is None
    np.testing.assert_array_equal(store.load_split(out, "validation")[:, 0, 2:30, 2:30], GREY["train"][50:])
    np.testing.assert_array_equal(store.load_digits(out, "test"), LABELS["test"])
    listed = json.loads((out / "manifest.json").read_text())["sources"]
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (data / "mnist").iterdir()}
    assert {source["path"]: source["sha256"] for source in listed} == found
    assert {source["licence"] for source in listed} == {"CC BY-SA 3.0 by convention"}


@pytest.mark.parametrize(
    ("name", "form", "fault"),
    [
        ("mnist", "gzip", "train-images-idx3-ubyte.gz: an array of 60 x 28 x 28, expected 60,000 x 28 x 28"),
        (
            "celeba",
            "zip",
            "list_eval_partition.txt: {'train': 6, 'validation': 2, 'test': 2} images, expected {'train'",
        ),
    ],
)
def test_the_command_refuses_a_small_copy_by_its_counts(name, form, fault, data, tmp_path, small):
    write(name, form, data / name)
    small(name, counts=OFFICIAL[name].counts)
    said = command(name, tmp_path / "out")
    assert said.startswith(f"rae_bench prepare: {data}/{name}/{fault}")
    assert said.endswith(f"; get it from {OFFICIAL[name].page} and put it into {data}/{name}")
    assert left(tmp_path / "out") == []


def test_only_digits_are_judged_by_the_digit_classifier(data, tmp_path):
    write("fashion_mnist", "gzip", data / "fashion_mnist")
    assert store.load_digits(saved("fashion_mnist", tmp_path / "out"), "test") is None


def test_what_the_suites_classifiers_cannot_read_they_are_not_asked():
    """They know digits of 32x32 pixels and faces of 32x32 or 64x64."""
    digits, faces = (load_study("embedded").preparation(name) for name in ("digits", "faces"))
    wider = dataclasses.replace(digits, size=40, source=dataclasses.replace(digits.source, padding=6))
    assert (digits.has_digits, wider.has_digits, faces.has_digits) == (True, False, False)
    assert [dataclasses.replace(faces, size=size).has_factors for size in (32, 64, 128)] == [True, True, False]
    assert not digits.has_factors


# --- CIFAR-10's pickles -----------------------------------------------------------------------------------


def test_the_binary_version_is_preferred(data):
    """The pickles are never opened where they need not be."""
    write("cifar10", "binary", data / "cifar10")
    for name in ("cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/test_batch", "cifar-10-python.tar.gz"):
        put(data / "cifar10" / name, b"garbage")
    assert len(sources.prepare(spec("cifar10")).images) == 80


def test_the_pickles_are_what_python_2_wrote():
    """They name numpy's functions as numpy 1 did, and the real unpickler makes the same of them."""
    name, pixels, of = next(data_files.cifar_batches(COLOUR, LABELS))
    content = data_files.python_batch(name, pixels, of)
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    batch = pickle.loads(content.replace(b"numpy.core", b"numpy._core"), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], pixels)
    assert batch[b"labels"] == of.tolist()


class Bomb:
    """What an attacker pickles: a shell command that runs while it is read."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["python", "python archive"])
@pytest.mark.parametrize("place", ["alone", "in a batch"])
def test_a_pickle_bomb_does_not_run(place, form, data, tmp_path):
    ran = tmp_path / "ran"
    content = pickle.dumps(Bomb(f"touch {ran}"), protocol=2)
    if place == "in a batch":
        content = b"\x80\x02}(U\x04data" + content[2:-1] + b"U\x06labels](K\x01eu."
    contents = data_files.cifar_contents(COLOUR, LABELS, "python") | {"cifar-10-batches-py/data_batch_2": content}
    files = contents if form == "python" else {"cifar-10-python.tar.gz": data_files.archive(contents)}
    for name, one in files.items():
        put(data / "cifar10" / name, one)
    found = command("cifar10", tmp_path / "out", **SIZES)
    assert re.search(r"data_batch_2: not a pickled batch .*: it asks for posix\.system\); get it", found)
    assert not ran.exists()
    pickle.loads(content, encoding="bytes")
    assert ran.exists()  # the file does hold what would run


# --- CelebA -----------------------------------------------------------------------------------------------


def lanczos(image, out):
    """A square image (H, W, C) at a smaller size, by the definition: sinc(x) sinc(x/3), as wide as the scale asks."""
    n = image.shape[0]
    scale = n / out
    distance = ((np.arange(n) + 0.5) - (np.arange(out)[:, None] + 0.5) * scale) / scale
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ih,jw,hwc->ijc", weights, weights, image.astype(np.float64), optimize=True)


def test_photographs_are_cropped_and_resized_in_file_order(data, tmp_path):
    write("celeba", "zip", data / "celeba")
    out = saved("celeba", tmp_path / "out")
    images = np.load(out / "images.npy")
    for found, content in zip(images, PHOTOS.values(), strict=True):
        square = np.asarray(Image.open(put(tmp_path / "one.jpg", content)))[39 : 39 + 140, 19 : 19 + 140]
        expected = np.clip(lanczos(square, 64), 0, 255)
        assert np.abs(found.transpose(1, 2, 0) - expected).max() <= 1.5  # Pillow rounds after each direction
    places = {split: np.load(out / f"{split}.npy").tolist() for split in ("train", "validation", "test")}
    assert places == {"train": [0, 1, 3, 5, 6, 9], "validation": [4, 8], "test": [2, 7]}
    np.testing.assert_array_equal(store.load_split(out, "test"), images[[2, 7]])


def test_photographs_are_on_record_and_the_same_bytes_in_every_form(data, tmp_path):
    found = []
    for form in ("folder", "original layout", "zip"):
        write("celeba", form, data / "celeba")
        out = saved("celeba", tmp_path / "out")
        found.append([(out / name).read_bytes() for name in ("images.npy", "files.sha256", "train.npy")])
        shutil.rmtree(data)
    assert found[0] == found[1] == found[2]
    lines = [f"{hashlib.sha256(content).hexdigest()}  img_align_celeba/{name}" for name, content in PHOTOS.items()]
    assert (out / "files.sha256").read_text().splitlines() == lines
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["sha256"]["files"] == hashlib.sha256((out / "files.sha256").read_bytes()).hexdigest()
    assert manifest["shape"] == [10, 3, 64, 64]
    assert [source["path"] for source in manifest["sources"]] == ["list_eval_partition.txt", "img_align_celeba.zip"]


# --- fetching ---------------------------------------------------------------------------------------------


def test_addresses_and_checksums_are_torchvisions():
    for release, theirs in ((OFFICIAL["mnist"], MNIST), (OFFICIAL["fashion_mnist"], FashionMNIST)):
        expected = {name: (md5, tuple(mirror + name for mirror in theirs.mirrors)) for name, md5 in theirs.resources}
        assert {file.name: (file.md5, file.urls) for file in release.downloads} == expected
    cifar, svhn, celeba = (OFFICIAL[name] for name in ("cifar10", "svhn", "celeba"))
    batches = dict((*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.filename, CIFAR10.tgz_md5)))
    assert {name: md5 for name, md5 in cifar.md5.items() if name != "cifar-10-binary.tar.gz"} == batches
    assert cifar.downloads == (Download(CIFAR10.filename, CIFAR10.tgz_md5, (CIFAR10.url,)),)
    listed = [SVHN.split_list[part] for part in ("train", "test")]
    assert svhn.downloads == tuple(Download(name, md5, (url,)) for url, name, md5 in listed)
    drive = {name: (md5, (f"https://drive.google.com/file/d/{number}",)) for number, md5, name in CelebA.file_list}
    assert {file.name: (file.md5, file.urls) for file in celeba.downloads}.items() <= drive.items()
    for release in (svhn, celeba):
        assert {file.name: file.md5 for file in release.downloads} == release.md5


class Silent(SimpleHTTPRequestHandler):
    """A web server that logs nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, small, monkeypatch):
    """MNIST of 60 images on a web server of this machine, and a release that knows its address after a dead one."""
    write("mnist", "gzip", tmp_path / "mirror")
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=tmp_path / "mirror")) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        top = f"http://127.0.0.1:{server.server_port}"
        downloads = tuple(
            Download(path.name, data_files.md5(path), (f"{top}/gone/{path.name}", f"{top}/{path.name}"))
            for path in sorted((tmp_path / "mirror").iterdir())
        )
        small("mnist", downloads=downloads)
        yield downloads
        server.shutdown()


@pytest.mark.usefixtures("mirror")
def test_files_are_fetched_where_allowed_and_then_found(data, monkeypatch):
    found = sources.prepare(spec("mnist")).images
    np.testing.assert_array_equal(found[:60, 0, 2:30, 2:30], GREY["train"])
    assert len(list((data / "mnist").iterdir())) == 4
    monkeypatch.delenv("RAE_BENCH_DOWNLOAD")
    np.testing.assert_array_equal(sources.prepare(spec("mnist")).images, found)


@pytest.mark.parametrize("fault", ["gone", "another checksum"])
def test_a_fetch_that_fails_says_why_and_keeps_nothing(fault, mirror, data, small):
    *others, last = mirror
    spoiled = dataclasses.replace(last, **({"urls": last.urls[:1]} if fault == "gone" else {"md5": "0" * 32}))
    small("mnist", downloads=(*others, spoiled))
    begin = f"MNIST: {last.name} cannot be fetched .http://127.0.0.1"
    end = f"; get it from http://yann.lecun.com/exdb/mnist/ and put it into {data}/mnist"
    with pytest.raises(DataError, match=f"^{begin}.*{end}$"):
        sources.prepare(spec("mnist"))
    assert list((data / "mnist").iterdir()) == []


@pytest.mark.usefixtures("mirror")
def test_nothing_is_fetched_where_files_lie(data):
    """Faulty files are the user's to take away."""
    put(data / "mnist" / "train-images-idx3-ubyte.gz", b"mine")
    with pytest.raises(DataError, match=r"missing beside train-images-idx3-ubyte\.gz"):
        sources.prepare(spec("mnist"))
    assert [path.read_bytes() for path in (data / "mnist").iterdir()] == [b"mine"]


def test_google_drive_without_its_package_is_told_with_what_to_do_by_hand(monkeypatch):
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    told = r"CelebA: \S+ cannot be fetched \(https://drive\.google\.com/\S+: .*gdown.*\); get it from"
    with pytest.raises(DataError, match=told):
        sources.prepare(spec("celeba"))
