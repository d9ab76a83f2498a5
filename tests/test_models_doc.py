"""docs/models.md: its table against the code that computes it."""

import re
from pathlib import Path

from app.engine.catalogue import describe_models

DOCUMENT = Path(__file__).parents[1] / "docs" / "models.md"


def test_the_table_holds_what_info_prints() -> None:
    documented = {
        cells[0]: cells[1:6]
        for line in DOCUMENT.read_text().splitlines()
        if (cells := [cell.strip() for cell in line.strip("|").split("|")])[0].startswith("google/")
    }
    printed = {
        cells[0]: cells[2:7]
        for line in describe_models().splitlines()[1:]
        if (cells := re.split(r"\s{2,}", line.strip()))
    }

    assert documented == printed
