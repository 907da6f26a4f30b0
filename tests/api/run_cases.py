"""Copies of the runs that tests share."""

from __future__ import annotations

import shutil
from pathlib import Path

from genzoo.api.run import Run


def unjudged(run: Run, folder: Path) -> Path:
    """A copy without what other tests found out about the run."""
    return Path(shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("evaluation")))
