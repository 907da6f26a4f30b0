"""What the worker can do, by name. Everything is asked with plain values and answered with plain values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from genzoo.app.worker.checking import validate
from genzoo.app.worker.comparing import compare
from genzoo.app.worker.sampling import control, describe, sample
from genzoo.app.worker.teaching import export, merge, photographs

ACTS: dict[str, Callable[..., Any]] = {
    "describe": describe,
    "sample": sample,
    "control": control,
    "validate": validate,
    "photographs": photographs,
    "merge": merge,
    "export": export,
    "compare": compare,
}
