# Every target is safe to run again. `make help` lists them.
PY := .venv/bin/python
PYTHON ?= python3
# Of tests, each with brokers of its own: many tests wait for processes and disks.
WORKERS ?= 2

.PHONY: help setup demo test faults soak check audit dist smoke format pictures bench docs lock proto cli-page clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: .venv/.installed ## make .venv with the locked dependencies

.venv/.installed: requirements/dev.txt pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: setup ## an agent that learns online from real images (under a minute)
	.venv/bin/relive demo

test: setup ## every test, those against a real broker included
	$(PY) -m pytest --numprocesses $(WORKERS) --dist loadfile

faults: setup ## kills, damage, full disks and broken brokers at length (ten minutes; needs strace)
	RELIVE_FAULTS=ci $(PY) -m pytest --numprocesses $(WORKERS) tests/faults

soak: setup ## the same for hours, each time with another RELIVE_FAULTS_SEED unless one is given
	RELIVE_FAULTS=soak RELIVE_FAULTS_SEED=$${RELIVE_FAULTS_SEED:-$$(date +%s)} $(PY) -m pytest tests/faults

check: setup ## format, lint, types, import rules, generated code
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

audit: setup ## the locked dependencies: hashes, licences, known vulnerabilities where a service answers
	$(PY) -m infra.audit

dist: setup ## the source archive and the wheel, in dist/
	rm -rf dist
	$(PY) -m build --no-isolation

smoke: dist ## the wheel in bare environments: every Python that is here, every extra
	PYENV_VERSION=$$(pyenv versions --bare 2>/dev/null | paste -sd:) $(PY) -m nox --session smoke

format: setup ## rewrite the sources in the house format
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

pictures: setup ## the pictures of the page in docs/ (needs Chromium)
	$(PY) -m tests.integration.page.pictures

bench: setup ## the benchmarks, as JSON on stdout
	$(PY) -m bench

docs: setup ## the manual, as a site in build/site
	.venv/bin/python -m sphinx --builder html --fail-on-warning --keep-going --quiet --doctree-dir build/doctrees docs build/site

proto: setup ## generate the RPC code from the .proto
	$(PY) -m grpc_tools.protoc -I schemas --python_out=schemas --pyi_out=schemas --grpc_python_out=schemas schemas/relive/schemas/index.proto

cli-page: setup ## write docs/cli.md from the commands
	$(PY) -m relive.cli.reference > docs/cli.md

lock: setup ## renew the locked requirements
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--extra cpu --extra kafka --extra metrics --extra tracing --extra demo --extra testing --group dev --group docs --group bench --group examples pyproject.toml requirements/build.in -o requirements/dev.txt
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--extra cpu --extra kafka --extra metrics --extra tracing pyproject.toml -o requirements/serve.txt

clean: ## remove what setup and the tests made
	rm -rf .venv .nox .mypy_cache .ruff_cache dist build
