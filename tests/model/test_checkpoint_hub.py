"""Checkpoints by hub id: the real huggingface_hub client against a hub on loopback."""

import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
import torch
from huggingface_hub import close_session, constants

from model import CheckpointError, HubUnreachableError, SiglipImageProcessor, SiglipVisionModel
from model import hub as hub_module
from model.checkpoint import open_checkpoint
from tests.hub_server import HubServer, client_environment, point_client_at
from tests.reference import ReferenceCheckpoint, write_checkpoint

REPOSITORY = "owner/tower"


@pytest.fixture(scope="module")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ReferenceCheckpoint:
    """A checkpoint with other weights than `tiny_checkpoint`."""
    return write_checkpoint(tmp_path_factory.mktemp("other-checkpoint"), seed=1)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A loopback port that refuses connections."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound but not listening
        yield reserved.getsockname()[1]


def assert_has_weights(model: SiglipVisionModel, reference: ReferenceCheckpoint) -> None:
    """The model holds the reference's weights, told by the two ends of the tower."""
    ours, expected = model.vision_model.state_dict(), reference.model.state_dict()
    for name in ("embeddings.patch_embedding.weight", "head.mlp.fc2.weight"):
        assert torch.equal(ours[name], expected[name])


def test_a_checkpoint_loads_by_its_hub_id(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    assert_has_weights(SiglipVisionModel.from_pretrained(REPOSITORY), tiny_checkpoint)


def test_the_image_processor_loads_by_its_hub_id(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    processor = SiglipImageProcessor.from_pretrained(REPOSITORY)
    assert (processor.height, processor.width) == (32, 32)


def test_a_sharded_checkpoint_is_fetched_whole(hub: HubServer, tmp_path: Path) -> None:
    reference = write_checkpoint(tmp_path, max_shard_size="20KB")
    hub.publish(REPOSITORY, tmp_path)
    assert_has_weights(SiglipVisionModel.from_pretrained(REPOSITORY), reference)


def test_a_pinned_commit_gives_the_weights_of_that_commit(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint, other_checkpoint: ReferenceCheckpoint
) -> None:
    pinned = hub.publish(REPOSITORY, tiny_checkpoint.folder)
    hub.publish(REPOSITORY, other_checkpoint.folder)
    assert_has_weights(SiglipVisionModel.from_pretrained(REPOSITORY, pinned), tiny_checkpoint)
    assert_has_weights(SiglipVisionModel.from_pretrained(REPOSITORY), other_checkpoint)


@pytest.mark.parametrize("name", ["tuned", "v1.0", "refs/pr/3"])
def test_a_branch_or_tag_gives_the_weights_of_its_commit(
    hub: HubServer,
    tiny_checkpoint: ReferenceCheckpoint,
    other_checkpoint: ReferenceCheckpoint,
    name: str,
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    commit = hub.publish(REPOSITORY, other_checkpoint.folder, branch=name)
    model = SiglipVisionModel.from_pretrained(REPOSITORY, revision=name)
    assert_has_weights(model, other_checkpoint)
    assert open_checkpoint(REPOSITORY, name).revision == commit


@pytest.mark.parametrize("revision", [None, "main", "commit"])
def test_the_commit_is_reported_however_it_was_named(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint, revision: str | None
) -> None:
    commit = hub.publish(REPOSITORY, tiny_checkpoint.folder)
    opened = open_checkpoint(REPOSITORY, commit if revision == "commit" else revision)
    assert opened.revision == commit


def test_only_safetensors_configuration_and_tokenizer_are_fetched(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint.folder, tmp_path, dirs_exist_ok=True)
    models = ("spiece.model", "tokenizer.json")
    tokenizer = ["special_tokens_map.json", *models, "tokenizer_config.json"]
    for name in ("pytorch_model.bin", "tf_model.h5", "README.md", "vocab.txt", *tokenizer):
        (tmp_path / name).write_bytes(b"of any content")
    hub.publish(REPOSITORY, tmp_path)
    fetched = sorted(path.name for path in open_checkpoint(REPOSITORY).folder.iterdir())
    weights = ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert fetched == [*weights, *tokenizer]


def test_a_folder_of_the_same_name_is_preferred(
    hub: HubServer,
    tiny_checkpoint: ReferenceCheckpoint,
    other_checkpoint: ReferenceCheckpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    shutil.copytree(other_checkpoint.folder, tmp_path / REPOSITORY)
    monkeypatch.chdir(tmp_path)
    assert_has_weights(SiglipVisionModel.from_pretrained(REPOSITORY), other_checkpoint)


@pytest.mark.parametrize("named_by", ["branch", "commit"])
def test_a_cached_checkpoint_loads_while_the_hub_is_down(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint, named_by: str
) -> None:
    commit = hub.publish(REPOSITORY, tiny_checkpoint.folder)
    open_checkpoint(REPOSITORY)
    hub.outage = HTTPStatus.SERVICE_UNAVAILABLE
    revision = commit if named_by == "commit" else None
    assert open_checkpoint(REPOSITORY, revision).revision == commit


def test_offline_mode_takes_what_is_in_the_cache_and_asks_nobody(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.publish(REPOSITORY, tiny_checkpoint.folder)
    open_checkpoint(REPOSITORY)
    hub.publish(REPOSITORY, tiny_checkpoint.folder, branch="later")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()  # the client chooses its transport once
    assert open_checkpoint(REPOSITORY).revision == commit
    message = f"HF_HUB_OFFLINE is set and the cache holds no copy of {REPOSITORY} at later"
    with pytest.raises(HubUnreachableError, match=message):
        open_checkpoint(REPOSITORY, "later")


@pytest.mark.usefixtures("hub")
def test_an_unknown_repository_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=f"the hub has no {REPOSITORY}") as caught:
        open_checkpoint(REPOSITORY)
    assert not isinstance(caught.value, HubUnreachableError)


@pytest.mark.parametrize("revision", ["no-such-branch", "0" * 40])
def test_an_unknown_revision_is_refused_by_name(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint, revision: str
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    with pytest.raises(CheckpointError, match=f"no revision {revision} of {REPOSITORY}") as caught:
        open_checkpoint(REPOSITORY, revision)
    assert not isinstance(caught.value, HubUnreachableError)


def test_a_gated_repository_is_refused_with_what_to_do(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    hub.gated[REPOSITORY] = "Bearer hf_open"
    with pytest.raises(CheckpointError, match=f"{REPOSITORY} is gated: .*HF_TOKEN") as caught:
        open_checkpoint(REPOSITORY)
    assert not isinstance(caught.value, HubUnreachableError)


def test_a_token_opens_a_gated_repository(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.publish(REPOSITORY, tiny_checkpoint.folder)
    hub.gated[REPOSITORY] = "Bearer hf_open"
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", "hf_open")
    assert open_checkpoint(REPOSITORY).revision == commit


def test_a_refused_token_is_no_outage(hub: HubServer) -> None:
    hub.outage = HTTPStatus.UNAUTHORIZED
    message = f"the hub refuses {REPOSITORY}: HTTP 401; check HF_TOKEN"
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(REPOSITORY)
    assert not isinstance(caught.value, HubUnreachableError)


@pytest.mark.parametrize(
    "status", [HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE]
)
def test_a_failing_hub_counts_as_unreachable(hub: HubServer, status: HTTPStatus) -> None:
    hub.outage = status
    with pytest.raises(HubUnreachableError, match=f"no copy of {REPOSITORY}"):
        open_checkpoint(REPOSITORY)


def test_a_repository_without_safetensors_is_refused(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path
) -> None:
    shutil.copytree(tiny_checkpoint.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    hub.publish(REPOSITORY, tmp_path)
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        open_checkpoint(REPOSITORY)


def test_an_unreachable_hub_is_refused_with_the_ways_out(closed_port: int, tmp_path: Path) -> None:
    """In a process of its own, so that it is the environment that names the hub."""
    script = (
        "from model import HubUnreachableError, SiglipVisionModel\n"
        "try:\n"
        f"    SiglipVisionModel.from_pretrained({REPOSITORY!r})\n"
        "except HubUnreachableError as error:\n"
        "    print(error)\n"
    )
    environment = client_environment(f"http://127.0.0.1:{closed_port}", tmp_path)
    finished = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        f"the hub cannot be reached and the cache holds no copy of {REPOSITORY}; give a local "
        in (finished.stdout)
    )
    assert "random:base-patch16-224" in finished.stdout


def test_an_answer_that_is_no_json_counts_as_unreachable(hub: HubServer) -> None:
    hub.outage = HTTPStatus.OK

    with pytest.raises(HubUnreachableError):
        open_checkpoint(REPOSITORY)


@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError])
def test_a_break_in_the_clients_other_transport_says_so(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(hub_module, "snapshot_download", break_off)
    with pytest.raises(HubUnreachableError, match=rf"broke off \({error.__name__}\)"):
        open_checkpoint(REPOSITORY)


def test_a_hub_that_hangs_up_without_an_answer_cannot_be_reached(hub: HubServer) -> None:
    hub.hangs_up = True
    with pytest.raises(HubUnreachableError, match="the hub cannot be reached"):
        open_checkpoint(REPOSITORY)


@pytest.mark.parametrize("revision", [None, "0" * 40])
def test_a_hub_that_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # connects, and nobody is there
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with (
            point_client_at(url, tmp_path, monkeypatch),
            pytest.raises(HubUnreachableError, match="the hub cannot be reached"),
        ):
            open_checkpoint(REPOSITORY, revision)


@pytest.fixture
def impatient_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client writes what it has every thousand bytes, and tries again without a pause."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)


@pytest.mark.usefixtures("impatient_client")
def test_a_download_that_is_cut_off_goes_on_where_it_ended(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    hub.cuts = [10_000]

    model = SiglipVisionModel.from_pretrained(REPOSITORY)

    assert_has_weights(model, tiny_checkpoint)
    assert hub.resumed_at == [10_000]


@pytest.mark.usefixtures("impatient_client")
def test_a_download_that_breaks_off_says_so_counts_as_unreachable_and_may_recover(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    hub.cuts = [10_000, *[1] * 10]
    with pytest.raises(HubUnreachableError, match=f"download of {REPOSITORY} broke off .*again"):
        SiglipVisionModel.from_pretrained(REPOSITORY)

    hub.cuts = []

    assert_has_weights(SiglipVisionModel.from_pretrained(REPOSITORY), tiny_checkpoint)


def test_a_file_of_another_size_than_announced_is_refused(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    hub.announced_bytes = 123

    with pytest.raises(CheckpointError, match="another size than announced"):
        open_checkpoint(REPOSITORY)


def test_a_cache_that_takes_nothing_is_told_with_the_systems_reason(
    hub: HubServer,
    tiny_checkpoint: ReferenceCheckpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=r"\(HF_HOME\): Not a directory") as caught:
        open_checkpoint(REPOSITORY)
    assert not isinstance(caught.value, HubUnreachableError)


def test_a_download_on_a_terminal_shows_a_progress_bar(
    hub: HubServer, tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path
) -> None:
    hub.publish(REPOSITORY, tiny_checkpoint.folder)
    script = f"from model.checkpoint import open_checkpoint; open_checkpoint({REPOSITORY!r})"
    environment = client_environment(hub.url, tmp_path) | {"HF_HUB_DISABLE_PROGRESS_BARS": "0"}
    terminal, stderr = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        stderr=stderr,
        check=True,
    )
    os.close(stderr)
    shown = os.read(terminal, 65536)
    os.close(terminal)
    assert b"100%" in shown


def test_a_download_without_a_terminal_is_logged(
    hub: HubServer,
    tiny_checkpoint: ReferenceCheckpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(hub_module, "_LOG_EVERY_S", 0.0)
    hub.publish(REPOSITORY, tiny_checkpoint.folder)

    with caplog.at_level("INFO", logger="model.hub"):
        open_checkpoint(REPOSITORY)

    assert any(re.fullmatch(r"downloading: \d+ of \d+ MB", line) for line in caplog.messages)
    assert capfd.readouterr().err == ""
