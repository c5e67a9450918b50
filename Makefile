# Two commands for newcomers: `make results` and `make test`. Both create the environment first.

PYTHON ?= python3
STUDY ?= digits
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
ENVIRONMENT := .venv/.complete
export PATH := $(CURDIR)/.venv/bin:$(PATH):$(CURDIR)/.validators/bin

.PHONY: results environment validators check test test-workflow test-slow test-long test-gpu bench

results: $(ENVIRONMENT)
	snakemake --cores $(CORES) --config study=$(STUDY)

environment: $(ENVIRONMENT)

$(ENVIRONMENT): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rae_bench needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Programs of others that hold what the suite writes against its conventions; they want other versions than the lock's.
validators: .validators/.complete

.validators/.complete: tests/validators.txt tests/validators.json
	$(PYTHON) -m venv .validators
	.validators/bin/python -m pip install --quiet --requirement tests/validators.txt
	cp tests/validators.json .validators/package.json
	npm install --silent --no-audit --no-fund --prefix .validators
	touch $@

check: $(ENVIRONMENT)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint
	mypy --strict -p rae_bench

# A process a core, each of one thread; what many tests read is made once for all processes.
TESTS := python -m pytest --durations 20 --numprocesses $(CORES) --maxprocesses 8

test: check
	$(TESTS) -m "not workflow and not slow and not gpu"

# A process more: the tests on Slurm mostly wait.
test-workflow: $(ENVIRONMENT)
	$(TESTS) --numprocesses $$(($(CORES) + 1)) -m "workflow and not slow and not gpu"

test-slow: $(ENVIRONMENT)
	$(TESTS) -m "slow and not gpu"

# Both at once: while Slurm's tests wait, the slow ones work, and the smoke study is run once.
test-long: $(ENVIRONMENT)
	$(TESTS) --numprocesses $$(($(CORES) + 1)) -m "(workflow or slow) and not gpu"

# With the Python at hand, whatever its torch: it builds and fetches nothing. In pieces of ten minutes; the same command goes on.
test-gpu:
	$(PYTHON) scripts/test_gpu.py

# A quiet machine, please: an hour and a half of it. What the suite is measured against stays out of the environment.
BENCHMARKS := training kernels regularisers scoring scaling memory metrics orchestration

bench: $(ENVIRONMENT) .bench/.complete
	for name in $(BENCHMARKS); do echo "== $$name" && python benchmarks/$$name.py || exit; done
	python benchmarks/table.py

.bench/.complete: benchmarks/requirements.txt $(ENVIRONMENT)
	python -m pip install --quiet --no-deps --target .bench --requirement benchmarks/requirements.txt
	touch $@
