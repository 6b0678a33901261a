# Every target does its own set-up: `make demo` or `make test` can be the first command on a fresh machine.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-kafka chaos fuzz memory check fmt replay bench bench-presets bench-detection up down compose

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The first Python that is new enough; name another one with PYTHON=…
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
# Where pip looks for torch besides its usual index. Empty: the CPU builds where there is no NVIDIA driver.
TORCH_INDEX_URL ?=
# Test processes beside each other. Each has a broker of its own, which takes most of a core.
JOBS ?= 2
# Replay's records where FILE is not given, and where its report goes.
SAMPLE := out/sample.jsonl
OUT ?= out/replay
TORCH_CPU := https://download.pytorch.org/whl/cpu

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## virtual environment with the worker and all tools (PYTHON=… TORCH_INDEX_URL=…)

# torch comes first and alone: only this step may look at another index.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed: make setup PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@index="$(TORCH_INDEX_URL)"; \
	if [ -z "$$index" ] && [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
		$(BIN)/python -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1] + "/torch/", timeout=5)' $(TORCH_CPU) \
			2>/dev/null && index=$(TORCH_CPU); \
	fi; \
	torch=$$($(BIN)/python -c 'import tomllib; \
		print(*(d for d in tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"] if d.startswith("torch")))'); \
	echo "pip install $$torch $${index:+(also from $$index)}"; \
	$(BIN)/python -m pip install --quiet "$$torch" $${index:+--extra-index-url "$$index"}
	$(BIN)/python -m pip install --quiet --editable '.[demo,compression,replay,store,registry]' --group dev
	@touch $@
	@echo "done: run .venv/bin/worker, or let this shell find it: . .venv/bin/activate"

demo: $(READY)  ## the whole thing on this machine: broker, traffic, training, alerts (DEMO_SECONDS=60)
	@$(BIN)/worker demo $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

test: $(READY)  ## all tests (JOBS=2 beside each other); Kafka tests use KAFKA_HOME if set, else the embedded broker
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

test-kafka: $(READY)  ## the broker tests on Apache Kafka (KAFKA_HOME=… and Java 17 or newer)
	@test -d "$(KAFKA_HOME)/libs" || { echo "error: KAFKA_HOME must name an Apache Kafka 4 folder (with libs/)" >&2; exit 1; }
	@command -v java >/dev/null || { echo "error: java is not on PATH; Apache Kafka needs Java 17 or newer" >&2; exit 1; }
	KAFKA_HOME="$(abspath $(KAFKA_HOME))" $(BIN)/python -m pytest -q -m "broker or kafka"

chaos: $(READY)  ## kill, freeze and rebalance real workers on Apache Kafka (ROUNDS=20 SEED=1 DELIVERY=exactly_once)
	@$(BIN)/python -m tests.chaos $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(DELIVERY),--delivery $(DELIVERY)) $(if $(FAULT),--fault $(FAULT))

fuzz: $(READY)  ## mutated Kafka records through a worker, each accounted for (RECORDS=300000 SEED=1)
	@$(BIN)/python -m tests.fuzz $(if $(RECORDS),--records $(RECORDS)) $(if $(SEED),--seed $(SEED))

memory: $(READY)  ## memory of a worker by record size, batches, partitions, in a cgroup of 1 GiB (RECORDS=2000)
	@$(BIN)/python -m benchmarks.memory $(if $(RECORDS),--records $(RECORDS)) $(if $(ONLY),--only "$(ONLY)")

check: $(READY)  ## lint, format, types, layers and words; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m devtools.boundaries
	$(BIN)/python -m devtools.vocabulary

fmt: $(READY)  ## format the code and apply safe lint fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

replay: $(READY) $(if $(FILE),,$(SAMPLE))  ## try settings on recorded traffic (FILE=… SCHEMA=… LABEL=…), or on a sample
	@$(BIN)/worker replay $(if $(FILE),"$(FILE)" $(if $(SCHEMA),--schema "$(SCHEMA)") $(if $(LABEL),--label "$(LABEL)"),\
		$(SAMPLE) --schema worker/demo/schema.toml --label label --fit-first 8000) --out "$(OUT)" $(ARGS)

$(SAMPLE): $(READY)
	@$(BIN)/python -m worker.demo.sample $@

bench: $(READY)  ## measure the record path, the thresholds, the trainer and swaps
	@for part in features scorer thresholds replay record_path refits swaps; do echo "== $$part"; $(BIN)/python -m benchmarks.$$part || exit 1; done

bench-presets: $(READY)  ## every preset on real network connections, five seeds (WORKER_TEST_DATA=…)
	@$(BIN)/python -m benchmarks.presets $(if $(SEEDS),--seeds $(SEEDS))

bench-detection: $(READY)  ## twenty public tables beside seven other detectors, five seeds (WORKER_TEST_DATA=…)
	@$(BIN)/python -m benchmarks.detection $(if $(SEEDS),--seeds $(SEEDS)) $(if $(PROTOCOL),--protocol $(PROTOCOL))

up: compose  ## Kafka, worker and trainer in containers
	docker compose --file deploy/compose.yaml up --build --detach

down: compose  ## stop the containers; volumes stay
	docker compose --file deploy/compose.yaml down

compose:
	@docker compose version >/dev/null 2>&1 || { \
		echo "error: this needs Docker with its compose plugin: install docker-compose-plugin (or docker-compose-v2)" >&2; exit 1; }
