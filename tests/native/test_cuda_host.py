"""The emulation itself: it finds races, deadlocks and writes beyond shared memory."""

from __future__ import annotations

import ctypes
import subprocess

import pytest

from csrc import flags
from tests.native.cuda import COMPILE, HERE, ORDERS, no_compiler

SOURCE = """
#include "cuda_on_host.h"

// Thread t publishes t and reads its neighbour in the next warp.
void neighbour(int* out, bool barrier) {
  ALC_SHARED(shared);
  int* values = reinterpret_cast<int*>(shared);
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (barrier) __syncthreads(); else __syncwarp();
  out[threadIdx.x] = values[(threadIdx.x + 32) % blockDim.x];
}

void divergent(int*) { if (threadIdx.x < 40) __syncthreads(); }
void half_a_warp(int*) { if (threadIdx.x < 16) __syncwarp(); }
void beyond(int*) { ALC_SHARED(shared); reinterpret_cast<int*>(shared)[blockDim.x] = 1; }
void sums(int* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  out[threadIdx.x] = __shfl_up_sync(~0u, lane, 3) + 100 * __shfl_xor_sync(~0u, lane, 5);
}

extern "C" int probe(int which, int* out) {
  const auto go = [&](auto kernel, auto... more) {
    ALC_LAUNCH(kernel, 1, 64, 64 * sizeof(int), nullptr, out, more...);
  };
  if (which == 0) go(neighbour, true);
  if (which == 1) go(neighbour, false);
  if (which == 2) go(divergent);
  if (which == 3) go(half_a_warp);
  if (which == 4) go(beyond);
  if (which == 5) go(sums);
  return cudaGetLastError();
}
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """``probe(which, order)`` -> error code and the 64 threads' results."""
    reason = no_compiler()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.cpp").write_text(SOURCE, encoding="utf-8")
    command = [*flags.compiler(), *COMPILE, f"-I{HERE / 'cuda_host'}", "-shared", "-o",
               str(folder / "probe.so"), str(folder / "probe.cpp"),
               str(HERE / "cuda_host" / "cuda_on_host.cpp")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    library = ctypes.CDLL(str(folder / "probe.so"))

    def call(which: int, order: int = 0) -> tuple[int, list[int]]:
        library.on_host_order(ctypes.c_long(order))
        out = (ctypes.c_int * 64)()
        return library.probe(which, out), list(out)

    return call


@pytest.mark.parametrize("order", ORDERS)
def test_a_barrier_makes_neighbours_visible(probe, order):
    assert probe(0, order) == (0, [(t + 32) % 64 for t in range(64)])


def test_a_race_shows_in_the_orders(probe):
    right = [(t + 32) % 64 for t in range(64)]
    assert any(probe(1, order) != (0, right) for order in ORDERS)


@pytest.mark.parametrize(("which", "code"), [(2, 719), (3, 719), (4, 700)])
def test_errors_are_told_and_do_not_last(probe, which, code):
    assert probe(which)[0] == code
    assert probe(0)[0] == 0


def test_exchanges_within_a_warp(probe):
    lanes = [t % 32 for t in range(64)]
    expected = [(lane - 3 if lane >= 3 else lane) + 100 * (lane ^ 5) for lane in lanes]
    assert probe(5) == (0, expected)
