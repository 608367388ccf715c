"""Trains with ``SentenceTransformerTrainer``, alone or under torchrun; run by test_st_processes.py.

    st_processes.py BERT_FOLDER OUTPUT

Leaves OUTPUT/CASE-of-SIZE-RANK.pt: the weights of the encoder, before and after two steps, and
those of the heads.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from alc_kernels import Auxiliary, Softmax
from alc_kernels.distributed import farewell
from alc_kernels.integrations.sentence_transformers import ALCRankingLoss, CachedALCRankingLoss

BATCH, STEPS = 6, 2
WORDS = ["nova", "pico", "luma", "8", "9", "64", "128", "gb", "red", "blue", "phone", "camera"]
TITLES = [f"{a} {b}" for a in WORDS for b in WORDS[3:5]]  # 24, all different
HEADS = Auxiliary(dropout=0.0, context_heads=2)
CASES = {
    "softmax": lambda model: ALCRankingLoss(model, Softmax(), auxiliary=None),
    "cached": lambda model: CachedALCRankingLoss(
        model, Softmax(), auxiliary=None, mini_batch_size=4
    ),
    "heads": lambda model: ALCRankingLoss(model, auxiliary=HEADS),
}


def train(bert: str, output: Path, case: str) -> None:
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    torch.manual_seed(0)
    body = Transformer(bert)
    pooling = Pooling(body.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[body, pooling], device="cpu")
    start = {name: value.clone() for name, value in model.state_dict().items()}
    loss = CASES[case](model)
    data = Dataset.from_dict({"query": TITLES, "positive": [f"{t} phone" for t in TITLES]})
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(output / "run"), max_steps=STEPS, per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=2 // size, optim="sgd", learning_rate=1e-2,
        lr_scheduler_type="constant", max_grad_norm=0.0, report_to="none", save_strategy="no",
        use_cpu=True, seed=0, disable_tqdm=True,
    )  # fmt: skip
    SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss).train()
    kept = {"start": start, "encoder": model.state_dict(), "heads": loss.losses.state_dict()}
    torch.save(kept, output / f"{case}-of-{size}-{rank}.pt")


def main() -> None:
    bert, output = sys.argv[1], Path(sys.argv[2])
    for case in CASES:
        train(bert, output, case)
    if dist.is_initialized():
        farewell()  # a thread of Gloo's must not outlive the interpreter
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
