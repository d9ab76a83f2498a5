"""The commands that work on files, without HTTP: `embed` and `search`."""

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from app import exit_codes
from app.allocator import configure_allocators
from app.engine.protocol import NO_TEXTS, Embedder, NoTexts, StartError, Towers
from app.engine.service import EmbeddingService
from app.environment import (
    Model,
    exit_at_once,
    fail_to_start,
    read_settings,
    warn_of_unknown_variables,
)
from app.errors import ServiceError, WorkerDeadError
from app.main import build_service, load_model, load_texts, load_towers
from app.observe.logs import configure_logs


def embed(
    out: Annotated[Path, typer.Option("-o", "--out", help="A .parquet, .npy or .jsonl file.")],
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH...", help="Images, and folders of images.")
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Texts instead: a .txt, .csv or .jsonl file."),
    ] = None,
    output: Annotated[
        Literal["pooled", "patches", "both"], typer.Option(help="Which vectors.")
    ] = "pooled",
    normalize: Annotated[bool, typer.Option(help="L2-normalise pooled vectors.")] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Add what is missing, and try again what failed.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show no progress, only how it ended.")
    ] = False,
    model: Model = None,
) -> None:
    """Embed image files or texts, without HTTP, with the model and limits of SIGLIP_* variables.

    Rows are in the order of the arguments; of a folder, which is walked, in the order of names. In
    it those files count whose extension is of an accepted format, or that have none and begin like
    one; hidden ones do not, nor do pipes, sockets and devices; links to folders are not followed.
    The last line tells how much was left out, by extension. A path is embedded once.

    An image that fails has no vectors but an error; OUT.errors.jsonl lists them, and the exit code
    is 1. An array has no names: OUT.npy.rows.jsonl has them.

    Of --texts FILE, in UTF-8, each line is a text and its number the id (.txt), or each record with
    a text and perhaps an id (.csv: columns of these names, else the first; .jsonl: objects, or bare
    strings). Blank lines are none. Two texts with one id are refused.

    An output that exists is not touched without --resume, which goes by path: a file that has
    changed keeps its vectors (see its sha256). Of texts it goes by id, and one that has changed is
    embedded anew. After Ctrl-C, SIGTERM or SIGHUP the output holds what was computed.
    """
    # Here, since `serve` needs none of it.
    from app.bulk.pipeline import images_in_flight, texts_in_flight
    from app.bulk.row import BulkError
    from app.bulk.run import BulkRequest, embed_source
    from app.bulk.source import VectorOptions
    from app.bulk.sources import pick_source

    settings = read_settings(model=model)
    configure_logs(settings.log_level, settings.log_format)
    warn_of_unknown_variables()
    configure_allocators()
    options = VectorOptions(output, normalize)
    limits = (settings.max_image_bytes, settings.max_text_bytes)

    def load() -> Towers:
        return Towers(load_model(settings), NO_TEXTS) if texts is None else load_towers(settings)

    def build(towers: Towers) -> EmbeddingService:
        side = towers.texts
        return build_service(
            towers.images,
            settings,
            images_in_flight(towers.images.info),
            side,
            queue_texts=None if isinstance(side, NoTexts) else texts_in_flight(side.info),
        )

    try:
        source = pick_source(paths, texts, options, frozenset(settings.formats), *limits)
        code = embed_source(BulkRequest(source, out, resume, quiet), load, build)
    except BulkError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(exit_codes.BAD_SETTINGS) from None
    except StartError as error:
        fail_to_start(error)
    os._exit(code)  # see `serve`; a file's reader or decoder may hang as well


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
    exit_at_once(code)  # see `embed`
