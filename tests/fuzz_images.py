"""Folders of images as the folder data set reads them: every format and mode that Pillow and tifffile write, damaged.

A picture that is written without loss and not damaged is known pixel by pixel: if it is accepted, it must be those. One
that holds more than 8 bits a channel, several frames or transparent places must not be; an ordinary one must.
"""

import dataclasses
import io
import json
import os
import shlex
import struct
import warnings
from dataclasses import dataclass

import numpy as np
import tifffile
from data_files import chunk, png, pnm, put
from fuzz_cases import Case, Ended, damaged, no_plain_file, refusal
from PIL import Image

Image.init()
LOADS = ("rae_bench.data.catalogue",)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
MODES = (*("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"), *DEEP)
LOSSLESS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "P", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB"),
    "GIF": ("1", "L", "P"),
    "WEBP": ("L", "RGB", "RGBA"),
}
SUFFIX = {"PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "PPM": ".ppm", "GIF": ".gif", "WEBP": ".webp", "JPEG": ".jpg"}
TURNED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}
"""How pixels (H, W, 3) are shown by the orientation that EXIF states."""


@dataclass(frozen=True)
class Picture:
    """A file and what is known of it: `pixels` as they are seen, uint8 (H, W, 3), to within `tolerance`, or None.

    `must`: to refuse it is wrong. `must_not`: to accept it is. `how`: what it is, in words.
    """

    data: bytes
    suffix: str
    how: str
    pixels: np.ndarray | None = None
    tolerance: int = 0
    must: bool = False
    must_not: bool = False


def make(chance, folder):
    """A folder of images, few of them odd, and `prepare` of it."""
    rng = np.random.default_rng(chance.getrandbits(64))
    size = chance.choice((1, 4, 8))
    counts = {f"n_{split}": chance.choice((1, 1, 2)) for split in ("train", "validation", "test")}
    by_folder = chance.random() < 0.15
    folders = [split for split in ("train", "validation", "test") for _ in range(counts[f"n_{split}"])]
    places = folders if by_folder else [chance.choice(("", "", "a", "a/b")) for _ in folders]
    odd = set(chance.sample(range(len(places)), chance.choice((1, 1, 1, 1, 2))))
    pictures = {}
    for number, place in enumerate(places):
        picture = _odd(chance, rng, size) if number in odd else _plain(rng, size)
        name = f"{place}/{number}{chance.choice((picture.suffix,) * 19 + SUFFIXES[:1])}".lstrip("/")
        pictures[name] = picture
        put(folder / "mine" / name, picture.data)
    is_usual = chance.random() < 0.8
    if not is_usual:
        _spoil(chance, folder / "mine", pictures)
    source = {"kind": "folder", "path": "mine", "split": "subfolders" if by_folder else "seeded", "crop": size}
    source["padding"] = 0
    source["filter"] = chance.choice(("box", "bilinear", "hamming", "bicubic", "lanczos"))
    spec = {"label": "Mine", "source": source, "channels": chance.choice((1, 3, 3)), "size": size, "seed": 0, **counts}
    given = ["prepare", "--data", str(folder / "out"), "--spec", json.dumps(spec)]
    run = lambda: _run(given, folder, pictures, spec["channels"], is_usual)  # noqa: E731
    return Case(run, f"RAE_BENCH_DATA={shlex.quote(str(folder))} {shlex.join(['python', '-m', 'rae_bench', *given])}")


def _run(given, folder, pictures, channels, is_usual):
    os.environ["RAE_BENCH_DATA"] = str(folder)
    refused = refusal(*given)
    if refused:
        return Ended(refused, tuple(_wrongly_refused(refused, pictures)) if is_usual else ())
    images = np.load(folder / "out" / "images.npy")
    names = [line.split("  ", 1)[1] for line in (folder / "out" / "files.sha256").read_text().splitlines()]
    faults = (
        _wrongly_read(pictures[name], image.transpose(1, 2, 0), channels)
        for name, image in zip(names, images, strict=True)
        if name in pictures
    )
    return Ended(None, tuple(fault for fault in faults if fault))


