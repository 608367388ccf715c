"""Any Hugging Face text encoder, through AutoModel and AutoTokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alc_kernels.trainer.encoders.base import Chunk, Encoder
from alc_kernels.trainer.errors import EncoderError, first_line, needs

ASSETS = "huggingface"
CONFIG = "config.json"
CHUNK = 4096  # texts tokenised at once


def _transformers() -> Any:
    with needs("a Hugging Face encoder", "transformers", "transformers", EncoderError):
        import transformers
    return transformers


def _check_reachable(name: str) -> None:
    """Ask once for a model that is on no disk: loading asks for minutes, with a line each time."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if not Path(name).exists() and not isinstance(try_to_load_from_cache(name, CONFIG), str):
        try:
            get_hf_file_metadata(hf_hub_url(name, CONFIG), timeout=10)
        except Exception as error:
            raise OSError(f"no such folder, and not to be fetched: {error}") from None


def _digest(tokenizer: Any) -> str:
    """Hexadecimal digits over what a text's tokens depend on."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # written in Python: its vocabulary and settings
        about: Any = [type(tokenizer).__name__, tokenizer.get_vocab(), repr(tokenizer)]
    else:
        about = json.loads(backend.to_str())
        for name in ("truncation", "padding"):  # set anew by every call
            about.pop(name, None)
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


class PaddedBatch(dict[str, Tensor]):
    """input_ids and attention_mask, both (n, longest text of the batch) int64."""


@dataclass(frozen=True)
class PaddedCollate:
    """From token ids to the batch, padded to its longest text."""

    pad_id: int

    def __call__(self, ids: np.ndarray, offsets: np.ndarray) -> PaddedBatch:
        lengths = np.diff(offsets)
        width = max(int(lengths.max(initial=0)), 1)
        mask = np.arange(width) < lengths[:, None]  # (n, width)
        padded = np.full(mask.shape, self.pad_id, np.int64)
        padded[mask] = ids
        return PaddedBatch(
            input_ids=torch.from_numpy(padded),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
        )


class HuggingFaceEncoder(Encoder):
    """A text model with mean or first-token pooling.

    Args:
        name: local path or hub name.
        pooling: ``"mean"`` over the text's tokens, or ``"cls"``: the first token.
        max_length: tokens per text; longer texts are cut.
        gradient_checkpointing: keep no layer's inner values for the backward pass, compute them
            again there: less memory for about a third more time.

    Vectors are float32, under ``torch.autocast`` too.

    Raises:
        EncoderError: transformers is missing, the model cannot be loaded, is too short or
            cannot checkpoint.
    """

    def __init__(
        self,
        name: str,
        pooling: str = "mean",
        max_length: int = 64,
        gradient_checkpointing: bool = False,
    ) -> None:
        transformers = _transformers()
        try:
            _check_reachable(name)
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            model = transformers.AutoModel.from_pretrained(name)
        # Loading fails in many ways (no such folder, no network, a broken file); all are
        # the user's to solve, and the first line of the reason says which it is.
        except Exception as error:
            raise EncoderError(
                f"encoder {name!r}: neither 'ngrams' nor a loadable Hugging Face model "
                f"({first_line(error)})"
            ) from None
        limit = min(
            getattr(model.config, "max_position_embeddings", None) or max_length,
            tokenizer.model_max_length,  # a huge number where the tokenizer has no limit
        )
        if max_length > limit:
            raise EncoderError(
                f"encoder {name!r}: max_length = {max_length}, expected at most {limit} tokens "
                "(the model has no more positions)"
            )
        self._setup(name, model, tokenizer, pooling, max_length, gradient_checkpointing)

    def _setup(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        pooling: str,
        max_length: int,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.name, self.pooling, self.max_length = name, pooling, max_length
        # transformers 5 loads weights as they are stored; half precision is no dtype to train in.
        self.model, self.tokenizer = model.float(), tokenizer
        self.dim = int(model.config.hidden_size)
        self._tokenizer_digest = _digest(tokenizer)
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            # transformers 5 renamed the method.
            enable = getattr(model, "activation_checkpointing_enable", None)
            enable = enable or model.gradient_checkpointing_enable
            model.config.use_cache = False  # a decoder's cache, which it would warn of
            try:
                enable({"use_reentrant": False})
            except ValueError:
                raise EncoderError(
                    f"encoder {name!r}: gradient_checkpointing = true, but {type(model).__name__} "
                    "does not support it, expected false"
                ) from None

    def token_settings(self) -> dict[str, Any]:
        return {
            "kind": "huggingface",
            "tokenizer": self._tokenizer_digest,
            "max_length": self.max_length,
        }

    def token_chunks(self, texts: Sequence[str]) -> Iterator[Chunk]:
        for start in range(0, len(texts), CHUNK):
            made = self.tokenizer(
                list(texts[start : start + CHUNK]),
                truncation=True,
                max_length=self.max_length,
                padding=False,
                return_attention_mask=False,
            )["input_ids"]
            lengths = np.fromiter(map(len, made), np.int64, len(made))
            yield np.fromiter(chain.from_iterable(made), np.int64, int(lengths.sum())), lengths

    def token_dtype(self) -> np.dtype:
        return np.dtype(np.uint16 if len(self.tokenizer) <= 2**16 else np.int32)

    def collate(self) -> PaddedCollate:
        return PaddedCollate(self.tokenizer.pad_token_id or 0)

    def forward(self, batch: PaddedBatch) -> Tensor:
        device = next(self.model.parameters()).device
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (n, t, d)
        # Pooling and length in float32 under autocast as well: sums over a text's tokens and
        # similarities near 1 would lose what tells look-alikes apart.
        with torch.autocast(device.type, enabled=False):
            if self.pooling == "cls":
                pooled = states[:, 0].float()
            else:
                weight = mask[:, :, None].float()
                pooled = (states.float() * weight).sum(1) / weight.sum(1).clamp(min=1)
            return F.normalize(pooled, dim=1)  # (n, d)

    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "pooling": self.pooling,
            "max_length": self.max_length,
            "gradient_checkpointing": self.gradient_checkpointing,
        }

    def save_assets(self, folder: Path) -> None:
        self.model.config.save_pretrained(folder / ASSETS)
        self.tokenizer.save_pretrained(folder / ASSETS)

    @classmethod
    def from_config(cls, config: dict[str, Any], folder: Path) -> HuggingFaceEncoder:
        transformers = _transformers()
        assets = folder / ASSETS
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(assets)
            settings = transformers.AutoConfig.from_pretrained(assets)
            model = transformers.AutoModel.from_config(settings)
        except Exception as error:
            raise EncoderError(
                f"{assets}: tokenizer or model settings unreadable ({first_line(error)})"
            ) from None
        encoder = cls.__new__(cls)
        encoder._setup(
            config["name"],
            model,
            tokenizer,
            config["pooling"],
            config["max_length"],
            config.get("gradient_checkpointing", False),
        )
        return encoder
