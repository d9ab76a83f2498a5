"""The tokenizers' libraries cost memory and time: nobody gets them who serves no texts."""

import json
import subprocess
import sys
from pathlib import Path

from tests.text_reference import write_full_checkpoint
from tests.tokenizer_files import write_siglip_tokenizer

_ROOT = Path(__file__).parents[2]
# A process of its own: in this one others have imported them.
_LOAD = """
import json, sys
import app.__main__, model
from app.main import load_towers
from app.observe.logs import configure_logs
from app.settings import Settings

def imported():
    return sorted({"sentencepiece", "tokenizers", "transformers"} & sys.modules.keys())

configure_logs("error", "console")
seen = [imported()]
for text in ("off", "on"):
    load_towers(Settings(model=sys.argv[1], device="cpu", dtype="float32", text=text))
    seen.append(imported())
print(json.dumps(seen))
"""


def test_only_who_takes_texts_imports_a_tokenizers_library(tmp_path: Path) -> None:
    write_siglip_tokenizer(tmp_path)
    write_full_checkpoint(tmp_path, vocab_size=400)

    command = [sys.executable, "-c", _LOAD, str(tmp_path)]
    ended = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    without, off, on = json.loads(ended.stdout)

    assert without == off == []
    assert on == ["sentencepiece"]
