"""Control extractors by name, and the hash by which data and checkpoints know one."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import UsageError, did_you_mean
from genzoo.core.registry import CONTROLS
from genzoo.core.signatures import check_settings, parameters

if TYPE_CHECKING:
    from genzoo.core.types import ControlExtractor


def control_fingerprint(name: str, weights: str = "", **settings: Any) -> str:
    """ "hed-0123456789abcdef": name, and a hash of settings and weights.

    weights: their digest; empty for extractors without.
    """
    text = json.dumps([settings, weights], sort_keys=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def build_control(section: str | Mapping[str, Any]) -> ControlExtractor:
    """The extractor of a name, or of {"name": ..., settings}. Raises UsageError with the nearest name."""
    settings = {"name": section} if isinstance(section, str) else dict(section)
    name = str(settings.pop("name", None))
    if name not in CONTROLS:
        hint = did_you_mean(name, CONTROLS) or f"there are {', '.join(CONTROLS)}"
        raise UsageError(f"there is no control {name!r}", fix=hint)
    factory: Callable[..., ControlExtractor] = CONTROLS.get(name)
    problems = check_settings(settings, parameters(factory, keyword_only=True), key="control", owner=name)
    if problems:
        raise UsageError("; ".join(f"{problem.key}: {problem.message}" for problem in problems))
    made = factory(**settings)
    made.described = _described(name, factory, settings)  # type: ignore[attr-defined]
    return made


def _described(name: str, factory: Callable[..., Any], settings: Mapping[str, Any]) -> str:
    """ "canny low=100 high=200": what was given, and what holds where nothing was."""
    known = inspect.signature(factory).parameters.values()
    usual = {one.name: one.default for one in known if one.default is not inspect.Parameter.empty}
    return " ".join([name, *(f"{key}={value}" for key, value in {**usual, **settings}.items())])
