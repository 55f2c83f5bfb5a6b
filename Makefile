# make search   the main job: installs what is missing, then finds the LR schedule and the LR for LeNet-5 on MNIST
# make test     installs what is missing, then runs the tests
# make test-all the same, with the longest ones
# make check    linter, formatter, type checker
# make netns    a study over two hosts, made of network namespaces (Linux, root)
# make lock     resolves requirements.lock anew from pyproject.toml

PYTHON ?= python3.11
BIN := .venv/bin
SPACE ?= lenet5_mnist

.PHONY: search test test-all check lock format bench netns

search: .venv/installed
	$(BIN)/tune-lr search $(SPACE)

test: .venv/installed
	$(BIN)/pytest

test-all: .venv/installed
	$(BIN)/pytest -m ""

check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The benchmarks whose figures are in benchmarks/RESULTS.md; they take the better part of an hour.
bench: .venv/installed
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/grid.py

# A study over two hosts that are network namespaces of this machine; says why where they are not allowed.
netns: .venv/installed
	$(BIN)/python tests/netns.py

lock: .venv/installed
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --all-extras --no-header -o requirements.lock pyproject.toml

# uv, itself installed by its hash in the lock, installs the rest five times as fast as pip. Where it cannot (it does
# not read pip's configuration), pip does.
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	awk '/^[^ #]/ {keep = /^uv==/} keep' requirements.lock > .venv/uv.lock
	$(BIN)/pip install -qqq --disable-pip-version-check --require-hashes -r .venv/uv.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync -q --require-hashes requirements.lock \
	    || $(BIN)/pip install -qqq --disable-pip-version-check --require-hashes -r requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --no-deps --no-build-isolation --offline -e . \
	    || $(BIN)/pip install -qqq --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
