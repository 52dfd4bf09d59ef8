# One command runs it, one tests it. Needs Python 3.11+, make and the package index.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test attack coverage lint types docs screenshots lock audit sbom wheel fresh fuzz soak mutants \
  bench clean

run: .venv/run
	@exec $(BIN)/keyrelay serve --demo

test: .venv/test
	@$(BIN)/python -m pytest -q -n 2

# What the suite does in short, at full length, and one table of figures: some hours.
attack: .venv/test
	@$(BIN)/python -m tests.attack

# The rooms where secrets and parsers live: every line and branch.
coverage: .venv/test
	@$(BIN)/python -m pytest -q -n 2 tests/vault tests/proxy --cov-branch --cov-fail-under=100 \
	  --cov=vault --cov=proxy/call --cov=proxy/uris.py --cov=proxy/destinations.py \
	  --cov=proxy/fields.py --cov=proxy/injection.py --cov=proxy/cache \
	  --cov-report=term-missing:skip-covered

lint: .venv/test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/test
	@$(BIN)/mypy

docs: .venv/test
	@$(BIN)/python -m proxy.services.table > docs/services.md
	@$(BIN)/python -m proxy.catalogue > docs/errors.md
	@$(BIN)/python -m tests.scenarios.sdk_table > docs/sdks.md
	@$(BIN)/python -m tests.supply.licences > docs/licences.md

# Of docs/admin-page.md; needs Chromium.
screenshots: .venv/test
	@KEYRELAY_SCREENSHOTS=1 $(BIN)/python -m pytest -q tests/proxy/admin/pages/test_pictures.py

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links pyproject.toml --group test -c requirements.lock \
	  -o tests/requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links bench/requirements.in -o bench/requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links tests/fuzz/requirements.in -o tests/fuzz/requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links tests/mutants/requirements.in \
	  -o tests/mutants/requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links tests/supply/requirements.in \
	  -o tests/supply/requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links tests/supply/backend.in -o tests/supply/backend.lock

# Known faults of what the lock pins; says in one word where the network has nobody to ask.
audit: .venv/test .venv-supply/ready
	@$(BIN)/python -m tests.supply.audit .venv-supply/bin/pip-audit

sbom: .venv/test
	@$(BIN)/python -m tests.supply.sbom

# The same octets whoever packs it; `fresh` installs it with nothing of the clone in reach.
wheel: .venv/test
	@$(BIN)/python -m tests.supply.wheel

fresh: .venv/test
	@$(BIN)/python -m tests.supply.fresh

# So many seconds for each strict parser, and a million URLs read by two other parsers too.
SECONDS := 60
fuzz: .venv/test .venv-fuzz/ready
	@$(BIN)/python -m tests.fuzz.urls 1000000
	@.venv-fuzz/bin/python -m tests.fuzz $(SECONDS)

# Mixed traffic for so long: are memory and handles flat?
soak: SECONDS := 3600
soak: .venv/test
	@$(BIN)/python -m tests.attack.soak $(SECONDS)

# Changes the code of the rooms that guard keys, thing by thing: does a test notice?
mutants: .venv/test .venv-mutants/ready
	@rm -rf mutants && mkdir -p build
	@.venv-mutants/bin/mutmut run > build/mutants.log 2>&1 || { tail -n 30 build/mutants.log; exit 1; }
	@.venv-mutants/bin/python -m tests.mutants

# Needs wrk and nginx; whatever else isn't installed is left out with a word.
bench: .venv/run .venv-bench/ready bench/node_modules/ready
	@$(BIN)/python -m bench

clean:
	rm -rf .venv .venv-bench .venv-fuzz .venv-mutants .venv-supply mutants bench/node_modules build *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'keyrelay needs Python 3.11 or newer: make PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/run: .venv/bin/python requirements.lock tests/supply/backend.lock pyproject.toml
	@echo 'installing keyrelay into .venv ...'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock \
	  -r tests/supply/backend.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/test: .venv/run tests/requirements.lock
	@echo 'installing what the tests need ...'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r tests/requirements.lock
	@touch $@

.venv-bench/ready: bench/requirements.lock
	@echo 'installing what is measured beside keyrelay into .venv-bench ...'
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $< \
	  && touch $@ || echo 'LiteLLM, TLS and the picture are left out'

.venv-supply/ready: tests/supply/requirements.lock
	@echo 'installing what asks for known faults into .venv-supply ...'
	@$(PYTHON) -m venv .venv-supply
	@.venv-supply/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

# What they install stands beside what .venv holds, which they see too.
.venv-fuzz/ready .venv-mutants/ready: .venv-%/ready: tests/%/requirements.lock
	@echo 'installing what $* needs into .venv-$* ...'
	@$(BIN)/python -m venv .venv-$*
	@$(BIN)/python -c 'import pathlib, site; here = site.getsitepackages()[0]; \
	  there = pathlib.Path(here.replace("/.venv/", "/.venv-$*/"), "beside.pth"); \
	  there.write_text(f"import site; site.addsitedir({here!r})\n")'
	@.venv-$*/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@mkdir -p build && touch $@

bench/node_modules/ready: bench/package-lock.json
	@cd bench && npm ci --silent && touch node_modules/ready || echo 'Portkey is left out'
