# One command each for people, hooks and CI. Works in any folder, with nothing but make, git and Python 3.11+.
#   PYTHON=…    the interpreter for a new .venv     ONCE=1   the story ends by itself
#   ARGS='…'    go to pytest: make test ARGS='-k signature'
#   ONLY=ingest|bells|queues|turns|latency|growth|line|clients|waiting   one family of the benchmarks; ROUNDS=3
#   SEEDS=50  MESSAGES=4000  FIRST=1   how many seeds, accepted deliveries in each at least, the first seed

SHELL := /bin/sh
PYTHON ?=
ONCE ?=
ARGS ?=
SEEDS ?= 50
MESSAGES ?= 4000
FIRST ?= 1
ENGINE ?=
SESSIONS ?= 200
UV ?= uv
export PYTHON
# Every worker would read and rewrite all the tests anew, and every process all of wsm.
unexport PYTHONDONTWRITEBYTECODE

INPUTS ?= 1000000
CONNECTIONS ?= 20000
SEED ?= 1
REPEAT ?=
TALK ?=
ONLY ?=
ROUNDS ?= 3

COMPILE := pip compile pyproject.toml --universal --python-version 3.11 --extra embedded --quiet \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate

VENV_PYTHON := .venv/bin/python -X utf8

CUSTOMERS ?= 2000
HOURS ?= 8

.PHONY: help install install-bench run test chaos crashes failover fuzz killpoints drill day bench check lock

help:
	@echo 'make install            .venv, as requirements.lock says'
	@echo 'make run [ONCE=1]       the story of four customers, on real servers'
	@echo "make test [ARGS='-k …']  check, then pytest"
	@echo 'make chaos [SEEDS=…]    load and faults of every kind, and what became of the promises'
	@echo 'make killpoints [ENGINE=WEBJS]  every process dies at every point of the way, and nothing is lost'
	@echo 'make crashes [ENGINE=WEBJS]  a worker dies around every send, the gateway fails, and the phone judges'
	@echo 'make failover           partition, death and promotion of Redis, and what was accepted and lost'
	@echo 'make drill [SESSIONS=…]  WAHA and all of wsm are killed at once, and every session works again'
	@echo 'make day [CUSTOMERS=…]  eight hours of three shops by a fake clock, and what everybody was told'
	@echo 'make fuzz [INPUTS=…]    bad input of every kind, and what became of the process'
	@echo 'make bench [ONLY=…]     wsm against its peers: rates, costs, latencies; under 45 minutes'
	@echo 'make check              ruff, mypy, import-linter'
	@echo 'make lock [UV=uv]       write both lock files anew from pyproject.toml'

# Cheap when nothing changed: .ci/install.py compares a stamp and returns.
install: WHAT =
install-bench: WHAT = bench
install install-bench:
	@suits='import sys, venv, ensurepip, fcntl; sys.exit(sys.version_info < (3, 11))'; \
	for candidate in "$${PYTHON:-python3}" $${PYTHON:-python3.13 python3.12 python3.11 python}; do \
	  if "$$candidate" -c "$$suits" 2>/dev/null; then exec "$$candidate" -X utf8 .ci/install.py $(WHAT); fi; \
	done; \
	echo "wsm needs Python 3.11 or newer with its venv module (on Debian: python3 and python3-venv); $${PYTHON:-python3} is not that. Name one with PYTHON=…" >&2; \
	exit 1

run: install
	@$(VENV_PYTHON) -m wsm story $(if $(filter-out 0,$(ONCE)),--once)

test: check
	@$(VENV_PYTHON) -m pytest --numprocesses 4 --dist worksteal $(ARGS)

# By default an hour or more. It ends with one line of figures, and tells how to repeat a seed that failed.
chaos: install
	@PYTHONPATH=tests $(VENV_PYTHON) -m chaos --seeds $(SEEDS) --messages $(MESSAGES) --first $(FIRST)

# Eight minutes. One node, a pair, three with sentinels; a row for each case.
failover: install
	@PYTHONPATH=tests $(VENV_PYTHON) -m chaos.failover

# A quarter of an hour. Every process dies once at every await on the way of a message.
killpoints: install
	@PYTHONPATH=tests $(VENV_PYTHON) -m chaos.everypoint $(if $(ENGINE),--engine $(ENGINE))

# Ten minutes. Five places to die around a send, twelve faults of a gateway, eight kinds, four engines.
crashes: install
	@PYTHONPATH=tests $(VENV_PYTHON) -m chaos.crashes $(if $(ENGINE),--engine $(ENGINE))

# Two minutes. WAHA and all of wsm are killed at once; every session works again by itself.
drill: install
	@PYTHONPATH=tests $(VENV_PYTHON) -m chaos.drill --sessions $(SESSIONS)

# Minutes. The day's 8 hours are as long as what happens in them; SEED=… HOURS=… CUSTOMERS=… for another one.
day: install
	@PYTHONPATH=tests $(VENV_PYTHON) -m day --seed $(SEED) --customers $(CUSTOMERS) --hours $(HOURS)

# A million inputs and 20,000 connections by default: some minutes. A fault is told with what shows it again.
fuzz: install
	@PYTHONPATH=tests $(VENV_PYTHON) -m chaos.fuzz --inputs $(INPUTS) --connections $(CONNECTIONS) --seed $(SEED) \
	  $(if $(REPEAT),--repeat $(REPEAT)) $(if $(TALK),--talk $(TALK))

# Peers live in an environment of their own; nothing else may run meanwhile. Figures also in bench/out/latest.json.
bench: install-bench
	@.venv-bench/bin/python -X utf8 -m bench --rounds $(ROUNDS) $(if $(ONLY),--only $(ONLY))

check: install
	@$(VENV_PYTHON) -m ruff check
	@$(VENV_PYTHON) -m ruff format --check
	@$(VENV_PYTHON) -m mypy
	@$(VENV_PYTHON) .venv/bin/lint-imports

# A lock names no index and no machine: any index that has the same files will do.
lock:
	@command -v "$(UV)" >/dev/null || { echo 'make lock needs uv (https://docs.astral.sh/uv/); name it with UV=…' >&2; exit 1; }
	"$(UV)" $(COMPILE) --group dev --output-file requirements.lock
	"$(UV)" $(COMPILE) --group bench --constraint requirements.lock --output-file bench/requirements.lock
