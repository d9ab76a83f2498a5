"""Checkpoints whose files cannot be had or read, and what the error tells of each."""

import hashlib
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from safetensors.torch import save_file

from model import CheckpointError, ConfigError, SiglipVisionModel
from model.checkpoint import open_checkpoint
from model.checkpoint_folder import check_digests
from tests.model.refusal import refusal
from tests.reference import edit_vision_config, write_checkpoint

# Weight files


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        b"not safetensors at all",
        b"\xff" * 64,
        b"PK\x03\x04" + bytes(100),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors is not a readable safetensors file" in refusal(folder)


@pytest.mark.parametrize("kept", [0.001, 0.1, 0.999])
def test_a_truncated_file_is_refused(folder: Path, kept: float) -> None:
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(len(content) * kept)])
    assert "model.safetensors is not a readable safetensors file" in refusal(folder)


class _WriteMarker:
    """A pickle of this creates a file when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "model.pkl"]
)
def test_a_folder_of_pickles_is_refused_without_opening_them(
    folder: Path, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    marker = tmp_path_factory.mktemp("marker") / "opened"
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(_WriteMarker(marker)))
    message = refusal(folder)
    assert name in message
    assert "can run code when opened" in message
    assert not marker.exists()
    pickle.loads((folder / name).read_bytes())  # noqa: S301 # shows that the marker works
    assert marker.exists()


@pytest.mark.parametrize("name", ["tf_model.h5", "flax_model.msgpack"])
def test_weights_of_other_frameworks_are_refused_by_name(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert name in refusal(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == f"{folder} has no model.safetensors"


# Shards


def write_index(folder: Path, weight_map: object) -> None:
    """Replace the single file by an index."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, max_shard_size="20KB")
    shard = min(tmp_path.glob("model-*-of-*.safetensors"))
    shard.unlink()
    assert refusal(tmp_path).endswith(f"names {shard.name}, which is missing")


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, max_shard_size="20KB")
    shard = min(tmp_path.glob("model-*-of-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert f"{shard.name} is not a readable safetensors file" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/model.safetensors",
        "shards/model.safetensors",
        "./model-00001-of-00001.safetensors",
        "..",
        "",
        "pytorch_model.bin",
        None,
        3,
    ],
)
def test_an_index_may_only_name_safetensors_beside_it(folder: Path, name: object) -> None:
    (folder.parent / "model.safetensors").write_bytes(b"")
    (folder / "pytorch_model.bin").write_bytes(b"")
    write_index(folder, {"vision_model.head.probe": name})
    message = refusal(folder)
    assert f"names {str(name)!r}, which is no safetensors file beside it" in message


@pytest.mark.parametrize("weight_map", [None, {}, [], "model.safetensors"])
def test_an_index_without_weight_map_is_refused(folder: Path, weight_map: object) -> None:
    write_index(folder, weight_map)
    assert "has no weight_map" in refusal(folder)


def test_a_tensor_in_two_shards_is_refused_by_name(folder: Path) -> None:
    probe = "vision_model.head.probe"
    first, second = "model-00001-of-00001.safetensors", "model-00002-of-00002.safetensors"
    write_index(folder, {probe: first, "again": second})
    save_file({probe: torch.ones(1, 1, 32)}, folder / second)
    assert refusal(folder) == f"{second} repeats the tensor {probe}"


# Configuration files


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"{'hidden_size': 768}", b"\xff\xfe{}", b"[" * 100_000],
    ids=["empty", "unclosed", "single-quotes", "not-utf8", "deep"],
)
def test_broken_json_is_refused_by_name(folder: Path, name: str, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    assert f"{name} cannot be read" in refusal(folder)


@pytest.mark.parametrize("content", [b"[]", b"null", b'"siglip"', b"768"])
def test_a_config_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    assert "config.json holds no JSON object" in refusal(folder)


def test_a_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert refusal(folder) == f"{folder} has no config.json"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "32"}, "hidden_size"),
        ({"num_attention_heads": 5}, "not divisible"),
        ({"model_type": "siglip2_vision_model"}, "NaFlex"),
        ({"hidden_act": "relu"}, "hidden_act"),
    ],
)
def test_a_config_that_cannot_be_built_is_a_config_error(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    edit_vision_config(folder, **changes)
    with pytest.raises(ConfigError, match=message):
        SiglipVisionModel.from_pretrained(folder)


# Names that lead nowhere


@pytest.mark.parametrize(
    "name",
    [
        "/no/such/folder",
        "./no-such-folder",
        "../no-such-folder",
        "~/no-such-folder",
        "no-such-folder",
        "no/such/folder",
        "http://hub/tower",
    ],
)
def test_a_folder_that_does_not_exist_is_refused_by_name(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"there is no folder {name}, and it is no hub id"):
        open_checkpoint(name)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_in_place_of_its_folder_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="is no folder"):
        open_checkpoint(folder / name)


