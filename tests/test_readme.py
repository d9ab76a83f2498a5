"""What README.md, docs/api.md and docs/settings.md say is run and compared: commands, code, tables.

The service is the one that the pages name: the model in examples/shapes, in float32.
"""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from app import errors
from app.main import create_app
from app.settings import Settings
from examples import client
from examples.shapes.drawing import draw_image
from examples.shapes.world import Scene, Thing
from tests.app.images import encode
from tests.app.service_server import ServiceServer, run_service
from tests.reference import ReferenceCheckpoint

ROOT = Path(__file__).parents[1]
PATHS = ("README.md", "docs/api.md", "docs/settings.md", "docs/files.md")
PAGES = {path: (ROOT / path).read_text() for path in PATHS}
EXAMPLES = PAGES["README.md"] + PAGES["docs/api.md"]
API = PAGES["docs/api.md"]
DIM = 128


def code_blocks(language: str, page: str = EXAMPLES) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    lines = [line for block in code_blocks("bash") for line in block.splitlines() if line]
    return [*dict.fromkeys(lines)]


def answered_commands() -> list[tuple[str, str]]:
    """The commands that an answer is shown of: the last before it."""
    return re.findall(r"^(\S[^\n]*)\n```\n\n```json\n(.*?)^```", EXAMPLES, re.DOTALL | re.MULTILINE)


def rows_of(page: str) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceServer]:
    with run_service(Settings(model=str(ROOT / "examples" / "shapes"), dtype="float32")) as server:
        server.wait_for_status("ok")
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: list[Image.Image]) -> Path:
    """The files that the commands name."""
    folder = tmp_path_factory.mktemp("pictures")
    photographs[2].save(folder / "cat.jpg")
    photographs[1].save(folder / "dog.png")  # too large for a command's argument
    (folder / "cut.jpg").write_bytes((folder / "cat.jpg").read_bytes()[:3000])
    circle = Scene(Thing("large", "red", "circle"), ground="white")
    draw_image(circle, np.random.default_rng(0)).save(folder / "circle.png")
    return folder


def run_command(command: str, service: ServiceServer, folder: Path) -> bytes:
    command = command.replace("localhost:8000", f"127.0.0.1:{service.port}")
    run = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, check=True, timeout=60
    )
    return run.stdout


def test_there_are_commands_to_run() -> None:
    assert len(commands()) >= 12
    assert len(answered_commands()) >= 9


@pytest.mark.parametrize("command", commands())
def test_command_gets_what_it_asks_for(command: str, service: ServiceServer, folder: Path) -> None:
    (folder / "vectors.npy").unlink(missing_ok=True)
    answer = run_command(command, service, folder)
    if "vectors.npy" in command:
        assert np.load(folder / "vectors.npy").shape == (1, DIM)
    elif "/embed" in command or "/classify" in command:
        content = orjson.loads(answer)
        assert ("error" in content) == ("cut.jpg" in command and "partial" not in command)
        for item in content.get("data", []):
            if "error" not in item:
                assert len(item["labels"] if "labels" in item else item["embedding"]) in (2, DIM)


@pytest.mark.parametrize(("command", "shown"), answered_commands())
def test_answer_that_is_shown_is_the_services(
    command: str, shown: str, service: ServiceServer, folder: Path
) -> None:
    assert_shown(orjson.loads(shown), orjson.loads(run_command(command, service, folder)))


# What differs each time that it is asked, and from machine to machine.
VARYING = (
    "request_id",
    "uptime_s",
    "limit",
    "last_batch_age_s",
    "attention",
    "device",
    "oldest_ms",
)


def assert_shown(shown: Any, real: Any) -> None:
    """Assert that what is shown is what was answered, but for what is left out: "..."."""
    if isinstance(shown, dict):
        assert shown.keys() == real.keys()
        for name, value in shown.items():
            if name not in VARYING:
                assert_shown(value, real[name])
    elif isinstance(shown, list):
        is_cut = shown[-1:] == ["..."]
        told = shown[:-1] if is_cut else shown
        assert is_cut or len(told) == len(real)
        for one, other in zip(told, real, strict=False):
            assert_shown(one, other)
    elif isinstance(shown, float):
        assert real == pytest.approx(shown, rel=0.02, abs=0.005)
    else:
        assert shown == real


def test_errors_that_are_shown_are_the_services(service: ServiceServer, folder: Path) -> None:
    """Also that of the README, which stands alone."""
    shown = [orjson.loads(block) for block in code_blocks("json") if '"error": {"message"' in block]
    command = "curl localhost:8000/embed -F images=@cat.jpg -F images=@cut.jpg"
    real = orjson.loads(run_command(command, service, folder))

    assert len(shown) == 2
    for one in shown:
        assert_shown(one, real)
        assert re.fullmatch(r"[0-9a-f]{32}", one["error"]["request_id"])


