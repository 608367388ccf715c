"""ALCLoss in Lightning: its heads are parameters of the module, so they train with the encoder.

python examples/lightning_train.py --epochs 10
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
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

from alc_kernels.trainer.data import Dataset


class Matcher(lightning.LightningModule):
    """Titles and product names through one encoder."""

    def __init__(self, dataset: Dataset, dim: int = 64, learning_rate: float = 5e-3) -> None:
        super().__init__()
        self.model = EncoderWithLoss(dim)
        self.dataset = dataset
        self.learning_rate = learning_rate

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        loss: Tensor = self.model(batch)
        self.log("loss", loss, prog_bar=True, batch_size=len(batch["numbers"]))
        return loss

    def on_train_epoch_end(self) -> None:
        def encode(numbers: Tensor, starts: Tensor) -> Tensor:
            return self.model.encoder(numbers.to(self.device), starts.to(self.device))

        self.log("coverage@0.9", validation_coverage(encode, self.dataset), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    settings = parser_of(__doc__).parse_args(arguments)

    lightning.seed_everything(0, verbose=False)
    dataset = make_dataset(settings.labels, settings.titles)
    batches: DataLoader[Any] = DataLoader(
        training_pairs(dataset), settings.batch_size, shuffle=True, collate_fn=collate
    )
    trainer = lightning.Trainer(
        max_epochs=settings.epochs, logger=False, enable_checkpointing=False, log_every_n_steps=1
    )
    trainer.fit(Matcher(dataset), batches)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    print(", ".join(f"{name} {value:.3f}" for name, value in found.items()))
    return found


if __name__ == "__main__":
    main()
