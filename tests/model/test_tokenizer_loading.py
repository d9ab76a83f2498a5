"""Which tokenizer a folder or a repository has, how long its texts are, and what is refused."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from transformers import Siglip2Tokenizer as ReferenceSiglip2Tokenizer
from transformers import SiglipTokenizer as ReferenceSiglipTokenizer

from model import CheckpointError, load_tokenizer
from model.tokenization_siglip import SiglipTokenizer
from model.tokenization_siglip2 import Siglip2Tokenizer
from tests.hub_server import HubServer
from tests.model.hostile_texts import CHOSEN_TEXTS
from tests.tokenizer_files import train_bpe, write_siglip2_tokenizer, write_siglip_tokenizer

Kind = type[SiglipTokenizer | Siglip2Tokenizer]

WRITERS: dict[Kind, Callable[[Path], None]] = {
    SiglipTokenizer: write_siglip_tokenizer,
    Siglip2Tokenizer: write_siglip2_tokenizer,
}


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def refusal(folder: Path) -> str:
    """Return the message that loading the folder's tokenizer is refused with."""
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(folder)
    return str(caught.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_generation_is_known_by_its_file(tmp_path: Path, kind: Kind) -> None:
    """Fixed-size checkpoints of both have the same model type."""
    write_json(tmp_path / "config.json", {"model_type": "siglip"})
    WRITERS[kind](tmp_path)
    assert isinstance(load_tokenizer(tmp_path), kind)


@pytest.mark.parametrize(
    ("model_type", "tokenizer_class", "kind"),
    [
        ("siglip", "SiglipTokenizer", SiglipTokenizer),
        ("siglip", None, SiglipTokenizer),
        ("siglip", "GemmaTokenizerFast", Siglip2Tokenizer),
        ("siglip", "Siglip2Tokenizer", Siglip2Tokenizer),
        ("siglip2", "SiglipTokenizer", Siglip2Tokenizer),
        ("siglip2_text_model", None, Siglip2Tokenizer),
    ],
)
def test_of_two_files_the_checkpoints_own_is_taken(
    tmp_path: Path,
    model_type: str,
    tokenizer_class: str | None,
    kind: Kind,
) -> None:
    write_siglip_tokenizer(tmp_path)
    write_siglip2_tokenizer(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": model_type})
    options = {"tokenizer_class": tokenizer_class} if tokenizer_class else {}
    write_json(tmp_path / "tokenizer_config.json", options)
    assert isinstance(load_tokenizer(tmp_path), kind)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("config", "max_length"),
    [
        ({"text_config": {"max_position_embeddings": 16}}, 16),
        ({"text_config": {}}, 64),
        ({"text_config": None}, 64),
        ({"text_config": {"max_position_embeddings": None, "vocab_size": None}}, 64),
        ({"model_type": "siglip_text_model", "max_position_embeddings": 16}, 16),
        ({}, 64),
        (None, 64),
    ],
    ids=["told", "sparse", "null", "null inside", "text tower alone", "no texts", "no config.json"],
)
def test_the_length_is_that_of_the_position_table(
    tmp_path: Path,
    kind: Kind,
    config: dict[str, Any] | None,
    max_length: int,
) -> None:
    WRITERS[kind](tmp_path)
    if config is not None:
        write_json(tmp_path / "config.json", config)
    assert load_tokenizer(tmp_path)("a red bicycle").shape == (1, max_length)


@pytest.mark.parametrize("kind", WRITERS)
def test_threads_get_what_one_gets(tmp_path: Path, kind: Kind) -> None:
    WRITERS[kind](tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    expected = tokenizer(CHOSEN_TEXTS).tolist()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: tokenizer(CHOSEN_TEXTS).tolist(), range(8)))
    assert results == [expected] * 8


def test_what_the_reference_saved_loads(tmp_path: Path) -> None:
    pairs: tuple[tuple[Kind, Any], ...] = (
        (SiglipTokenizer, ReferenceSiglipTokenizer),
        (Siglip2Tokenizer, ReferenceSiglip2Tokenizer),
    )
    for kind, reference in pairs:
        written, saved = tmp_path / kind.__name__, tmp_path / f"saved{kind.__name__}"
        written.mkdir()
        WRITERS[kind](written)
        reference.from_pretrained(written).save_pretrained(saved)
        tokenizer = load_tokenizer(saved)
        assert isinstance(tokenizer, kind)
        text = "A red Bicycle\n\nleans."
        assert tokenizer(text).tolist() == load_tokenizer(written)(text).tolist()


def test_the_case_is_kept_where_the_checkpoint_says_so(tmp_path: Path) -> None:
    write_siglip_tokenizer(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", {"do_lower_case": False})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer("A").tolist() != tokenizer("a").tolist()


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize(
    "named",
    [
        {"cls_token": "<table>"},
        {"additional_special_tokens": ["<table>"]},
        {"extra_special_tokens": [{"content": "<table>", "lstrip": False}]},
    ],
    ids=["by its part", "in a list", "as an object"],
)
def test_tokens_that_a_checkpoint_calls_special_are_text(
    tmp_path: Path, file: str, named: dict[str, Any]
) -> None:
    write_siglip2_tokenizer(tmp_path)
    token = train_bpe()["model"]["vocab"]["<table>"]
    assert token in load_tokenizer(tmp_path)("<table>")
    write_json(tmp_path / file, named)
    assert token not in load_tokenizer(tmp_path)("<table>")


def test_a_repository_on_the_hub_has_a_tokenizer(hub: HubServer, tmp_path: Path) -> None:
    write_siglip2_tokenizer(tmp_path)
    write_json(tmp_path / "config.json", {"text_config": {"max_position_embeddings": 16}})
    first = hub.publish("owner/texts", tmp_path)
    assert load_tokenizer("owner/texts").max_length == 16
    assert load_tokenizer("owner/texts", first).max_length == 16


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "siglip"})
    assert refusal(tmp_path) == f"{tmp_path} has no tokenizer: spiece.model or tokenizer.json"
    (tmp_path / "spiece.model").mkdir()
    assert "has no tokenizer" in refusal(tmp_path)


def test_a_siglip2_model_needs_its_own_tokenizer(tmp_path: Path) -> None:
    write_siglip_tokenizer(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "siglip2"})
    assert refusal(tmp_path) == f"{tmp_path} has no tokenizer.json, which SigLIP 2 needs"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"text_config": []}, "text_config is not an object"),
        ("config.json", {"text_config": {"max_position_embeddings": 0}}, "max_position_embeddings"),
        ("config.json", {"text_config": {"max_position_embeddings": 64.0}}, "max_position_embed"),
        ("config.json", {"text_config": {"max_position_embeddings": True}}, "max_position_embed"),
        ("config.json", {"text_config": {"max_position_embeddings": 10**12}}, "max_position_embed"),
        ("config.json", {"text_config": {"vocab_size": "32000"}}, "vocab_size cannot be"),
        ("config.json", {"text_config": {"vocab_size": 2}}, "token table only 2 rows"),
        ("config.json", [], "no JSON object"),
        ("tokenizer_config.json", {"do_lower_case": "no"}, "do_lower_case is neither true nor"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    tmp_path: Path, file: str, content: object, message: str
) -> None:
    write_siglip_tokenizer(tmp_path)
    write_json(tmp_path / file, content)
    assert message in refusal(tmp_path)
