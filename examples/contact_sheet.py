"""Rankings as one picture: a row for each query, its images best first with their scores."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

_SIDE, _GAP, _LINE = 180, 16, 30
_INK, _FAINT, _PAPER, _RIGHT = "#1b1b1b", "#6b6b6b", "#ffffff", "#1a7f37"


@dataclass(frozen=True)
class Hit:
    """An encoded image, how near it is to a query, and whether it answers it."""

    image: bytes
    score: float
    right: bool


def draw_contact_sheet(rankings: Mapping[str, Sequence[Hit]]) -> Image.Image:
    """Draw each query above its hits; those that answer it have a frame."""
    columns = max(len(hits) for hits in rankings.values())
    row = _LINE + _SIDE + _LINE + _GAP
    sheet = Image.new("RGB", (_GAP + columns * (_SIDE + _GAP), _GAP + len(rankings) * row), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for top, (query, hits) in zip(range(_GAP, sheet.height, row), rankings.items(), strict=False):
        draw.text((_GAP, top), query, _INK, ImageFont.load_default(18))
        for left, hit in zip(range(_GAP, sheet.width, _SIDE + _GAP), hits, strict=False):
            _draw_hit(sheet, draw, (left, top + _LINE), hit)
    return sheet


def _draw_hit(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], hit: Hit
) -> None:
    left, top = corner
    image = Image.open(io.BytesIO(hit.image)).convert("RGB")
    sheet.paste(ImageOps.fit(image, (_SIDE, _SIDE)), corner)
    if hit.right:
        frame = (left - 3, top - 3, left + _SIDE + 2, top + _SIDE + 2)
        draw.rectangle(frame, outline=_RIGHT, width=3)
    colour = _RIGHT if hit.right else _FAINT
    draw.text((left, top + _SIDE + 4), f"{hit.score:.3f}", colour, ImageFont.load_default(15))
