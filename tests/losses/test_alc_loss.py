"""The module: agreement of the whole with the reference, terms, state, options."""

from __future__ import annotations

import copy
import logging
import math
import pickle

import pytest
import torch

import alc_kernels.losses.alc_loss as alc_loss_module
from alc_kernels import (
    ALCLoss,
    Auxiliary,
    BackendUnavailableError,
    DynamicTriplet,
    Positives,
    Sigmoid,
    Softmax,
    ThresholdMargin,
    Triplet,
    reference,
)
from alc_kernels.backends import native as native_backend
from tests.losses.cases import make_data
from tests.tolerances import TOLERANCES, assert_close

CONFIGURATIONS = {
    "default": {},
    "published-tcm": {"threshold": ThresholdMargin(0.8, 0.3)},
    "pair-only": {"auxiliary": Auxiliary(batch_weight=0.0), "threshold": None},
    "batch-only": {
        "auxiliary": Auxiliary(pair_weight=0.0, batch_weight=0.7, context_size=16, dropout=0.0),
        "base": None,
        "threshold": None,
    },
    "some-rows": {
        "auxiliary": Auxiliary(
            batch_weight=0.7, context_size=4, context_rows=9, dropout=0.0, context_dim=8
        ),
        "threshold": None,
    },
    "whole-batch": {
        "auxiliary": Auxiliary(context_size=None, dropout=0.0, context_dim=16, context_heads=2),
        "base": DynamicTriplet(symmetric="sum"),
        "base_weight": 0.5,
    },
    "softmax": {"base": "decoupled_softmax"},
    "inner-product": {"base": Softmax(temperature=1.0), "normalize": False},
}


def build(name: str, width: int = 24, **more) -> ALCLoss:
    torch.manual_seed(1)
    options = {"auxiliary": Auxiliary(context_size=10, dropout=0.0), **CONFIGURATIONS[name], **more}
    return ALCLoss(width, **options)


