"""The bulk command on a cluster: Ray Data decodes, embeds and writes, and goes on where it was.

The output is a folder of Parquet files with the columns and the metadata of the command's own. What
is in a finished file is noted beside it, by Ray, before and after it is written: whatever ends a
run, the next one has each image exactly once.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ray
import structlog
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

from app import exit_codes
from app.bulk.parquet import schema_of, writer_options
from app.bulk.progress import Tally, shown_progress, tell_result
from app.bulk.row import BulkError, Origin
from app.bulk.source import VectorOptions
from app.cores import count_cores
from app.engine.protocol import StartError
from app.main import load_model
from app.observe.logs import configure_logs
from app.scale.cluster import Share, joined_cluster, share_of
from app.scale.manifest import list_images, read_manifest, write_manifest
from app.scale.parted_output import PartedOutput, RowCount
from app.scale.request import ScaleRequest
from app.scale.stages import Described, ImageDecoder, ImageEmbedder
from app.scale.stored_file import is_uri
from app.settings import Settings

_log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 1.0
# Fewer say nothing about a rate of errors.
_LEAST_JUDGED = 100
# For what Ray does itself, reading manifests and noting what is done.
_OWN_CPUS = 2
_LEAST_DECODERS = 1
# Pixels that wait between the stages lie in blocks of so many bytes.
_BLOCK_BYTES = 8 * 2**20
# For pixels between the stages, on one machine.
_STORE_BYTES = 500_000_000
# Images that are dealt out together, and of a process that dies done again.
_DEALT_ROWS = 256


def embed_on_ray(request: ScaleRequest, settings: Settings, folder: Path) -> int:
    """Embed all images and return the exit code: 1 when some failed, now or in an earlier run.

    Raises `BulkError` and `StartError`.
    """
    output = PartedOutput(request.output)
    # On a machine of its own those come on top: as without Ray, the model may keep all cores busy,
    # and decoders share them with it.
    own_cpus = count_cores() + _OWN_CPUS + _LEAST_DECODERS
    with (
        output.claimed(resume=request.resume),
        joined_cluster(request.address, folder, _STORE_BYTES, own_cpus),
    ):
        workers = request.workers or max(1, int(ray.cluster_resources().get("GPU", 0)))
        share = _share(request, workers, on_cpu=settings.device == "cpu")
        described = _describe_model(settings, request.options, share)
        listed = list_images(request.paths, settings.formats, _own(request.output))
        files = read_manifest(request.manifest) if request.manifest else listed.files
        total = write_manifest(files, output.manifest, output.filesystem)
        output.claim(described.origin)
        rows = RowCount(output)
        rows.count()
        before = rows.done, rows.failed
        tally = Tally(max(0, total - rows.done))
        write = partial(_write, request, settings, described, workers, share, output)
        finished = _watch(write, partial(_count, rows, tally, *before), tally, request)
        tell_result(tally, listed.left_out, Path(request.output), in_output=rows.done)
    if not finished:
        _log.critical("too many errors", failed=tally.failed, of=tally.done)
    if earlier := rows.failed - tally.failed:
        _log.warning("images that failed in earlier runs were not tried again", failed=earlier)
    return exit_codes.SOME_FAILED if rows.failed else 0


def _share(request: ScaleRequest, workers: int, *, on_cpu: bool) -> Share:
    """Return what each worker gets; beside a GPU the cores are for decoding."""
    has_gpus = not on_cpu and "GPU" in ray.cluster_resources()
    cpus = 1 if request.cpus is None and has_gpus else request.cpus
    gpus = 0 if on_cpu else request.gpus
    return share_of(workers, cpus, gpus, reserved=_OWN_CPUS + _LEAST_DECODERS)


def _describe_model(settings: Settings, options: VectorOptions, share: Share) -> Described:
    """Load the model once where the workers will have it: its device decides its vectors."""
    described = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus)(_describe)
    try:
        found: Described = ray.get(described.remote(settings, options))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, BulkError | StartError):
            raise error.cause from None
        raise
    return found


def _describe(settings: Settings, options: VectorOptions) -> Described:
    configure_logs(settings.log_level, settings.log_format)
    embedder = load_model(settings)
    info = embedder.info
    if options.output != "patches" and not info.pooled:
        raise BulkError(f"{info.model} has no pooling head; ask for --output patches")
    origin = Origin(
        model=info.model,
        revision=info.revision,
        space=info.space,
        output=options.output,
        normalized=options.normalize and options.output != "patches",
        dim=info.dim,
    )
    return Described(origin, embedder.resizer)


def _write(
    request: ScaleRequest,
    settings: Settings,
    described: Described,
    workers: int,
    share: Share,
    output: PartedOutput,
) -> None:
    """Run all of it; what is done already is left out."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.target_max_block_size = _BLOCK_BYTES
    context.enable_progress_bars = False
    context.checkpoint_config = CheckpointConfig(
        id_column="path",
        checkpoint_path=output.checkpoint,
        override_filesystem=output.filesystem,
        delete_checkpoint_on_success=False,
    )
    schema = schema_of(described.origin)
    decoders = max(
        _LEAST_DECODERS, int(ray.cluster_resources()["CPU"] - workers * share.cpus - _OWN_CPUS)
    )
    (
        ray.data.read_parquet(output.manifest, filesystem=output.filesystem)
        .repartition(target_num_rows_per_block=min(_DEALT_ROWS, request.rows_per_file))
        .map_batches(
            ImageDecoder,
            fn_constructor_args=(settings, described.resizer),
            batch_format="pyarrow",
            batch_size=32,
            num_cpus=1,
            compute=ActorPoolStrategy(min_size=1, max_size=decoders),
        )
        .map_batches(
            ImageEmbedder,
            fn_constructor_args=(settings, described, request.options),
            batch_format="pyarrow",
            batch_size=4 * described.resizer.info.max_batch_size,
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            compute=ActorPoolStrategy(size=workers),
        )
        .write_parquet(
            output.folder,
            filesystem=output.filesystem,
            min_rows_per_file=request.rows_per_file,
            schema=schema,
            **writer_options(schema),
        )
    )


def _watch(
    write: Callable[[], None], count: Callable[[], None], tally: Tally, request: ScaleRequest
) -> bool:
    """Run a write and show how far it is; return False when it is given up for its errors."""
    ended = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            write()
        except BaseException as error:  # noqa: BLE001 # raised again below
            raised.append(error)
        ended.set()

    threading.Thread(target=run, name="ray-data", daemon=True).start()
    with shown_progress(tally, quiet=request.quiet) as show:
        while not ended.wait(_LOOK_EVERY_S):
            count()
            if tally.done:
                show()
            if tally.done >= _LEAST_JUDGED and _is_too_bad(tally, request):
                return False
    if raised:
        raise raised[0]
    count()
    return not _is_too_bad(tally, request)


def _count(rows: RowCount, tally: Tally, done_before: int, failed_before: int) -> None:
    rows.count()
    tally.done = rows.done - done_before
    tally.failed = rows.failed - failed_before


def _is_too_bad(tally: Tally, request: ScaleRequest) -> bool:
    return tally.failed > request.max_error_rate * tally.done


def _own(output: str) -> Path | None:
    return None if is_uri(output) else Path(output)