def _wrongly_refused(refused, pictures):
    odd = {name: picture for name, picture in pictures.items() if not picture.must}
    if not odd:
        hows = sorted({picture.how for picture in pictures.values()} - {"plain"})
        yield f"refused though ordinary ({' and '.join(hows)}): {refused}"
    elif len(odd) == 1 and not any(name in refused for name in odd):
        yield f"a message that does not name the file at fault: {refused}, not {next(iter(odd))}"


def _wrongly_read(picture, found, channels):
    if picture.must_not:
        return f"accepted though it holds more than is kept: {picture.how}"
    if picture.pixels is None:
        return None
    (height, width, _), size = picture.pixels.shape, len(found)
    top, left = (height - size) // 2, (width - size) // 2
    expected = picture.pixels[top : top + size, left : left + size].astype(float)
    if channels == 1:
        expected = expected @ [[0.299], [0.587], [0.114]]
    furthest = np.abs(expected - found).max()
    if furthest <= picture.tolerance + (channels == 1):
        return None
    return f"other pixels than were written: {picture.how}: by up to {furthest:.0f}"


# --- pictures ---------------------------------------------------------------------------------------------


def _plain(rng, size):
    pixels = rng.integers(0, 256, (size + 1, size, 3), np.uint8)
    return Picture(_saved(Image.fromarray(pixels), "PNG"), ".png", "plain", pixels, must=True)


def _odd(chance, rng, size):
    kinds = (_by_pillow, _by_pillow, _of_any_kind, _of_any_kind, _by_tifffile, _by_tifffile, _png, _pnm, _jpeg)
    picture = None
    while picture is None:  # not everything can be written
        height, width = (size + chance.choice((0, 0, 0, 1, 5, 40)) for _ in range(2))
        picture = chance.choice(kinds)(chance, rng, height, width)
    if chance.random() < 0.35:
        # every chunk of a PNG carries a checksum: damage must not pass for other pixels
        pixels = picture.pixels if picture.suffix == ".png" else None
        data, how = damaged(chance, picture.data), f"damaged {picture.how}"
        return dataclasses.replace(picture, data=data, how=how, pixels=pixels, must=False, must_not=False)
    return picture


def _saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _seen(image):
    """The pixels of an opaque 8-bit image as they are seen, without Pillow's conversions."""
    held = np.asarray(image)
    if image.mode == "P":
        return np.array(image.getpalette(), np.uint8).reshape(-1, 3)[held]
    if image.mode == "1":
        held = held.astype(np.uint8) * 255
    return np.repeat(held[..., None], 3, axis=2) if held.ndim == 2 else _three(held)


def _three(held):
    return held[..., :3] if held.shape[2] >= 3 else np.repeat(held[..., :1], 3, axis=2)


def _random(rng, mode, height, width, opaque=True):
    """An image of `mode` with random content."""
    if mode == "1":
        return Image.fromarray(rng.integers(0, 2, (height, width), np.uint8) * 255).convert("1")
    if mode == "F":
        return Image.fromarray(rng.normal(0, 300, (height, width)).astype(np.float32))
    if mode in DEEP:
        values = rng.integers(0, 2**16, (height, width), np.uint16)
        image = Image.fromarray(values.astype(np.int32) if mode == "I" else values)
        return image if image.mode == mode else Image.frombytes(mode, (width, height), values.tobytes())
    image = Image.frombytes(mode, (width, height), rng.bytes(height * width * len(Image.new(mode, (1, 1)).tobytes())))
    if mode in ("P", "PA"):
        image.putpalette(rng.bytes(768))
    if opaque and mode in ("LA", "RGBA", "PA"):
        image.putalpha(255)
    return image


def _by_pillow(chance, rng, height, width):
    """A format and a mode that keep every pixel."""
    kind = chance.choice(list(LOSSLESS))
    image = _random(rng, chance.choice(LOSSLESS[kind]), height, width)
    pixels, options, is_turned = _seen(image), {}, False
    if kind == "TIFF":
        options["compression"] = chance.choice((None, "tiff_deflate", "tiff_lzw", "packbits", "tiff_adobe_deflate"))
    if kind == "WEBP":
        options |= {"lossless": True, "exact": True}
    if kind == "PNG":
        options |= {"optimize": chance.random() < 0.5, "compress_level": chance.randrange(10)}
    if kind in ("PNG", "WEBP", "TIFF") and chance.random() < 0.3:
        exif, is_turned = Image.Exif(), True
        exif[0x0112] = turn = chance.choice(
            (*TURNED, 0, 9) if kind != "TIFF" else (*TURNED,)
        )  # libtiff writes no others
        options["exif"] = exif
        pixels = TURNED.get(turn, TURNED[1])(pixels)
    how = f"{kind}, mode {image.mode}{', turned' if is_turned else ''} {options.get('compression') or ''}".strip()
    return Picture(_saved(image, kind, **options), SUFFIX[kind], how, pixels, must=True)


