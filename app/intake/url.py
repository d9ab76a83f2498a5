"""The URLs that may be fetched: one strict grammar, and requests made of its parts alone.

Two readers of one URL may see two hosts in it. So one grammar has the last word, which takes
nothing that could be read in two ways, and no URL is handed on as text.
"""

import re
from dataclasses import dataclass
from urllib.parse import urljoin

from app.errors import UrlForbiddenError

_MAX_URL = 8192
_MAX_HOST = 253
_PORTS = {"http": 80, "https": 443}

# ASCII that is no control, space or backslash: what one program strips, another reads.
_CHARACTERS = re.compile(r"[!-\[\]-~]+")
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_LABEL = r"[a-z0-9_-]{1,63}"
_URL = re.compile(
    r"(?P<scheme>https?)://"
    rf"(?:(?P<name>{_LABEL}(?:\.{_LABEL})*)\.?|\[(?P<address>[0-9a-f:.]+)\])"
    r"(?::(?P<port>80|443))?"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?:#.*)?",
    re.IGNORECASE | re.ASCII,
)


def forbidden() -> UrlForbiddenError:
    """Make the one error for every URL that is not fetched.

    It says the same whatever the cause, or it would tell strangers which names and addresses exist
    inside.
    """
    return UrlForbiddenError("the URL does not lead to a host that may be fetched from")


@dataclass(frozen=True)
class Url:
    """The parts of a URL: `host` in lower case, without brackets; `target` is path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(text: str) -> Url:
    """Take a URL apart; raises `UrlForbiddenError` for all that is not plainly http or https.

    No user, no port but 80 and 443, no host of more than 253 characters. A fragment is dropped.
    """
    match = _URL.fullmatch(text) if len(text) <= _MAX_URL and _CHARACTERS.fullmatch(text) else None
    if match is None:
        raise forbidden()
    scheme = match["scheme"].lower()
    host = (match["name"] or match["address"]).lower()
    if len(host) > _MAX_HOST:
        raise forbidden()
    port = int(match["port"] or _PORTS[scheme])
    return Url(scheme, host, port, (match["path"] or "/") + (match["query"] or ""))


def follow(url: Url, location: str) -> Url:
    """Return where a redirect of `url` leads.

    Raises `UrlForbiddenError`, also when it leads from https to http.
    """
    if not _CHARACTERS.fullmatch(location):  # `urljoin` would strip some others
        raise forbidden()
    if not _ABSOLUTE.match(location):  # `urljoin` would mend some that are
        location = _join(url, location)
    target = parse_url(location)
    if (url.scheme, target.scheme) == ("https", "http"):
        raise forbidden()
    return target


def _join(url: Url, reference: str) -> str:
    try:
        return urljoin(f"{url.scheme}://{url.authority}{url.target}", reference)
    except ValueError:
        raise forbidden() from None


def is_host_allowed(host: str, allowed: frozenset[str]) -> bool:
    """Whether a host is among the allowed, of which `*.name` stands for all below `name`.

    Nothing allowed means that every host is.
    """
    if not allowed or host in allowed:
        return True
    return any(name.startswith("*.") and host.endswith(name[1:]) for name in allowed)
