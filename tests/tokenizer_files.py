# ruff: noqa: RUF001 # texts of many scripts look alike
"""Tokenizer files as checkpoints of both generations have them, trained here on a few sentences."""

import io
import json
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Replace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

SENTENCES = (
    "A red bicycle leans against a brick wall in the old town.",
    "a photo of two dogs running on the beach at sunset",
    "This is a photo of a cat sleeping on a laptop's keyboard, isn't it?",
    "The quick brown fox jumps over the lazy dog -- 1,234 times!",
    "Ein rotes Fahrrad lehnt an der Straßenmauer; der Hund läuft schnell über die Brücke.",
    "Une bicyclette rouge appuyée contre un mur, près de l'église où l'été commence.",
    "Una bicicleta roja apoyada en la pared. ¿Dónde está el niño pequeño?",
    "Красный велосипед стоит у кирпичной стены, а собака спит под деревом.",
    "Ένα κόκκινο ποδήλατο ακουμπά στον τοίχο. ΟΔΥΣΣΕΥΣ και ο σκύλος του.",
    "Tuğladan bir duvara yaslanmış kırmızı bir bisiklet, İstanbul'da ılık bir gün.",
    "Một chiếc xe đạp màu đỏ dựa vào bức tường gạch cũ.",
    "赤い自転車がレンガの壁に立てかけられています。犬は眠っている。",
    "一辆红色的自行车靠在砖墙上，两只狗在海滩上奔跑。",
    "빨간 자전거가 벽돌 벽에 기대어 있습니다.",
    "دراجة حمراء تستند إلى جدار من الطوب، والكلب نائم.",
    "אופניים אדומים נשענים על קיר לבנים.",
    "एक लाल साइकिल ईंट की दीवार के सहारे खड़ी है।",
    "จักรยานสีแดงพิงกำแพงอิฐเก่า",
    "წითელი ველოსიპედი აგურის კედელს მიყრდნობია.",
    "🚲 red bike 👍🏽 with a 👩‍👩‍👧 family ❤️ and 🇫🇷 flags 😀😀",
)

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")


def train_sentencepiece(vocab_size: int = 400, **options: Any) -> bytes:
    """Train a sentencepiece model with the ids of SigLIP's: pad 0, end 1, unknown 2."""
    model = io.BytesIO()
    given: dict[str, Any] = {
        "sentence_iterator": iter(sentence.lower() for sentence in SENTENCES),
        "model_writer": model,
        "vocab_size": vocab_size,
        "model_type": "unigram",
        "character_coverage": 0.98,  # so that some characters are unknown
        "pad_id": 0,
        "eos_id": 1,
        "unk_id": 2,
        "bos_id": -1,
        "num_threads": 1,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    SentencePieceTrainer.train(**given | options)
    return model.getvalue()


def train_bpe(vocab_size: int = 900, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Train a byte-fallback BPE as Gemma's and return its tokenizer.json, with keys changed.

    As in Gemma's, some tokens are added that are not special: runs of line ends and of spaces,
    tags, and `<mask>`, which the reference's class calls special all the same. The file cuts and
    pads to lengths of its own.
    """
    lines = ["\n" * run for run in range(2, 5)]
    added = [*lines, "▁▁", "▁▁▁", "<table>", "[@BOS@]", "<start_of_turn>"]
    characters = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(BPE(fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = Replace(" ", "▁")
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *added, *characters],
        show_progress=False,
    )
    learnt = SENTENCES[:-5]  # the scripts of the others fall back to bytes
    tokenizer.train_from_iterator([*learnt, *map(str.lower, learnt)], trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="$A:0 <eos>:0", pair="$A:0 <eos>:0 $B:1 <eos>:1", special_tokens=[("<eos>", 1)]
    )
    tokenizer.enable_truncation(7)
    tokenizer.enable_padding(length=9, pad_id=4)
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    content["added_tokens"] = [
        {**token, "special": token["content"] in (*SPECIAL_TOKENS[:-1], "<start_of_turn>")}
        for token in content["added_tokens"]
        if token["content"] not in characters
    ]
    return content | (changes or {})


def write_siglip_tokenizer(folder: Path, model: bytes | None = None) -> None:
    """Write a first-generation tokenizer's files."""
    (folder / "spiece.model").write_bytes(model if model is not None else train_sentencepiece())
    options = {"tokenizer_class": "SiglipTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))


def write_siglip2_tokenizer(folder: Path, content: dict[str, Any] | None = None) -> None:
    """Write the files of a SigLIP 2 tokenizer, which call themselves Gemma's as published ones."""
    (folder / "tokenizer.json").write_text(json.dumps(content or train_bpe()))
    options = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": False,
        "add_eos_token": True,
        "padding_side": "right",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": 64,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
