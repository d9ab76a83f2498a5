"""Vectors of an image as transformers computes them: its processor, then its model, in float32."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil

from tests.reference import ReferenceCheckpoint


@dataclass(frozen=True)
class ReferencePipeline:
    """The reference for one checkpoint."""

    checkpoint: ReferenceCheckpoint

    @cached_property
    def _processor(self) -> SiglipImageProcessorPil:
        return SiglipImageProcessorPil.from_pretrained(self.checkpoint.folder)

    def vectors(
        self, image: Image.Image
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the pooled vector (dim,) and the patch vectors (patches, dim) of one image."""
        outputs = self._outputs(image)
        return outputs.pooler_output[0].numpy(), outputs.last_hidden_state[0].numpy()

    def pooled(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Return the pooled vector of one image: (dim,)."""
        return self.vectors(image)[0]

    def patches(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Return the patch vectors of one image, (patches, dim); needs no pooling head."""
        patches: npt.NDArray[np.float32] = self._outputs(image).last_hidden_state[0].numpy()
        return patches

    def _outputs(self, image: Image.Image) -> Any:
        inputs = self._processor(images=image, return_tensors="pt")
        with torch.inference_mode():
            return self.checkpoint.model(**inputs)
