"""The labels of a zero-shot classifier as vectors, remembered by the set: most ask for few sets."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import orjson

from app.engine.texts import EmbeddedText
from app.engine.zero_shot import Float64Array, average_prompts

# Some 6 KiB each: as many as two of the largest requests have.
_REMEMBERED_LABELS = 2_048


@dataclass(frozen=True)
class LabelVectors:
    """Vectors of length 1, (labels, dim), and what was seen of the prompts they are averages of."""

    vectors: Float64Array
    tokens: int
    truncated: bool


class RecentLabels:
    """The sets of labels asked for last, by their prompts."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[bytes, LabelVectors] = OrderedDict()
        self._labels = 0

    def find(self, key: bytes) -> LabelVectors | None:
        """Return a set that is known by its `label_key`, and know it for longer."""
        labels = self._by_key.get(key)
        if labels is not None:
            self._by_key.move_to_end(key)
        return labels

    def keep(
        self, key: bytes, counts: Sequence[int], embedded: Sequence[EmbeddedText]
    ) -> LabelVectors:
        """Average the prompts of each label, of which it has `counts`; remember and return it."""
        labels = LabelVectors(
            average_prompts([prompt.vector for prompt in embedded], counts),
            tokens=sum(prompt.tokens for prompt in embedded),
            truncated=any(prompt.truncated for prompt in embedded),
        )
        self._labels += len(counts)
        if self._by_key.setdefault(key, labels) is not labels:
            self._labels -= len(counts)  # of another request, meanwhile
        while self._labels > _REMEMBERED_LABELS:
            _, oldest = self._by_key.popitem(last=False)
            self._labels -= len(oldest.vectors)
        return labels


def label_key(prompts: Sequence[str], counts: Sequence[int]) -> bytes:
    """Stand for prompts by a digest: they may have megabytes."""
    return sha256(orjson.dumps([prompts, counts])).digest()
