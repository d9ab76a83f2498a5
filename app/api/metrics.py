"""GET /metrics: what the process has counted, and how its engine is right now, for Prometheus."""

from collections.abc import Iterator

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from app.api.answer_schemas import error_responses
from app.api.context import get_context
from app.engine.admission import Admission
from app.engine.lifecycle import Engine
from app.engine.protocol import Modality, ModelInfo
from app.engine.service import EmbeddingService

router = APIRouter()


@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **error_responses(401),
    },
)
async def metrics(request: Request) -> Response:
    """Answer with all metrics, in Prometheus' text format."""
    now = CollectorRegistry()
    now.register(_EngineCollector(get_context(request).engine))
    content = generate_latest(REGISTRY) + generate_latest(now)
    return Response(content, media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _EngineCollector(Collector):
    """Asks an engine how it is, when it is asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges of the engine; those of the model once it is loaded."""
        yield _gauge("siglip_ready", "1 while vectors can be had.", self._engine.status == "ok")
        service = self._engine.service
        if service is not None:
            yield from _queue_gauges(service)
            yield from _model_gauges(service.info)


def _queue_gauges(service: EmbeddingService) -> Iterator[Metric]:
    lines: dict[Modality, Admission] = {"image": service.admission}
    if service.texts is not None:
        lines["text"] = service.texts.admission
    for kind, line in lines.items():
        named = kind.title()
        yield _gauge(f"siglip_queue_{kind}s", f"{named}s admitted, not answered.", line.admitted)
        yield _gauge(f"siglip_queue_limit_{kind}s", f"{named}s admitted at most.", line.limit)
    oldest = GaugeMetricFamily(
        "siglip_queue_oldest_seconds", "Wait of the oldest for the device.", labels=["kind"]
    )
    for kind in lines:
        oldest.add_metric([kind], service.batcher.oldest_age_s(kind))
    yield oldest


def _model_gauges(info: ModelInfo) -> Iterator[Metric]:
    labels = {
        "model": info.model,
        "revision": info.revision or "",
        "space": info.space,
        "device": info.device,
        "dtype": info.dtype,
    }
    model = GaugeMetricFamily("siglip_model_info", "The model served; always 1.", labels=[*labels])
    model.add_metric([*labels.values()], 1)
    yield model
    if info.selftest_cosine is not None:
        yield _gauge(
            "siglip_selftest_cosine",
            "Least cosine of the start's self-test to the float32 reference.",
            info.selftest_cosine,
        )


def _gauge(name: str, description: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, description, value)
