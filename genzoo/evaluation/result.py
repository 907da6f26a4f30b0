"""What an evaluation leaves behind: numbers with all they depend on, and which of them may be compared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genzoo.core.errors import DataError, UsageError
from genzoo.core.files import write_file

FORMAT = 1


@dataclass(frozen=True)
class EvaluationResult:
    """metrics: numbers by name.   comparable: what must be equal for two results to be compared.

    sampling: how the samples were made (sampler, steps, guidance, weights, seed); {} for files alone.
    differences: how this evaluation departs from its protocol.   warnings: what a reader must know.
    """

    protocol: str
    metrics: Mapping[str, float]
    comparable: Mapping[str, Any]
    generated: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    differences: Sequence[str] = ()
    warnings: Sequence[str] = ()
    choices: Sequence[str] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The result as one JSON document."""
        return (
            json.dumps({"genzoo_evaluation": FORMAT, **dataclasses.asdict(self)}, indent=2, default=str)
            + "\n"
        )

    def save(self, path: str | Path) -> Path:
        """Write the JSON; the file is complete or absent."""
        return write_file(path, self.to_json())


def load_result(path: str | Path) -> EvaluationResult:
    """Read a result's JSON. Raises DataError when it is none."""
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a result of genzoo evaluate", why=str(error)) from error
    if not isinstance(content, dict) or content.pop("genzoo_evaluation", None) != FORMAT:
        raise DataError(f"{path} is not a result of genzoo evaluate (format {FORMAT})")
    return EvaluationResult(**content)


def is_result(path: Path) -> bool:
    """Whether a file is a result of `genzoo evaluate`, of any version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "genzoo_evaluation" in content


def protocol_differences(one: EvaluationResult, other: EvaluationResult) -> list[str]:
    """Everything in which two results were judged differently; empty when they may be compared."""
    keys = [*one.comparable, *(key for key in other.comparable if key not in one.comparable)]
    pairs = ((key, one.comparable.get(key), other.comparable.get(key)) for key in keys)
    return [f"{key}: {_short(a)} against {_short(b)}" for key, a, b in pairs if a != b]


def require_comparable(results: Sequence[EvaluationResult]) -> None:
    """Raises UsageError naming every difference in protocol between the first result and the others."""
    for number, other in enumerate(results[1:], start=2):
        differences = protocol_differences(results[0], other)
        if differences:
            raise UsageError(
                f"results 1 and {number} cannot be compared: they were judged differently",
                why="; ".join(differences),
                fix="evaluate both with one protocol, one reference and one number of images",
            )


def sampling_differences(one: EvaluationResult, other: EvaluationResult) -> list[str]:
    """How the samples were made differently; these may be compared, but the table says so."""
    keys = sorted({*one.sampling, *other.sampling})
    pairs = ((key, one.sampling.get(key), other.sampling.get(key)) for key in keys)
    return [f"{key}: {_short(a)} against {_short(b)}" for key, a, b in pairs if a != b]


def _short(value: Any) -> str:
    text = "not stated" if value is None else str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
