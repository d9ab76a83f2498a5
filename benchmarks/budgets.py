"""What this project promises of its speed and memory, each promise tied to a finding."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """A finding must be at least, or at most, its bar; with neither it is told, not judged."""

    what: str
    finding: str
    at_least: float | None = None
    at_most: float | None = None
    needs_bfloat16: bool = False

    @property
    def script(self) -> str:
        """Which benchmark gives the finding."""
        return self.finding.partition(".")[0]

    @property
    def bar(self) -> str:
        """The bar as text."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "told only" if self.at_most is None else f"<= {self.at_most:g}"

    def holds(self, measured: float) -> bool:
        """Tell whether a measurement is within the budget."""
        return (self.at_least is None or measured >= self.at_least) and (
            self.at_most is None or measured <= self.at_most
        )


_MODEL = "base, bfloat16, batch 8"
_TINY = "tiny model, concurrency 16"
_TEXT_BESIDE = "base, a text beside single images on 16 connections"
_BESIDE = "base, single images beside 64-image requests"
_PLAIN = "of plain FastAPI + transformers with OMP_NUM_THREADS=1"
_PLAIN_AS_IS = "of the same without OMP_NUM_THREADS=1"

BUDGETS: tuple[Budget, ...] = (
    Budget(
        f"{_MODEL}: speed of the linear layers alone",
        "model.batch8.bfloat16.of_roofline",
        at_least=0.90,
        needs_bfloat16=True,
    ),
    Budget(
        f"{_MODEL}: x transformers bfloat16",
        "model.batch8.bfloat16.over_transformers",
        at_least=1.2,
        needs_bfloat16=True,
    ),
    Budget(
        f"{_MODEL}: x transformers float32",
        "model.batch8.bfloat16.over_transformers_float32",
        at_least=2.4,
        needs_bfloat16=True,
    ),
    Budget(
        f"{_MODEL}: x OpenVINO bfloat16",
        "model.batch8.bfloat16.over_openvino",
        at_least=1.0,
        needs_bfloat16=True,
    ),
    Budget("base, int8, batch 8: x our bfloat16", "int8.over_bfloat16", at_least=1.4),
    Budget("base, int8, batch 8: least cosine to float32", "int8.least_cosine", at_least=0.99),
    Budget(
        "base, bfloat16, batch 1: x transformers bfloat16",
        "model.batch1.bfloat16.over_transformers",
        at_least=1.2,
        needs_bfloat16=True,
    ),
    Budget(
        "base, float32, batch 1: x transformers float32",
        "model.batch1.float32.over_transformers",
        at_least=1.2,
    ),
    Budget(
        "base over HTTP, concurrency 16: images/s of in-process",
        "serving.base.c16.of_in_process",
        at_least=0.95,
    ),
    Budget(
        f"{_BESIDE}: p50, batches beyond idle",
        "serving.base.beside_bulk.p50_batches",
        at_most=3,
    ),
    Budget(
        f"{_BESIDE}: p99, batches beyond idle",
        "serving.base.beside_bulk.p99_batches",
        at_most=3,
    ),
    Budget(
        f"{_BESIDE}: longest time without an answer, s",
        "serving.base.beside_bulk.longest_gap_s",
        at_most=3,
    ),
    Budget(f"{_BESIDE}: refused", "serving.base.beside_bulk.refused", at_most=0),
    Budget(f"{_BESIDE}: bulk images/s of alone", "serving.base.beside_bulk.bulk_rate"),
    Budget(f"{_TINY}: CPU {_PLAIN}", "serving.tiny.c16.cpu_of_plain_one_thread", at_most=0.50),
    Budget(f"{_TINY}: CPU {_PLAIN_AS_IS}", "serving.tiny.c16.cpu_of_plain"),
    Budget(
        f"{_TINY}: requests/s {_PLAIN}",
        "serving.tiny.c16.rate_over_plain_one_thread",
        at_least=1.6,
    ),
    Budget(f"{_TINY}: requests/s {_PLAIN_AS_IS}", "serving.tiny.c16.rate_over_plain"),
    Budget(
        f"tiny model, concurrency 1: p50 {_PLAIN}",
        "serving.tiny.c1.p50_of_plain_one_thread",
        at_most=0.60,
    ),
    Budget(f"tiny model, concurrency 1: p50 {_PLAIN_AS_IS}", "serving.tiny.c1.p50_of_plain"),
    *(
        Budget(
            f"{size}, {route}: CPU of /embed's, the image in the same form",
            f"serving.{size}.{finding}",
            at_most=1.05,
        )
        for size in ("tiny", "base")
        for route, finding in (
            ("/v1/embeddings", "embeddings_cpu_of_embed"),
            ("/classify", "classify_cpu_of_embed"),
            ("/classify, raw body", "raw_classify_cpu_of_embed"),
        )
    ),
    Budget(
        "tiny, /v1/embeddings: CPU of /embed's, the image as a raw body there",
        "serving.tiny.embeddings_cpu_of_raw_embed",
    ),
    Budget("base, idle: p50 of one text, of one image's", "texts.idle_p50_of_image", at_most=0.35),
    Budget(
        f"{_TEXT_BESIDE}: in the queue, p50, batches",
        "texts.beside_images.queue_p50_batches",
        at_most=1,
    ),
    Budget(
        f"{_TEXT_BESIDE}: in the queue, p99, batches",
        "texts.beside_images.queue_p99_batches",
        at_most=1,
    ),
    Budget(f"{_TEXT_BESIDE}: p50, batches beyond idle", "texts.beside_images.p50_batches"),
    Budget(
        "base, 16 texts/s beside images: images/s, of what 16 single texts leave",
        "texts.beside_images.of_arithmetic",
        at_least=1,
    ),
    Budget("texts of 256,000 tokens: RSS grows, of layers + 100 MB", "texts.resident", at_most=1.0),
    Budget("the same: x CPU of a start without texts", "texts.start_cpu"),
    Budget("12 Mpx JPEG: x full decode in decode=fast", "decode.fast", at_least=5.0),
    Budget("decode=exact: pixels equal the reference's (1 is yes)", "decode.exact", at_least=1),
    Budget("patches as JSON: x json.dumps(tolist())", "encode.patches.json", at_least=15),
    Budget("patches as base64: x our JSON numbers", "encode.patches.base64", at_least=20),
    Budget("peak RSS while loading: of 1.3 x weights + 400 MB", "startup.peak_rss", at_most=1.0),
    Budget("RSS once ready: of 1.3 x weights + 400 MB", "startup.resident"),
    Budget("RSS growth, MiB per 1000 requests", "soak.mib_per_1000_requests", at_most=1.0),
    Budget("ready: x importing torch and reading the weights", "startup.ready", at_most=1.5),
    Budget("a refusal for want of room: ms of the event loop", "refusals.no_room_ms"),
    Budget("the same: of a served request's, tiny model", "refusals.no_room_of_served"),
    Budget("10x overload: goodput of peak", "overload.goodput", at_least=0.9),
    Budget("10x overload: refusals 429 + Retry-After", "overload.proper_refusals", at_least=1),
    Budget("10x overload: p99 of a refusal, ms", "overload.refusal_p99_ms", at_most=50),
    Budget("10x overload: normal again after, s", "overload.recovery_s", at_most=5),
)
