"""The playground at `/`: one page and its few files, read once and served from memory."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

_FOLDER = files("app") / "playground"
_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_PAGE = "index.html"
_FILES = (
    *("element.js", "heatmap.js", "matches.js", "page.js", "patches.js", "samples.js"),
    *("service.js", "similarity.js", "style.css", "vectors.js"),
)
# Whatever gets into the page, it can load nothing, send nothing and be framed by nothing but us.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)

PATHS: MappingProxyType[str, str] = MappingProxyType(
    {"/": _PAGE, **{f"/playground/{name}": name for name in _FILES}}
)
"""Each path of the playground and the file that it serves."""


@dataclass(frozen=True)
class Playground:
    """What the application serves, and the paths that need no key: the files hold no secret."""

    router: APIRouter
    paths: frozenset[str]


def make_playground(*, is_on: bool) -> Playground:
    """Read the files and make their routes, or none where the playground is off."""
    router = APIRouter(include_in_schema=False)
    files_by_path = PATHS if is_on else {}
    for path, name in files_by_path.items():
        file = _StaticFile((_FOLDER / name).read_bytes(), name.rpartition(".")[2])
        router.add_api_route(path, file.answer, methods=["GET", "HEAD"])
    return Playground(router, frozenset(files_by_path))


class _StaticFile:
    """A file of the page, with headers that have browsers ask for it anew, and take it as it is."""

    def __init__(self, content: bytes, suffix: str) -> None:
        self._content = content
        self._etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        self._media_type = _MEDIA_TYPES[suffix]

    async def answer(self, request: Request) -> Response:
        """Answer with the file, or with 304 to those who have it."""
        headers = {
            "ETag": self._etag,
            "Cache-Control": "no-cache",
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
        }
        if self._etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self._content, headers=headers, media_type=self._media_type)
