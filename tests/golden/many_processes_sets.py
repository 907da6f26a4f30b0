"""The set `many_processes`: tar shards, orders, layouts, and a file to be written byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from golden.manifest import golden_root

FOLDER: Path = golden_root() / "many_processes"


def layouts(case: str) -> Any:
    """One case of layouts.json."""
    return json.loads((FOLDER / "layouts.json").read_text())[case]


def index(case: str) -> Any:
    """One case of expected_index.json."""
    return json.loads((FOLDER / "expected_index.json").read_text())[case]
