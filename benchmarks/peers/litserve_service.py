"""LitServe with its batching, float32 transformers inside.

Images come as base64 in JSON: an uploaded file does not survive its way to the worker process.

`python -m benchmarks.peers.litserve_service FOLDER PORT`
"""

import base64
import io
import sys

import litserve
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil, SiglipVisionModel


class SiglipApi(litserve.LitAPI):
    """What LitServe calls, in this order, in a worker process."""

    def __init__(self, folder: str) -> None:
        super().__init__(max_batch_size=8, batch_timeout=0.005, api_path="/embed")
        self.folder = folder

    def setup(self, _device: str) -> None:
        """Load model and processor."""
        self.model = SiglipVisionModel.from_pretrained(self.folder).eval()
        self.processor = SiglipImageProcessorPil.from_pretrained(self.folder)

    def decode_request(self, request: dict[str, str]) -> torch.Tensor:
        """Turn the body's base64 into pixel values."""
        image = Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB")
        pixel_values: torch.Tensor = self.processor(image, return_tensors="pt")["pixel_values"][0]
        return pixel_values

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Stack what came in together."""
        return torch.stack(inputs)

    @torch.inference_mode()
    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the vectors of a batch."""
        return torch.nn.functional.normalize(self.model(pixel_values=x).pooler_output)

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        """Take a batch apart."""
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, list[float]]:
        """Write one vector."""
        return {"embedding": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(SiglipApi(sys.argv[1]), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
