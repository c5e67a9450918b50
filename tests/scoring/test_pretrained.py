"""Weight files: where they are sought, what may be fetched, whose hash is right; and no file's code ever runs."""

import contextlib
import hashlib
import io
import pickle
from urllib.request import urlopen

import pytest
import torch
from checkout import Bomb
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from rae_bench.scoring import pretrained, weight_files
from rae_bench.scoring.pretrained import FeatureError

OFFICIAL = "weights-inception-2015-12-05-6726825d.pth"
REMEDIES = r"set RAE_BENCH_INCEPTION_WEIGHTS=FILE, or allow the download with RAE_BENCH_DOWNLOAD=1"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty hub cache, no variable set, and no network: only file: addresses open."""

    def open_file(request):
        assert request.full_url.startswith("file:"), f"{request.full_url}: the network was touched"
        return urlopen(request)

    monkeypatch.setattr(torch.hub, "urlopen", open_file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("INCEPTION_WEIGHTS", "DOWNLOAD", "ALLOW_UNVERIFIED_WEIGHTS"):
        monkeypatch.delenv(f"RAE_BENCH_{name}", raising=False)
    return tmp_path / "torch" / "hub"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A small file of tensors, taken for the official one."""
    path = tmp_path / "mine.pth"
    torch.save({"w": torch.arange(3.0)}, path)
    monkeypatch.setattr(pretrained, "INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    return path


def _is_ours(found, path):
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(found.tensors) == ["w"]
    return torch.equal(found.tensors["w"], torch.arange(3.0))


# --- where --------------------------------------------------------------------------------------


def test_the_address_and_the_hash_are_torch_fidelitys():
    assert pretrained.INCEPTION_URL == URL_INCEPTION_V3
    assert URL_INCEPTION_V3.endswith(f"-{pretrained.INCEPTION_SHA256}.pth")


@pytest.mark.parametrize(
    "variables", [{"TORCH_HOME": "mine"}, {"TORCH_HOME": "~/mine"}, {"XDG_CACHE_HOME": "cache"}, {}], ids=str
)
def test_the_cache_is_where_torch_has_it(variables, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TORCH_HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(weight_files.hub()) == torch.hub.get_dir()


def test_a_named_file_is_read(weights, monkeypatch):
    monkeypatch.setenv("RAE_BENCH_INCEPTION_WEIGHTS", str(weights))
    found = pretrained.inception()
    assert _is_ours(found, weights)
    assert found.is_verified


@pytest.mark.parametrize("permission", [None, "", "0", "yes"])
def test_missing_weights_are_one_line_with_both_remedies(hub, permission, monkeypatch):
    if permission is not None:
        monkeypatch.setenv("RAE_BENCH_DOWNLOAD", permission)
    with pytest.raises(FeatureError, match=f"{hub}/checkpoints/{OFFICIAL}: the weight file is missing; {REMEDIES}$"):
        pretrained.inception()
    assert not hub.exists()


def test_a_named_file_that_is_missing_is_an_error_whatever_else_there_is(weights, tmp_path, monkeypatch):
    """Another file than the one asked for would be a silent repair."""
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    monkeypatch.setattr(pretrained, "INCEPTION_URL", weights.as_uri())
    monkeypatch.setenv("RAE_BENCH_INCEPTION_WEIGHTS", str(tmp_path / "gone.pth"))
    with pytest.raises(FeatureError, match=r"gone\.pth: the weight file is missing"):
        pretrained.inception()


# --- fetching -----------------------------------------------------------------------------------


def test_with_permission_the_file_is_fetched_into_the_hubs_cache_once(weights, hub, monkeypatch):
    monkeypatch.setattr(pretrained, "INCEPTION_URL", weights.as_uri())
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    assert _is_ours(pretrained.inception(), weights)
    assert [path.name for path in (hub / "checkpoints").iterdir()] == ["mine.pth"]
    weights.unlink()
    monkeypatch.delenv("RAE_BENCH_DOWNLOAD")
    assert _is_ours(pretrained.inception(), hub / "checkpoints" / "mine.pth")


def test_a_fetched_file_of_another_hash_is_not_kept(weights, hub, monkeypatch):
    monkeypatch.setattr(pretrained, "INCEPTION_URL", weights.as_uri())
    monkeypatch.setattr(pretrained, "INCEPTION_SHA256", "6726825d")
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    monkeypatch.setenv("RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS", "1")
    with pytest.raises(FeatureError, match=r'mine\.pth: cannot be fetched: invalid hash value \(expected "6726825d"'):
        pretrained.inception()
    assert list((hub / "checkpoints").iterdir()) == []


def test_a_fetch_that_fails_names_the_other_way(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "INCEPTION_URL", (tmp_path / "gone.pth").as_uri())
    monkeypatch.setenv("RAE_BENCH_DOWNLOAD", "1")
    with pytest.raises(FeatureError, match=r"gone\.pth: cannot be fetched: .*; set RAE_BENCH_INCEPTION_WEIGHTS=FILE"):
        pretrained.inception()


# --- the hash, and what a file may hold ----------------------------------------------------------


def test_weights_of_another_hash_are_refused_unless_allowed_and_never_verified(weights, monkeypatch):
    found = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    monkeypatch.setattr(pretrained, "INCEPTION_SHA256", "6726825d")
    monkeypatch.setenv("RAE_BENCH_INCEPTION_WEIGHTS", str(weights))
    expected = rf"mine\.pth: SHA-256 is {found}\.\.\., expected 6726825d\.\.\.; .*RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS=1$"
    for permission in ("", "0", "yes"):
        monkeypatch.setenv("RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS", permission)
        with pytest.raises(FeatureError, match=expected):
            pretrained.inception()
    monkeypatch.setenv("RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS", "1")
    allowed = pretrained.inception()
    assert _is_ours(allowed, weights)
    assert not allowed.is_verified


def saved(content, **how):
    """The bytes of a file of torch's."""
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


@pytest.mark.parametrize("route", ["the right hash", "another hash, allowed"])
@pytest.mark.parametrize("form", ["a bare pickle", "among tensors"])
def test_code_in_a_weight_file_never_runs(form, route, tmp_path, monkeypatch):
    ran, path = tmp_path / "ran", tmp_path / "weights.pth"
    bare = pickle.dumps(Bomb(ran), protocol=2)
    path.write_bytes(bare if form == "a bare pickle" else saved({"w": torch.zeros(3), "x": Bomb(ran)}))
    monkeypatch.setenv("RAE_BENCH_INCEPTION_WEIGHTS", str(path))
    if route == "the right hash":
        monkeypatch.setattr(pretrained, "INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    else:
        monkeypatch.setenv("RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS", "1")
    with pytest.raises(FeatureError, match=r"weights\.pth: not a state dict of tensors alone; it is not loaded"):
        pretrained.inception()
    assert not ran.exists()
    with contextlib.suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert ran.exists()  # the file does hold what would run


NO_STATE = [
    b"",
    b"garbage",
    b"PK\x03\x04garbage",
    b"\x80\x02}q",
    b"\x80\x02.",
    b"\x80\x02K\x01q\x05h\x07.",
    *map(saved, ([1.0], {"w": [1.0]}, torch.zeros(3))),
]


def test_what_is_no_state_dict_is_refused_a_cut_one_wherever_it_is_cut(tmp_path, monkeypatch):
    """The cuts are of torch's older format, where none is seen before the pickle in it ends."""
    path = tmp_path / "weights.pth"
    monkeypatch.setenv("RAE_BENCH_INCEPTION_WEIGHTS", str(path))
    monkeypatch.setenv("RAE_BENCH_ALLOW_UNVERIFIED_WEIGHTS", "1")
    whole = saved({"w": torch.zeros(3)}, _use_new_zipfile_serialization=False)
    for content in (*NO_STATE, *(whole[:length] for length in range(1, len(whole), 7))):
        path.write_bytes(content)
        with pytest.raises(FeatureError, match="not a state dict of tensors alone"):
            pretrained.inception()


# --- DINOv2 -------------------------------------------------------------------------------------


def test_dino_without_permission_says_what_is_missing(hub):
    code, file = hub / "facebookresearch_dinov2_main", hub / "checkpoints" / "dinov2_vitl14_pretrain.pth"
    with pytest.raises(FeatureError, match=f"DINOv2: {code} and {file} missing; .*RAE_BENCH_DOWNLOAD=1$"):
        pretrained.dino_file()
    code.mkdir(parents=True)
    with pytest.raises(FeatureError, match=f"DINOv2: {file} missing; "):
        pretrained.dino_file()
