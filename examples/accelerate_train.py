"""ALCLoss in a loop with Accelerate. Encoder and loss are prepared together as one model.

accelerate launch examples/accelerate_train.py --epochs 10    (or plain python)
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from titles import (
    EncoderWithLoss,
    collate,
    make_dataset,
    parser_of,
    training_pairs,
    validation_coverage,
)
from torch import Tensor
from torch.utils.data import DataLoader


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = parser_of(__doc__)
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
