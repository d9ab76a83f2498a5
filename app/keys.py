"""API keys: kept only as digests, compared in constant time."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

# What a header can carry, less the blanks at which it would be cut.
_KEY = re.compile(rb"[!-~]+")
# A key may hold a #, but no blank before it.
_COMMENT = re.compile(rb"(^|\s)#.*", re.DOTALL)


@dataclass(frozen=True, repr=False)
class ApiKeys:
    """The keys that open the service. Prints as their number, never as anything secret.

    A plain SHA-256 does: keys are random, so there is no dictionary to try.
    """

    digests: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, *keys: bytes) -> Self:
        """Take keys; raise `ValueError` when there is none, or one that cannot be sent."""
        if not keys:
            raise ValueError("holds no key")
        if not all(map(_KEY.fullmatch, keys)):
            raise ValueError("a key must be of visible ASCII characters, without blanks")
        return cls(frozenset(map(_digest, keys)))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Take keys from a comma-separated list."""
        return cls.of(*filter(None, (key.strip() for key in text.encode().split(b","))))

    @classmethod
    def from_file(cls, path: str) -> Self:
        """Take keys from a file: one a line; # at its begin or behind a blank begins a comment."""
        try:
            lines = Path(path).read_bytes().splitlines()
        except (OSError, ValueError):
            raise ValueError("the file cannot be read") from None
        return cls.of(*filter(None, (_COMMENT.sub(b"", line).strip() for line in lines)))

    def admit(self, key: bytes) -> bool:
        """Tell whether this is one of the keys, in a time that does not depend on which."""
        given = _digest(key)
        return sum(hmac.compare_digest(given, digest) for digest in self.digests) > 0

    def __or__(self, other: "ApiKeys") -> "ApiKeys":
        return ApiKeys(self.digests | other.digests)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def __repr__(self) -> str:
        count = len(self.digests)
        return f"({count} key{'s' * (count > 1)})" if count else ""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
