"""The service's settings: read once from SIGLIP_* variables, checked, frozen."""

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, InstanceOf, StringConstraints, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.keys import ApiKeys

# Pillow itself refuses more.
_PILLOW_MAX_PIXELS = 178_956_970

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]
ImageFormat = Literal["jpeg", "png", "webp", "gif", "bmp", "avif", "tiff", "heic"]


# A host name, or all names below one.
HostPattern = Annotated[
    str,
    StringConstraints(to_lower=True, pattern=r"^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"),
]


# What app/api/adapters has under such names is known there only.
AdapterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]


# What a browser names as its page's origin; no path, and no slash at the end.
Origin = Annotated[str, StringConstraints(pattern=r"^(\*|https?://[a-z0-9.:\[\]_-]+)$")]


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _split_commas_or_none(value: object) -> object:
    return [] if value == "" else _split_commas(value)


def _keys_from(read: Callable[[str], ApiKeys]) -> BeforeValidator:
    def parse(value: object) -> object:
        return (read(value) if value else ApiKeys()) if isinstance(value, str) else value

    return BeforeValidator(parse)


def _empty_as_none(value: object) -> object:
    return None if value == "" else value


class Settings(BaseSettings):
    """All settings; each field is the variable SIGLIP_<FIELD>, its description the user's help."""

    model_config = SettingsConfigDict(
        env_prefix="SIGLIP_", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    model: str = Field(
        "google/siglip-base-patch16-224",
        min_length=1,
        description="hub id, local folder, or random:SHAPE (say random:base-patch16-224)",
    )
    revision: Annotated[str | None, BeforeValidator(_empty_as_none)] = Field(
        None, description="branch, tag or commit of a hub model"
    )
    sha256: Annotated[tuple[Sha256, ...], NoDecode, BeforeValidator(_split_commas_or_none)] = Field(
        (), description="SHA-256 that the weight files must have, comma-separated in name order"
    )
    model_fallback: Annotated[str | None, BeforeValidator(_empty_as_none)] = Field(
        None,
        description=(
            "model to start with when the hub cannot be reached, as SIGLIP_MODEL; "
            "random alone: random weights of the wanted shape"
        ),
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda|cuda:\d+|mps)$",
        description="auto, cpu, cuda, cuda:N, mps",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto",
        description=(
            "float32, bfloat16, float16, int8 or auto: bfloat16 where the device computes it "
            "natively, else float32 (older CUDA devices: float16 if it holds); int8: coarser, "
            "faster on CPUs with avx512_vnni and no AMX"
        ),
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description=(
            "on: torch.compile at start, which needs a C++ compiler; auto: not, but "
            "CUDA graphs; off: neither"
        ),
    )
    decode: Literal["exact", "fast"] = Field(
        "exact",
        description=(
            "exact: the reference's pixels; fast: large JPEGs in a third of the time or so, "
            "slightly other vectors"
        ),
    )
    max_batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto", description="images in one forward pass; auto: 8, on CUDA 8 to 64 as fits"
    )
    max_wait_ms: int = Field(
        0, ge=0, le=1000, description="how long an idle device waits for a fuller batch"
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    text: Literal["auto", "on", "off"] = Field(
        "auto",
        description=(
            "texts to vectors: auto: if the checkpoint has a text tower; on: without one the start "
            "fails; off: no texts"
        ),
    )
    max_texts: int = Field(256, ge=1, le=4096, description="texts in one request")
    max_text_bytes: int = Field(8 * 2**10, ge=1, le=2**20, description="UTF-8 bytes of one text")
    max_images: int = Field(64, ge=1, le=4096, description="images in one request")
    max_image_bytes: int = Field(20 * 2**20, ge=1, description="bytes of one encoded image")
    max_body_bytes: int = Field(32 * 2**20, ge=1, description="bytes of one request body")
    max_response_bytes: int = Field(
        256 * 2**20, ge=1, description="bytes of one answer (patch vectors are large)"
    )
    max_pixels: int = Field(
        64_000_000, ge=1, le=_PILLOW_MAX_PIXELS, description="width x height of one image"
    )
    max_side: int = Field(65535, ge=1, description="longer side of one image, in pixels")
    formats: Annotated[frozenset[ImageFormat], NoDecode, BeforeValidator(_split_commas)] = Field(
        frozenset({"jpeg", "png", "webp", "gif", "bmp", "avif"}),
        min_length=1,
        description="image formats to accept, comma-separated; also tiff and heic",
    )
    queue_images: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="images that may be decoding or waiting; auto: three seconds of work"
    )
    inflight_bytes: int = Field(
        256 * 2**20,
        ge=1,
        description="bytes of all request bodies held at one time, and as many of large answers",
    )
    decode_memory: int = Field(
        2**30, ge=1, description="bytes that images being decoded may take together"
    )
    request_timeout_s: float = Field(
        60, gt=0, le=600, description="longest wait for a vector; X-Request-Timeout-Ms shortens it"
    )
    url_input: bool = Field(
        False, description="on: images may be given by URL, which the service then fetches"
    )
    url_allowed_hosts: Annotated[
        frozenset[HostPattern], NoDecode, BeforeValidator(_split_commas_or_none)
    ] = Field(
        frozenset(),
        description="hosts to fetch from, comma-separated: name or *.name; empty: any public host",
    )
    api_keys: Annotated[InstanceOf[ApiKeys], NoDecode, _keys_from(ApiKeys.from_text)] = Field(
        ApiKeys(), description="keys that open the service, comma-separated; none: open to all"
    )
    api_keys_file: Annotated[InstanceOf[ApiKeys], NoDecode, _keys_from(ApiKeys.from_file)] = Field(
        ApiKeys(), description="file with more keys, one a line; # begins a comment"
    )
    docs: Literal["on", "key", "off"] = Field(
        "on",
        description="/docs and /openapi.json: on: open to all; key: asked for a key; off: absent",
    )
    playground: Literal["on", "off"] = Field(
        "on", description="/, a page to try the service in a browser: on: open to all; off: absent"
    )
    adapters: Annotated[
        frozenset[AdapterName], NoDecode, BeforeValidator(_split_commas_or_none)
    ] = Field(
        frozenset(),
        description="contracts of other programs to meet, comma-separated: weaviate",
    )
    adapters_open: bool = Field(
        False, description="on: with API keys set, adapters' routes still take requests without"
    )
    cors_origins: Annotated[frozenset[Origin], NoDecode, BeforeValidator(_split_commas_or_none)] = (
        Field(
            frozenset(),
            description="origins whose pages may call the service, comma-separated, or *",
        )
    )
    head_timeout_s: float = Field(
        10, gt=0, le=600, description="time for a client to send the head of a request"
    )
    body_timeout_s: float = Field(
        30, gt=0, le=600, description="time for it to send the body, at 16 KiB/s or more"
    )
    max_connections: int = Field(2048, ge=1, description="open connections in total")
    drain_delay_s: float = Field(
        0, ge=0, le=600, description="time after SIGTERM in which new requests are still accepted"
    )
    grace_s: int = Field(
        25, ge=0, le=600, description="time after that to finish accepted requests"
    )
    traces: Literal["on", "off"] = Field(
        "off", description="on: a trace of each request by OTLP/HTTP, as the OTEL_* variables say"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level to log: debug, info, warning, error"
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="json: a line each, for machines; console: for reading"
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.max_image_bytes > self.max_body_bytes:
            raise ValueError("SIGLIP_MAX_BODY_BYTES must be at least SIGLIP_MAX_IMAGE_BYTES")
        if self.max_body_bytes > self.inflight_bytes:
            raise ValueError("SIGLIP_INFLIGHT_BYTES must be at least SIGLIP_MAX_BODY_BYTES")
        if "*" in self.cors_origins and len(self.cors_origins) > 1:
            raise ValueError("SIGLIP_CORS_ORIGINS must be either * or a list of origins")
        if self.adapters and (self.api_keys or self.api_keys_file) and not self.adapters_open:
            raise ValueError(
                "SIGLIP_ADAPTERS opens routes to requests without a key, though keys are set; "
                "SIGLIP_ADAPTERS_OPEN=on says that this is meant"
            )
        return self
