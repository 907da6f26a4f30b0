"""The site's own extension can be imported by its tests."""

from __future__ import annotations

import sys
from pathlib import Path

EXTENSIONS = str(Path(__file__).parents[2] / "docs" / "_extensions")
if EXTENSIONS not in sys.path:
    sys.path.append(EXTENSIONS)
