"""The diffs of docs/integrations.md apply to call sites of the form they name, and run there.

The call sites are stand-ins: what the diffs touch, and as little else as runs. The page says which
real files the diffs were applied to.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels.integrations.xmc import EmbeddingCriterion, SimilarityCriterion
from tests.integrations.test_xmc_criteria import weighted_hinge

PAGE = Path(__file__).parent.parent.parent / "docs" / "integrations.md"
STEPS = ("NGAME and DEXA", "PRIME", "ViXML")  # two diffs each, in this order
B, D, K = 12, 8, 4

# One file of each: the lines that the diffs quote, in functions of our own.
SITES = {
    "NGAME and DEXA": {
        "libs/loss.py": """
def construct_loss(params):
    _pad_ind = None #if params.use_shortlist else params.label_padding_index
    if params.loss == 'bce':
        return None
""",
        "libs/model.py": '''
class Model:
    def compute(self, y_hat, batch_data):
        """
        """
        y = batch_data['Y'].to(y_hat.device)
        return self.criterion(y_hat, y, None)
''',
        "main.py": """
def main(args, net):
    if True:
        loss = construct_loss(args)
        optimizer = construct_optimizer(args, net)
        schedular = construct_schedular(args, optimizer)
    return loss, optimizer
""",
        "models/network.py": """
class Network:
    def forward(self, ip_rep, op_rep):
        return self.similarity(ip_rep, op_rep), ip_rep

    def initialize(self, x):
        pass
""",
    },
    "PRIME": {
        "main.py": """
def main(args, net):
    if True:
        criterion = construct_loss(args)
        optim, schedular = construct_opt_schedular(net, args)
        shortlister = construct_shortlister(args)
    return criterion, optim
""",
        "libs/pipeline.py": '''
class Pipeline:
    def compute(self, y_hat, batch):
        """
        """
        y_hat, y_hat_i = y_hat
        y = batch['Y'].to(y_hat.device)
        mask = batch['Y_mask']
        return self.criterion(
            y_hat,
            y,
            y_hat_i,
            mask=mask.to(y_hat.device) if mask is not None else mask)

''',
        "models/network.py": """
def forward(self, batch, X, Z, _Z):
    if True:
            _to_device(batch['Y_s'], self.device))
        return (self.similarity(X, Z), self.similarity(X, _Z)), X
""",
    },
    "ViXML": {
        "utils.py": """
def prepare_loss(args, train_loader):
	criterion = ATripletMarginLossOHNMDM(
		args=args)


def prepare(args):
	optimizer = torch.optim.AdamW(gp, lr=args.lr, eps=1e-06)
	t_total = t_total * args.epochs
	return optimizer


def step(criterion, reg_criterion, snet, args, gt, data, embeddings):
	ip_embeddings, raw_op_embeddings, op_embeddings = embeddings
	if True:
		if True:
			if True:
				sim_i = ip_embeddings @ raw_op_embeddings.T
				loss_u, violators_u = criterion(sim_i, gt)
				if snet.prime:
					loss_i, _ = criterion(raw_op_embeddings @ ip_embeddings.T, data['Y'].T.to(args.device))
					sim_f = ip_embeddings @ op_embeddings.T
					loss_uv, violators_uv = criterion(sim_f, gt)
					loss_r = reg_criterion(sim_i, sim_f, gt)
	return loss_u, loss_i, loss_uv, violators_uv.item()
""",
        "main.py": """
def run(args, snet, train_loader):
    criterion = prepare_loss(args, None)

    optimizer, scheduler = prepare_optimizer_and_scheduler(args, snet, len(train_loader))

    return criterion, optimizer
