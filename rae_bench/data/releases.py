"""The published data sets: their names, files, checksums, addresses and pages, by the kind of their source.

Addresses and MD5s are torchvision's or the makers' own; they are written down here because torchvision takes 600 MiB to
load. A test holds them to torchvision's.
"""

from rae_bench.data.files import Download, Release

_IDX = tuple(f"{name}-{file}-ubyte" for name in ("train", "t10k") for file in ("images-idx3", "labels-idx1"))
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_SVHN = "http://ufldl.stanford.edu/housenumbers/"
_DRIVE = "https://drive.google.com/file/d/"


def _idx_downloads(mirrors: tuple[str, ...], *md5: str) -> tuple[Download, ...]:
    """The four compressed files, whose MD5s are not those of their content."""
    files = {f"{name}.gz": one for name, one in zip(_IDX, md5, strict=True)}
    return tuple(Download(name, one, tuple(f"{mirror}{name}" for mirror in mirrors)) for name, one in files.items())


MNIST = Release(
    name="MNIST",
    folders=("mnist", "mnist/MNIST/raw", "MNIST/raw"),
    forms=(tuple(f"{name}.gz" for name in _IDX), _IDX),
    md5={  # of the content, whatever it is compressed by
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    counts={
        "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    },
    downloads=_idx_downloads(
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    page="http://yann.lecun.com/exdb/mnist/",
    licence="CC BY-SA 3.0 by convention",
)

FASHION_MNIST = Release(
    name="Fashion-MNIST",
    folders=("fashion_mnist", "fashion_mnist/FashionMNIST/raw", "FashionMNIST/raw"),
    forms=MNIST.forms,
    md5={
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    counts={"train": (6000,) * 10, "test": (1000,) * 10},
    downloads=_idx_downloads(
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    page="https://github.com/zalandoresearch/fashion-mnist",
    licence="MIT",
)

CIFAR10 = Release(
    name="CIFAR-10",
    folders=("cifar10", "."),
    forms=(
        tuple(f"cifar-10-batches-bin/{name}.bin" for name in _BATCHES),
        ("cifar-10-binary.tar.gz",),
        tuple(f"cifar-10-batches-py/{name}" for name in _BATCHES),
        ("cifar-10-python.tar.gz",),
    ),
    md5={
        "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",  # its page has those of the archives
        "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",  # torchvision has those of the batches
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    counts={"train": (5000,) * 10, "test": (1000,) * 10},
    downloads=(
        Download(
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
        ),
    ),
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none stated; its page asks for a citation",
)

SVHN = Release(
    name="SVHN",  # format 2; the `extra` images are left alone
    folders=("svhn", "."),
    forms=(("train_32x32.mat", "test_32x32.mat"),),
    md5={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
    counts={
        "train": (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
        "test": (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
    },
    downloads=(
        Download("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", (f"{_SVHN}train_32x32.mat",)),
        Download("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", (f"{_SVHN}test_32x32.mat",)),
    ),
    page=_SVHN,
    licence="for non-commercial use, by its page",
)

CELEBA = Release(
    name="CelebA",  # aligned and cropped
    folders=("celeba", "celeba/celeba"),
    forms=(
        ("list_eval_partition.txt", "img_align_celeba.zip"),
        ("Eval/list_eval_partition.txt", "Img/img_align_celeba.zip"),  # as the makers arrange their files
        ("list_eval_partition.txt", "img_align_celeba"),
        ("Eval/list_eval_partition.txt", "Img/img_align_celeba"),
    ),
    md5={
        "list_eval_partition.txt": "d32c9cbf5e040fd4025c592c306e6668",
        "img_align_celeba.zip": "00d2c5bc6d35e252742224ab0c1e8fcb",
    },
    counts={"train": (162_770,), "validation": (19_867,), "test": (19_962,)},
    downloads=(
        Download(
            "img_align_celeba.zip", "00d2c5bc6d35e252742224ab0c1e8fcb", (f"{_DRIVE}0B7EVK8r0v71pZjFTYXZWM3FlRnM",)
        ),
        Download(
            "list_eval_partition.txt", "d32c9cbf5e040fd4025c592c306e6668", (f"{_DRIVE}0B7EVK8r0v71pY0NSMzRuSXJEVkk",)
        ),
    ),
    page="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    licence="for non-commercial research, by its agreement",
)

RELEASES = {"mnist": MNIST, "fashion_mnist": FASHION_MNIST, "cifar10": CIFAR10, "svhn": SVHN, "celeba": CELEBA}
