"""What the tests of the library share: one tiny tower, its configuration, and inputs for it."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import SiglipVisionModel as ReferenceModel

from model import SiglipVisionConfig
from tests.reference import ReferenceCheckpoint, build_vision_model, tiny_vision_config


@pytest.fixture(scope="session")
def reference() -> ReferenceModel:
    """The tiny reference tower with lively weights, in inference mode; to be read only."""
    return build_vision_model(tiny_vision_config())


@pytest.fixture(scope="session")
def config(reference: ReferenceModel) -> SiglipVisionConfig:
    """Our configuration of the same tower."""
    return SiglipVisionConfig.from_dict(reference.config.to_dict())


@pytest.fixture(scope="session")
def tokens() -> torch.Tensor:
    """Random tokens as they go from part to part: (3, 16, 32)."""
    return torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def pixel_values() -> torch.Tensor:
    """Random pixel values of three images of the tiny tower's size: (3, 3, 32, 32)."""
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.fixture
def folder(tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that the test may change or break."""
    return shutil.copytree(tiny_checkpoint.folder, tmp_path / "checkpoint")