@pytest.mark.parametrize("name", ["owner/model.pt", "/no/such/model.bin"])
def test_a_pickle_is_refused_by_its_name_alone(name: str) -> None:
    with pytest.raises(CheckpointError, match="is no folder"):
        open_checkpoint(name)


@pytest.mark.parametrize("name", ["owner/", "/tower/", "owner/a b", "owner/a--b", "-/-"])
def test_a_name_that_no_hub_repository_can_have_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="hub id of the form owner/name"):
        open_checkpoint(name)


# What the system does not let us read


@pytest.mark.parametrize("name", ["x" * 300, "./" + "x" * 300, "/" + "x" * 300])
def test_a_name_too_long_for_the_system_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"{name[2:]} cannot be read: File name too long$"):
        open_checkpoint(name)


def test_a_folder_inside_a_file_does_not_exist(folder: Path) -> None:
    inside = folder / "config.json" / "tower"
    with pytest.raises(CheckpointError, match=f"there is no folder {inside}"):
        open_checkpoint(inside)


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert refusal(folder) == f"{folder}/config.json cannot be read: Is a directory"


class Close(Protocol):
    """Takes away a file's permissions for the length of a block."""

    def __call__(self, path: Path, mode: int = 0) -> AbstractContextManager[None]: ...


@pytest.fixture
def close(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Close:
    """How to close a file or folder to this process, which gives up being root meanwhile."""
    monkeypatch.chdir(folder.parent)  # pytest lets nobody else in from above
    for path in (folder.parent, folder, *folder.iterdir()):
        path.chmod(0o755)

    @contextmanager
    def close_for_a_while(path: Path, mode: int = 0) -> Iterator[None]:
        user, before = os.geteuid(), path.stat().st_mode
        path.chmod(mode)
        if user == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(user)
            path.chmod(before)

    return close_for_a_while


@pytest.mark.parametrize(
    ("closed", "named"),
    [
        ("checkpoint", "checkpoint/config.json"),
        ("checkpoint/config.json", "checkpoint/config.json"),
        ("checkpoint/model.safetensors", "checkpoint/model.safetensors"),
    ],
)
def test_what_may_not_be_read_is_named(close: Close, closed: str, named: str) -> None:
    with close(Path(closed)):
        message = refusal(Path("checkpoint"))
    assert message == f"{named} cannot be read: Permission denied"


def test_a_folder_that_may_not_be_listed_is_named(close: Close) -> None:
    Path("checkpoint/model.safetensors").unlink()
    with close(Path("checkpoint"), 0o311):
        message = refusal(Path("checkpoint"))
    assert message == "checkpoint cannot be read: Permission denied"


def test_weights_that_may_not_be_read_have_no_digest(close: Close) -> None:
    with (
        close(Path("checkpoint/model.safetensors")),
        pytest.raises(
            CheckpointError, match=r"model\.safetensors cannot be read: Permission denied"
        ),
    ):
        check_digests(Path("checkpoint"), ["0" * 64])


# Digests


def digests_of(folder: Path) -> list[str]:
    """Return the SHA-256 of each weight file, in the order of their names."""
    files = sorted(folder.glob("*.safetensors"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


@pytest.mark.parametrize("shard_size", ["50GB", "20KB"])
def test_weights_of_the_expected_digests_are_taken(tmp_path: Path, shard_size: str) -> None:
    write_checkpoint(tmp_path, max_shard_size=shard_size)
    digests = digests_of(tmp_path)

    check_digests(tmp_path, digests)
    check_digests(tmp_path, [digest.upper() for digest in digests])


def test_weights_of_another_digest_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, max_shard_size="20KB")
    digests = digests_of(tmp_path)
    assert len(digests) > 1
    last = sorted(tmp_path.glob("*.safetensors"))[-1]
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    last.write_bytes(content)

    with pytest.raises(CheckpointError, match=f"{last.name} has the SHA-256 [0-9a-f]{{64}}, not"):
        check_digests(tmp_path, digests)


def test_a_digest_for_each_file_is_wanted(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="2 SHA-256 for 1 weight files"):
        check_digests(folder, digests_of(folder) * 2)
