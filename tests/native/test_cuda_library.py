"""Finding the CUDA kernels, refusing foreign libraries, and the switch that turns them on."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch

from alc_kernels.backends.cuda import library
from alc_kernels.cli import bench
from csrc import flags
from tests.native.cuda import COMPILE, host_library, no_compiler

CPU = torch.empty(0)


@pytest.fixture
def no_override(monkeypatch, tmp_path):
    """A package folder of its own, without a record."""
    monkeypatch.delenv(library.OVERRIDE, raising=False)
    monkeypatch.setattr(library, "PACKAGE", tmp_path)
    library._load.cache_clear()
    yield tmp_path
    library._load.cache_clear()


def test_not_built(no_override):
    assert "were not built (to build them" in str(library.unavailable(CPU))


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"library": 3})])
def test_a_record_that_says_nothing(no_override, text):
    (no_override / library.RECORD).write_text(text, encoding="utf-8")
    assert "cannot be read" in str(library.unavailable(CPU))


def test_a_record_of_a_library_that_is_gone(no_override):
    record = json.dumps({"library": "gone.so"})
    (no_override / library.RECORD).write_text(record, encoding="utf-8")
    assert "cannot be loaded" in str(library.unavailable(CPU))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('extern "C" int alc_cuda_interface() { return 1; }', "undefined symbol"),
        ("", "undefined symbol"),
    ],
)
def test_a_library_without_the_functions(tmp_path, source, message):
    with pytest.raises(OSError, match=message):
        library.open_library(compiled(tmp_path, source))


def test_a_library_of_other_sources(tmp_path):
    source = 'extern "C" int alc_cuda_interface() { return 99; }\n'
    source += "".join(f'extern "C" int {name}() {{ return 0; }}\n' for name in library.SIGNATURES)
    with pytest.raises(OSError, match=f"has interface 99, this package calls {library.INTERFACE}"):
        library.open_library(compiled(tmp_path, source))


def compiled(folder, source):
    if no_compiler() is not None:
        pytest.skip(str(no_compiler()))
    (folder / "x.cpp").write_text(source, encoding="utf-8")
    output = folder / "x.so"
    command = [*flags.compiler(), *COMPILE, "-shared", "-o", str(output), str(folder / "x.cpp")]
    subprocess.run(command, check=True)
    return output


def test_the_switch(no_override, monkeypatch):
    monkeypatch.delenv(library.SWITCH, raising=False)
    assert not any(library.enabled(part, CPU) for part in library.PARTS)
    monkeypatch.setenv(library.SWITCH, "0")
    assert not any(library.enabled(part, CPU) for part in library.PARTS)
    monkeypatch.setenv(library.SWITCH, "1")
    with pytest.raises(RuntimeError, match=r"ALC_KERNELS_CUDA=1, but the CUDA kernels were not"):
        library.enabled("pair_gradient", CPU)
    monkeypatch.setenv(library.SWITCH, "yes")
    with pytest.raises(ValueError, match=r"ALC_KERNELS_CUDA='yes': expected 0, 1 or auto"):
        library.enabled("pair_gradient", CPU)


def test_the_measured_table_names_parts():
    for capability, parts in library.MEASURED_FASTER.items():
        assert len(capability) == 2 and parts <= set(library.PARTS)


def test_info(no_override, built_for_host, monkeypatch):
    monkeypatch.delenv(library.SWITCH, raising=False)
    if not torch.cuda.is_available():
        assert bench._cuda_kernels().startswith("CUDA kernels: not live: the CUDA kernels were not")
        with host_library(built_for_host):
            assert (
                bench._cuda_kernels()
                == "CUDA kernels: live, not used (ALC_KERNELS_CUDA=1 uses them)"
            )
            monkeypatch.setenv(library.SWITCH, "1")
            assert bench._cuda_kernels() == "CUDA kernels: live, used for mining, pair_gradient"
    else:
        assert "CUDA kernels: not live" in bench._cuda_kernels()
