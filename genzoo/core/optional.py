"""Modules that are heavy or optional, imported at the moment of use, with an error that names the extra."""

from __future__ import annotations

import importlib
from typing import Any

from genzoo.core.errors import MissingDependencyError


def require(module: str, *, extra: str | None = None) -> Any:
    """Import `module`. Raises MissingDependencyError saying what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        fix = f"pip install 'genzoo[{extra}]'" if extra else f"pip install {package}"
        raise MissingDependencyError(f"this needs the package {package}", why=str(error), fix=fix) from error
