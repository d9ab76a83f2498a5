"""FastAPI + transformers as everyone writes it first: decode and forward inside the endpoint.

`python -m benchmarks.peers.plain_service FOLDER PORT`
"""

import io
import sys

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from transformers import SiglipImageProcessorPil, SiglipVisionModel


def create_plain_app(folder: str) -> FastAPI:
    """Load model and processor, and serve them; float32 is what transformers loads by default."""
    model = SiglipVisionModel.from_pretrained(folder).eval()
    processor = SiglipImageProcessorPil.from_pretrained(folder)
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/embed")
    async def embed(images: UploadFile) -> dict[str, list[float]]:
        image = Image.open(io.BytesIO(await images.read())).convert("RGB")
        inputs = processor(images=image, return_tensors="pt")
        with torch.inference_mode():
            pooled = model(**inputs).pooler_output
        return {"embedding": torch.nn.functional.normalize(pooled)[0].tolist()}

    return app


if __name__ == "__main__":
    uvicorn.run(create_plain_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
