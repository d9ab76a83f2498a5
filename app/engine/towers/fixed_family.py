"""Models of fixed resolution: images are squashed to the square input, all have as many patches."""

from functools import partial

from app.engine.protocol import Pixels, UInt8Array
from app.engine.towers.batch import Batch, write_rows
from app.engine.towers.family import Family
from app.engine.towers.selftest import draw_test_image
from model import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel
from model.modeling_siglip_vision_fused import FusedVisionTransformer


def collate_images(pixels: Pixels) -> Batch:
    """Make one array of images of one size: uint8 (batch, height, width, 3)."""
    shape = (len(pixels), *pixels[0].shape)
    return Batch(shape, partial(write_rows, pixels))


def _draw_test_images(image_size: int, _: int) -> list[UInt8Array]:
    """Draw an image and its negative."""
    image = draw_test_image(image_size)
    return [image, 255 - image]


FIXED = Family(
    name="fixed-resolution",
    config=SiglipVisionConfig,
    model=SiglipVisionModel,
    processor=SiglipImageProcessor,
    fused_tower=FusedVisionTransformer,
    uneven=False,
    usual_processor=lambda config: SiglipImageProcessor(
        height=config.image_size, width=config.image_size
    ),
    usual_processor_warning="assuming SigLIP's bicubic resize; SigLIP 2 needs bilinear",
    input_size=lambda processor: f"{processor.height}x{processor.width} pixels",
    config_identity=("image_size",),
    processor_identity=("height", "width"),
    image_size=lambda config, _: config.image_size,
    max_patches=lambda config, _: config.num_patches,
    collate=lambda _, pixels: collate_images(pixels),
    draw_test_images=_draw_test_images,
)
