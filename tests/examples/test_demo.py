"""`make demo`, with a hub and without."""

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.hub_server import HubServer
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer

ROOT = Path(__file__).parents[2]


def run_demo(folder: Path, **variables: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | variables
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_a_hub_the_bundled_model_answers_right(tmp_path: Path) -> None:
    said = run_demo(
        tmp_path,
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path / "cache"),
        SIGLIP_MODEL_FALLBACK=str(ROOT / "examples" / "shapes"),
    )

    assert "The hub could not be reached" in said
    assert len(re.findall(r"\bright *$", said, re.MULTILINE)) == 4
    assert "wrong" not in said
    assert "curl localhost:8000/embed/text" in said
    with Image.open(tmp_path / "demo" / "ranking.png") as sheet:
        assert sheet.width > 900
        assert len(sheet.getcolors(2**24) or ()) > 1000  # there is something on it
    assert (tmp_path / "demo" / "picture.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_with_a_hub_photographs_are_asked_for_in_words(hub: HubServer, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    write_full_checkpoint(checkpoint, vocab_size=400)
    write_siglip_tokenizer(checkpoint)
    hub.publish("google/siglip-base-patch16-224", checkpoint)

    said = run_demo(tmp_path, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "cache"))

    assert "Published weights" in said
    for query in ("an astronaut in an orange suit", "a cat", "a cup of coffee"):
        assert query in said
    assert (tmp_path / "demo" / "ranking.png").is_file()


def test_random_weights_are_told(tmp_path: Path) -> None:
    said = run_demo(tmp_path, SIGLIP_MODEL="random:tiny-patch8-32")

    assert "random weights" in said
    assert "/embed/text" not in said
