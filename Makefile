# make demo · make test · make test-slow · make check · make format · make docs · make bench
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)

.PHONY: demo test test-slow check format docs bench setup
setup: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: setup
	@echo "MAML learns to run forward or backward, whichever a task asks for: about 4 minutes on 2 idle cores."
	$(BIN)/metarl train half_cheetah_dir --learner maml --preset demo --name $(notdir $(DEMO))
	@clip="clip: $(DEMO)/videos"; $(BIN)/metarl video $(DEMO) || clip="clip: none, see the line above"; \
	$(BIN)/metarl evaluate $(DEMO) --tasks 20 --steps 2 --pretrain-iterations 0 && \
	echo "curves: $(BIN)/tensorboard --logdir runs    $$clip"

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow --timeout 7200

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m metarl.cli.describe

.venv/.docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

docs: .venv/.docs
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build
	@echo "docs/_build/index.html"

bench: setup
	$(BIN)/python tests/benchmarks/benchmark.py
	$(BIN)/python tests/benchmarks/benchmark_families.py
	$(BIN)/python tests/benchmarks/benchmark_metaworld.py
	$(BIN)/python tests/benchmarks/benchmark_pearl.py
