# make demo   check, draw, verify and train one spec, on a CPU, in a few minutes
# make test   the tests
# make lint   ruff and pyright
# make kernels-report   compile the Triton kernels without a GPU: registers, spills, shared memory
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: demo test lint kernels-report clean

demo: .venv/ready
	$(BIN)/srt-masks demo examples/self_reasoning.mask $(ARGS)

test: .venv/ready
	$(BIN)/pytest $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

kernels-report: .venv/ready
	$(BIN)/python benchmarks/kernels_report.py $(ARGS)

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("srt_masks needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Say which: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .kernels-report
