"""How the text side of a checkpoint becomes an embedder: the steps of `builder`, for texts."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog
import torch

from app.allocator import give_back_memory, move_to_huge_pages
from app.engine.protocol import Int64Array, ModelInfo, NoTexts, TextEmbedder, TextInfo
from app.engine.towers.batch import Batch, write_rows
from app.engine.towers.batch_size import fit_batch_size, pick_max_batch_size
from app.engine.towers.device import pick_device
from app.engine.towers.dtypes import load_soundly, pick_dtypes
from app.engine.towers.fingerprint import hash_weights, text_space_of
from app.engine.towers.reference import embed_texts_plainly, in_float32
from app.engine.towers.runners import pick_runner
from app.engine.towers.selftest import check_against_reference
from app.engine.towers.tower_embedder import Embed, TextTowerEmbedder
from model import (
    CheckpointError,
    ConfigError,
    SiglipTextConfig,
    SiglipTextModel,
    load_tokenizer,
)
from model.checkpoint import Checkpoint, open_checkpoint
from model.fused_linear import OneDnnLinear
from model.modeling_siglip_model import read_logit_parameters
from model.modeling_siglip_text_fused import FusedTextTransformer
from model.modeling_siglip_text_model import has_text_tower, open_token_table
from model.tokenization_base import BaseTokenizer
from model.tokenizer_loading import has_tokenizer

_log = structlog.get_logger(__name__)

# On the CPU: as much work as a batch of images, so that neither line waits longer for the other.
_TEXTS = 24
_TEST_TEXTS = ("a photo of a red bicycle", "zwei Katzen im Schnee")


def load_text_embedder(
    images: ModelInfo, device: str, dtype: str, *, graphs: bool = True
) -> TextEmbedder | NoTexts:
    """Load the text side of the checkpoint whose `images` side has been loaded.

    It is never compiled; and where the image side is int8, it has the dtype of `auto`. `graphs` is
    whether to record CUDA graphs. Raises `StartError` when it does not compute what its weights
    say.
    """
    torch_device = pick_device(images.device if device == "auto" else device)
    dtypes = pick_dtypes(dtype, torch_device)
    if dtypes == [torch.int8]:
        dtypes = pick_dtypes("auto", torch_device)
    try:
        checkpoint = open_checkpoint(images.source, images.revision)
        if not has_text_tower(checkpoint):
            return NoTexts("the checkpoint has no text tower")
        if not has_tokenizer(checkpoint.folder):
            return NoTexts("the checkpoint has no tokenizer")
        if not images.pooled:
            return NoTexts("the checkpoint's images have no pooled vectors to compare texts with")
        config = SiglipTextConfig.from_dict(checkpoint.config)
        if config.projection_size != images.dim:
            return NoTexts(
                f"the checkpoint's texts have {config.projection_size} numbers, its images "
                f"{images.dim}: they cannot be compared"
            )
        build = partial(_build, checkpoint, images.space, torch_device, graphs=graphs)
        return load_soundly(dtypes, build)
    except (CheckpointError, ConfigError) as error:
        _log.warning("the text side cannot be used", reason=str(error))
        return NoTexts("the checkpoint's text side cannot be used; the log says why")


def _build(
    checkpoint: Checkpoint,
    image_space: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    graphs: bool,
) -> TextTowerEmbedder:
    load_again = partial(SiglipTextModel.from_pretrained, checkpoint.folder)
    with ThreadPoolExecutor(1) as pool:  # either takes one core only
        weights_sha256 = pool.submit(_hash_weights, load_again)
        tokenizer = _load_tokenizer(checkpoint.folder)
    plain = load_again()
    test_ids = [tokenizer.encode(text).input_ids for text in _TEST_TEXTS]
    expected = embed_texts_plainly(_in_float32(plain), test_ids)
    table = open_token_table(checkpoint) if device.type == "cpu" else None
    tower = FusedTextTransformer(plain.text_model, device, dtype, consume=True, token_table=table)
    config = plain.config
    del plain
    _move_to_huge_pages(tower)
    text_space = text_space_of(image_space, weights_sha256.result(), config, tokenizer, dtype)
    runner = pick_runner(tower, collate_texts, device, tokenizer.max_length, graphs=graphs)
    suitable = _TEXTS if device.type == "cpu" else pick_max_batch_size(device, tokenizer.max_length)
    logits = read_logit_parameters(checkpoint)
    info = TextInfo(
        text_space=text_space,
        dim=config.projection_size,
        max_tokens=tokenizer.max_length,
        dtype=str(dtype).removeprefix("torch."),
        logit_scale=logits.scale if logits else None,
        logit_bias=logits.bias if logits else None,
        max_batch_size=fit_batch_size(runner, test_ids[0], None, suitable),
    )
    embedder = TextTowerEmbedder(info, tokenizer, runner, partial(_load_reference, load_again))
    sizes = runner.test_sizes(info.max_batch_size)
    cosine = check_against_reference(
        lambda ids, _: embedder.embed(ids), test_ids, expected, sizes, info.dtype
    )
    embedder.info = replace(info, selftest_cosine=cosine)
    give_back_memory()  # what the reference and packing have left
    return embedder


def _move_to_huge_pages(tower: FusedTextTransformer) -> None:
    """Put prepacked weights on huge pages.

    A single text has so few rows that reading the weights takes as long as multiplying by them.
    """
    for module in tower.modules():
        if isinstance(module, OneDnnLinear):
            mkldnn = torch.ops.mkldnn
            move_to_huge_pages(mkldnn.data_ptr(module.weight), mkldnn._nbytes(module.weight))


def _hash_weights(load: Callable[[], SiglipTextModel]) -> str:
    """Hash the weights of a model of its own.

    That goes through the whole token table, whose memory goes with the model; later on the table is
    looked up only.
    """
    return hash_weights(load().text_model.state_dict())


def _load_tokenizer(folder: Path) -> BaseTokenizer:
    # It would start threads for what takes microseconds.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = load_tokenizer(folder)
    give_back_memory()  # reading takes several times of what is kept
    return tokenizer


def collate_texts(input_ids: Sequence[Int64Array]) -> Batch:
    """Make one array of token ids: int64 (batch, tokens)."""
    shape = (len(input_ids), len(input_ids[0]))
    return Batch(shape, partial(write_rows, input_ids), dtype=torch.int64)


def _in_float32(model: SiglipTextModel) -> SiglipTextModel:
    """Return a model that computes in float32; its token table stays in the checkpoint's file."""
    return in_float32(model, [model.text_model.embeddings.token_embedding.weight])


def _load_reference(load_again: Callable[[], SiglipTextModel]) -> Embed:
    return partial(embed_texts_plainly, _in_float32(load_again()))
