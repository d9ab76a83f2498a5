"""An image in an object store, or wherever else pyarrow can read, as a source for decoding."""

import hashlib
import re
from functools import cache
from typing import Any

from pyarrow import fs

from app.errors import FileUnreadableError

_URI = re.compile(r"[a-z][a-z0-9+.-]*://")
_PASSWORD = re.compile(_URI.pattern + "[^/@]*:[^/@]*@")


def is_uri(text: str) -> bool:
    """Tell a URI from a path."""
    return _URI.match(text) is not None


def has_password(uri: str) -> bool:
    """Tell whether a URI has what the output, which names each image, must not have."""
    return _PASSWORD.match(uri) is not None


class StoredFile:
    """Gives an object's bytes when called; `sha256` is theirs from then on.

    One of more than `max_bytes` is read no further than to tell that it is, and has no hash.
    """

    def __init__(self, uri: str, max_bytes: int) -> None:
        self._uri = uri
        self._max_bytes = max_bytes
        self.sha256: str | None = None

    def __call__(self) -> bytes:
        """Read it; raises `FileUnreadableError`."""
        try:
            filesystem, path = open_filesystem(self._uri)
            with filesystem.open_input_file(path) as file:
                data: bytes = file.read(self._max_bytes + 1)
        except (OSError, ValueError):  # whose words may hold keys of the store
            raise FileUnreadableError("the object cannot be read") from None
        if len(data) <= self._max_bytes:
            self.sha256 = hashlib.sha256(data).hexdigest()
        return data


def open_filesystem(uri: str) -> tuple[Any, str]:
    """Return what reads a URI, one for each store, and the path in it.

    All after the store's name is the path as it stands, since objects may have any name: there are
    neither escapes in it nor options. Raises `OSError` and `ValueError`.
    """
    scheme, _, rest = uri.partition("://")
    root, _, _ = rest.partition("/")
    filesystem, path_of_root = _filesystem(f"{scheme}://{root}")
    return filesystem, path_of_root + rest[len(root) :]


@cache
def _filesystem(root: str) -> tuple[Any, str]:
    filesystem, path = fs.FileSystem.from_uri(root + "/" if root.endswith("://") else root)
    return filesystem, path
