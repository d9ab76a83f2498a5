"""The command `embed`: files to vectors, without HTTP."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from app import exit_codes
from app.allocator import configure_allocators
from app.engine.protocol import NO_TEXTS, NoTexts, StartError, Towers
from app.engine.service import EmbeddingService
from app.environment import (
    Model,
    exit_at_once,
    fail_to_start,
    read_settings,
    warn_of_unknown_variables,
)
from app.main import build_service, load_model, load_towers
from app.observe.logs import configure_logs
from app.settings import Settings

if TYPE_CHECKING:
    from app.scale.request import ScaleRequest

# Of one file of Ray's output.
_ROWS_PER_FILE = 10_000


def embed(
    out: Annotated[
        str,
        typer.Option(
            "-o", "--out", help="A .parquet, .npy or .jsonl file; with Ray a folder, or its URI."
        ),
    ],
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...", help="Images, and folders of images; with Ray also URIs."
        ),
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
        bool, typer.Option("--resume", help="Add what is missing, and without Ray what failed.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show no progress, only how it ended.")
    ] = False,
    model: Model = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Several processes on this machine, by Ray Data.")
    ] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="The machines of this Ray cluster.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With Ray, images: a path or URI a line, or a .parquet with a column path.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With Ray, processes that hold the model.")
    ] = None,
    cpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="Cores of each; else an equal part.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="GPUs of each, say 0.5; else an equal part.")
    ] = None,
    rows_per_file: Annotated[
        int | None,
        typer.Option(min=1, help="With Ray, images in one file of the output; else 10,000."),
    ] = None,
    max_error_rate: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="With Ray, give up when more of the images fail; else 1."),
    ] = None,
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

    With --ray or --ray-address the output is a folder of Parquet files; whatever ends a run, with
    --resume the next has each image once. What failed stays in it, and is not tried again: the exit
    code is 1 as long as there is any.
    """
    # Here, since `serve` needs none of it.
    from app.bulk.row import BulkError
    from app.bulk.run import BulkRequest, embed_source
    from app.bulk.source import VectorOptions
    from app.bulk.sources import pick_source
    from app.scale.request import ScaleRequest

    on_ray = ray or ray_address
    of_ray = (manifest, max_error_rate, rows_per_file, workers, cpus_per_worker, gpus_per_worker)
    if not on_ray and any(option is not None for option in of_ray):
        raise typer.BadParameter("a manifest, a rate of errors, rows and workers are for --ray")
    if on_ray and (texts is not None or bool(paths) == bool(manifest)):
        raise typer.BadParameter("Ray is for images: give paths and URIs, or a --manifest")
    settings = read_settings(model=model)
    configure_logs(settings.log_level, settings.log_format)
    warn_of_unknown_variables()
    configure_allocators()
    options = VectorOptions(output, normalize)
    if on_ray:
        request = ScaleRequest(
            paths=paths or (),
            manifest=manifest,
            output=out,
            options=options,
            resume=resume,
            quiet=quiet,
            max_error_rate=1.0 if max_error_rate is None else max_error_rate,
            rows_per_file=rows_per_file or _ROWS_PER_FILE,
            workers=workers,
            cpus=cpus_per_worker,
            gpus=gpus_per_worker,
            address=ray_address,
        )
        _embed_on_ray(request, settings)
    try:
        source = pick_source(
            [Path(path) for path in paths or ()],
            texts,
            options,
            frozenset(settings.formats),
            settings.max_image_bytes,
            settings.max_text_bytes,
        )
        code = embed_source(
            BulkRequest(source, Path(out), resume, quiet), *_loaders(settings, texts)
        )
    except BulkError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(exit_codes.BAD_SETTINGS) from None
    except StartError as error:
        fail_to_start(error)
    os._exit(code)  # see `serve`; a file's reader or decoder may hang as well


def _loaders(
    settings: Settings, texts: Path | None
) -> tuple[Callable[[], Towers], Callable[[Towers], EmbeddingService]]:
    """Return what loads the towers of a run, and what puts the engine around them."""
    from app.bulk.pipeline import images_in_flight, texts_in_flight

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

    return load, build


def _embed_on_ray(request: "ScaleRequest", settings: Settings) -> NoReturn:
    from app.bulk.row import BulkError
    from app.scale.launch import launch_bulk

    try:
        code = launch_bulk(request, settings)
    except BulkError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(exit_codes.BAD_SETTINGS) from None
    except StartError as error:
        fail_to_start(error)
    exit_at_once(code)
