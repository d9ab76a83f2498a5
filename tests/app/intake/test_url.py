"""The grammar of URLs: what is taken, into which parts, and what is not."""

import pytest

from app.errors import UrlForbiddenError
from app.intake.url import Url, follow, is_host_allowed, parse_url


@pytest.mark.parametrize(
    ("text", "url", "authority"),
    [
        ("http://a.example", Url("http", "a.example", 80, "/"), "a.example"),
        ("https://a.example/x/y.jpg", Url("https", "a.example", 443, "/x/y.jpg"), "a.example"),
        ("HTTPS://A.Example:443/X", Url("https", "a.example", 443, "/X"), "a.example"),
        ("http://a.example:443/", Url("http", "a.example", 443, "/"), "a.example:443"),
        ("http://a.example./", Url("http", "a.example", 80, "/"), "a.example"),
        ("http://a.example?q=1&r=%20", Url("http", "a.example", 80, "/?q=1&r=%20"), "a.example"),
        ("http://a.example/x?y#z", Url("http", "a.example", 80, "/x?y"), "a.example"),
        ("http://a.example/@b:c//d", Url("http", "a.example", 80, "/@b:c//d"), "a.example"),
        ("http://xn--bcher-kva.example/", Url("http", "xn--bcher-kva.example", 80, "/"), None),
        ("http://[2606:4700::1111]/", Url("http", "2606:4700::1111", 80, "/"), "[2606:4700::1111]"),
        ("http://2130706433/", Url("http", "2130706433", 80, "/"), "2130706433"),
    ],
)
def test_a_plain_url_is_taken_apart(text: str, url: Url, authority: str | None) -> None:
    assert parse_url(text) == url
    assert url.authority == (authority or url.host)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.example",
        "//a.example/",
        "http:a.example",
        "http:/a.example",
        "http:///a.example",
        "https://",
        "http://?q",
        "file:///etc/passwd",
        "ftp://a.example/",
        "gopher://a.example/",
        "data:image/png;base64,AAAA",
        "http://user@a.example/",
        "http://user:password@a.example/",
        "http://a.example@b.example/",
        "http://a.example:80@b.example/",
        "http://a.example:22/",
        "http://a.example:8080/",
        "http://a.example:0080/",
        "http://a.example:/",
        "http://a.example:80:80/",
        "http://a.example\\@b.example/",
        "http:\\\\a.example/",
        "http://a.example/\\x",
        " http://a.example/",
        "http://a.example/ ",
        "http://a.ex ample/",
        "http://a.example/\r\nHost: b",
        "http://a.example/\t",
        "http://a.example/\x00",
        "http://a.example/\x7f",
        "http://a.example/é",
        "http://\uff41.example/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://a%2eexample/",
        "http://%61.example/",
        "http://.a.example/",
        "http://a..example/",
        "http://a.example../",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 126 + "aa/",
        "http://a.example/" + "x" * 8192,
        "http://[::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://::1/",
        "http://a.example[::1]/",
        "http://[v1.a]/",
    ],
)
def test_anything_else_is_forbidden(text: str) -> None:
    with pytest.raises(UrlForbiddenError):
        parse_url(text)


def test_a_host_may_have_253_characters() -> None:
    assert len(parse_url("http://" + "a." * 126 + "a/").host) == 253


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("/z", "http://a.example/z"),
        ("z", "http://a.example/x/z"),
        ("../z", "http://a.example/z"),
        ("?z", "http://a.example/x/y?z"),
        ("//b.example/z", "http://b.example/z"),
        ("http://b.example/z#f", "http://b.example/z"),
        ("https://b.example/z", "https://b.example/z"),
    ],
)
def test_a_redirect_is_resolved_like_a_link(location: str, found: str) -> None:
    assert follow(parse_url("http://a.example/x/y?q"), location) == parse_url(found)


@pytest.mark.parametrize(
    "location",
    [
        "",
        "file:///etc/passwd",
        "http://user@b.example/",
        "http://b.example:22/",
        "//b.example:8080/",
        "http://[bad/",
        "http:///",
        "http:z",
        "//[bad/",
        "\thttp://b.example/",
        " /z",
        "/z\\",
        "/\xe9",
    ],
)
def test_a_redirect_obeys_the_same_grammar(location: str) -> None:
    with pytest.raises(UrlForbiddenError):
        follow(parse_url("http://a.example/x"), location)


def test_no_redirect_gives_up_encryption() -> None:
    with pytest.raises(UrlForbiddenError):
        follow(parse_url("https://a.example/"), "http://a.example/z")
    assert follow(parse_url("https://a.example/"), "/z").scheme == "https"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("a.example", True),
        ("b.a.example", False),
        ("c.example", False),
        ("x.c.example", True),
        ("y.x.c.example", True),
        ("xc.example", False),
        ("c.example.evil", False),
        ("a.example.evil", False),
    ],
)
def test_allowed_hosts_are_exact_or_below_a_suffix(host: str, allowed: bool) -> None:
    assert is_host_allowed(host, frozenset({"a.example", "*.c.example"})) is allowed


def test_without_a_list_every_host_is_allowed() -> None:
    assert is_host_allowed("a.example", frozenset())
