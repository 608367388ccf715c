"""The default training (NGAME, shuffled batches) gives what it gave when its figures were taken.

``golden/training.json`` holds the loss of every step and a digest of the trained weights. They
were recorded with the trainer as it was before it learned anything beyond that one method (four
losses were renewed in their last bit, with the weights unchanged, when averages and sums were
taken in another order). With the same PyTorch and the same vector instructions everything must
agree bit for bit; elsewhere sums are taken in another order, and the curves may drift apart by a
thousandth.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from training_cases import Losses

from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.data import generate_catalogue
from alc_kernels.xmc.training import train

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = json.loads((Path(__file__).parent / "golden" / "training.json").read_text())
CONFIG = TrainConfig(
    epochs=3, batch_size=64, embedding_dim=32, ngram_buckets=4096, hidden_dim=32,
    backend="torch", device="cpu", dropout=0.1, context_size=32,
)  # fmt: skip


@pytest.mark.parametrize("loss", ["base", "alc+tcm"])
def test_losses_and_weights_are_those_on_record(tmp_path: Path, loss: str) -> None:
    losses = Losses()
    run = train(CONFIG.replace(loss=loss), generate_catalogue(100, 500), tmp_path, losses)
    digest = hashlib.sha256()
    for name, value in run.model.encoder.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    here = torch.__version__, torch.backends.cpu.get_cpu_capability()
    if here == (GOLDEN["torch"], GOLDEN["cpu"]):
        assert losses.seen == GOLDEN["curves"][loss]
        assert digest.hexdigest() == GOLDEN["weights"][loss]
    else:
        assert losses.seen == pytest.approx(GOLDEN["curves"][loss], rel=1e-3)
