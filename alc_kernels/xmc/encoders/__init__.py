"""Text encoders: hashed n-grams (the default, fast on a CPU) and Hugging Face models."""

from alc_kernels.xmc.encoders.base import Encoder, TokenizedTexts
from alc_kernels.xmc.encoders.registry import build_encoder, load_encoder

__all__ = ["Encoder", "TokenizedTexts", "build_encoder", "load_encoder"]