def check_against_reference(loss_fn, relation, dtype, device, exclude_above=None):
    wide_fn = copy.deepcopy(loss_fn).to(torch.float64)
    loss_fn = loss_fn.to(device)
    if dtype == torch.float64:
        loss_fn = loss_fn.double()
    data = make_data(relation)
    mine, exact = data.to(dtype, device), data.to(dtype).to(torch.float64)
    rounding = {"compute_dtype": dtype} if dtype in (torch.float16, torch.bfloat16) else {}
    terms = loss_fn.terms(
        mine.queries, mine.labels, mine.positives, mine.exclude, exclude_above=exclude_above
    )
    expected = reference.alc_loss(
        exact.queries, exact.labels, exact.positives, exact.exclude,
        base=wide_fn.base, auxiliary=wide_fn.auxiliary, heads=wide_fn,
        threshold=wide_fn.threshold, base_weight=wide_fn.base_weight,
        normalize=wide_fn.normalize, exclude_above=exclude_above, **rounding,
    )  # fmt: skip
    terms.total.backward()
    expected.total.backward()
    allowed = TOLERANCES[dtype]
    for field in ("total", "base", "pair", "batch", "tcm_positive", "tcm_negative"):
        error = abs(getattr(terms, field).item() - getattr(expected, field).item())
        assert error <= 4 * allowed.value, f"{field}: {error:.3g}"
    assert terms.active_positives.item() == expected.active_positives.item()
    assert terms.active_negatives.item() == expected.active_negatives.item()
    assert torch.equal(terms.hardest_index.cpu(), expected.hardest_index)
    scores = [t.hardest_score.nan_to_num(neginf=0) for t in (terms, expected)]
    assert_close("hardest_score", *scores, 4 * allowed.value)
    assert_close("queries", mine.queries.grad, exact.queries.grad, allowed.gradient)
    assert_close("labels", mine.labels.grad, exact.labels.grad, allowed.gradient)
    for (name, p), (_, q) in zip(
        loss_fn.named_parameters(), wide_fn.named_parameters(), strict=True
    ):
        # The heads compute in float32 whatever the embeddings' dtype.
        assert_close(name, p.grad, q.grad, 2e-5 if p.dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("relation", ["diagonal", "dense+exclude", "ids"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_torch_backend_agrees_with_the_reference(name, relation, dtype, device):
    check_against_reference(build(name, backend="torch"), relation, dtype, device)


@pytest.mark.parametrize("relation", ["diagonal", "csr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_triton_backend_agrees_with_the_reference(relation, dtype, device):
    check_against_reference(build("default", backend="triton"), relation, dtype, device)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_forward_equals_the_total_of_terms(name):
    loss_fn, data = build(name), make_data("csr").to(torch.float32)
    arguments = data.queries, data.labels, data.positives, data.exclude
    assert torch.equal(loss_fn(*arguments), loss_fn.terms(*arguments).total)


def test_only_the_total_carries_the_graph():
    data = make_data("diagonal").to(torch.float32)
    terms = build("default").terms(data.queries, data.labels)
    assert terms.total.requires_grad
    for name, value in vars(terms).items():
        assert name == "total" or not value.requires_grad, name


def test_unused_parts_are_zero_and_have_no_parameters():
    loss_fn = ALCLoss(None, auxiliary=None, threshold=None)
    assert not list(loss_fn.parameters())
    data = make_data("diagonal").to(torch.float32)
    terms = loss_fn.terms(data.queries, data.labels)
    for name in ("pair", "batch", "tcm_positive", "tcm_negative", "active_positives"):
        assert getattr(terms, name).item() == 0
    assert terms.hardest_index.shape == (37,)
    weightless = ALCLoss(24, auxiliary=Auxiliary(pair_weight=0.0))
    assert not hasattr(weightless, "pair_head") and hasattr(weightless, "context_head")


def test_names_of_the_heads():
    names = {name.split(".")[0] for name in ALCLoss(8).state_dict()}
    assert names == {"pair_head", "context_in", "context_layer", "context_head"}


def test_state_dict_round_trip_reproduces_the_loss():
    data = make_data("diagonal").to(torch.float32)
    first, second = build("default"), ALCLoss(24, auxiliary=Auxiliary(context_size=10, dropout=0.0))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(data.queries, data.labels), second(data.queries, data.labels))


def test_a_module_pickled_before_there_were_some_settings_is_of_the_wide_form():
    older = Auxiliary.wide(dropout=0.0)
    for name in ("context_rows", "attention_dropout"):
        del older.__dict__[name]
    assert pickle.loads(pickle.dumps(older)) == Auxiliary.wide(dropout=0.0)
    assert pickle.loads(pickle.dumps(Auxiliary())) == Auxiliary()


def test_a_state_dict_of_another_form_is_refused_with_what_fits():
    wide = ALCLoss(24, auxiliary=Auxiliary.wide())
    with pytest.raises(RuntimeError, match=r"found a batch part 24 wide.*Auxiliary\.wide\(\)"):
        ALCLoss(24).load_state_dict(wide.state_dict())
    again = ALCLoss(24, auxiliary=Auxiliary.wide())
    again.load_state_dict(wide.state_dict())
    assert torch.equal(again.context_in.weight, wide.context_in.weight)


def test_learnable_sigmoid_starts_where_told_and_learns():
    loss_fn = ALCLoss(24, base=Sigmoid(scale=10.0, bias=-10.0), auxiliary=None, threshold=None)
    assert {n: p.shape for n, p in loss_fn.named_parameters()} == {"log_scale": (1,), "bias": (1,)}
    data = make_data("csr").to(torch.float64)
    loss_fn.double()
    loss_fn(data.queries, data.labels, data.positives).backward()
    scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-10.0, dtype=torch.float64, requires_grad=True)
    expected = reference.sigmoid_loss(
        data.queries, data.labels, data.positives, scale=scale, bias=bias
    )
    expected.backward()
    torch.testing.assert_close(loss_fn.log_scale.grad[0], 10.0 * scale.grad, rtol=1e-6, atol=0)
    torch.testing.assert_close(loss_fn.bias.grad[0], bias.grad, rtol=1e-6, atol=0)


def test_sigmoid_uses_a_parameter_that_it_is_given():
    scale = torch.nn.Parameter(torch.tensor(5.0))
    loss_fn = ALCLoss(base=Sigmoid(scale=scale), auxiliary=None, threshold=None)
    assert {n for n, _ in loss_fn.named_parameters()} == {"scale", "bias"}
    data = make_data("csr").to(torch.float32)
    loss_fn(data.queries, data.labels, data.positives).backward()
    assert all(p.grad is not None and p.grad != 0 for p in loss_fn.parameters())


def test_second_derivative_through_the_heads_raises():
    data = make_data("diagonal").to(torch.float32)
    loss_fn = build("default")
    for parameter in (loss_fn.context_in.weight, loss_fn.pair_head.weight):
        loss = loss_fn(data.queries, data.labels)
        (grad,) = torch.autograd.grad(loss, parameter, create_graph=True)
        with pytest.raises(RuntimeError, match="first derivatives only"):
            grad.square().sum().backward()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_only_the_value_is_computed(mode):
    data = make_data("diagonal").to(torch.float32)
    loss_fn = build("default")
    expected = loss_fn(data.queries, data.labels)
    from tests.losses.test_operators import Largest

    with mode(), Largest() as seen:
        found = loss_fn(data.queries, data.labels)
    torch.testing.assert_close(found, expected.detach())
    assert not any("backward" in name for name in seen.operators)


def test_gradients_of_half_precision_heads_are_summed_in_float32():
    """Over 256 groups sums in bfloat16 would lose a percent and more."""
    torch.manual_seed(0)
    parts = Auxiliary(pair_weight=0.0, context_size=8, dropout=0.0)
    loss_fn = ALCLoss(32, base=None, threshold=None, auxiliary=parts)
    loss_fn.to(torch.bfloat16)
    exact = copy.deepcopy(loss_fn).double()
    q = torch.randn(2048, 32)
    k = q + 0.8 * torch.randn(2048, 32)
    loss_fn(q, k).backward()
    exact(q.double(), k.double()).backward()
    for (name, p), (_, e) in zip(loss_fn.named_parameters(), exact.named_parameters(), strict=True):
        assert_close(name, p.grad, e.grad, 4e-3)  # the one rounding to bfloat16


def test_an_empty_batch_leaves_every_parameter_in_the_graph():
    loss_fn = ALCLoss(8)
    x = torch.randn(0, 8, requires_grad=True)
    loss_fn(x, x).backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in loss_fn.parameters())


def test_fixed_sigmoid_has_no_parameters():
    base = Sigmoid(scale=1.0, bias=0.0, learnable=False)
    assert not list(ALCLoss(base=base, auxiliary=None).parameters())


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_learnable_temperature(decoupled, symmetric):
    temperature = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
    base = Softmax(temperature, decoupled=decoupled, symmetric=symmetric)
    loss_fn = ALCLoss(base=base, auxiliary=None, threshold=None)
    assert dict(loss_fn.named_parameters())["temperature"] is temperature
    data = make_data("csr").to(torch.float64)
    loss_fn(data.queries, data.labels, data.positives).backward()
    other = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    reference.softmax_loss(
        data.queries, data.labels, data.positives,
        temperature=other, decoupled=decoupled, symmetric=symmetric,
    ).backward()  # fmt: skip
    torch.testing.assert_close(temperature.grad, other.grad, rtol=1e-9, atol=0)


def test_groups_do_not_mix_and_dropout_changes_training_only():
    data = make_data("diagonal").to(torch.float32)
    loss_fn = ALCLoss(
        24,
        base=None,
        threshold=None,
        auxiliary=Auxiliary(pair_weight=0.0, context_size=10, dropout=0.5),
    )
    torch.manual_seed(0)
    noisy = {loss_fn(data.queries, data.labels).item() for _ in range(3)}
    assert len(noisy) == 3
    loss_fn.eval()
    quiet = {loss_fn(data.queries, data.labels).item() for _ in range(3)}
    assert len(quiet) == 1


def test_dropout_gradient_matches_the_masks_of_the_forward():
    """The gradient belongs to the same dropout masks as the value (finite differences, seeded)."""
    data = make_data("diagonal").to(torch.float64)
    loss_fn = ALCLoss(
        24,
        base=None,
        threshold=None,
        auxiliary=Auxiliary(pair_weight=0.0, context_size=10, dropout=0.3),
    )
    loss_fn.double()
    weight = loss_fn.context_in.weight

    def seeded() -> torch.Tensor:
        torch.manual_seed(7)
        return loss_fn(data.queries, data.labels)

    seeded().backward()
    direction = torch.randn_like(weight)
    with torch.no_grad():
        values = []
        for step in (1e-6, -1e-6):
            weight += step * direction
            values.append(seeded().item())
            weight -= step * direction
    slope = (values[0] - values[1]) / 2e-6
    assert abs(slope - (weight.grad * direction).sum().item()) < 1e-6 * max(1, abs(slope))


@pytest.mark.parametrize(("rows_of_a_pass", "backend"), [(1, "torch"), (128, "torch"), (0, "auto")])
def test_batch_part_memory_does_not_grow_with_the_batch(rows_of_a_pass, backend, monkeypatch):
    """No tensor of the batch part is larger than a pass's, or the embeddings themselves."""
    from alc_kernels.engine import batch_part
    from tests.losses.test_operators import Largest

    monkeypatch.setattr(batch_part, "PASS_ROWS", rows_of_a_pass)
    largest = []
    for rows in (256, 1024):
        torch.manual_seed(0)
        loss_fn = ALCLoss(
            16,
            base=None,
            threshold=None,
            auxiliary=Auxiliary(pair_weight=0.0, context_size=32, context_rows=None, dropout=0.0),
            backend=backend,
        )
        data = make_data("diagonal", rows=rows, width=16).to(torch.float32)
        with Largest() as seen:
            loss_fn(data.queries, data.labels).backward()
        # What is not of one group: the rows themselves, and what is made of them by the walk.
        own = {s for s in seen.shapes if len(s) >= 3 and rows not in s}
        if backend == "torch":
            assert (max(rows_of_a_pass, 32), 2, 16) in own
        most = max(rows_of_a_pass, 32) * 2 * 3 * 64
        assert max((math.prod(s) for s in own), default=0) <= most
        largest.append(own)
    assert largest[0] == largest[1]


def test_whole_batch_warning_comes_once(monkeypatch, caplog):
    monkeypatch.setattr(alc_loss_module, "WHOLE_BATCH_LIMIT", 8)
    alc_loss_module.warn_about_whole_batch.cache_clear()
    loss_fn = ALCLoss(24, auxiliary=Auxiliary(context_size=None, dropout=0.0))
    data = make_data("diagonal").to(torch.float32)
    with caplog.at_level(logging.WARNING, logger="alc_kernels"):
        for _ in range(3):
            loss_fn(data.queries, data.labels)
    assert sum("square" in record.message for record in caplog.records) == 1


def test_extra_repr_names_what_differs():
    text = repr(ALCLoss(8, base=Triplet(margin=0.4), deterministic=True))
    assert "margin=0.4" in text and "deterministic=True" in text and "embedding_dim=8" in text


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"base": "tripplet"}, ValueError, "expected one of 'triplet'"),
        ({"base": 3}, TypeError, "base: expected Triplet"),
        ({"threshold": "all"}, TypeError, "threshold: expected ThresholdMargin"),
        ({"auxiliary": True}, TypeError, "auxiliary: expected Auxiliary"),
        ({"backend": "cuda"}, ValueError, "expected one of 'auto'"),
        ({"base_weight": float("nan")}, ValueError, "base_weight=nan"),
        ({"embedding_dim": None}, ValueError, "embedding_dim=None"),
        ({"embedding_dim": "abc", "auxiliary": None}, ValueError, "embedding_dim='abc'"),
        ({"base_weight": None}, TypeError, "base_weight: expected a number"),
        ({"deterministic": "no"}, TypeError, "deterministic='no'"),
        (
            {"embedding_dim": 30, "auxiliary": Auxiliary.wide()},
            ValueError,
            "multiple of context_heads=4",
        ),
    ],
)
def test_bad_options_are_named(options, error, words):
    with pytest.raises(error, match=words):
        ALCLoss(**{"embedding_dim": 8, **options})


