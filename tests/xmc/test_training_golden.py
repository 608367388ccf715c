"""The default training (NGAME, shuffled batches) gives what it gave when its figures were taken.

``golden/training.json`` holds the loss of every step and a digest of the trained weights. With the
same PyTorch on the same model of processor everything must agree bit for bit; elsewhere (processors
with the same vector instructions among them) sums are taken in another order, and the curves may
drift apart by a thousandth. ``python tests/xmc/test_training_golden.py`` records them anew, after
the curves of the record were held against those of the same machine before the change.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
import torch
from training_cases import Losses

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data import generate_catalogue
from alc_kernels.trainer.training import train

pytestmark = pytest.mark.usefixtures("one_thread")

FILE = Path(__file__).parent / "golden" / "training.json"
CONFIG = TrainConfig(
    epochs=3, batch_size=64, embedding_dim=32, ngram_buckets=4096, hidden_dim=32,
    backend="torch", device="cpu", dropout=0.1, context_size=32,
)  # fmt: skip


LOSSES = ("base", "alc+tcm")


def machine() -> dict[str, str]:
    """What decides the order of sums."""
    models = [""]
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "cpu": f"{capability}, {(models or [''])[0]}"}


def trained(loss: str, folder: Path) -> tuple[list[float], str]:
    """The loss of every step, and a digest of the weights."""
    losses = Losses()
    run = train(CONFIG.replace(loss=loss), generate_catalogue(100, 500), folder, losses)
    digest = hashlib.sha256()
    for name, value in run.model.encoder.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return losses.seen, digest.hexdigest()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_weights_are_those_on_record(tmp_path: Path, loss: str) -> None:
    golden = json.loads(FILE.read_text())
    curve, digest = trained(loss, tmp_path)
    if machine() == {"torch": golden["torch"], "cpu": golden["cpu"]}:
        assert curve == golden["curves"][loss]
        assert digest == golden["weights"][loss]
    else:
        assert curve == pytest.approx(golden["curves"][loss], rel=1e-3)


def record() -> None:
    """Write ``FILE``."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = {loss: trained(loss, Path(folder) / loss) for loss in LOSSES}
    made = {
        **machine(),
        "curves": {loss: curve for loss, (curve, _) in found.items()},
        "weights": {loss: digest for loss, (_, digest) in found.items()},
    }
    FILE.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    record()
