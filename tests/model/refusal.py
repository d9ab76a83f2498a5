"""How the tests of broken checkpoints ask for the error."""

from pathlib import Path

import pytest

from model import CheckpointError, SiglipVisionModel


def refusal(folder: Path) -> str:
    """Return the message that loading the folder is refused with."""
    with pytest.raises(CheckpointError) as caught:
        SiglipVisionModel.from_pretrained(folder)
    return str(caught.value)