""",
    },
}  # fmt: skip


def diffs() -> dict[str, list[str]]:
    """For each method the diff of step 1 and that of step 2."""
    blocks = re.findall(r"^```diff\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    assert len(blocks) == 2 * len(STEPS)
    return {name: blocks[2 * i : 2 * i + 2] for i, name in enumerate(STEPS)}


def apply(diff: str, files: dict[str, str]) -> dict[str, str]:
    """The files with the diff applied; each hunk must find its lines exactly once."""
    files = dict(files)
    for part in re.split(r"^--- a/", diff, flags=re.M)[1:]:
        path = part.split("\n", 1)[0]
        assert f"+++ b/{path}\n" in part
        for hunk in re.split(r"^@@ .*@@\n", part, flags=re.M)[1:]:
            lines = [line or " " for line in hunk.rstrip("\n").split("\n")]
            old, new = (
                "".join(f"{x[1:]}\n" for x in lines if x[0] in kept) for kept in (" -", " +")
            )
            assert files[path].count(old) == 1, f"{path}: not found once:\n{old}"
            files[path] = files[path].replace(old, new)
    return files


def run(source: str, **names: Any) -> SimpleNamespace:
    namespace = {"torch": torch, **names}
    exec(compile(source, "stand-in", "exec"), namespace)
    return SimpleNamespace(**namespace)


def patched(name: str, step: int) -> dict[str, str]:
    files = SITES[name]
    for diff in diffs()[name][:step]:
        files = apply(diff, files)
    return files


def rows() -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    queries = torch.randn(B, D, generator=g, dtype=torch.float64)
    made = [queries + s * torch.randn(B, D, generator=g, dtype=torch.float64) for s in (1, 0.8)]
    return tuple(F.normalize(x).requires_grad_() for x in (queries, *made))


def plain(criterion: Any) -> Any:
    """Without TCM: what has the value of the code that is replaced."""
    criterion.settings.threshold = None
    return criterion


def hinge(s: Tensor, low: float, high: float) -> Tensor:
    margin = lambda lead: lead.detach().abs().clamp(low, high)  # noqa: E731
    target = torch.eye(B, dtype=torch.float64)
    return weighted_hinge(s, target, s.diagonal()[:, None], margin, K).sum(dim=1).mean()


def agree(found: Tensor, expected: Tensor, *leaves: Tensor) -> None:
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(x, leaves, retain_graph=True) for x in (found, expected)]
    torch.testing.assert_close(*grads)


TRIPLET = SimpleNamespace(
    loss="triplet_margin_ohnm", network_type="siamese", loss_agressive=True, margin=0.3,
    loss_num_negatives=K,
)  # fmt: skip


class Net(nn.Module):
    """As wide as it says, on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.representation_dims = self.repr_dims = D
        self.device = torch.device("cpu")

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        return F.normalize(a) @ F.normalize(b).T


@pytest.mark.parametrize("step", [1, 2])
def test_ngame_and_dexa(step: int) -> None:
    files = patched("NGAME and DEXA", step)
    made = run(files["libs/loss.py"]).construct_loss(TRIPLET)
    assert isinstance(made, SimilarityCriterion) and made.settings.threshold is not None
    assert made.settings.base.weight_temperature == 0.1
    other = SimpleNamespace(**{**vars(TRIPLET), "loss_agressive": False})
    assert run(files["libs/loss.py"]).construct_loss(other).settings.base.weight_temperature is None
    classifier = SimpleNamespace(**{**vars(TRIPLET), "network_type": "xc"})
    assert run(files["libs/loss.py"]).construct_loss(classifier) is None
    main = run(
        files["main.py"],
        construct_loss=lambda _: plain(made),
        construct_optimizer=lambda _, net: torch.optim.AdamW(net.parameters()),
        construct_schedular=lambda *_: None,
    ).main
    loss, optimizer = main(TRIPLET, Net())
    x, z, _ = rows()
    network = run(files["models/network.py"]).Network()
    network.similarity = lambda a, b: F.normalize(a) @ F.normalize(b).T
    model = run(files["libs/model.py"]).Model()
    output, _ = network.forward(x, z)
    model.criterion = loss
    if step == 2:
        assert isinstance(loss, EmbeddingCriterion)
        groups = optimizer.param_groups
        assert [id(p) for p in groups[-1]["params"]] == [id(p) for p in loss.parameters()]
        assert len(groups[-1]["params"]) > 10
        model.criterion = made.on_embeddings(D, None)
    found = model.compute(output, {"Y": torch.eye(B), "Y_mask": None})
    agree(found, hinge(F.normalize(x) @ F.normalize(z).T, 0.3, 0.3), x, z)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("least", [0.0, 0.1])
