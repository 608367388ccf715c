"""Text encoders: hashed n-grams (the default, fast on a CPU) and Hugging Face models."""

from alc_kernels.trainer.encoders.base import Encoder
from alc_kernels.trainer.encoders.registry import build_encoder
from alc_kernels.trainer.encoders.tokens import ConcatTokens, TokenizedTexts, TokenRows

__all__ = [
    "ConcatTokens",
    "Encoder",
    "TokenRows",
    "TokenizedTexts",
    "build_encoder",
]
