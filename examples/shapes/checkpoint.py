"""The checkpoint of this folder but for its weights: shape of the towers, tokenizer, processor."""

import io
import json
import math
from pathlib import Path
from typing import Any

import torch
from sentencepiece import SentencePieceTrainer
from torch import nn

from examples.shapes.world import COLOURS, GROUNDS, OPPOSITES, SHAPES, SIZES
from model import (
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)
from model.tokenization_siglip import SiglipTokenizer

FOLDER = Path(__file__).parent
SIDE, PATCH = 48, 12  # pixels; a small thing is about as large as a patch
TOKENS = 24
TOKEN_KINDS = 160
WIDTH: Any = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}

TEMPLATES = ("{}", "a photo of {}", "This is a photo of {}.", "a picture of {}", "a drawing of {}")


def write_tokenizer(folder: Path) -> SiglipTokenizer:
    """Train spiece.model on the words of the world; what is none is spelt out in letters."""
    words = [*COLOURS, *GROUNDS, *SHAPES, "shape", *SIZES, *OPPOSITES, "a", "an", "on", "ground"]
    sentences = [template.format(word).lower() for template in TEMPLATES for word in words]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    spiece = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 20),
        model_writer=spiece,
        vocab_size=TOKEN_KINDS,
        model_type="bpe",
        required_chars=letters,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(spiece.getvalue())
    options = {
        "tokenizer_class": "SiglipTokenizer",
        "model_max_length": TOKENS,
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "do_lower_case": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(options, indent=2) + "\n")
    return SiglipTokenizer(folder / "spiece.model", max_length=TOKENS, vocab_size=TOKEN_KINDS)


def build_model() -> SiglipModel:
    """Build the two towers, and start the logits near the share of sentences that are true."""
    config = SiglipConfig(
        vision_config=SiglipVisionConfig(
            image_size=SIDE, patch_size=PATCH, num_hidden_layers=4, **WIDTH
        ),
        text_config=SiglipTextConfig(
            vocab_size=TOKEN_KINDS, max_position_embeddings=TOKENS, num_hidden_layers=2, **WIDTH
        ),
    )
    model = SiglipModel(config)
    nn.init.constant_(model.logit_scale, math.log(10))
    nn.init.constant_(model.logit_bias, -5)
    return model


def write_checkpoint(model: SiglipModel, folder: Path) -> None:
    """Write the weights in float16, and how images are prepared, beside the tokenizer."""
    model.to(torch.float16).save_pretrained(folder)
    SiglipImageProcessor(height=SIDE, width=SIDE).save_pretrained(folder)
