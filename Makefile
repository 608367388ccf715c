# Two commands for a newcomer: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
# The torch to install. Any torch >= 2.11 works; on Linux the registry's default build brings CUDA.
TORCH ?= torch==2.13.0
DEMO_OUTPUT ?= demo
# Test processes, one thread each.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(shell find csrc -name '*.cpp' -o -name '*.cu' -o -name '*.h' -o -name '*.py')
# Not quiet: the first installation takes minutes, and says what it does.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.PHONY: demo install nvcc test test-slow test-minimum test-newest lint format typecheck bench \
        dist docs clean

demo: install
	$(BIN)/alc demo --output $(DEMO_OUTPUT)

install: $(VENV)/.installed

# Without build isolation the build sees the PyTorch that is installed: whether CUDA kernels are of use.
$(VENV)/.installed: pyproject.toml setup.py $(NATIVE)
	@echo "Installing into $(VENV), once; some minutes, by the speed of the network and of the machine."
	@echo "1 of 3: $(TORCH): 0.2 GB, or with CUDA, which the registry's build for Linux brings, 3 GB"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) "$(TORCH)" "setuptools>=77"
	@echo "2 of 3: what the trainer, the adapters and the tests need: some 0.5 GB"
	@echo "        and csrc/, compiled: a minute without a further word"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PIP) --no-build-isolation --editable ".[dev]"
	@echo "3 of 3: what runs here"
	@$(BIN)/alc info | grep -E "native|CUDA kernels"
	@touch $@

# The CUDA compiler for the compile gate, where the machine has none: wheels in .venv-cuda.
nvcc:
	@command -v $${NVCC:-nvcc} || $(MAKE) --no-print-directory .venv-cuda/.installed

.venv-cuda/.installed: tests/compile_gate/nvcc.txt
	$(PYTHON) -m venv .venv-cuda
	.venv-cuda/bin/python -m pip install --quiet --requirement $<
	touch $@

test: install
	$(PYTEST) -m "not slow"

test-slow: install nvcc
	ALC_KERNELS_NVCC=require $(PYTEST) -m slow --ignore=tests/xmc/test_training_kill.py
# This one compares the bits of its process with those of fresh ones: it starts as a fresh one.
	$(PYTEST) -m slow tests/xmc/test_training_kill.py

# The lowest versions that pyproject.toml allows, and the newest, in .venv-minimum and .venv-newest;
# 6 GB each where torch is a CUDA build, as the registry's is on Linux. The tests that PyTorch's and
# Triton's interfaces show in.
# Both install the same wheel, that of `make dist`.
test-minimum test-newest: test-%: .venv-%/.installed
	ls dist/*.whl >/dev/null 2>&1 || $(MAKE) --no-print-directory dist
	PATH="$(CURDIR)/.venv-$*/bin:$$PATH" OMP_NUM_THREADS=1 JOBS=$(JOBS) .ci/test_versions

.venv-minimum/.installed .venv-newest/.installed: .venv-%/.installed: .ci/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --requirement $<
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/alc bench table

# The wheel is built from the source distribution, with the native extensions where they can be built.
# Its tag then names the oldest Linux that it runs on, as auditwheel finds it: one for every PyTorch and
# every Python. ALC_KERNELS_BUILD=skip: a pure one.
dist: install
	rm -rf dist
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m build --no-isolation --outdir dist .
	set -e; for wheel in dist/*-linux_*.whl; do [ -f "$$wheel" ] || continue; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --only-plat -w dist "$$wheel"; \
	  rm "$$wheel"; done

# The site, into site/index.html. Warnings are errors; nothing is fetched to build or to read it.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .venv-cuda .venv-minimum .venv-newest build dist site alc_kernels/_native* alc_kernels/_cuda* *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
