"""Small data sets in the formats of the published ones, written byte by byte: nothing of the readers is used."""

import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image
from scipy.io import savemat

FILES = {"train": "train", "test": "t10k"}


def drawn(shape, seed=0):
    """60 training and 20 test images, random, and their labels, every class at least once."""
    images, labels = {}, {}
    for part, n in (("train", 60), ("test", 20)):
        rng = np.random.default_rng(seed + n)
        labels[part] = rng.permutation(np.arange(n) % 10)
        images[part] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    return images, labels


def release_of(official, labels, md5=None):
    """The official release, but of these labels and MD5s."""
    counts = {part: tuple(np.bincount(of, minlength=10).tolist()) for part, of in labels.items()}
    return dataclasses.replace(official, counts=counts, md5=md5 or {})


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# --- IDX --------------------------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, images, labels, compressed=True):
    for part, name in FILES.items():
        for kind, array in (("images-idx3", images[part]), ("labels-idx1", labels[part].astype(np.uint8))):
            path, content = folder / f"{name}-{kind}-ubyte", idx(array)
            put(*((path.with_name(f"{path.name}.gz"), gzip.compress(content)) if compressed else (path, content)))


# --- CIFAR-10 ---------------------------------------------------------------------------------------------


def cifar_batches(images, labels):
    """Names, pixels (n, 3072) and labels of the six batches."""
    pixels = {part: of.reshape(len(of), -1) for part, of in images.items()}
    for number, both in enumerate(zip(np.split(pixels["train"], 5), np.split(labels["train"], 5), strict=True), 1):
        yield f"data_batch_{number}", *both
    yield "test_batch", pixels["test"], labels["test"]


def binary_batch(pixels, labels):
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(pixels, labels, strict=True))


def python2_pickle(entries):
    """What Python 2's cPickle.dumps(entries, 2) writes: text as byte strings, arrays as numpy 1 reduced them."""
    return b"\x80\x02" + _item(entries) + b"."


def _item(value):
    match value:
        case str() if len(value) < 256:
            return b"U" + struct.pack("<B", len(value)) + value.encode()
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case bool():
            return b"\x88" if value else b"\x89"
        case None:
            return b"N"
        case int() if 0 <= value < 256:
            return b"K" + struct.pack("<B", value)
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"](" + b"".join(map(_item, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(_item, value)) + b"t"
        case dict():
            return b"}(" + b"".join(_item(key) + _item(one) for key, one in value.items()) + b"u"
        case np.ndarray():
            dtype = (
                b"cnumpy\ndtype\n" + _item(("u1", 0, 1)) + b"R" + _item((3, "|", None, None, None, -1, -1, 0)) + b"b"
            )
            made = b"cnumpy.core.multiarray\n_reconstruct\n" + b"(cnumpy\nndarray\n" + _item((0,)) + _item("b") + b"tR"
            state = _item(1) + _item(value.shape) + dtype + _item(False) + _item(value.tobytes())
            return made + b"(" + state + b"tb"
    raise TypeError(value)


def python_batch(name, pixels, labels):
    return python2_pickle(
        {
            "batch_label": f"batch {name}",
            "labels": labels.tolist(),
            "data": pixels,
            "filenames": [f"image_{number}.png" for number in range(len(labels))],
        }
    )


def archive(members):
    """A tar.gz file of named contents, as bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def cifar_contents(images, labels, form):
    """The files of one form, by name."""
    batches = list(cifar_batches(images, labels))
    if form == "binary":
        return {f"cifar-10-batches-bin/{name}.bin": binary_batch(pixels, of) for name, pixels, of in batches}
    return {f"cifar-10-batches-py/{name}": python_batch(name, pixels, of) for name, pixels, of in batches}


def write_cifar(folder, images, labels, form):
    contents = cifar_contents(images, labels, form.split()[0])
    if form.endswith("archive"):
        put(folder / f"cifar-10-{form.split()[0]}.tar.gz", archive(contents))
    else:
        for name, content in contents.items():
            put(folder / name, content)


# --- SVHN -------------------------------------------------------------------------------------------------


def mat(images, labels, **other):
    """A Matlab 5 file of images (n, 3, 32, 32) and digits, the digit 0 as class 10."""
    buffer = io.BytesIO()
    classes = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    entries = {"X": images.transpose(2, 3, 1, 0), "y": classes, **other}
    savemat(buffer, {name: entry for name, entry in entries.items() if entry is not None}, do_compression=True)
    return buffer.getvalue()


def write_svhn(folder, images, labels):
    for part in FILES:
        put(folder / f"{part}_32x32.mat", mat(images[part], labels[part]))


# --- CelebA -----------------------------------------------------------------------------------------------

CELEBA_PARTS = (0, 0, 2, 0, 1, 0, 0, 2, 1, 0)
"""Of ten photographs: train 0, validation 1, test 2; not sorted."""


def photographs(n=10, size=(178, 218), seed=0, **options):
    """Names and JPEG bytes of smooth coloured images."""
    rng = np.random.default_rng(seed)
    return {f"{number + 1:06d}.jpg": jpeg(smooth(rng, size), **options) for number in range(n)}


def smooth(rng, size):
    small = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 92, **options})
    return buffer.getvalue()


def zipped(photos):
    """The zip file that CelebA's photographs are published in, as bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("img_align_celeba/", b"")
        for name, content in photos.items():
            file.writestr(f"img_align_celeba/{name}", content)
    return buffer.getvalue()


def write_celeba(folder, photos, form, parts=CELEBA_PARTS):
    listing, images = (folder / "Eval", folder / "Img") if form == "original layout" else (folder, folder)
    partition = "".join(f"{name} {part}\n" for name, part in zip(photos, parts, strict=True))
    put(listing / "list_eval_partition.txt", partition.encode())
    if form == "folder":
        for name, content in photos.items():
            put(images / "img_align_celeba" / name, content)
    else:
        put(images / "img_align_celeba.zip", zipped(photos))


# --- image files byte by byte -----------------------------------------------------------------------------


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples, bits, kind, *chunks):
    """A PNG of samples (H, W, n), byte by byte: Pillow writes neither 2 bits nor 16 bits of RGB."""
    big = samples.reshape(len(samples), -1, 1).astype(">u2").view(np.uint8)
    rows = np.packbits(np.unpackbits(big, axis=2)[:, :, 16 - bits :].reshape(len(samples), -1), axis=1)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, kind, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", content), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pnm(samples, magic, largest):
    head = b"%b\n# size 9 9\n%d %d\n%d\n" % (magic, samples.shape[1], samples.shape[0], largest)
    if magic in (b"P2", b"P3"):
        return head + b"\n".join(b" ".join(b"%d" % one for one in row.ravel()) for row in samples)
    return head + samples.astype(">u2" if largest > 255 else np.uint8).tobytes()