def test_prime(step: int, least: float) -> None:
    files = patched("PRIME", step)
    args = SimpleNamespace(
        stage="siamese", loss_margin=0.3, loss_margin_min=least, loss_num_negatives=K
    )

    class Three(nn.Module):
        """The criterion of three matrices and a regulariser."""

        inter, dual, reg = 1.0, 0.5, 0.1

        def forward(self, s, y, t, mask=None):
            pairs = self.criterion(s, y) + self.criterion(t, y)
            return pairs + 0.5 * self.criterion(t.T, y.T) + 0.1 * self.regularization(s, y, t)

        def regularization(self, s, y, t):
            return (s - t).square().mean()

    names = {
        "construct_loss": lambda _: Three(),
        "construct_opt_schedular": lambda net, _: (torch.optim.AdamW(net.parameters()), None),
        "construct_optimizer": lambda net, _: torch.optim.AdamW(net.parameters()),
        "construct_schedular": lambda *_: None,
        "construct_shortlister": lambda _: None,
    }
    criterion, optimizer = run(files["main.py"], **names).main(args, Net())
    if step == 2:
        inner = criterion.criterion
        assert isinstance(inner, EmbeddingCriterion) and inner.positive == "random"
        assert len(optimizer.param_groups[-1]["params"]) == len(list(inner.parameters())) > 10
        base = inner.loss.base
        criterion.criterion = SimilarityCriterion(base, None, positive="random")
        criterion.criterion = criterion.criterion.on_embeddings(D, None)
    else:
        plain(criterion.criterion)
    x, z, w = rows()
    pipeline = run(files["libs/pipeline.py"]).Pipeline()
    pipeline.criterion, pipeline.net = criterion, Net()
    s, t = pipeline.net.similarity(x, z), pipeline.net.similarity(x, w)
    output = (x, z, w) if step == 2 else (s, t)
    found = pipeline.compute(output, {"Y": torch.eye(B), "Y_mask": None})
    low = least or 0.3  # 0 is a fixed margin
    parts = [hinge(m, low, 0.3) * f for m, f in ((s, 1.0), (t, 1.0), (t.T, 0.5))]
    agree(found, sum(parts) + 0.1 * (s - t).square().mean(), x, z, w)
    returned = "return (X, Z, _Z), X" if step == 2 else "self.similarity(X, _Z)), X"
    assert returned in files["models/network.py"]


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("least", [0.3, 0.1])
def test_vixml(step: int, least: float) -> None:
    files = patched("ViXML", step)
    args = SimpleNamespace(
        margin_min=least, margin_max=0.3, num_negatives=K, agressive_loss=True, fixed_pos=False,
        device="cpu", lr=0.1, epochs=1,
    )  # fmt: skip
    layer = nn.Linear(2, 2)
    utils = run(files["utils.py"], gp=layer.parameters(), t_total=1)
    made = plain(utils.prepare_loss(args, None))
    assert made.positive == "random" and made.num_violators
    names = {
        "prepare_loss": lambda *_: made,
        "prepare_optimizer_and_scheduler": lambda *_: (run(
            files["utils.py"], gp=layer.parameters(), t_total=1).prepare, None),
    }  # fmt: skip
    criterion, _ = run(files["main.py"], **names).run(args, Net(), [])
    if step == 2:
        assert isinstance(criterion, EmbeddingCriterion) and args.heads is criterion
        source = files["utils.py"].replace("\tt_total = t_total * args.epochs\n", "")
        optimizer = run(source, gp=layer.parameters()).prepare(args)
        assert len(optimizer.param_groups[-1]["params"]) == len(list(criterion.parameters())) > 10
        criterion = made.on_embeddings(D, None)
    x, z, w = rows()
    u, i, uv, count = utils.step(
        criterion, lambda *_: 0.0, SimpleNamespace(prime=True), args, torch.eye(B),
        {"Y": torch.eye(B)}, (x, z, w),
    )  # fmt: skip
    for found, (a, b) in ((u, (x, z)), (i, (z, x)), (uv, (x, w))):
        torch.testing.assert_close(found, hinge(a @ b.T, least, 0.3))
    assert (count > 0) == (step == 1)


def test_a_threshold_loss_beside_a_base_divided_by_k() -> None:
    """As the page says: at 1/k TCM at weight 1 is nearly all; with the same factor it is not."""
    from alc_kernels import ThresholdMargin, Triplet

    x, z, _ = rows()
    s, target, k = x @ z.T, torch.eye(B), 10
    shares = []
    for base_weight, weight in ((1 / k, 1.0), (1 / k, 1 / k), (1.0, 1.0)):
        tcm = ThresholdMargin(
            positive_weight=weight, negative_weight=weight, negative_scope="hardest",
            reduction="rows",
        )  # fmt: skip
        parts = [SimilarityCriterion(Triplet(0.3, k), t, base_weight) for t in (None, tcm)]
        base, total = (part(s, target) for part in parts)
        shares.append((base / total).item())
    assert shares[0] < 0.08 < 0.25 < shares[1] == pytest.approx(shares[2])
