"""Texts on a CUDA device, against float32 on the CPU: `pytest -m gpu` where there is one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from app.engine.embedder import load_embedder, load_text_embedder
from app.engine.towers.cuda import CudaRunner
from app.engine.towers.tower_embedder import TextTowerEmbedder
from tests.app.answers import cosines
from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    # torch's own, from modules that only its compiler imports
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


@pytest.mark.parametrize(("dtype", "bar"), [("float32", 0.99999), ("bfloat16", 0.9999)])
def test_texts_are_those_of_the_cpu_in_float32(tmp_path: Path, dtype: str, bar: float) -> None:
    write_siglip_tokenizer(tmp_path)
    wide: dict[str, Any] = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
    }
    write_full_checkpoint(tmp_path, vocab_size=400, max_position_embeddings=64, **wide)
    vectors, runners = {}, {}
    for device, own_dtype in (("cpu", "float32"), ("cuda", dtype)):
        images = load_embedder(str(tmp_path), device, own_dtype).info
        texts = load_text_embedder(images, device, own_dtype)
        assert isinstance(texts, TextTowerEmbedder)
        runners[device] = texts.runner
        assert (texts.info.selftest_cosine or 0) >= bar
        ids = [one.input_ids for one in texts.tokenize([f"{n} red bicycles" for n in range(40)])]
        waits = [texts.begin(ids[:30]), texts.begin(ids[30:])]
        vectors[device] = [wait().pooled for wait in waits]
    assert isinstance(runners["cuda"], CudaRunner)
    assert runners["cuda"].graph_sizes, "its batches are captured CUDA graphs"
    for ours, expected in zip(vectors["cuda"], vectors["cpu"], strict=True):
        assert cosines(ours, expected).min() >= bar
