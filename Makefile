# Everything from a fresh machine that has python3 (>= 3.11), pip and make.
#   make demo    start the service, send pictures and words to it, show what comes back
#   make test    all tests but the next four   make check   format, lint, types, imports
#   make test-deploy   deploy/ with Debian's prometheus, kubernetes-client and nginx
#   make test-docker   build the image and run it with Docker Compose
#   make test-ray      serve and embed on Ray, on this machine
#   make test-recipes  run examples/recipes with their packages
#   make bench   all benchmarks, held against the budgets
#   make serve   run the service     make install .venv with everything pinned
#   make format  rewrite code as check wants it     make clean   remove what was installed and made
#   make image   build siglip-embed:VERSION     make image-cuda   and siglip-embed:VERSION-cuda
#   make rules   make the rules of deploy/kubernetes from those of deploy/observability

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Set TORCH_INDEX_URL to a wheel index of your choice, say https://download.pytorch.org/whl/cpu
# to leave out the CUDA libraries.
INDEX  := $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL))

# Where the hub cannot be reached, run the model of this repository, which knows coloured shapes only,
# rather than nothing; says so loudly.
export SIGLIP_MODEL_FALLBACK ?= ./examples/shapes

PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check $(INDEX) -c constraints.txt

# What goes into .venv, each more than the one before, and the stamps that say that it is there: to
# serve, for the demonstration, to develop, for the benchmarks.
STAMPS            := .serve .demo .installed .bench
PROJECT.serve     := .
PROJECT.demo      := .[demo]
PROJECT.installed := .[dev]
PROJECT.bench     := .[bench]

# The version that images are tagged with.
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' app/__init__.py)

.PHONY: install serve demo bench test test-recipes test-ray test-docker test-deploy check format image image-cuda rules clean

install: $(VENV)/.installed

serve: $(VENV)/.serve
	$(BIN)/python -m app serve

demo: $(VENV)/.demo
	$(BIN)/python -m examples.demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/deploy \
	    -m 'not docker and not recipes and not ray'

test-recipes: $(VENV)/.recipes
	$(BIN)/python -m pytest tests/recipes -m recipes

test-ray: $(VENV)/.ray
	timeout 1800 $(BIN)/python -m pytest tests/scale -m ray

test-docker: install
	$(BIN)/python -m pytest tests/docker -m docker -raP

test-deploy: install
	REQUIRE_DEPLOY_TOOLS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/deploy

image:
	IMAGE=siglip-embed:$(VERSION) docker compose build

image-cuda:
	IMAGE=siglip-embed:$(VERSION)-cuda docker compose -f docker-compose.yml -f docker-compose.gpu.yml build

RULES := deploy/kubernetes/monitoring/rules.yaml

# A PrometheusRule is a file of rules under `spec`.
rules:
	sed '/^spec:/q' $(RULES) > $(RULES).new
	sed -e '/^#/d' -e 's/^./  &/' deploy/observability/rules.yml >> $(RULES).new
	mv $(RULES).new $(RULES)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

$(addprefix $(VENV)/,$(STAMPS)): $(VENV)/%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing $(PROJECT$*) into $(VENV), once. PyTorch is large: this may take minutes."
	$(PIP_INSTALL) -e '$(PROJECT$*)'
	@for stamp in $(STAMPS); do touch $(VENV)/$$stamp; [ $$stamp = $* ] && break; done

$(VENV)/.recipes: $(VENV)/.installed
	$(PIP_INSTALL) -e '.[dev,recipes]'
	@touch $@

# What tests run with Node and in a browser; without it these are skipped.
$(VENV)/.node: tests/node/package.json | $(BIN)/python
	mkdir -p $(VENV)/node
	cp $< $(VENV)/node
	npm install --prefix $(VENV)/node --ignore-scripts --no-package-lock --no-audit --no-fund
	@touch $@

$(VENV)/.ray: $(VENV)/.installed
	$(PIP_INSTALL) -e '.[dev,ray]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
