"""The command line is tested on the same small runs as the evaluation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "xmc"))
