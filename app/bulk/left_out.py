"""What of folders was left out, and why: counted, and told in one line of bounded length."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

WhyLeftOut = Literal["hidden", "link_to_folder", "other_format", "special"]
"""Special are pipes, sockets and devices: reading one may wait for ever, or do something."""

_TOLD_EXTENSIONS = 5
# Of others no line should hold what they have in their names.
_EXTENSION = re.compile(r"\.[a-z0-9_+-]{1,10}")
_WORDS: Mapping[WhyLeftOut, str] = MappingProxyType(
    {
        "hidden": "hidden",
        "link_to_folder": "links to folders",
        "special": "pipes, sockets or devices",
    }
)


class LeftOut:
    """Counts of what was left out: `reasons`, and of files of other formats the `extensions`."""

    def __init__(self, found: Iterable[tuple[str, WhyLeftOut]] = ()) -> None:
        self.reasons: Counter[WhyLeftOut] = Counter()
        self.extensions: Counter[str] = Counter()
        for path, why in found:
            self.reasons[why] += 1
            if why == "other_format":
                self.extensions[_shown_extension(path)] += 1

    @property
    def commonest(self) -> dict[str, int]:
        """The commonest extensions, and as `more` how many files have another."""
        told = sorted(self.extensions.items(), key=lambda item: (-item[1], item[0]))
        more = sum(count for _, count in told[_TOLD_EXTENSIONS:])
        return dict(told[:_TOLD_EXTENSIONS]) | ({"more": more} if more else {})

    def in_words(self) -> str:
        """Say what was left out; nothing if nothing was."""
        parts = []
        if files := self.reasons["other_format"]:
            kinds = self.commonest
            more = kinds.pop("more", 0)
            told = [f"{extension} {count}" for extension, count in kinds.items()]
            told += [f"and {more} more"] if more else []
            noun = "file of another format" if files == 1 else "files of other formats"
            parts.append(f"{files} {noun} ({', '.join(told)})")
        parts += [
            f"{self.reasons[why]} {said}" for why, said in _WORDS.items() if self.reasons[why]
        ]
        return ", ".join(parts)


def extension_of(name: str) -> str:
    """Return how a name ends, in lower case: `.jpg`; nothing for a name without an extension."""
    return os.path.splitext(name)[1].lower().rstrip(".")  # noqa: PTH122 # of a name, a thousand times


def _shown_extension(path: str) -> str:
    extension = extension_of(path)
    if not extension:
        return "no extension"
    return extension if _EXTENSION.fullmatch(extension) else "odd ones"
