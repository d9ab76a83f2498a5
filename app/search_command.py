"""The command `search`: the nearest vectors of a file, without HTTP."""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from app import exit_codes
from app.allocator import configure_allocators
from app.engine.protocol import NO_TEXTS, Embedder, StartError
from app.engine.service import EmbeddingService
from app.environment import (
    Model,
    exit_at_once,
    fail_to_start,
    read_settings,
    warn_of_unknown_variables,
)
from app.errors import ServiceError, WorkerDeadError
from app.main import build_service, load_model, load_texts
from app.observe.logs import configure_logs


def search(
    index: Annotated[
        Path, typer.Argument(metavar="INDEX.parquet", help="What `embed -o INDEX.parquet` wrote.")
    ],
    image: Annotated[Path | None, typer.Option(help="Find images like this one.")] = None,
    text: Annotated[str | None, typer.Option(help="Find images of what this says.")] = None,
    count: Annotated[
        int, typer.Option("-k", "--count", min=1, max=1000, help="How many to find.")
    ] = 10,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines also on a terminal.")
    ] = False,
    model: Model = None,
) -> None:
    """Find the images of a Parquet file of vectors that are nearest to an image or a text.

    Prints rank, score and path (of captions the id), the nearest first: a table on a terminal, JSON
    lines elsewhere. The score is the cosine, 1 for the same image. All vectors are looked at, and
    nothing but a part of them is in memory. Images without a vector are left out.

    The model of the SIGLIP_* variables must be the one that the file was embedded with. Logs go to
    standard error, from level warning on if SIGLIP_LOG_LEVEL does not say.
    """
    # Here, since `serve` needs none of it.
    from app.bulk.row import BulkError
    from app.search.query import pick_query
    from app.search.results import to_json_lines, to_table, write_results
    from app.search.run import search_index

    settings = read_settings(model=model)
    level = settings.log_level if "log_level" in settings.model_fields_set else "warning"
    configure_logs(level, settings.log_format, stream=sys.stderr)
    signal.signal(signal.SIGINT, lambda number, _: exit_at_once(128 + number))
    warn_of_unknown_variables()
    configure_allocators()

    def build(embedder: Embedder) -> EmbeddingService:
        texts = NO_TEXTS if text is None else load_texts(settings, embedder.info)
        return build_service(embedder, settings, texts=texts)

    try:
        query = pick_query(image, text, settings.max_image_bytes, settings.max_text_bytes)
        found = search_index(index, query, count, partial(load_model, settings), build)
        shown = to_json_lines(found) if json or not sys.stdout.isatty() else to_table(found)
        code = write_results(shown)
    except BulkError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(exit_codes.BAD_SETTINGS) from None
    except StartError as error:
        fail_to_start(error)
    except ServiceError as error:
        print(f"the query has no vector: {error.message}", file=sys.stderr)
        lost = isinstance(error, WorkerDeadError)
        code = exit_codes.ENGINE_LOST if lost else exit_codes.SOME_FAILED
    exit_at_once(code)  # see `serve`
