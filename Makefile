# make search   the main job: installs what is missing, then finds the LR schedule and the LR for LeNet-5 on MNIST
# make test     installs what is missing, then runs the tests
# make test-all the same, with the longest ones
# make test-fast  the tests that run no cluster, in a few minutes
# make test-py312 the checks and the fast tests on Python 3.12, in a virtual environment of its own
# make check    linter, formatter, type checker, layers of imports
# make release  builds the wheel and the source distribution into dist/, and tries the wheel
# make gpu-smoke  the tests that need GPUs; writes gpu-smoke.md, a table of what ran
# make netns    a study over two hosts, made of network namespaces (Linux, root)
# make landscapes  goes on with the benchmarks' ground truth, at idle priority; stop it at any moment
# make longrun    the same for trainings of up to 10,240 steps
# make faults   brings about every fault that a study must survive, into docs/reliability.md; ROWS="4 15" for some
# make audit    known vulnerabilities of what is installed, but for the exceptions in audit-exceptions.txt
# make lock     resolves requirements.lock anew from pyproject.toml

PYTHON ?= python3.11
PYTHON312 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.12*/bin/python3.12) python3.12)
VENV ?= .venv
BIN := $(VENV)/bin
SPACE ?= lenet5_mnist
# What test-fast runs: folders of tests/ and single files in it.
FAST := config lr records show store study test_docs.py test_layout.py test_packaging.py test_public_names.py

# Set in many containers. Then nothing that is installed here would ever be kept compiled: every worker would compile 2,700
# modules anew, 10 s of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: search test test-all test-fast test-py312 check release lock format bench landscapes longrun netns gpu-smoke faults faults-sample audit

search: $(VENV)/installed
	$(BIN)/tune-lr search $(SPACE)

test: $(VENV)/installed
	$(BIN)/pytest

test-all: $(VENV)/installed
	$(BIN)/pytest -m ""

test-fast: $(VENV)/installed
	$(BIN)/pytest $(addprefix tests/,$(FAST))

# Python 3.12 of pyenv, else python3.12; where that does not start, uv gets one.
test-py312: .venv/installed
	python312="$(PYTHON312)"; "$$python312" --version \
	    || { .venv/bin/uv python install -q 3.12 && python312=$$(.venv/bin/uv python find --managed-python 3.12); } \
	    && $(MAKE) VENV=.venv-py312 PYTHON="$$python312" check test-fast

check: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Tried in a virtual environment without any of the packages that it needs: the help loads none of them.
release: $(VENV)/installed
	rm -rf dist
	$(BIN)/hatchling build -d dist
	$(BIN)/python -m venv --without-pip dist/tried
	$(BIN)/uv pip install -q --offline --no-deps --python dist/tried dist/*.whl
	dist/tried/bin/tune-lr --help > /dev/null
	rm -r dist/tried
	ls -l dist

format: $(VENV)/installed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The benchmarks whose figures are in benchmarks/RESULTS.md; they take the better part of an hour.
bench: $(VENV)/installed
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/grid.py
	$(BIN)/python benchmarks/range_test.py

# What the LR schedules reach at every LR, on small workloads: benchmarks/landscapes/*.csv and *.npz.
landscapes: $(VENV)/installed
	PYTHONPATH=benchmarks nice -n 19 $(BIN)/python -m landscapes.generate

# The same for long trainings: benchmarks/longrun/*.npz.
longrun: $(VENV)/installed
	PYTHONPATH=benchmarks nice -n 19 $(BIN)/python -m longrun.generate

# A study with each of ColossalAI's plugins on one, two and four GPUs; those that are missing are skipped.
gpu-smoke: $(VENV)/installed
	$(BIN)/python tests/gpu_smoke.py

# A study over two hosts that are network namespaces of this machine; says why where they are not allowed.
netns: $(VENV)/installed
	$(BIN)/python tests/netns.py

faults: $(VENV)/installed
	PYTHONPATH=tests:tests/support $(BIN)/python -m faults.run $(ROWS)

# CI's part of it, in a few minutes.
faults-sample: $(VENV)/installed
	PYTHONPATH=tests:tests/support $(BIN)/python -m faults.run --sample

# pip-audit is fetched when it is needed. An exception is good for a year after its review.
audit: $(VENV)/installed
	$(BIN)/python -c "import datetime, re, sys; \
	    old = [line for line in open('audit-exceptions.txt') for day in re.findall(r'^[A-Z]\S+ (\S+)', line) \
	           if datetime.date.today() - datetime.date.fromisoformat(day) > datetime.timedelta(365)]; \
	    sys.exit('to be reviewed again:\n' + ''.join(old) if old else 0)"
	$(BIN)/uv tool run --from 'pip-audit>=2.7,<3' pip-audit --strict --disable-pip --require-hashes -r requirements.lock \
	    $$(sed -n 's/^\([A-Z][^ ]*\) .*/--ignore-vuln \1/p' audit-exceptions.txt)

lock: $(VENV)/installed
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --all-extras --no-header -o requirements.lock pyproject.toml

# uv, itself installed by its hash in the lock, installs the rest five times as fast as pip. Where it cannot (it does
# not read pip's configuration), pip does.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	awk '/^[^ #]/ {keep = /^uv==/} keep' requirements.lock > $(VENV)/uv.lock
	$(BIN)/pip install -qqq --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync -q --require-hashes requirements.lock \
	    || $(BIN)/pip install -qqq --disable-pip-version-check --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps --no-build-isolation --offline -e . \
	    || $(BIN)/pip install -qqq --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -c "import tune_lr.cli.main, tune_lr.cluster.trainable, tune_lr.worker.training"  # compiled once, not by each worker
	touch $@
