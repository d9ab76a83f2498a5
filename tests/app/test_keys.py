"""API keys: read from text and files, kept as digests, compared."""

import hashlib
from pathlib import Path

import pytest

from app.keys import ApiKeys


def test_each_of_the_keys_is_admitted_and_nothing_else() -> None:
    keys = ApiKeys.of(b"one", b"two", b"three")

    assert all(keys.admit(key) for key in (b"one", b"two", b"three"))
    others = (b"", b"on", b"onee", b"ONE", b"one,two", hashlib.sha256(b"one").digest())
    assert not any(keys.admit(key) for key in others)


def test_no_keys_admit_nobody() -> None:
    assert not ApiKeys()
    assert not ApiKeys().admit(b"")


def test_text_is_split_at_commas() -> None:
    assert ApiKeys.from_text(" one,two ,,") == ApiKeys.of(b"one", b"two")


def test_a_file_has_a_key_a_line_comments_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(
        b"# of the shop\n one \r\n\n  # of nobody\n"
        b"two#2\nthree  # of a caf\xc3\xa9\nfour\t#\n#five\n"
    )

    assert ApiKeys.from_file(str(file)) == ApiKeys.of(b"one", b"two#2", b"three", b"four")


@pytest.mark.parametrize("text", [",", " ", "one two", "cl\u00e9", "one,tw\to", "a\0b"])
def test_what_is_no_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"holds no key|visible ASCII") as refused:
        ApiKeys.from_text(text)
    assert text.strip(" ,") == "" or text not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# one\n", b"one two\n"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").write_bytes(content)

    with pytest.raises(ValueError, match=r"holds no key|visible ASCII"):
        ApiKeys.from_file(str(tmp_path / "keys"))


@pytest.mark.parametrize("path", ["none", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_refused_without_its_path(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="cannot be read") as refused:
        ApiKeys.from_file(str(tmp_path / path))
    assert str(tmp_path) not in str(refused.value)


def test_keys_show_their_number_only() -> None:
    keys = ApiKeys.of(b"hush-one", b"hush-two")

    assert repr(keys) == str(keys) == f"{keys}" == "(2 keys)"
    assert repr(ApiKeys()) == ""
    assert b"hush" not in b"".join(keys.digests)
