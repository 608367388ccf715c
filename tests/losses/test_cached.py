"""Encoding in chunks gives the batch's loss and gradients, in the memory of a chunk."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alc_kernels import ALCLoss, Auxiliary
from alc_kernels.cached import cached_chunks, cached_encode


def make_encoder(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Linear(12, 64), nn.GELU(), nn.Dropout(dropout), nn.Linear(64, 16)]
    return nn.Sequential(*layers).double()


def step(encoder: nn.Module, chunk_size: int | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(2)
    loss_fn = ALCLoss(16, auxiliary=Auxiliary(dropout=0.0), backend="torch").double()
    x, y = torch.randn(2, 37, 12, dtype=torch.float64)
    if chunk_size is None:
        queries, labels = encoder(x), encoder(y)
    else:
        queries, labels = (cached_encode(encoder, side, chunk_size) for side in (x, y))
    loss = loss_fn(queries, labels)
    encoder.zero_grad()
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in encoder.parameters()]


@pytest.mark.parametrize("chunk_size", [1, 5, 36, 37, 100])
def test_equals_the_whole_batch(chunk_size: int) -> None:
    encoder = make_encoder()
    loss, grads = step(encoder, None)
    chunked, chunked_grads = step(encoder, chunk_size)
    torch.testing.assert_close(chunked, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(chunked_grads, grads, rtol=1e-10, atol=1e-14)


def test_dropout_draws_the_same_numbers_again() -> None:
    # A function of the dropout mask alone: the gradient of its sum is the mask of the forward pass.
    layer = nn.Dropout(0.5)
    x = torch.ones(64, 8, requires_grad=True)
    torch.manual_seed(3)
    made = cached_encode(lambda part: layer(part) ** 2, x, 16)
    torch.rand(1000)  # what happens in between does not matter
    made.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * made.detach())  # d x^2 = 2 x mask^2, x = 1
    assert 0.3 < float((x.grad == 0).float().mean()) < 0.7


def test_activations_of_one_chunk_at_a_time() -> None:
    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(x.clone())
            return x * 2

        @staticmethod
        def backward(ctx, grad):  # type: ignore[no-untyped-def]
            (x,) = ctx.saved_tensors
            order.append(("back", len(x)))
            return grad * 2

    order: list[tuple[str, int]] = []

    def encoder(x: torch.Tensor) -> torch.Tensor:
        order.append(("encode", len(x)))
        return Watched.apply(x)

    x = torch.randn(10, 3, requires_grad=True)
    cached_encode(encoder, x, 4).sum().backward()
    # Forward three chunks; then, last chunk first, encode again and go back at once.
    assert order[:3] == [("encode", 4), ("encode", 4), ("encode", 2)]
    assert order[3:] == [
        ("encode", 2), ("back", 2), ("encode", 4), ("back", 4), ("encode", 4), ("back", 4),
    ]  # fmt: skip
    torch.testing.assert_close(x.grad, torch.full((10, 3), 2.0))


def test_hooks_on_parameters_fire_once() -> None:
    encoder, calls = make_encoder(), []
    for parameter in encoder.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: calls.append(id(p)))
    step(encoder, 5)
    # Both sides share the encoder: still one accumulation per parameter.
    assert sorted(calls) == sorted(id(p) for p in encoder.parameters())


def test_mappings_tuples_and_autocast() -> None:
    encoder = nn.Linear(4, 3)
    tokens = {"x": torch.randn(9, 4), "scale": (torch.rand(9, 1), 2.0)}

    def forward(batch: dict) -> torch.Tensor:
        return encoder(batch["x"]) * batch["scale"][0] * batch["scale"][1]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = cached_encode(forward, tokens, 4)
        expected = forward(tokens)
    torch.testing.assert_close(made, expected)
    made.float().sum().backward()
    got = encoder.weight.grad.clone()
    encoder.zero_grad()
    expected.float().sum().backward()
    torch.testing.assert_close(got, encoder.weight.grad, rtol=2e-2, atol=2e-2)


def test_no_graph_without_gradients_and_empty_batches() -> None:
    encoder = make_encoder()
    with torch.no_grad():
        assert not cached_encode(encoder, torch.randn(5, 12).double(), 2).requires_grad
    assert cached_encode(encoder, torch.zeros(0, 12).double(), 2).shape == (0, 16)


@pytest.mark.parametrize(
    ("inputs", "chunk_size", "error", "words"),
    [
        (torch.zeros(3, 2), 0, ValueError, "chunk_size=0: expected a whole number of at least 1"),
        (["text"], 2, TypeError, "inputs: found no tensor in list"),
        ([torch.zeros(3), torch.zeros(2)], 2, ValueError, r"first dimensions \[2, 3\]"),
        (torch.tensor(1.0), 2, ValueError, "expected the same number of rows"),
    ],
)
def test_bad_inputs(inputs, chunk_size, error, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        cached_encode(lambda x: x, inputs, chunk_size)


def test_bad_encoders() -> None:
    with pytest.raises(TypeError, match="encoder returned tuple: expected a tensor"):
        cached_encode(lambda x: (x,), torch.zeros(4, 2), 2)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="encoder returned 2 rows for 4"):
        cached_encode(lambda x: x[:1], torch.zeros(4, 2), 2)
    with pytest.raises(ValueError, match="chunks: found none"):
        cached_chunks(lambda x: x, [])
