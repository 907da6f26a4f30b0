.PHONY: check format test
check:
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	pytest -m "not gpu and not distributed"

format:
	ruff check --fix .
	ruff format .

test:
	pytest
