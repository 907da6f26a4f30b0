"""What an evaluation leaves behind: numbers with all they depend on, and which of them may be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import DataError, UsageError
from genzoo.core.files import as_safetensors, write_file
from genzoo.core.reading import read_bytes, read_json, read_record, reason, shown
from genzoo.core.tensor_files import FAILURES, open_tensors
from genzoo.evaluation.intervals.estimate import Estimate

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1


@dataclass(frozen=True)
class EvaluationResult:
    """metrics: numbers by name.   comparable: what must be equal for two results to be compared.

    sampling: how the samples were made (sampler, steps, guidance, weights, seed); {} for files alone.
    intervals: how far metrics may be off: low, high, standard_error, level, method, seed.
    terms: what each sample adds to some, (n,); in a file beside the JSON, for differences of two results.
    beside: what belongs next to the numbers: the unguided form of a guided result, the held-out loss.
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
    intervals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def to_json(self) -> str:
        """The result as one JSON document, without the terms."""
        plain = dataclasses.replace(self, terms={})
        content = {"genzoo_evaluation": FORMAT, **dataclasses.asdict(plain)}
        del content["terms"]
        return json.dumps(content, indent=2, default=str) + "\n"

    def estimate(self, name: str) -> Estimate:
        """A metric with its interval and terms, as far as there are such."""
        return Estimate(self.metrics[name], **self.intervals.get(name, {}), terms=self.terms.get(name))

    def save(self, path: str | Path) -> Path:
        """Write the JSON, and the terms beside it; each file is complete or absent."""
        text = self.to_json()
        if self.terms:  # first: whoever finds a result takes it for finished
            kept = {name: terms.float().cpu().contiguous() for name, terms in self.terms.items()}
            told = {"result": hashlib.sha256(text.encode()).hexdigest()}
            write_file(terms_file(Path(path)), as_safetensors(kept, told))
        return write_file(path, text)


def terms_file(result: Path) -> Path:
    """Where the terms of a result's file are."""
    return result.with_suffix(".terms.safetensors")


def _digest(path: Path) -> str:
    return hashlib.sha256(read_bytes(path)).hexdigest()


def load_result(path: str | Path) -> EvaluationResult:
    """Read a result's JSON. Raises DataError when it is none."""
    none = f"{shown(path)} is not a result of genzoo evaluate"
    content = read_json(path, "the result of an evaluation")
    if not isinstance(content, dict) or content.pop("genzoo_evaluation", None) != FORMAT:
        raise DataError(f"{none} (format {FORMAT})")
    try:
        return EvaluationResult(**content, terms=_load_terms(Path(path)))
    except TypeError as error:
        raise DataError(none, why=reason(error)) from error


def _load_terms(result: Path) -> dict[str, Tensor]:
    """The terms beside a result; none when they are absent, damaged, or of another result."""
    path = terms_file(result)
    if not path.is_file():
        return {}
    try:
        with open_tensors(path, "the terms of a result", error=DataError) as file:
            if (file.metadata() or {}).get("result") != _digest(result):
                return {}
            return {name: file.get_tensor(name) for name in list(file.keys())}
    except FAILURES:
        return {}


def is_result(path: Path) -> bool:
    """Whether a file is a result of `genzoo evaluate`, of any version."""
    return "genzoo_evaluation" in read_record(path)


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
