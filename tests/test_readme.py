"""What the README says is run and compared: its commands, its Python, its tables."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from app import errors
from app.settings import Settings
from examples import client
from tests.app.service_server import ServiceServer, run_service
from tests.reference import ReferenceCheckpoint
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer

README = (Path(__file__).parents[1] / "README.md").read_text()


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    return [line for block in code_blocks("bash") for line in block.splitlines() if line]


def table_under(heading: str) -> list[list[str]]:
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceServer]:
    folder = tmp_path_factory.mktemp("both-towers")
    write_siglip_tokenizer(folder)
    write_full_checkpoint(folder, vocab_size=400)
    with run_service(Settings(model=str(folder))) as server:
        server.wait_for_status("ok")
        yield server


def test_readme_has_commands_to_run() -> None:
    assert len(commands()) >= 4


@pytest.mark.parametrize("command", commands())
def test_command_of_the_readme_gets_vectors(
    command: str, service: ServiceServer, photographs: list[Image.Image], tmp_path: Path
) -> None:
    photographs[0].save(tmp_path / "cat.jpg")
    photographs[1].save(tmp_path / "dog.png")  # too large for a command's argument
    command = command.replace("localhost:8000", f"127.0.0.1:{service.port}")
    run = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, check=True, timeout=60
    )
    if (tmp_path / "vectors.npy").exists():
        assert np.load(tmp_path / "vectors.npy").shape == (1, 32)
    else:
        answer = orjson.loads(run.stdout)
        for item in answer["data"]:
            assert len(item["labels"] if "labels" in item else item["embedding"]) in (2, 32)


def test_commands_for_files_of_the_readme_do_what_they_say(
    tiny_checkpoint: ReferenceCheckpoint, photographs: list[Image.Image], tmp_path: Path
) -> None:
    embed, search = (block.replace(".venv/bin/", "") for block in code_blocks("sh"))
    (tmp_path / "photographs").mkdir()
    photographs[0].save(tmp_path / "photographs" / "cat.jpg")
    run = subprocess.run(
        ["bash", "-ec", embed + search],
        cwd=tmp_path,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SIGLIP_MODEL": str(tiny_checkpoint.folder),
        },
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert len(pq.read_table(tmp_path / "vectors.parquet")["embedding"][0]) == 32
    *_, found = run.stdout.splitlines()
    assert orjson.loads(found)["path"] == "photographs/cat.jpg"


def test_python_of_the_readme_runs(
    tiny_checkpoint: ReferenceCheckpoint,
    photographs: list[Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "checkpoint").symlink_to(tiny_checkpoint.folder)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"image": photographs[0], **vars(client)}
    for block in code_blocks("python"):
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102 # our own README
    pooled = names["outputs"].pooler_output  # type: ignore[attr-defined]
    assert isinstance(pooled, torch.Tensor)
    assert pooled.shape == (1, 32)


def test_the_readme_shows_the_client_that_is_tested() -> None:
    source = Path(client.__file__).read_text()

    assert [block in source for block in code_blocks("python")].count(True) == 1


def test_json_of_the_readme_is_json() -> None:
    for block in code_blocks("json"):
        orjson.loads(block)


def test_settings_table_says_what_the_settings_are() -> None:
    said = {row[0].strip("`"): (row[1].strip("`"), row[2]) for row in table_under("Settings")[2:]}
    expected = {}
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, frozenset | tuple):
            default = ",".join(sorted(default))
        shown = "" if default is None else str(default)
        expected[f"SIGLIP_{name.upper()}"] = (shown, field.description)
    assert said == expected


def test_error_table_lists_every_error_with_its_status() -> None:
    said: set[tuple[int, str]] = set()
    rows = [row for row in table_under("API") if re.match(r"\d{3}", row[0])]
    for statuses, codes in rows:
        found = re.findall(r"`(\w+)`", codes)
        numbers = [int(status) for status in statuses.split(", ")]
        said |= set(zip(numbers, found, strict=True) if len(numbers) > 1 else [])
        said |= {(numbers[0], code) for code in found if len(numbers) == 1}
    assert said == set(all_errors(errors.ServiceError))


def all_errors(kind: type[errors.ServiceError]) -> Iterator[tuple[int, str]]:
    own_code = "code" in vars(kind)
    if own_code and kind is not errors.ServiceError:
        yield kind.status, kind.code
    for child in kind.__subclasses__():
        yield from all_errors(child)
