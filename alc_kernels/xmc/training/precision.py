"""Where and in what arithmetic: the encoder may run in half, everything else in float32."""

from __future__ import annotations

import torch

from alc_kernels.xmc.errors import ConfigError
from alc_kernels.xmc.parallel.join import check_gpus, uses_gpu
from alc_kernels.xmc.parallel.processes import ALONE, Processes

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """The arithmetic of the encoder.

    bfloat16 has float32's range and needs nothing else. float16 loses small gradients to zero:
    the loss is multiplied by a scale before the backward pass, which halves when gradients
    overflow (the step is then skipped) and doubles after 2000 good steps
    (Micikevicius et al., arXiv 1710.03740).

    Args:
        name: ``"fp32"``, ``"bf16"`` or ``"fp16"``; all of them work on the CPU as well.
        device: where the model is.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.dtype, self.device = DTYPES[name], device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """The context in which the model runs; parameters stay float32."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )


def find_device(name: str, processes: Processes = ALONE) -> torch.device:
    """The device that a setting names; ``"auto"`` takes a GPU where there is one.

    Of several processes each takes the GPU of its number on its machine.

    Raises:
        ConfigError: it cannot be used here.
    """
    if processes.size > 1 and name.startswith("cuda:"):
        raise ConfigError(
            f"device = {name!r}: {processes.size} processes cannot share a GPU, expected 'cuda'"
        )
    if processes.size > 1 and uses_gpu(name):
        check_gpus(processes.local_rank)
        return torch.device("cuda", processes.local_rank)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or ["unknown device"])[0]
        raise ConfigError(f"device = {name!r}: cannot be used here ({reason})") from None
    return device
