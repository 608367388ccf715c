#!/usr/bin/env bash
# sentence-transformers: the trainer gives a loss's parameters to its optimizer, but max_grad_norm
# (1.0 by default) clips the model's only, and the logged norm leaves them out.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.13.0" "numpy==2.3.5" "transformers==5.24.0" \
    "accelerate==1.15.0" "datasets==5.2.0" "sentence-transformers==6.2.0"
cat > "$work/show.py" <<'PY'
import sys
from importlib.metadata import version

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import SoftmaxLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import TrainerCallback

for name in ("torch", "transformers", "accelerate", "sentence-transformers"):
    print(name, version(name))
torch.manual_seed(0)
words = Tokenizer(WordLevel({w: i for i, w in enumerate("[UNK] a b c d".split())}, "[UNK]"))
words.pre_tokenizer = Whitespace()
model = SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=8)], device="cpu")
with torch.no_grad():
    model[0].embedding.weight.mul_(30)  # large activations, so large gradients of the classifier
loss = SoftmaxLoss(model, embedding_dimension=8, num_labels=2)
norms = {}


def norm(module):
    return torch.stack([p.grad.norm() for p in module.parameters() if p.grad is not None]).norm()


class Look(TrainerCallback):
    def on_pre_optimizer_step(self, *_, **__):
        norms.setdefault("model", norm(model).item())
        norms.setdefault("classifier", norm(loss.classifier).item())


data = Dataset.from_dict({"x": ["a b", "c"] * 4, "y": ["a", "d"] * 4, "label": [0, 1] * 4})
arguments = SentenceTransformerTrainingArguments(
    output_dir=sys.argv[1], max_steps=1, max_grad_norm=0.01, report_to="none", use_cpu=True,
    save_strategy="no", logging_steps=1, disable_tqdm=True,
)
trainer = SentenceTransformerTrainer(model, arguments, train_dataset=data, loss=loss,
                                     callbacks=[Look()])
trainer.train()
groups = trainer.optimizer.param_groups
moved = {id(p) for group in groups for p in group["params"]}
stepped = all(id(p) in moved for p in loss.classifier.parameters())
print("expected: max_grad_norm=0.01 bounds the norm of all gradients that the optimizer steps on")
print(f"found: model {norms['model']:.4f}, the loss's classifier {norms['classifier']:.4f}, "
      f"which the optimizer moves: {stepped}")
ok = stepped and norms["model"] <= 0.0101 and norms["classifier"] > 0.1
raise SystemExit(0 if ok else 1)
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/show.py" "$work/run"
