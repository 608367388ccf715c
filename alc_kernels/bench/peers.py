"""Other libraries that compute one of the losses, each behind the same call.

A peer that is not installed, or cannot run here, is shown as missing, with the reason.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Step = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """One library's version of one work.

    Attributes:
        name: as tables show it.
        package: distribution name; None for what PyTorch itself brings.
        module: what to import.
        build: makes the step; called only where the module is importable.
        gpu_only: cannot run on a CPU.
        attribute: what ``module`` has from the version on that can do it.
    """

    name: str
    package: str | None
    module: str
    build: Callable[[], Step]
    gpu_only: bool = True
    attribute: str | None = None

    def missing(self, device: str) -> str | None:
        """Why it cannot run on ``device``, or None."""
        if self.gpu_only and device == "cpu":
            return "needs a GPU"
        try:
            module = importlib.import_module(self.module)
        except Exception as error:  # a broken installation fails in any way it likes
            return f"not installed ({type(error).__name__}: {str(error).splitlines()[0][:60]})"
        if self.attribute is not None and not hasattr(module, self.attribute):
            version = importlib.metadata.version(self.package or self.module.split(".")[0])
            return f"{self.module} of {version} has no {self.attribute}"
        return None

    def version(self) -> str | None:
        """The installed version."""
        return importlib.metadata.version(self.package) if self.package else None


def _library(
    name: str, package: str, compute: Callable[[Any, Tensor, Tensor], Tensor], **options: Any
) -> Peer:
    """A library of its own whose functions take unit rows; query i belongs to label i."""
    module = package.replace("-", "_")

    def build() -> Step:
        library = importlib.import_module(module)

        def step(queries: Tensor, labels: Tensor) -> Tensor:
            return compute(library, F.normalize(queries, dim=1), F.normalize(labels, dim=1))

        return step

    return Peer(name, package, module, build, **options)


def _own(q: Tensor) -> Tensor:
    return torch.arange(len(q), device=q.device)


def _cut_cross_entropy(library: Any, q: Tensor, k: Tensor) -> Tensor:
    # Its temperature is in the embeddings; filter_eps=None keeps every gradient entry.
    return library.linear_cross_entropy(q / 0.05, k, _own(q), filter_eps=None)


def _cut_cross_entropy_filtered(library: Any, q: Tensor, k: Tensor) -> Tensor:
    return library.linear_cross_entropy(q / 0.05, k, _own(q))


def _inf_cl(library: Any, q: Tensor, k: Tensor) -> Tensor:
    head = next(h for h in (256, 128, 64, 32, 16) if q.shape[1] % h == 0)
    return library.cal_flash_loss(q, k, scale=20.0, head_dim=head).mean()


def _siglip_kernel(library: Any, q: Tensor, k: Tensor) -> Tensor:
    scale = torch.tensor(10.0, device=q.device).log()
    return library.fused_siglip_loss(q, k, scale, torch.tensor(-10.0, device=q.device))


def _linear_cross_entropy(queries: Tensor, labels: Tensor) -> Tensor:
    # Without options it stores S: the plain version, which is eager's.
    q, k = F.normalize(queries, dim=1), F.normalize(labels, dim=1)
    call: Callable[..., Tensor] = F.linear_cross_entropy
    return call(q / 0.05, k, _own(q), options=torch.nn.LinearCrossEntropyOptions())


# memeff multiplies the gradient by sqrt(temperature * B) unless stable=False. A margin of 2 and
# more masks no false negative; rows in half precision are a little longer than 1.
_MEMEFF: dict[str, Any] = {"temperature": 0.05, "stable": False}
_NO_MASK = 4.0


def _memeff() -> Step:
    from memeff import MemoryEfficientQwen3Loss

    made: Step = MemoryEfficientQwen3Loss(margin=_NO_MASK, **_MEMEFF)
    return made


def _memeff_symmetric() -> Step:
    from memeff import MemoryEfficientCLIPLoss

    made: Step = MemoryEfficientCLIPLoss(**_MEMEFF)
    return made


def _memeff_matryoshka(widths: tuple[int, ...]) -> Step:
    """All widths in one pass where its kernels have it, else one after the other."""
    from memeff import MatryoshkaLoss, MemoryEfficientMatryoshkaQwen3Loss

    if all(width % 64 == 0 for width in widths):
        made: Step = MemoryEfficientMatryoshkaQwen3Loss(widths, margin=_NO_MASK, **_MEMEFF)
    else:
        made = MatryoshkaLoss(_memeff(), widths)
    return made


def _metric_learning_threshold(negative_margin: float) -> Step:
    from pytorch_metric_learning.losses import ThresholdConsistentMarginLoss

    loss = ThresholdConsistentMarginLoss(margin_minus=negative_margin)

    def step(queries: Tensor, labels: Tensor) -> Tensor:
        ids = torch.arange(len(queries), device=queries.device)
        return loss(queries, ids, ref_emb=labels, ref_labels=ids)

    return step


SOFTMAX = (
    _library("cut-cross-entropy", "cut-cross-entropy", _cut_cross_entropy),
    _library("cut-cross-entropy, filtered", "cut-cross-entropy", _cut_cross_entropy_filtered),
    _library("inf-cl", "inf-cl", _inf_cl),
    Peer("memeff", "memeff", "memeff", _memeff),
    Peer(
        "linear_cross_entropy", None, "torch.nn", lambda: _linear_cross_entropy,
        gpu_only=False, attribute="LinearCrossEntropyOptions",
    ),
)  # fmt: skip
SYMMETRIC = (Peer("memeff", "memeff", "memeff", _memeff_symmetric),)
SIGMOID = (_library("siglip-kernel", "siglip-kernel", _siglip_kernel),)


def matryoshka_softmax(widths: tuple[int, ...]) -> tuple[Peer, ...]:
    """The peers of a softmax at several prefix widths, the last being the whole."""
    return (Peer("memeff", "memeff", "memeff", lambda: _memeff_matryoshka(widths)),)


def threshold(negative_margin: float) -> tuple[Peer, ...]:
    """The peers of TCM, whose negative margin sets how many pairs are active."""
    return (
        Peer(
            "pytorch-metric-learning",
            "pytorch-metric-learning",
            "pytorch_metric_learning.losses",
            lambda: _metric_learning_threshold(negative_margin),
            gpu_only=False,
        ),
    )
