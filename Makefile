# Everything a person or a machine does with this checkout. `make help` lists it.
SHELL := /bin/sh
BIN := .venv/bin
ARGS ?=
NB ?=

# The theme announces its end of life on every build: docs/design/decisions/0002 knows.
export NO_MKDOCS_2_WARNING = 1

# Jupyter asks for this word in a container, where the user is often root.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.PHONY: help run test search naive simulate crash-test failover wire-trade wire-kill fuzz drills load pythons benchmark size ranges sbom check fix docs docs-serve lab notebooks clean-notebooks export proto lock setup setup-run hooks coverage clean

help: ## Show this list
	@echo "gridmm: make TARGET [PYTHON=python3.12]"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 19

run: setup-run ## Run a grid on the built-in paper exchange (ARGS="--help" for more)
	@$(BIN)/python -m gridmm run $(ARGS)

test: check ## Run every check, every test, every notebook, and build the site
	@$(BIN)/python -m gridmm warm-up
	$(BIN)/python -m pytest -n 4 --dist loadfile -rs $(ARGS)

check: setup ## Check format, lint, types, and that all generated files are in sync
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tools.guards

fix: setup ## Format, mend what a program can, clean notebooks, export
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .
	$(BIN)/nbdev_clean
	$(MAKE) --no-print-directory export

docs: setup ## Build the site into site/ and fail on any warning
	$(BIN)/mkdocs build --strict

docs-serve: setup ## Serve the site on this machine, rebuilt on every change
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

lab: setup ## Open JupyterLab (NB=nbs/design/12_grid.ipynb opens one)
	$(BIN)/jupyter lab --ip 127.0.0.1 $(AS_ROOT) --ContentsManager.pre_save_hook=nbdev.clean.clean_jupyter $(NB)

notebooks: setup ## Run notebooks again in place and clean them (NB=path for one)
	$(BIN)/python -m tools.run_notebooks $(NB)

clean-notebooks: setup ## Strip notebooks of what makes diffs unreadable
	$(BIN)/nbdev_clean

export: setup ## Write the package and README.md from the notebooks
	$(BIN)/nbdev_export
	$(BIN)/python -m tools.readme

proto: setup ## Compile proto/ into the package
	$(BIN)/python -m tools.proto

lock: setup ## Choose exact versions for settings.ini and write both locks
	$(BIN)/python -m tools.lock

setup: ## Make .venv hold what development needs
	@tools/setup.sh dev

setup-run:
	@tools/setup.sh run

hooks: setup ## Let git check before a commit and merge notebooks cell by cell
	git config merge.nbdev-merge.name "merge notebooks cell by cell"
	git config merge.nbdev-merge.driver "$(BIN)/nbdev_merge %O %A %B %P"
	$(BIN)/pre-commit install

search: setup ## Search everything that can happen to one slot (ARGS: a search's name, or --states N)
	$(BIN)/python tests/slot_search.py $(ARGS)

naive: setup ## Hold whole recordings against the naive model (ROWS=2000 for a piece of each)
	$(BIN)/python tests/naive_recordings.py $(ROWS)

simulate: setup ## Let the Durable engine live through many invented worlds (SEEDS=10000 FROM=0)
	$(BIN)/python tests/simulation.py --seeds $(or $(SEEDS),10000) --from $(or $(FROM),0)

crash-test: setup ## Kill a Durable engine many times (N=500 DB=sqlite|postgres|both SEED=1)
	$(BIN)/python tests/durable_kills.py --kills $(or $(N),500) --db $(or $(DB),both) --seed $(or $(SEED),1)

failover: setup ## Take a grid away from its workers again and again, and time what follows (N=10 of each way)
	$(BIN)/python tests/failovers.py --rounds $(or $(N),10)

wire-trade: setup ## Trade a recording through ccxt on our own exchange, with faults (TAPE=path SEED=1 SECONDS=420)
	$(BIN)/python tests/wire_trade.py --tape $(or $(TAPE),../shared/data/btcusdt_perp_1m_202506.csv.gz) --seed $(or $(SEED),1) --seconds $(or $(SECONDS),420)

wire-kill: setup ## Kill engines that trade through ccxt on our own exchange, with faults (N=100 on each market SEED=1)
	$(BIN)/python tests/wire_kills.py --kills $(or $(N),100) --seed $(or $(SEED),1)

fuzz: setup ## Tell our gateway nonsense (N=5000 SEED=1)
	$(BIN)/python tests/fuzz_wire.py --inputs $(or $(N),5000) --seed $(or $(SEED),1)

drills: setup ## Plant every fault of the runbooks into a real engine, and mend it (about five minutes)
	GRIDMM_ALL_FAULTS=1 $(BIN)/python -m pytest -q -n 2 --dist load tests/test_faults.py

load: setup ## Trade 200 slots while the market sends 1,000 frames a second, on one core (SECONDS=600)
	$(BIN)/python tests/load_wire.py --seconds $(or $(SECONDS),600)

pythons: setup ## Compare what every Python on this machine decides, compiled and not
	$(BIN)/python tests/pythons.py

benchmark: setup ## Measure a plan's cost against a raw commit (ARGS="--postgres --save")
	$(BIN)/python -m benchmarks.durable_cost $(ARGS)

size: setup ## Measure how large a grid's files become (ARGS="--ticks 1000000 --save")
	$(BIN)/python -m benchmarks.database_size $(ARGS)

ranges: setup ## Measure how far recorded markets move (GRIDMM_DATA=folder ARGS="--save")
	$(BIN)/python -m benchmarks.market_ranges $(ARGS)

sbom: setup ## Write the bill of materials of the run-time lock, dist/gridmm.cdx.json
	$(BIN)/python -m tools.sbom

coverage: setup ## Show which lines of the package no test runs
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term-missing:skip-covered tests

clean: ## Remove everything that can be made again
	rm -rf .venv site build dist _proc _docs .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info tools/web/node_modules
