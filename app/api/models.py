"""GET /v1/models: what is served, in the shape that OpenAI's clients read."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request

from app.api.answer_schemas import error_responses
from app.api.context import ApiContext, get_context
from app.errors import ModelNotFoundError

router = APIRouter(prefix="/v1/models")

_MODEL_ID = {
    "name": "model_id",
    "in": "path",
    "required": True,
    "description": "As GET /v1/models lists it, or the last part of that.",
    "schema": {"type": "string"},
    "example": "siglip-base-patch16-224",
}


class Limits(BaseModel):
    """The largest request: images or texts, bytes of one, bytes of the body."""

    images: int = Field(examples=[64])
    image_bytes: int
    texts: int = Field(examples=[256])
    text_bytes: int
    body_bytes: int


class ModelDescription(BaseModel):
    """One model; sizes in pixels, `patches` of one image (of NaFlex models at most)."""

    id: str = Field(examples=["google/siglip-base-patch16-224"])
    object: Literal["model"] = "model"
    created: int = Field(0, description="Unknown: the checkpoint does not say.")
    owned_by: str = Field(examples=["google"])
    dim: int = Field(examples=[768])
    image_size: int = Field(examples=[224])
    patch_size: int = Field(examples=[16])
    patches: int = Field(examples=[196])
    pooled: bool = Field(
        description="False for a model without pooling head: it answers output=patches only."
    )
    revision: str | None = Field(description="The hub's commit.")
    space: str = Field(description="Vectors are comparable when this is equal.")
    text_space: str | None = Field(description="The same for texts; null for a model without.")
    text: int | None = Field(
        description="Tokens of a text that are seen, with the one that ends it; null where no "
        "texts are taken.",
        examples=[64],
    )
    logit_scale: float | None = Field(
        description="With `logit_bias`, what makes a probability of an image's cosine to a text: "
        "sigmoid(exp(logit_scale) * cosine + logit_bias). Null where the checkpoint has none.",
    )
    logit_bias: float | None
    dtype: str = Field(examples=["bfloat16"])
    device: str = Field(examples=["cuda:0"])
    pretrained: bool = Field(description="False for random weights, whose vectors mean nothing.")
    attention: Literal["together", "one_by_one"] = Field(
        description="How the images of a batch are attended to: what is fastest on this processor."
    )
    max_batch_size: int = Field(examples=[8], description="Images in one forward pass.")
    limits: Limits


class ModelList(BaseModel):
    """All models of this service: one."""

    object: Literal["list"] = "list"
    data: list[ModelDescription]


@router.get("", summary="Which models?", responses=error_responses(401))
async def list_models(request: Request) -> ModelList:
    """Describe the model that is served."""
    return ModelList(data=[_describe(get_context(request))])


# An argument would have FastAPI describe a 422 in a shape of its own, for an id that is no text.
@router.get(
    "/{model_id:path}",
    summary="Which model?",
    responses=error_responses(401, 404),
    openapi_extra={"parameters": [_MODEL_ID]},
)
async def get_model(request: Request) -> ModelDescription:
    """Describe the model of this id, or of the last part of its id."""
    model = _describe(get_context(request))
    require_model(request.path_params["model_id"], model.id)
    return model


def require_model(asked_for: str, served: str) -> None:
    """Raise `ModelNotFoundError` for all but the served model's id and the last part of that."""
    if asked_for not in (served, served.rpartition("/")[2]):
        raise ModelNotFoundError(f"the model served here is {served}", param="model")


def _describe(context: ApiContext) -> ModelDescription:
    service = context.engine.require_service()
    limits, texts = context.input_limits, context.text_limits
    info, text_info = service.info, service.texts.info if service.texts else None
    return ModelDescription.model_validate(
        {
            **vars(info),  # most names are the same
            "id": info.model,
            "owned_by": info.model.partition("/")[0] if "/" in info.model else "local",
            "patches": info.max_patches,
            "text_space": text_info.text_space if text_info else None,
            "text": text_info.max_tokens if text_info else None,
            "logit_scale": text_info.logit_scale if text_info else None,
            "logit_bias": text_info.logit_bias if text_info else None,
            "limits": Limits(
                images=limits.max_images,
                image_bytes=limits.max_image_bytes,
                texts=texts.max_texts,
                text_bytes=texts.max_text_bytes,
                body_bytes=limits.max_body_bytes,
            ),
        }
    )
