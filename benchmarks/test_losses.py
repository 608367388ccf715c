"""The same works under pytest-benchmark: ``pytest benchmarks --benchmark-autosave``.

For a quick look, or a history that pytest-benchmark keeps. Figures of record come from
``alc bench table``, which interleaves the providers and gives ratios.
"""

import pytest
import torch

from alc_kernels.bench import measure
from alc_kernels.bench.works import works

GPU = torch.cuda.is_available()
DEVICE, BACKEND = ("cuda", "triton") if GPU else ("cpu", "torch")
ROWS, WIDTH = (16384, 768) if GPU else (1024, 128)
DTYPE = torch.bfloat16 if GPU else torch.float32
PAIR = measure.inputs(ROWS, ROWS, WIDTH, DTYPE, DEVICE, seed=0)
WORKS = works(WIDTH, DEVICE, measure.margin_for(PAIR, 0.0005), 0.0005)


@pytest.mark.parametrize("provider", ["alc_kernels", "eager"])
@pytest.mark.parametrize("name", WORKS)
def test_forward_and_backward(benchmark, name, provider):
    work = WORKS[name]
    step = work.ours(BACKEND) if provider == "alc_kernels" else work.eager
    if step is None:
        pytest.skip("nobody has a plain version")
    benchmark.group = name
    pair = PAIR if work.inputs is None else work.inputs(PAIR)

    def call():
        measure.run(step, pair, work.backward)
        if GPU:
            torch.cuda.synchronize()

    benchmark(call)