def test_wrong_width_is_named():
    data = make_data("diagonal").to(torch.float32)
    for options in ({}, {"auxiliary": None}):
        with pytest.raises(ValueError, match=r"embedding_dim=16, got \(37, 24\)"):
            ALCLoss(16, **options)(data.queries, data.labels)


def test_native_backend_says_why_it_cannot_run(monkeypatch):
    data = make_data("diagonal").to(torch.float32)
    monkeypatch.setattr(native_backend, "_PROBLEM", "it was not built")
    with pytest.raises(BackendUnavailableError, match="cannot run here: it was not built"):
        ALCLoss(24, backend="native")(data.queries, data.labels)


def test_row_weight_of_zero_removes_a_row_from_the_base():
    data = make_data("diagonal").to(torch.float64)
    loss_fn = ALCLoss(base="softmax", auxiliary=None, threshold=None)
    weight = torch.ones(37, dtype=torch.float64)
    weight[5:] = 0
    loss = loss_fn(data.queries, data.labels, row_weight=weight)
    relation = Positives.from_index(torch.arange(5), 37)
    expected = loss_fn(data.queries[:5], data.labels, relation)
    torch.testing.assert_close(loss, expected)


def test_the_whole_loss_under_autocast_over_several_groups():
    data = make_data("diagonal").to(torch.float32)
    loss_fn = build("default")
    results = []
    for enabled in (False, True):
        loss_fn.zero_grad()
        data.queries.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = loss_fn(data.queries, data.labels)
        loss.backward()
        assert loss.dtype == torch.float32
        grads = [p.grad.clone() for p in loss_fn.parameters()]
        results.append((loss.detach(), [data.queries.grad.clone(), *grads]))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-2, atol=0)
    for found, expected in zip(results[1][1], results[0][1], strict=True):
        assert_close("gradient", found, expected, 0.05)  # bfloat16 rounds every product