def test_vectors_that_weaviate_is_shown_to_get_are_the_services(folder: Path) -> None:
    (shown,) = (block for block in code_blocks("json") if "textVectors" in block)
    image = base64.b64encode((folder / "circle.png").read_bytes()).decode()
    settings = Settings(
        model=str(ROOT / "examples" / "shapes"), dtype="float32", adapters=frozenset({"weaviate"})
    )
    with run_service(settings) as server:
        server.wait_for_status("ok")
        body = {"texts": ["a red circle"], "images": [image]}
        answer = server.client.post("/vectorize", json=body)
        error = server.client.post("/vectorize", json={"images": [encode_cut(folder)]})

    assert_shown(orjson.loads(shown), answer.json())
    assert f"`{error.text}`".replace('":"', '": "') in API


def encode_cut(folder: Path) -> str:
    return base64.b64encode((folder / "cut.jpg").read_bytes()).decode()


def test_commands_for_files_do_what_they_say(
    tiny_checkpoint: ReferenceCheckpoint, photographs: list[Image.Image], tmp_path: Path
) -> None:
    (both,) = code_blocks("sh")
    (tmp_path / "photographs").mkdir()
    photographs[0].save(tmp_path / "photographs" / "cat.jpg")
    run = subprocess.run(
        ["bash", "-ec", both.replace(".venv/bin/", "")],
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


def test_python_that_is_shown_runs(
    service: ServiceServer,
    tiny_checkpoint: ReferenceCheckpoint,
    photographs: list[Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "checkpoint").symlink_to(tiny_checkpoint.folder)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"image": photographs[0], **vars(client)}
    for block in code_blocks("python"):
        own = block.replace("localhost:8000", f"127.0.0.1:{service.port}")
        exec(compile(own, "README.md", "exec"), names)  # noqa: S102 # our own pages
    pooled = names["outputs"].pooler_output
    assert isinstance(pooled, torch.Tensor)
    assert pooled.shape == (1, 32)
    assert [len(item.embedding) for item in names["texts"].data] == [DIM, DIM]
    names["client"].close()

    files = {"images": encode(photographs[0])}
    numbers, text = (
        service.client.post("/embed", files=files, params={"encoding": encoding}).json()["data"][0]
        for encoding in ("float", "base64")
    )
    np.testing.assert_array_equal(
        names["read_vector"](text), np.array(numbers["embedding"], np.float32)
    )


def test_the_client_that_is_shown_is_the_one_that_is_tested() -> None:
    source = Path(client.__file__).read_text()

    assert [block in source for block in code_blocks("python")].count(True) == 1


def test_json_that_is_shown_is_json() -> None:
    for block in code_blocks("json"):
        orjson.loads(block)


def test_settings_table_says_what_the_settings_are() -> None:
    rows = [row for row in rows_of(PAGES["docs/settings.md"]) if row[0].startswith("`SIGLIP_")]
    expected = [
        [f"`SIGLIP_{name.upper()}`", f"`{shown}`" if shown else "", field.description]
        for name, field in Settings.model_fields.items()
        for shown in [show(field.default)]
    ]
    assert rows == expected


def show(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, frozenset | tuple):
        return ",".join(sorted(default))
    return "" if default is None else str(default)


def test_settings_that_the_pages_name_exist() -> None:
    known = {f"SIGLIP_{name.upper()}" for name in Settings.model_fields}

    for page in PAGES.values():
        assert set(re.findall(r"SIGLIP_[A-Z_0-9]+", page)) <= known


def test_error_table_lists_every_error_with_its_status() -> None:
    said: set[tuple[int, str]] = set()
    for statuses, codes in [row for row in rows_of(API) if re.match(r"\d{3}", row[0])]:
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


def test_every_route_has_its_line() -> None:
    settings = Settings(adapters=frozenset({"weaviate"}))
    paths = [path for path in create_app(settings).openapi()["paths"] if "{" not in path]

    for path in paths:
        assert f"`{path}`" in API or f" {path}" in API, path


def anchors(path: Path) -> set[str]:
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    [
        path
        for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "examples/**/*.md")
        for path in sorted(ROOT.glob(pattern))
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)\s]+))?\)", page.read_text()):
        if not target.startswith(("https://", "http://")):
            file = page.parent / target if target else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), f"{target}#{anchor}"
