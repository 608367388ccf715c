"""Large in-batch losses through a text encoder: peak memory, time per step, the loss's share of it.

    python benchmarks/large_batch.py --pairs 65536 262144 --output large_batch.json

The encoder has the shape of MiniLM-L6 (6 layers, width 384) with random weights, which cost what
trained ones do; the texts are random tokens. A step is: encode queries and labels chunk by chunk
(``alc_kernels.cached``), the default ``ALCLoss``, backward, AdamW. The loss alone is timed on the
step's own embeddings, forward and backward, in turn with whole steps.
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels import ALCLoss
from alc_kernels.bench import measure, record
from alc_kernels.cached import cached_encode

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class MeanPooled(nn.Module):
    """Token ids (n, t) to unit vectors (n, width), pooled in float32."""

    def __init__(self, layers: int, width: int, heads: int, length: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.model = BertModel(
            BertConfig(
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=4 * width,
                max_position_embeddings=max(512, length),
            ),
            add_pooling_layer=False,
        )

    def forward(self, ids: Tensor) -> Tensor:
        states = self.model(input_ids=ids).last_hidden_state  # (n, t, width)
        return F.normalize(states.float().mean(1), dim=1)


class Step:
    """One optimizer step on ``pairs`` random pairs.

    Args:
        options: of the command line.
        pairs: B.
        chunk: texts encoded at a time; 0 for all at once, without the cache.
    """

    def __init__(self, options: argparse.Namespace, pairs: int, chunk: int) -> None:
        torch.manual_seed(0)
        self.options, self.chunk = options, chunk
        device = options.device
        heads = options.width // 32
        self.encoder = MeanPooled(options.layers, options.width, heads, options.length).to(device)
        self.loss = ALCLoss(options.width, backend=options.backend).to(device)
        parameters = [*self.encoder.parameters(), *self.loss.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-5)
        self.ids = [
            torch.randint(1000, 30000, (pairs, options.length), device=device) for _ in range(2)
        ]

    def encode(self) -> list[Tensor]:
        dtype = DTYPES[self.options.precision]
        kind = torch.device(self.options.device).type
        with torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32):
            size = self.chunk or len(self.ids[0])
            return [cached_encode(self.encoder, ids, size) for ids in self.ids]

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(*self.encode()).backward()
        self.optimizer.step()

    def loss_alone(self) -> Any:
        """Forward and backward of the loss on the embeddings of now."""
        with torch.no_grad():
            leaves = [x.clone().requires_grad_() for x in self.encode()]

        def call() -> None:
            for x in leaves:
                x.grad = None
            self.loss(*leaves).backward()

        return call


def measured(options: argparse.Namespace, pairs: int, chunk: int) -> dict[str, Any]:
    """One row of the result."""
    row: dict[str, Any] = {"pairs": pairs, "chunk": chunk, "precision": options.precision}
    row |= {name: getattr(options, name) for name in ("layers", "width", "length")}
    step = Step(options, pairs, chunk)
    actions = {"step": [step], "loss": [step.loss_alone()]}
    on_gpu = options.device != "cpu"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    times = measure.interleaved(actions, options.device, options.repeats, options.seconds)
    for name, values in times.items():
        row[name] = measure.summary(values)
    row["loss_share"] = row["loss"]["median_ms"] / row["step"]["median_ms"]
    if on_gpu:
        row["peak_bytes"] = torch.cuda.max_memory_allocated()
    else:  # of the process, so far
        unit = 1 if sys.platform == "darwin" else 1024
        row["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return row


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[65536, 262144])
    parser.add_argument("--chunk", type=int, default=4096, help="texts encoded at a time")
    parser.add_argument("--plain", type=int, nargs="*", default=[], help="pairs without the cache")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384, help="a multiple of 32")
    parser.add_argument("--length", type=int, default=32, help="tokens per text")
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    options = arguments(words)
    rows = []
    sizes = [(n, options.chunk) for n in options.pairs] + [(n, 0) for n in options.plain]
    for pairs, chunk in sizes:
        rows.append(measured(options, pairs, chunk))
        row = rows[-1]
        print(
            f"{pairs} pairs, {f'chunks of {chunk}' if chunk else 'at once'}: "
            f"{row['step']['median_ms']:.0f} ms per step, loss {100 * row['loss_share']:.1f} %, "
            f"peak {row['peak_bytes'] / 2**30:.2f} GiB",
            flush=True,
        )
    command = " ".join(["python", "benchmarks/large_batch.py", *(words or sys.argv[1:])])
    record.write(options.output, rows, command)


if __name__ == "__main__":
    main()
