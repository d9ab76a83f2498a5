"""The records of the formats, and what importing them brings along."""

import subprocess
import sys
from typing import get_args

import pytest
from PIL import Image

from app.intake.formats import FORMATS, load_decoders
from app.settings import ImageFormat


def test_there_is_a_record_for_each_format_that_settings_may_name() -> None:
    assert set(FORMATS) == set(get_args(ImageFormat))
    assert all(name == record.name for name, record in FORMATS.items())


def test_no_two_formats_share_a_name_of_a_file() -> None:
    endings = [ending for record in FORMATS.values() for ending in record.extensions]
    assert len(endings) == len(set(endings))


def test_pillow_can_open_every_format() -> None:
    Image.preinit()
    load_decoders(FORMATS)
    assert {name.upper() for name in FORMATS} <= set(Image.OPEN)


def test_decoding_is_imported_without_what_is_heavy() -> None:
    """A process that only decodes imports it."""
    script = (
        "import sys, app.intake.decode as decode\n"
        "print(sorted({'torch', 'numpy', 'fastapi', 'pydantic', 'pillow_heif'}"
        " & set(sys.modules)))\n"
        "from PIL import Image; print(sorted(Image.OPEN))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert shown.stdout.split(b"\n")[:2] == [
        b"[]",
        b"['AVIF', 'BMP', 'DIB', 'GIF', 'JPEG', 'PNG', 'TIFF', 'WEBP']",
    ]


def test_a_format_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    load_decoders(["png", "tiff"])
    with pytest.raises(ImportError) as missing:
        load_decoders(["png", "heic"])
    assert missing.value.name == "heic"
