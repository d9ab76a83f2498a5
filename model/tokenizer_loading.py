"""Which tokenizer a checkpoint has, and how long its texts are."""

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from model.checkpoint_folder import find_checkpoint_folder, read_json_if_any
from model.config_siglip_text import SiglipTextConfig
from model.errors import CheckpointError, ConfigError
from model.tokenization_base import BaseTokenizer

_SIGLIP_FILE = "spiece.model"
_SIGLIP2_FILE = "tokenizer.json"
_SIGLIP2_CLASSES = ("Gemma", "Siglip2")


def load_tokenizer(name_or_path: str | PathLike[str], revision: str | None = None) -> BaseTokenizer:
    """Load the tokenizer of a checkpoint in a local folder or on the hub.

    Its length and the size of the token table are read from config.json. A folder without one, as
    the reference writes of a tokenizer alone, has 64 tokens, and no table to compare with.

    Raises `CheckpointError` when there is no tokenizer, or one that is broken or does not fit, and
    `HubUnreachableError` when only the network is at fault.
    """
    folder, _ = find_checkpoint_folder(name_or_path, revision)
    config = read_json_if_any(folder / "config.json")
    max_length, vocab_size = _read_sizes(config, folder)
    options = read_json_if_any(folder / "tokenizer_config.json") or {}
    if _choose_file(folder, config or {}, options) == _SIGLIP_FILE:
        # Each needs a library of its own, which who serves no texts can do without.
        from model.tokenization_siglip import SiglipTokenizer

        lower = _read_flag(options, "do_lower_case", folder)
        return SiglipTokenizer(
            folder / _SIGLIP_FILE,
            max_length=max_length,
            vocab_size=vocab_size,
            do_lower_case=lower,
        )
    from model.tokenization_siglip2 import Siglip2Tokenizer

    special_tokens_map = read_json_if_any(folder / "special_tokens_map.json") or {}
    special = {*_special_tokens(options), *_special_tokens(special_tokens_map)}
    return Siglip2Tokenizer(
        folder / _SIGLIP2_FILE,
        max_length=max_length,
        vocab_size=vocab_size,
        special_tokens=special,
    )


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder has a tokenizer's file."""
    return any((folder / name).is_file() for name in (_SIGLIP_FILE, _SIGLIP2_FILE))


def _choose_file(folder: Path, config: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Return the one tokenizer file of a folder, or of two the one that its texts are made for.

    First-generation checkpoints that were converted have both, and only spiece.model gives the
    reference's ids; one of SigLIP 2 says so by its model type or its tokenizer's class.
    """
    try:
        present = {path.name for path in folder.iterdir() if path.is_file()}
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror or error}") from error
    if not present & {_SIGLIP_FILE, _SIGLIP2_FILE}:
        raise CheckpointError(f"{folder} has no tokenizer: {_SIGLIP_FILE} or {_SIGLIP2_FILE}")
    if str(config.get("model_type", "")).startswith("siglip2"):
        if _SIGLIP2_FILE not in present:
            raise CheckpointError(f"{folder} has no {_SIGLIP2_FILE}, which SigLIP 2 needs")
        return _SIGLIP2_FILE
    if present >= {_SIGLIP_FILE, _SIGLIP2_FILE}:
        named = str(options.get("tokenizer_class", "")).startswith(_SIGLIP2_CLASSES)
        return _SIGLIP2_FILE if named else _SIGLIP_FILE
    return _SIGLIP_FILE if _SIGLIP_FILE in present else _SIGLIP2_FILE


def _read_sizes(config: dict[str, Any] | None, folder: Path) -> tuple[int, int | None]:
    """Return the tokens of a text, and the rows of the token table where there is one."""
    if config is None:
        return SiglipTextConfig.max_position_embeddings, None
    try:
        tower = SiglipTextConfig.from_dict(config)
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    return tower.max_position_embeddings, tower.vocab_size


def _read_flag(options: Mapping[str, Any], name: str, folder: Path) -> bool:
    value = options.get(name, True)
    if not isinstance(value, bool):
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'}: {name} is neither true nor false"
        )
    return value


def _special_tokens(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the special tokens that a JSON file names, each a string or an object with one."""
    for key, value in options.items():
        if key.endswith(("_token", "_special_tokens")):
            tokens = value if isinstance(value, list) else [value]
            for token in tokens:
                content = token.get("content") if isinstance(token, dict) else token
                if isinstance(content, str) and content:
                    yield content
