"""Other libraries behind the bench's call: the same loss, value and gradients, against float64.

Without a GPU the Triton peers run in the interpreter, past their checks for one; what they launch
and how it is put together is theirs.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alc_kernels.bench import eager, measure, peers
from alc_kernels.bench.peers import Step
from alc_kernels.bench.works import works

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Triton peers run in the interpreter."""
    if GPU:
        return
    if not os.environ.get("TRITON_INTERPRET"):
        pytest.skip("the peers' kernels need a GPU or the interpreter")
    # siglip_kernel asks for it when it is imported.
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *device: (9, 0))
    import memeff
    import siglip_kernel

    for name, module in sys.modules.items():
        if name.startswith(memeff.__name__ + ".") and hasattr(module, "_validate_features"):
            monkeypatch.setattr(module, "_validate_features", lambda *features: None)
        if name.startswith(siglip_kernel.__name__ + "."):
            for check in ("get_gpu_arch", "get_num_sms"):
                if hasattr(module, check):
                    monkeypatch.setattr(module, check, lambda: 90)


def errors(step: Step, plain: Step, width: int) -> measure.Errors:
    pair = measure.inputs(70, 70, width, torch.float32, DEVICE, seed=1)
    return measure.errors(step, measure.exactly(plain, pair), pair)


def each_width(widths: tuple[int, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    def plain(queries: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([eager.softmax(queries[:, :w], labels[:, :w]) for w in widths]).sum()

    return plain


@pytest.mark.parametrize(
    ("work", "plain"), [("softmax", eager.softmax), ("softmax-symmetric", eager.symmetric_softmax)]
)
def test_memeff_is_the_same_loss(work: str, plain: Step, as_on_a_gpu: None) -> None:
    known = works(64, DEVICE, 0.5, 0.01)[work]
    (peer,) = (peer for peer in known.peers if peer.name == "memeff")
    assert errors(peer.build(), plain, 64).worst < (1e-2 if GPU else 1e-4)


@pytest.mark.parametrize(
    ("widths", "kind"),
    [((64, 128), "MemoryEfficientMatryoshkaQwen3Loss"), ((32, 64), "MatryoshkaLoss")],
)
def test_memeff_at_several_widths(widths: tuple[int, ...], kind: str, as_on_a_gpu: None) -> None:
    known = works(widths[-1], DEVICE, 0.5, 0.01, widths)["matryoshka-softmax"]
    (peer,) = (peer for peer in known.peers if peer.name == "memeff")
    step = peer.build()
    assert type(step).__name__ == kind  # one pass where its kernels can
    assert errors(step, each_width(widths), widths[-1]).worst < (1e-2 if GPU else 2e-4)


def test_memeff_by_default_has_another_gradient(as_on_a_gpu: None) -> None:
    from memeff import MemoryEfficientQwen3Loss

    found = errors(MemoryEfficientQwen3Loss(temperature=0.05, margin=4.0), eager.softmax, 64)
    scale = (0.05 * 70) ** 0.5  # sqrt(temperature B)
    assert found.value < (1e-2 if GPU else 1e-4)
    assert found.gradients == pytest.approx([scale - 1] * 2, rel=2e-2)


def test_siglip_kernel_is_the_same_loss(as_on_a_gpu: None) -> None:
    (peer,) = peers.SIGMOID
    assert errors(peer.build(), eager.sigmoid, 64).worst < (1e-2 if GPU else 1e-5)


def test_linear_cross_entropy_is_the_same_loss_without_the_matrix() -> None:
    (peer,) = (peer for peer in peers.SOFTMAX if peer.name == "linear_cross_entropy")
    if not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        missing = peer.missing(DEVICE)
        assert missing == f"torch.nn of {torch.__version__} has no LinearCrossEntropyOptions"
        return
    assert peer.missing(DEVICE) is None
    step = peer.build()
    assert errors(step, eager.softmax, 64).worst < 1e-4
    if DEVICE == "cpu" and sys.platform == "linux":
        pair = measure.inputs(2048, 2048, 16, torch.float32, DEVICE, seed=0)
        assert measure.peak_memory(step, pair) < 2048 * 2048 * 4


def test_what_is_missing_is_said() -> None:
    (peer,) = (peer for peer in peers.SOFTMAX if peer.name == "linear_cross_entropy")
    later = dataclasses.replace(peer, attribute="NotThereYet")
    assert later.missing("cpu") == f"torch.nn of {torch.__version__} has no NotThereYet"
    absent = dataclasses.replace(peer, module="not_a_module_at_all", attribute=None)
    assert str(absent.missing("cpu")).startswith("not installed (ModuleNotFoundError")
