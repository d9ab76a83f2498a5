"""What the routes need, as plain values, and how they reach it."""

from dataclasses import dataclass

from fastapi import FastAPI
from starlette.requests import Request

from app.api.inflight import InflightBytes
from app.api.inputs import InputLimits
from app.api.text_inputs import TextLimits
from app.engine.lifecycle import Engine
from app.intake.fetch import Fetcher


@dataclass(frozen=True)
class ApiContext:
    """The engine and the limits of the HTTP side: seconds and bytes. No `fetcher`, no URLs.

    `answers` counts the bytes of large answers.
    """

    engine: Engine
    input_limits: InputLimits
    text_limits: TextLimits
    request_timeout_s: float
    max_response_bytes: int
    answers: InflightBytes
    fetcher: Fetcher | None = None


def set_context(app: FastAPI, context: ApiContext) -> None:
    """Attach the context to its application."""
    app.state.context = context


def context_of(app: FastAPI) -> ApiContext:
    """Return the context of an application."""
    context: ApiContext = app.state.context
    return context


def get_context(request: Request) -> ApiContext:
    """Return the context of the application that got this request."""
    return context_of(request.app)
