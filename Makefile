# `make demo` and `make test` need python3, make and a C compiler; everything else goes into .venv.

PYTHON ?= python3
PORT ?= 5000
HOME_DIR := $(abspath $(or $(MAHLER_HOME),$(CURDIR)))
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test bench calibrate ui clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

install: $(INSTALLED)  ## .venv with Mahler, editable, and its kernels compiled

# The stamp is newer than everything that the installation depends on, or it is made again.
$(INSTALLED): pyproject.toml setup.py $(wildcard mahler/core/*.pyx)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[test]'
	touch $@

demo: install  ## synthetic market, the regime grid on a short period, a table by Sharpe ratio
	$(BIN)/mahler backtest experiment=regime_grid period=demo study=demo
	$(BIN)/mahler runs study=demo
	@echo
	@echo "Everything above is synthetic, and its period is shortened so that the demo ends within minutes."
	@echo "The runs in a browser:  make ui"
	@echo "The full study:         $(BIN)/mahler backtest experiment=regime_grid"

# A file of tests stays on one process: what it builds once, a wheel or a market, it builds once. Three processes on two
# cores, for a third of the time a test waits for a process or a server of its own; in the order of their names, because by
# their number of tests the long ones would come last.
test: install  ## all tests, on three processes
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

bench: install  ## speed and memory of every stage; takes minutes, not part of the tests
	$(BIN)/python tests/bench.py

calibrate: install  ## is the verdict honest? known truths through the rule, experiments/calibration.md; takes minutes
	$(BIN)/python tests/calibrate.py

# One worker and no job execution: 6 s and 0.5 GB instead of 26 s and 1.6 GB, and no network at start.
ui: install  ## the MLflow UI in a browser, http://127.0.0.1:5000 (PORT=...)
	@test -f $(HOME_DIR)/mlruns/mlflow.db || { echo "no runs yet in $(HOME_DIR)/mlruns: make demo"; exit 1; }
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true \
	LITELLM_LOCAL_MODEL_COST_MAP=True GIT_PYTHON_REFRESH=quiet \
	$(BIN)/mlflow ui --backend-store-uri sqlite:///$(HOME_DIR)/mlruns/mlflow.db \
	    --host 127.0.0.1 --port $(PORT) --workers 1

clean:  ## build products and caches; data, runs and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .hypothesis $(INSTALLED)
	rm -f mahler/core/*.c mahler/core/*.so
	find mahler tests hydra_plugins -name __pycache__ -prune -exec rm -rf {} +
