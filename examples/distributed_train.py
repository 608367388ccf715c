"""One batch over many processes: DistributedDataParallel, ALCLoss with a process group.

torchrun --standalone --nproc-per-node 2 examples/distributed_train.py --epochs 10

The printed losses do not depend on the number of processes (up to rounding): every epoch's order
comes from the epoch's number, each process takes its part of every batch, and the loss is that of
the whole batch. With GPUs it takes one for each process (NCCL), else the CPU (Gloo).
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from titles import (
    EncoderWithLoss,
    collate,
    make_dataset,
    parser_of,
    training_pairs,
    validation_coverage,
)
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from alc_kernels import Auxiliary, GlobalBatch
from alc_kernels.distributed import farewell


def main(arguments: list[str] | None = None) -> float:
    parser = parser_of(__doc__, 512, "of all processes together")
    parser.add_argument("--mode", default="auto", choices=["auto", "gather", "ring"])
    settings = parser.parse_args(arguments)

    on_gpu = torch.cuda.is_available()
    # A process that stops or hangs ends the others after this long, not after half an hour.
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(minutes=5))
    rank, count = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)

    dataset = make_dataset(settings.labels, settings.titles)
    pairs = training_pairs(dataset)
    torch.manual_seed(0)
    # The wrapper averages gradients over the processes; the loss takes that into account.
    across = GlobalBatch(mode=settings.mode, gradients_are_averaged=True)
    # Without dropout, so that the numbers of processes compare.
    options = {"auxiliary": Auxiliary(dropout=0.0), "process_group": across}
    model = EncoderWithLoss(**options).to(device)
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(settings.epochs):
        order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(epoch))
        for chosen in order.split(settings.batch_size):
            if len(chosen) < count:
                continue  # the last titles of an epoch: not one for every process
            own = chosen.tensor_split(count)[rank].tolist()
            batch = {k: v.to(device) for k, v in collate([pairs[i] for i in own]).items()}
            loss = wrapped(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if rank == 0:

            def encode(numbers: Tensor, starts: Tensor) -> Tensor:
                vectors: Tensor = model.encoder(numbers.to(device), starts.to(device))
                return vectors

            coverage = validation_coverage(encode, dataset)
            print(epoch, f"loss {loss.item():.6f}, coverage@0.9 {coverage:.3f}", flush=True)
    if not on_gpu:
        farewell()  # a thread of Gloo's must not outlive the interpreter
    dist.destroy_process_group()
    return loss.item()


if __name__ == "__main__":
    main()
