"""Where things are, and which versions made them."""

import os
from pathlib import Path

FAMILY = Path(__file__).resolve().parent.parent
REPOSITORY = FAMILY.parent.parent
TEMPLATE = REPOSITORY / "src/gemma/gemma4.jinja"
# Checkpoints and downloads: large, and of use only to the next run.
WORK = Path(os.environ.get("GEMMAD_TINY_WORK") or Path.home() / ".cache/gemmad/tiny-work")
TOKENIZER = WORK / "tokenizer"
