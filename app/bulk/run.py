"""The whole of one run: what there is to do, the work on it, and the output, however it ended."""

import asyncio
import signal
from collections.abc import Callable, Collection, Coroutine, Iterator
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
from app.bulk.pipeline import Piece, Pipeline
from app.bulk.progress import Tally, shown_progress, tell_result
from app.bulk.row import Origin, Row
from app.bulk.source import Found, Source
from app.engine.lifecycle import Engine
from app.engine.protocol import NoTexts, Towers
from app.engine.service import EmbeddingService
from app.errors import WorkerDeadError

_log = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Embed = Callable[[Iterator[Piece], Callable[[Row], None]], Coroutine[Any, Any, int]]


@dataclass(frozen=True)
class BulkRequest:
    """What to embed and where to; a `quiet` run tells how it ended, and not how far it is."""

    source: Source
    output: Path
    resume: bool
    quiet: bool = False


def embed_source(
    request: BulkRequest,
    load: Callable[[], Towers],
    build: Callable[[Towers], EmbeddingService],
) -> int:
    """Embed images or texts into an output and return the exit code.

    It is 0 when each has its vectors, 1 when some failed, 70 when the engine failed, and
    128 + n after signal n; the output holds what was computed. Raises `BulkError` when there is
    none, and what `load` raises.
    """
    source = request.source
    output = Output(request.output, source.options.output)
    with source.opened(output.own) as found, output.claimed(resume=request.resume):
        towers = load()
        in_flight = source.pieces_in_flight(towers)
        output.require_possible(towers.images.info)
        try:
            embed = partial(_embed, Engine(build), towers, in_flight)
            return _run(output, source, found, towers, embed, quiet=request.quiet)
        except OSError as error:
            raise output.unwritable(error) from None


def _run(
    output: Output, source: Source, found: Found, towers: Towers, embed: Embed, *, quiet: bool
) -> int:
    origin = _origin(towers, source)
    if not output.journal.exists():
        start_journal(output.journal, origin, output.read(origin))
    with opened_journal(output.journal, origin) as journal:
        left = found.left(journal, towers)
        tally = Tally(left.total, source.modality)
        with shown_progress(tally, quiet=quiet) as show:

            def keep(row: Row) -> None:
                journal.append(row)
                tally.count(failed=row.error is not None)
                show()

            code = asyncio.run(embed(left.pieces, keep))
        if names := _in_order(found.names, journal):
            output.publish(origin, map(journal.read, names))
        tell_result(tally, found.left_out, output.path, in_output=len(names))
        output.journal.unlink()
    return code or (exit_codes.SOME_FAILED if tally.failed else 0)


async def _embed(
    engine: Engine,
    towers: Towers,
    in_flight: int,
    pieces: Iterator[Piece],
    keep: Callable[[Row], None],
) -> int:
    """Embed pieces until done or stopped; return the exit code that says by what, or 0."""
    await engine.start(lambda: towers)
    pipeline = Pipeline(engine.require_service(), in_flight, keep)
    watching = asyncio.create_task(engine.watch())
    watching.add_done_callback(lambda _: pipeline.stop())
    try:
        with _stopped_by_signals(pipeline.stop) as received:
            await pipeline.run(pieces)
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


def _in_order(names: Collection[str], journal: Journal) -> list[str]:
    """Name the rows of the output: those of the source, then the vectors that were there before."""
    others = (name for name in journal if journal.is_done(name) and name not in names)
    return [*(name for name in names if name in journal), *others]


def _origin(towers: Towers, source: Source) -> Origin:
    info = towers.images.info
    texts = None if isinstance(towers.texts, NoTexts) else towers.texts.info
    return Origin(
        model=info.model,
        revision=info.revision,
        space=info.space,
        output=source.options.output,
        normalized=source.options.normalize and source.options.output != "patches",
        dim=info.dim,
        kind=source.modality,
        text_space=texts.text_space if texts and source.modality == "text" else None,
    )
