"""Options and answers of POST /classify, as /docs shows them."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.api.answer_schemas import ImageAnswer, ItemError, Usage
from app.api.schemas import ImagesBody
from app.engine.zero_shot import Scoring

MAX_PROMPTS = 1_000
"""Prompts of all labels of one request."""
DEFAULT_TEMPLATE = "This is a photo of {}."
"""That of transformers' pipeline."""
EXAMPLE_LABELS = ("a cat", {"label": "dog", "prompts": ["a photo of a dog", "a puppy"]})
"""Labels of a JSON body."""


def _wrap_bare_label(value: object) -> object:
    return {"label": value} if isinstance(value, str) else value


def _wrap_one(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Label(BaseModel):
    """One label; without `prompts` the templates make them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    prompts: list[str] | None = Field(None, min_length=1)


class ClassifyOptions(BaseModel):
    """Options of POST /classify: query string, form field or JSON key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: list[Annotated[Label, BeforeValidator(_wrap_bare_label)]] = Field(
        [],
        description="What the images may show. In JSON also objects with label and prompts, which "
        f"take the template's place. At most {MAX_PROMPTS} prompts in all.",
    )
    template: Annotated[list[str], BeforeValidator(_wrap_one)] = Field(
        [DEFAULT_TEMPLATE],
        min_length=1,
        description="Makes a prompt of a label, which takes the place of {}. Of several, the "
        "vectors are averaged.",
    )
    scoring: Scoring = Field(
        "sigmoid",
        description="sigmoid: each label by itself, so that none or many may be likely; softmax: "
        "shares of 1 among the labels; cosine: neither, for checkpoints without logit_scale and "
        "logit_bias.",
    )
    top_k: int | None = Field(None, ge=1, description="Only so many labels of each image.")
    threshold: float | None = Field(
        None, ge=-1, le=1, description="Only labels with this score or more."
    )
    on_error: Literal["fail", "partial"] = Field(
        "fail",
        description="fail: the first bad image fails the request; partial: bad images carry an "
        "error, good ones their labels, and it is 200 also when all are bad.",
    )


class ClassifyBody(ImagesBody, ClassifyOptions):
    """JSON body of POST /classify."""


class LabelScore(BaseModel):
    """How well one label fits an image."""

    label: str = Field(examples=["a cat"])
    score: float = Field(description="By the scoring asked for.", examples=[0.27])
    cosine: float = Field(description="Of the two vectors.", examples=[0.11])


class ClassifyItem(BaseModel):
    """One image's answer: its labels, best first, or an error when on_error=partial."""

    index: int
    id: str | None = None
    image: ImageAnswer | None = None
    labels: list[LabelScore] | None = None
    warnings: list[str] | None = Field(
        None, description="text_truncated: of a prompt the end was not seen.", examples=[[]]
    )
    error: ItemError | None = None


class ClassifyUsage(Usage):
    """What the request cost."""

    texts: int = Field(description="Prompts.")
    tokens: int


class ClassifyAnswer(BaseModel):
    """Answer of POST /classify; the same shape for one and for many images, in request order."""

    model: str = Field(examples=["google/siglip-base-patch16-224"])
    revision: str | None
    space: str = Field(examples=["siglip-base-patch16-224:9f3c1a7be2d0"])
    text_space: str = Field(examples=["siglip-base-patch16-224:text:51c09ab2f1de"])
    scoring: Scoring
    data: list[ClassifyItem]
    usage: ClassifyUsage