def _of_any_kind(chance, rng, height, width):
    """Whatever Pillow writes, whether it is one of the suite's formats or not; perhaps of several frames."""
    kind, mode = chance.choice([kind for kind in sorted(Image.SAVE) if kind != "PDF"]), chance.choice(MODES)
    images = [_random(rng, mode, height, width, opaque=False) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    options = {"save_all": True, "append_images": images[1:]} if len(images) > 1 and kind in Image.SAVE_ALL else {}
    if chance.random() < 0.2:
        options["dpi"] = chance.choice(((0, 0), (300, 300)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = _saved(images[0], kind, **options)
        except Exception:  # modes that a format cannot hold
            return None
    is_deep = mode in DEEP and kind in ("TIFF", "PNG", "PPM")  # others reduce it when they are written
    frames = _frames(data) if "save_all" in options else 1
    how = f"{kind}, mode {mode}, {frames} frames"
    return Picture(
        data, SUFFIX.get(kind, chance.choice(SUFFIXES)), how, must_not=is_deep or (frames > 1 and kind != "MPO")
    )


def _frames(data):
    """How many frames were written: equal ones become one."""
    with Image.open(io.BytesIO(data)) as image:
        return getattr(image, "n_frames", 1)


def _jpeg(chance, rng, height, width):
    image = _random(rng, chance.choice(("L", "RGB", "CMYK", "YCbCr")), height, width)
    options = {"quality": chance.choice((1, 75, 100)), "progressive": chance.random() < 0.3}
    if image.mode == "RGB":
        options["subsampling"] = chance.choice((0, 1, 2))
    if chance.random() < 0.3:
        options["icc_profile"] = rng.bytes(200)
    if chance.random() < 0.3:
        options["exif"] = b"Exif\0\0" + rng.bytes(40)
    is_usual = image.mode in ("L", "RGB", "YCbCr") and "exif" not in options
    return Picture(_saved(image, "JPEG", **options), ".jpg", f"JPEG, mode {image.mode}", must=is_usual)


def _by_tifffile(chance, rng, height, width):
    """Samples, pages and layouts that Pillow does not write."""
    kind = np.dtype(chance.choice(("u1",) * 3 + ("u2",) * 3 + ("i1", "i2", "u4", "i4", "f2", "f4", "f8", "?", "c8")))
    samples, pages = chance.choice((1, 3, 3, 4)), chance.choice((1, 1, 1, 2))
    planar = chance.choice(("contig", "separate"))
    options = {
        "photometric": chance.choice(("minisblack", "miniswhite")) if samples == 1 else "rgb",
        "compression": chance.choice((None, None, "zlib")),
        "metadata": None,
        **({"planarconfig": planar} if samples > 1 else {}),
        **({"extrasamples": [chance.choice(("unspecified", "assocalpha", "unassalpha"))]} if samples == 4 else {}),
        **chance.choice(({"tile": (16, 16)}, {"rowsperstrip": chance.choice((1, 2, 7))}, {}, {})),
    }
    held = rng.integers(0, 256, (pages, height, width, samples), np.uint8)
    values = held if kind == "u1" else held.astype(kind) if kind.kind in "ui?" else rng.normal(0.5, 0.3, held.shape)
    values = values.transpose(0, 3, 1, 2) if planar == "separate" else values
    values = values.reshape(pages, height, width) if samples == 1 else values
    is_big, order = chance.random() < 0.2, chance.choice("<>")
    file = io.BytesIO()
    try:
        with tifffile.TiffWriter(file, bigtiff=is_big, byteorder=order) as writer:
            for page in values:
                writer.write(np.ascontiguousarray(page.astype(kind)), **options)
    except Exception:  # combinations that need a compressor
        return None
    how = f"TIFF by tifffile, {kind.name}, {pages} pages, {options}"
    if kind != "u1" or pages > 1 or samples == 4:
        must_not = pages > 1 or kind.itemsize > 1 or kind == "i1"
        return Picture(file.getvalue(), ".tif", how, must_not=must_not)
    seen = 255 - _three(held[0]) if options["photometric"] == "miniswhite" else _three(held[0])
    return Picture(file.getvalue(), ".tif", how, seen, must=not (is_big and order == ">"))  # which Pillow does not know


def _png(chance, rng, height, width):
    """A PNG byte by byte: every bit depth and colour type, which Pillow does not write all of."""
    depth, (colour, samples) = chance.choice((1, 2, 4, 8, 16)), chance.choice(((0, 1), (2, 3), (3, 1), (4, 2), (6, 4)))
    if (colour == 3 and depth == 16) or (colour in (2, 4, 6) and depth < 8):
        return None
    values = rng.integers(0, 2**depth, (height, width, samples))
    if colour in (4, 6):
        values[..., -1] = 2**depth - 1
    palette = rng.integers(0, 256, (2**depth, 3), np.uint8) if colour == 3 else None
    chunks = [] if palette is None else [chunk(b"PLTE", palette.tobytes())]
    chunks += [chunk(b"gAMA", struct.pack(">I", 45455))] if chance.random() < 0.2 else []
    chunks += [chunk(b"tEXt", b"Comment\0" + rng.bytes(20))] if chance.random() < 0.2 else []
    data = png(values, depth, colour, *chunks)
    how = f"PNG, colour type {colour}, {depth} bits"
    if depth == 16:
        return Picture(data, ".png", how, must_not=True)
    seen = palette[values[..., 0]] if colour == 3 else _three((values * (255 // (2**depth - 1))).astype(np.uint8))
    return Picture(data, ".png", how, seen, must=True)


def _pnm(chance, rng, height, width):
    """A PGM or PPM, as text or binary, of any greatest value."""
    most = chance.choice((1, 15, 100, 255, 255, 256, 1023, 65535))
    magic = chance.choice((b"P2", b"P3", b"P5", b"P6"))
    values = rng.integers(0, most, (height, width, 1 if magic in (b"P2", b"P5") else 3), endpoint=True)
    values[0, 0] = most
    seen = _three(np.round(values * (255 / most)).astype(np.uint8)) if most < 256 else None
    how = f"{magic.decode()}, greatest value {most}"
    return Picture(pnm(values, magic, most), ".ppm", how, seen, 1, most < 256, most > 255)


# --- what else may lie in a folder ------------------------------------------------------------------------


def _spoil(chance, top, pictures):
    """Change something about the folder or a name, whatever comes of it."""
    name = chance.choice(sorted(pictures))
    path = top / name
    names = (
        *(
            "a b",
            " x",
            "é",
            "e\u0301",
            "\u202f",
            "x\ny",
            "\x1b[31m",
            "\udcff",
            "\\",
            "'",
            '"',
            "{x}",
            "%s",
            "*",
            "a" * 250,
        ),
        *(".hidden", "\u200b", "-x", "~", "\u3042" * 80, "#"),
    )
    match chance.randrange(12):
        case 0 | 1 | 2:
            path.rename(path.with_name(f"{chance.choice(names)}{path.suffix}"))
        case 3:
            path.rename(path.with_suffix(chance.choice((".PNG", ".jfif", ".txt", "", ".png ", ".Tif"))))
        case 4:
            path.unlink()
        case 5 | 6 | 7:
            no_plain_file(chance, path)
        case 8:
            path.rename(top.parent / "outside.png")
            path.symlink_to(top.parent / "outside.png")
        case 9:
            (top / "class").symlink_to(top, target_is_directory=True)
        case 10:
            put(top / chance.choice(("notes.txt", ".DS_Store", "._0.png", "Thumbs.db", "x.png")), chance.randbytes(20))
        case 11:
            top.rename(top.with_name("elsewhere"))
            if chance.random() < 0.5:
                top.symlink_to(top.with_name("elsewhere"))
