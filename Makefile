# Two commands matter: `make demo` runs a real model, `make test` runs every check.
# Both build and install what they need into .venv; only Python >= 3.11 and a C++20 compiler must exist.

PYTHON ?= python3
BIN := .venv/bin
# What runs on every instruction set that this machine has.
CORE_TESTS := tests/engine tests/models tests/oracle/test_families.py tests/oracle/test_bitnet.py \
  tests/oracle/test_quantized.py tests/test_api.py
NATIVE := CMakeLists.txt pyproject.toml $(shell find native -name '*.cc' -o -name '*.h')

.PHONY: demo test models check native-test neon clean

demo: .venv/.installed
	$(BIN)/pocketlm pull smollm2:135m
	$(BIN)/pocketlm show smollm2:135m
	$(BIN)/pocketlm run smollm2:135m "What is the capital of France? Answer in one sentence." --temperature 0 --stats

test: .venv/.dev check native-test models
	$(BIN)/python -m pytest
	for isa in $$($(BIN)/python -c "from pocketlm import _native as n; print(*[i for i in n.isas() if i != n.isa()])"); do \
	  echo "the core's tests on $$isa"; POCKETLM_ISA=$$isa $(BIN)/python -m pytest -q $(CORE_TESTS) || exit 1; \
	done

# The real models that some tests run on; without a network those tests are skipped and say so.
models: .venv/.installed
	$(BIN)/pocketlm pull smollm2:135m || true
	$(BIN)/pocketlm pull gemma3:270m || true

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

native-test: .venv/.dev
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DPOCKETLM_SANITIZE=ON
	$(BIN)/cmake --build build/sanitize
	$(BIN)/ctest --test-dir build/sanitize --output-on-failure

# The kernel tests on ARM, under emulation. Needs a cross compiler and qemu-user
# (Debian: g++-aarch64-linux-gnu qemu-user); not part of `make test`.
neon: .venv/.build
	$(BIN)/cmake -S . -B build/neon -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
	  "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu"
	$(BIN)/cmake --build build/neon
	$(BIN)/ctest --test-dir build/neon --output-on-failure

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/.build: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet "scikit-build-core>=1.0" "nanobind>=2.4" "cmake>=3.25" ninja
	touch $@

.venv/.installed: .venv/.build $(NATIVE)
	$(BIN)/python -m pip install --quiet --no-build-isolation -Cbuild-dir=build/release -e '.[serve]'
	touch $@

.venv/.dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --no-build-isolation -Cbuild-dir=build/release -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build
