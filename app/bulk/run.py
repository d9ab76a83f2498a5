"""The whole of one run: what there is to do, the work on it, and the output, however it ended."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from app import exit_codes
from app.bulk.journal import Journal, opened_journal, start_journal
from app.bulk.output import Output
from app.bulk.pipeline import Pipeline, VectorOptions
from app.bulk.progress import Tally, shown_progress, tell_result
from app.bulk.row import BulkError, Origin, Row
from app.bulk.walk import FoundFiles, find_files
from app.engine.lifecycle import Engine
from app.engine.protocol import Embedder, ModelInfo
from app.engine.service import EmbeddingService
from app.errors import WorkerDeadError

_log = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Embed = Callable[[Mapping[str, str], Callable[[Row], None]], Coroutine[Any, Any, int]]


@dataclass(frozen=True)
class BulkRequest:
    """Which files, where to, and what of each; `formats` are what folders are walked for.

    A `quiet` run tells how it ended, and not how far it is.
    """

    paths: list[Path]
    output: Path
    resume: bool
    options: VectorOptions
    formats: frozenset[str]
    quiet: bool = False


def embed_files(
    request: BulkRequest,
    load: Callable[[], Embedder],
    build: Callable[[Embedder], EmbeddingService],
) -> int:
    """Embed files into an output and return the exit code.

    It is 0 when every file has its vectors, 1 when some failed, 70 when the engine failed, and
    128 + n after signal n; the output holds what was computed. Raises `BulkError` when there is
    none, and what `load` raises.
    """
    options = request.options
    output = Output(request.output, options.output)
    found = find_files(request.paths, request.formats, output.own)
    _require_some(request.paths, found)
    with output.claimed(resume=request.resume):
        embedder = load()
        output.require_possible(embedder.info)
        origin = _origin(embedder.info, options)
        try:
            embed = partial(_embed, Engine(build), embedder, options)
            return _run(output, origin, found, embed, quiet=request.quiet)
        except OSError as error:
            raise output.unwritable(error) from None


def _require_some(arguments: list[Path], found: FoundFiles) -> None:
    """Tell of arguments that are not there; raise `BulkError` when there is nothing to embed."""
    missing = list(filter(None, map(_why_missing, arguments)))
    if not any(map(os.path.lexists, found.paths.values())):
        raise BulkError("\n".join(missing) or "there is no image among these files and folders")
    for reason in missing:  # each is a row that says so, but the others may take hours
        _log.warning("this cannot be embedded", reason=reason)


def _why_missing(argument: Path) -> str | None:
    try:
        os.lstat(argument)
    except OSError as error:
        shown = os.fsencode(argument).decode(errors="backslashreplace")
        return f"{shown}: {(error.strerror or 'unknown reason').lower()}"
    return None


def _run(output: Output, origin: Origin, found: FoundFiles, embed: Embed, *, quiet: bool) -> int:
    if not output.journal.exists():
        start_journal(output.journal, origin, output.read(origin))
    with opened_journal(output.journal, origin) as journal:
        left = {name: path for name, path in found.paths.items() if not journal.is_done(name)}
        tally = Tally(len(left))
        with shown_progress(tally, quiet=quiet) as show:

            def keep(row: Row) -> None:
                journal.append(row)
                tally.count(failed=row.error is not None)
                show()

            code = asyncio.run(embed(left, keep))
        if names := _in_order(found.paths, journal):
            output.publish(origin, map(journal.read, names))
        tell_result(tally, found.left_out, output.path, in_output=len(names))
        output.journal.unlink()
    return code or (exit_codes.SOME_FAILED if tally.failed else 0)


async def _embed(
    engine: Engine,
    embedder: Embedder,
    options: VectorOptions,
    files: Mapping[str, str],
    keep: Callable[[Row], None],
) -> int:
    """Embed files until done or stopped; return the exit code that says by what, or 0."""
    await engine.start(lambda: embedder)
    pipeline = Pipeline(engine.require_service(), options, keep)
    watching = asyncio.create_task(engine.watch())
    watching.add_done_callback(lambda _: pipeline.stop())
    try:
        with _stopped_by_signals(pipeline.stop) as received:
            await pipeline.run(files)
        lost = watching.done()
    except WorkerDeadError:
        lost = True
    finally:
        watching.cancel()
        await engine.close()
    if lost:
        _log.critical("the engine failed; --resume goes on from here")
        return exit_codes.ENGINE_LOST
    return 128 + received[0] if received else 0


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call `stop` at the first signal to end; a second one does what it did before.

    A SIGHUP that is ignored stays so: that is what `nohup` is for.
    """
    loop = asyncio.get_running_loop()
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def receive(number: int, _: FrameType | None) -> None:
        restore()
        received.append(number)
        loop.call_soon_threadsafe(stop)

    for number in before:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        restore()


def _in_order(files: Mapping[str, str], journal: Journal) -> list[str]:
    """Name the rows of the output: those of the files, then the vectors that were there before."""
    others = (name for name in journal if journal.is_done(name) and name not in files)
    return [*(name for name in files if name in journal), *others]


def _origin(info: ModelInfo, options: VectorOptions) -> Origin:
    return Origin(
        model=info.model,
        revision=info.revision,
        space=info.space,
        output=options.output,
        normalized=options.normalize and options.output != "patches",
        dim=info.dim,
    )
