"""Example: one random image through a SigLIP vision tower with random weights.

Run as `.venv/bin/python model/run_siglip_vision.py`, or with `-m model.run_siglip_vision`.
"""

import sys
from pathlib import Path

import torch

if __package__ in (None, ""):  # run by path: Python then looks for modules beside this file only
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from model import SiglipVisionConfig, SiglipVisionModel


def main() -> None:
    """Print the shape of the patch vectors of one image."""
    config = SiglipVisionConfig()
    model = SiglipVisionModel(config).eval()
    pixel_values = torch.rand(1, config.num_channels, config.image_size, config.image_size) * 2 - 1
    with torch.inference_mode():
        outputs = model(pixel_values)
    print(f"Output shape: {outputs.last_hidden_state.shape}")


if __name__ == "__main__":
    main()
