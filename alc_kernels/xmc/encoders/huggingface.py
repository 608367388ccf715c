"""Any Hugging Face text encoder, through AutoModel and AutoTokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alc_kernels.xmc.encoders.base import Encoder, TokenizedTexts
from alc_kernels.xmc.errors import EncoderError

ASSETS = "huggingface"


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise EncoderError(
            "a Hugging Face encoder needs the package transformers: "
            "pip install 'alc-kernels[transformers]'"
        ) from None
    return transformers


class PaddedBatch(dict[str, Tensor]):
    """input_ids and attention_mask, both (n, longest text of the batch) int64."""


class TokenLists(TokenizedTexts):
    """Token ids of many texts as one ragged array; padded per batch only."""

    def __init__(self, ids: list[list[int]], pad_id: int) -> None:
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.ids = np.fromiter((i for row in ids for i in row), np.int64, int(lengths.sum()))
        self.pad_id = pad_id

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, rows: np.ndarray) -> PaddedBatch:
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        width = max(int(lengths.max(initial=0)), 1)
        mask = np.arange(width) < lengths[:, None]
        ids = np.full((len(rows), width), self.pad_id, np.int64)
        first = np.cumsum(lengths) - lengths
        ids[mask] = self.ids[np.arange(lengths.sum()) + np.repeat(starts - first, lengths)]
        return PaddedBatch(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask.astype(np.int64))
        )


class HuggingFaceEncoder(Encoder):
    """A text model with mean or first-token pooling.

    Args:
        name: local path or hub name.
        pooling: ``"mean"`` over the text's tokens, or ``"cls"``: the first token.
        max_length: tokens per text; longer texts are cut.

    Raises:
        EncoderError: transformers is missing, the model cannot be loaded or is too short.
    """

    def __init__(self, name: str, pooling: str = "mean", max_length: int = 64) -> None:
        transformers = _transformers()
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            model = transformers.AutoModel.from_pretrained(name)
        # Loading fails in many ways (no such folder, no network, a broken file); all are
        # the user's to solve, and the first line of the reason says which it is.
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EncoderError(
                f"encoder {name!r}: neither 'ngrams' nor a loadable Hugging Face model ({reason})"
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
        self._setup(name, model, tokenizer, pooling, max_length)

    def _setup(self, name: str, model: Any, tokenizer: Any, pooling: str, max_length: int) -> None:
        super().__init__()
        self.name, self.pooling, self.max_length = name, pooling, max_length
        self.model, self.tokenizer = model, tokenizer
        self.dim = int(model.config.hidden_size)

    def tokenize(self, texts: Sequence[str]) -> TokenLists:
        if not len(texts):
            return TokenLists([], 0)
        made = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=False,
        )
        return TokenLists(made["input_ids"], self.tokenizer.pad_token_id or 0)

    def forward(self, batch: PaddedBatch) -> Tensor:
        device = next(self.model.parameters()).device
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state  # (n, t, d)
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            weight = mask[:, :, None].to(states.dtype)
            pooled = (states * weight).sum(1) / weight.sum(1).clamp(min=1)
        return F.normalize(pooled, dim=1)  # (n, d)

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "pooling": self.pooling, "max_length": self.max_length}

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
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EncoderError(
                f"{assets}: tokenizer or model settings unreadable ({reason})"
            ) from None
        encoder = cls.__new__(cls)
        encoder._setup(config["name"], model, tokenizer, config["pooling"], config["max_length"])
        return encoder
