# `make demo` and `make test` need Python 3.10 to 3.13 with pip and venv; they set up the rest.
# `make help` lists the recipes.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= all,dev,onnx,openvino
# Options of pip for the torch download alone, e.g. --index-url (docs/installation.md).
TORCH_PIP_ARGS ?=

# A phase's CONFIG, CHECKPOINT and WORKSPACE may be left out, as on the command line; ARGS is passed
# on as it is: make search WORKSPACE=runs/a ARGS="--max 42 --min 37 --trials 200"
CONFIG ?=
CHECKPOINT ?=
WORKSPACE ?=
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers

# Set SPARSEVIT=sparsevit to use an environment of your own: nothing is installed then.
ifeq ($(origin SPARSEVIT),undefined)
SPARSEVIT := $(BIN)/sparsevit
NEEDS := $(READY)
else
NEEDS :=
endif

BENCHMARKS := backbone sparsify backends scaling adaptation detector segmentation ops sparsifiner_attention demo gpu

PHASES := pretrain adapt sensitivity search finetune evaluate latency calibrate export-config
WORKSPACE_OPTION = $(if $(WORKSPACE),--workspace "$(WORKSPACE)")

.PHONY: help setup demo demo-short test test-slow hostile kills lint benchmark status report doctor clean $(PHASES)
.DEFAULT_GOAL := help

help: ## List the recipes.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo
	@echo "Phases: make $(PHASES)"
	@echo "        with CONFIG=..., CHECKPOINT=..., WORKSPACE=..., ARGS=\"--any --option\""

setup: $(READY) ## Make .venv with the pinned set (the other recipes do it by themselves).

demo: $(NEEDS) ## Every phase on a dataset that it generates: about 9 minutes on 2 cores.
	$(SPARSEVIT) demo $(WORKSPACE_OPTION) $(ARGS)

demo-short: $(NEEDS) ## The same phases with a few iterations each: shows that they run, not how well.
	$(SPARSEVIT) demo --short $(WORKSPACE_OPTION) $(ARGS)

test: $(READY) ## Run the tests, one process per core.
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

test-slow: $(READY) ## Run the tests that `make test` leaves out.
	$(BIN)/python -m pytest -n auto --dist load -m slow $(ARGS)

hostile: $(READY) ## Try thousands of broken inputs (docs/reliability.md): an hour on 2 cores.
	OMP_NUM_THREADS=1 $(BIN)/python tests/hostile --count 500 $(ARGS)

kills: $(READY) ## Kill every phase at random instants, 200 times: nothing may be lost.
	$(BIN)/python tests/hostile/kills.py $(ARGS)

lint: $(READY) ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: $(PEERS) ## Install the peers, run every benchmark, make tables and plots: an hour on 2 cores.
	@failed=; for file in $(BENCHMARKS:%=benchmarks/%.py); do \
		echo "== $$file"; $(BIN)/python "$$file" $(ARGS) || failed="$$failed $$file"; \
	done; \
	$(BIN)/python benchmarks/shared/plots.py && $(BIN)/python benchmarks/shared/tables.py; \
	test -z "$$failed" || { echo "Failed:$$failed" >&2; exit 1; }

status: $(NEEDS) ## What ran in WORKSPACE, and what came of it.
	$(SPARSEVIT) status $(WORKSPACE_OPTION) $(ARGS)

report: $(NEEDS) ## WORKSPACE as one HTML page, to send to a colleague.
	$(SPARSEVIT) report $(WORKSPACE_OPTION) $(ARGS)

doctor: $(NEEDS) ## What is installed, and what is missing.
	$(SPARSEVIT) doctor $(WORKSPACE_OPTION) $(ARGS)

clean: ## Remove .venv and caches; no workspace is touched.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(PHASES): $(NEEDS)
	$(if $(and $(CHECKPOINT),$(if $(CONFIG),,no)),$(error CHECKPOINT=... needs CONFIG=... beside it))
	$(SPARSEVIT) $@ $(if $(CONFIG),"$(CONFIG)") $(if $(CHECKPOINT),"$(CHECKPOINT)") $(WORKSPACE_OPTION) $(ARGS)

define HEADLESS_OPENCV
	$(PIP) uninstall --quiet --yes opencv-python
	$(PIP) install --quiet --constraint constraints.txt --force-reinstall --no-deps opencv-python-headless
endef

# timm and torchvision, for the tests of their adapters, in a folder that is not on Python's path. A
# torchvision from the registry does not import beside the CPU build of PyTorch, and libraries that
# use one where they find it, such as mmpretrain, would not import either.
# tests/shared/vision_libraries.py shows them to the tests that ask. What else they need is there.
define VISION_LIBRARIES
	$(PIP) install --quiet --upgrade --no-deps --target $(VENV)/vision torchvision==0.28.0 timm==1.0.31
endef

# onedl-mmcv asks for opencv-python, which needs libGL; others ask for the headless build. Both own
# cv2/, so the one that is not wanted goes, and the other is laid down again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
		echo "Python 3.10 to 3.13 is needed: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV): once, a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt $(TORCH_PIP_ARGS) torch
	$(PIP) install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(HEADLESS_OPENCV)
	$(VISION_LIBRARIES)
	@touch $@

# What benchmarks/ compares with. pip brings opencv-python back, as above.
$(PEERS): $(READY)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[bench]'
	$(HEADLESS_OPENCV)
	@touch $@
