"""Texts made to be dear: tokenising takes time in proportion to their length, not its square."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from model import load_tokenizer
from tests.tokenizer_files import write_siglip2_tokenizer, write_siglip_tokenizer

TEXT_BYTES = 2**20
# Takes half a second. One that compares every two characters takes an hour.
MAX_CPU_S = 20.0


@pytest.mark.parametrize("write", [write_siglip_tokenizer, write_siglip2_tokenizer])
@pytest.mark.parametrize(
    "fragment", ["a", "\u0301", "\U0001f600", "\ufdfa", "<eos>", "\n", ".", "a "]
)
def test_a_long_text_costs_in_proportion(
    tmp_path: Path, write: Callable[[Path], None], fragment: str
) -> None:
    write(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    text = fragment * (TEXT_BYTES // len(fragment.encode()))
    started = time.process_time()
    tokenizer.encode(text)
    assert time.process_time() - started < MAX_CPU_S
