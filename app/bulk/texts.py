"""Texts of a file as what a run embeds: read once for their ids, and once more as they are done."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from app.bulk.journal import Journal
from app.bulk.pipeline import PATIENCE_S, texts_in_flight, texts_per_piece
from app.bulk.row import BulkError, Row
from app.bulk.source import Left, VectorOptions, pooled_vector
from app.bulk.text_file import FileText, TextFile, opened_text_file
from app.engine.protocol import Modality, NoTexts, TextInfo, Towers
from app.engine.service import EmbeddingService
from app.engine.texts import EmbeddedText, TextService
from app.errors import ItemsFailedError, ServiceError


@dataclass(frozen=True)
class Texts:
    """A file of texts, of which none may have more than `max_text_bytes` in UTF-8."""

    path: Path
    max_text_bytes: int
    options: VectorOptions
    modality: Modality = "text"

    @contextmanager
    def opened(self, own: Iterable[Path]) -> Iterator["FoundTexts"]:
        """Open the file and read its ids; raises `BulkError`."""
        if self.path.absolute() in {path.absolute() for path in own}:
            raise BulkError(f"{self.path} is of the output itself")
        with opened_text_file(self.path, self.max_text_bytes) as file:
            yield FoundTexts(self, file)

    def pieces_in_flight(self, towers: Towers) -> int:
        """Return how many pieces are to be worked on at one time."""
        info = _require_info(towers)
        return texts_in_flight(info) // texts_per_piece(info)


class FoundTexts:
    """The texts of a file. In memory are their ids, and of the texts those in flight."""

    left_out = None

    def __init__(self, source: Texts, file: TextFile) -> None:
        self._source = source
        self._file = file
        self.names = _lines_by_id(source.path, file)
        if not self.names:
            raise BulkError(f"there is no text in {source.path}")

    def left(self, journal: Journal, towers: Towers) -> Left:
        """Return the texts that have no vectors, or had another text when they got them."""
        done = {name for name in self.names if journal.is_done(name)}
        if done:
            done = {
                text.id for text in self._texts(done) if journal.read(text.id).text == text.text
            }
        left = self.names.keys() - done
        texts, count = self._texts(left), texts_per_piece(_require_info(towers))
        pieces = iter(lambda: list(islice(texts, count)), [])
        return Left(len(left), (_TextPiece(some, self._source.options) for some in pieces))

    def _texts(self, wanted: Iterable[str]) -> Iterator[FileText]:
        """Go through some texts; a file that grows meanwhile has no more than it had."""
        return (text for text in self._file.read() if text.id in wanted)


class _TextPiece:
    """Some texts, embedded together."""

    def __init__(self, texts: Sequence[FileText], options: VectorOptions) -> None:
        self._texts = texts
        self._options = options

    async def embed(self, service: EmbeddingService) -> list[Row]:
        """Embed them; a bad one fails alone."""
        rows: dict[str, Row] = {}
        for text in self._texts:
            if isinstance(text.text, ServiceError):
                rows[text.id] = _failed_row(text, text.text)
        while left := [text for text in self._texts if text.id not in rows]:
            rows |= await self._embed_some(left, service.require_texts())
        return [rows[text.id] for text in self._texts]

    async def _embed_some(self, texts: list[FileText], service: TextService) -> dict[str, Row]:
        """Return all rows, or those of the texts for which the others got none."""
        try:
            embedded = await service.embed([str(text.text) for text in texts], timeout_s=PATIENCE_S)
        except ItemsFailedError as failed:
            return {texts[i].id: _failed_row(texts[i], error) for i, error in failed.details}
        pairs = zip(texts, embedded, strict=True)
        return {text.id: self._row(text, vector) for text, vector in pairs}

    def fail(self, error: ServiceError) -> list[Row]:
        """Return rows that say why."""
        return [_failed_row(text, error) for text in self._texts]

    def _row(self, text: FileText, embedded: EmbeddedText) -> Row:
        return Row(
            text.id,
            text=str(text.text),
            tokens=embedded.tokens,
            truncated=embedded.truncated,
            embedding=pooled_vector(embedded.vector, self._options),
        )


def _failed_row(text: FileText, error: ServiceError) -> Row:
    known = None if isinstance(text.text, ServiceError) else text.text
    return Row(text.id, text=known, error=error.code, message=error.message)


def _lines_by_id(path: Path, file: TextFile) -> dict[str, int]:
    """Return the line of each text; raises `BulkError` where two have one id."""
    lines: dict[str, int] = {}
    for text in file.read():
        if (first := lines.setdefault(text.id, text.line)) != text.line:
            raise BulkError(f"{path}: lines {first} and {text.line} have the same id, {text.id!r}")
    return lines


def _require_info(towers: Towers) -> TextInfo:
    if isinstance(towers.texts, NoTexts):
        raise BulkError(f"no texts here: {towers.texts.reason}")
    return towers.texts.info
