# ruff: noqa: RUF001 # texts of many scripts look alike
"""Texts that tokenizers may take differently: drawn, and chosen."""

from hypothesis import strategies as st

from tests.tokenizer_files import SENTENCES

_FRAGMENTS = (
    *(word for sentence in SENTENCES for word in sentence.split()),
    *("</s>", "<unk>", "<pad>", "<eos>", "<bos>", "<mask>", "<s>", "<0x41>", "<table>"),
    *("<start_of_turn>", "[@BOS@]", "<EOS>", "＜／ｓ＞", "＜ｕｎｋ＞", "▁", "▁▁"),
    *(" ", "  ", "   ", "\n", "\n\n", "\n\n\n\n\n", "\r\n", "\t", "\x0b", "\x1c", "\x85"),
    *("\u00a0", "\u2028", "\u3000", "\u200b", "\ufeff", "\u00ad", "\0", "\x07", "\x7f"),
    *("e\u0301", "\u0301\u0302\u0303", "\u202e", "\u2066", "\ufffd", "\uffff", "\U0010fffd"),
    *("ﬁ", "①", "Å", "K", "İ", "ẞ", "ß", "Σ", "ς", "ǅ", "ﷺ", "㌔", "ﾊﾟ", "가", "가"),
    *("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "...", "—", "“", "€", "😀", "👩‍👩‍👧", "🇫🇷"),
)

TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.lists(st.sampled_from(_FRAGMENTS), max_size=25).map("".join),
    st.lists(st.sampled_from(_FRAGMENTS), max_size=25).map(" ".join),
)

CHOSEN_TEXTS = (
    "",
    " ",
    "!?",
    *SENTENCES,
    *(sentence.upper() for sentence in SENTENCES),
    " ".join(SENTENCES) * 10,
    "".join(chr(code) for code in range(0x3000)),
    *(character * 10_000 for character in "aA 犬\u0301\n\0\U0010fffd.▁"),
    *(fragment * 1000 for fragment in _FRAGMENTS[-12:]),
)
