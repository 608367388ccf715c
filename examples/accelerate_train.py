"""ALCLoss in a loop with Accelerate. Encoder and loss are prepared together as one model.

accelerate launch examples/accelerate_train.py --epochs 10    (or plain python)
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from titles import TitleEncoder, collate, make_dataset, training_pairs, validation_coverage
from torch import Tensor, nn
from torch.utils.data import DataLoader

from alc_kernels import ALCLoss, Positives


class EncoderWithLoss(nn.Module):
    """One model that returns the loss: so that the heads are wrapped, cast and saved with it."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.encoder = TitleEncoder(dim)
        self.loss = ALCLoss(embedding_dim=dim)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        queries = self.encoder(batch["query_tokens"], batch["query_starts"])
        labels = self.encoder(batch["label_tokens"], batch["label_starts"])
        same = Positives.from_ids(batch["numbers"], batch["numbers"])
        loss: Tensor = self.loss(queries, labels, positives=same)
        return loss


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--titles", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--accumulate", type=int, default=1, help="batches per optimizer step")
    parser.add_argument("--mixed-precision", default="no", choices=["no", "bf16", "fp16"])
    settings = parser.parse_args(arguments)

    set_seed(0)
    accelerator = Accelerator(
        gradient_accumulation_steps=settings.accumulate, mixed_precision=settings.mixed_precision
    )
    dataset = make_dataset(settings.labels, settings.titles)
    batches: DataLoader[Any] = DataLoader(
        training_pairs(dataset), settings.batch_size, shuffle=True, collate_fn=collate
    )
    model = EncoderWithLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model, optimizer, batches = accelerator.prepare(model, optimizer, batches)
    encoder = accelerator.unwrap_model(model).encoder

    def encode(numbers: Tensor, starts: Tensor) -> Tensor:
        vectors: Tensor = encoder(numbers.to(accelerator.device), starts.to(accelerator.device))
        return vectors

    found: dict[str, float] = {}
    for epoch in range(settings.epochs):
        for batch in batches:
            with accelerator.accumulate(model):
                loss = model(batch)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        found = {"loss": loss.item(), "coverage@0.9": validation_coverage(encode, dataset)}
        accelerator.print(epoch, ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
    return found


if __name__ == "__main__":
    main()
