.PHONY: attack browser check dist docs format test fuzz lowest
check:
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	pytest -m "not gpu and not distributed"

# everything that tests/attack can try: takes hours; GENZOO_ATTACK=2/8 make attack: the second of eight parts
attack:
	GENZOO_ATTACK=$${GENZOO_ATTACK:-whole} pytest -n 0 -p no:cacheprovider tests/attack --log-cli-level=INFO

# the page, used in Chromium: needs genzoo[app] and playwright; .ci/browser installs the package chromium; minutes
browser:
	pytest -n 0 -p no:cacheprovider tests/app/test_in_the_browser.py

# the site, in build/docs; a warning, such as a link to nothing, is an error, and nothing is fetched
docs:
	sphinx-build -q -E -W --keep-going -b html -d build/doctrees docs build/docs

# what is uploaded, in dist/: built, looked at by twine, and small
dist:
	rm -rf dist
	python -m build
	python -m twine check --strict dist/*
	test $$(cat dist/*.whl | wc -c) -lt 40000000

format:
	ruff check --fix .
	ruff format .

test:
	pytest

# every value of the grid for every option and argument of every command (an hour of one core)
fuzz:
	GENZOO_FUZZ=1 pytest -n 0 tests/e2e/test_fuzzed_command_line.py

# the fast tests on the lowest versions that pyproject.toml allows, in an environment of their own (6 GB; needs uv)
LOWEST_PYTHON ?= 3.11
lowest:
	set -e; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; python="$$work/venv/bin/python"; \
	uv venv -q --python $(LOWEST_PYTHON) "$$work/venv"; \
	uv pip install -q --python "$$python" --resolution lowest-direct -r pyproject.toml --extra test; \
	uv pip install -q --python "$$python" --no-deps -e .; \
	"$$python" -m pytest -p no:cacheprovider -m "not slow and not gpu and not distributed"
