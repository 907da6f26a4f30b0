"""Plain-text tables: results side by side, and a result beside the papers' numbers, differences named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genzoo.evaluation.facts import made_text, with_error
from genzoo.evaluation.protocols import Protocol, paper_rows
from genzoo.evaluation.result import EvaluationResult, require_comparable, sampling_differences

Rows = list[list[str]]


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by padding; the first to the left, numbers to the right."""
    everything = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in everything) for column in range(len(header))]
    lines = []
    for row in everything:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def shortened(text: str, most: int) -> str:
    """A text, its middle left out where it is longer than `most`."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def number(value: Any) -> str:
    """Four significant digits, or a dash for what is absent."""
    return "-" if value is None else f"{value:.4g}"


def result_table(result: EvaluationResult) -> str:
    """One result: its numbers, then what departs from the protocol and what to beware of."""
    level, how = _levels(result), _methods(result)
    rows = [
        [name, number(value), interval_text(result.intervals.get(name))]
        for name, value in result.metrics.items()
    ]
    table = text_table(["metric", "value", f"{level:.0%} interval" if level else ""], rows)
    made = made_text(result)
    notes = [f"made with: {made}"] if made else []
    notes += [*_beside(result), how] if how else _beside(result)
    notes += [f"differs from {result.protocol}: {line}" for line in result.differences]
    notes += [f"warning: {line}" for line in result.warnings]
    return "\n".join([table, *notes])


def interval_text(interval: Mapping[str, Any] | None) -> str:
    """From low to high, or nothing."""
    if interval is None or interval.get("low") is None:
        return ""
    return f"[{number(interval['low'])}, {number(interval['high'])}]"


def _beside(result: EvaluationResult) -> list[str]:
    """The unguided form of the numbers, and the held-out loss, each in a line."""
    lines = []
    unguided = result.beside.get("unguided")
    if isinstance(unguided, Mapping):
        values = ", ".join(f"{name} {number(value)}" for name, value in unguided["metrics"].items())
        lines.append(f"unguided: {values} ({unguided['file']})")
    elif unguided is not None:
        lines.append(f"unguided: {unguided}; --unguided makes it beside the guided one")
    if held_out := result.beside.get("held_out"):
        told = [name for name in held_out if name != "step" and "/" not in name and not name.endswith("_se")]
        values = ", ".join(f"{name} {with_error(held_out, name)}" for name in told)
        lines.append(f"held-out, step {held_out['step']:.0f}: {values}")
    return lines


def _levels(result: EvaluationResult) -> float | None:
    found = {one["level"] for one in result.intervals.values() if one["low"] is not None}
    return found.pop() if found else None


def _methods(result: EvaluationResult) -> str:
    """How intervals came about, in one line."""
    methods: dict[str, list[str]] = {}
    for name, one in result.intervals.items():
        if one["low"] is not None:
            methods.setdefault(one["method"], []).append(name)
    each = "; ".join(f"{method}: {', '.join(names)}" for method, names in methods.items())
    return f"intervals over samples, reference fixed, not over training runs ({each})" if each else ""


def comparison_table(results: Mapping[str, EvaluationResult]) -> str:
    """Results under names, side by side. Raises UsageError when they were judged by unlike protocols."""
    everyone = list(results.values())
    require_comparable(everyone)
    names = list(dict.fromkeys(name for result in everyone for name in result.metrics))
    rows = [
        [label, *(number(result.metrics.get(name)) for name in names)] for label, result in results.items()
    ]
    notes = [
        f"{label} was sampled differently: {line}"
        for label, result in list(results.items())[1:]
        for line in sampling_differences(everyone[0], result)
    ]
    return "\n".join([text_table(["", *names], rows), *notes])


def paper_table(result: EvaluationResult, protocol: Protocol) -> str:
    """The result above the rows of the papers that use this protocol; under it, each row's differences."""
    blocks = [_paper_block(result, group) for group in protocol.papers]
    if not blocks:
        return f"No paper reports numbers under {protocol.name}."
    return "\n\n".join(blocks)


def _paper_block(result: EvaluationResult, group: str) -> str:
    names, papers = paper_rows(group)
    rows = [["this run", *(number(result.metrics.get(name)) for name in names), ""]]
    notes: dict[str, str] = {}
    for paper in papers:
        note = "; ".join(differences_from_paper(result, paper))
        mark = notes.setdefault(note, f"[{len(notes) + 1}]") if note else ""
        label = f"{paper['model']} ({paper['source']})"
        rows.append([label, *(number(paper.get(name)) for name in names), mark])
    table = text_table([f"{group}, as printed", *names, ""], rows)
    return "\n".join([table, *(f"{mark} {note}" for note, mark in notes.items())])


def differences_from_paper(result: EvaluationResult, paper: Mapping[str, Any]) -> list[str]:
    """Every point in which this run was judged or sampled unlike a paper's row."""
    ours = {
        "protocol": result.protocol,
        "generated": result.generated.get("num"),
        "reference": result.reference.get("name"),
        "sampler": result.sampling.get("sampler"),
        "steps": result.sampling.get("steps"),
        "guidance_scale": result.sampling.get("guidance_scale"),
        "weights": result.sampling.get("weights"),
    }
    stated = {key: paper.get(key) for key in ours}
    differences = [
        f"{key} {_say(mine)} here, {_say(stated[key])} there"
        for key, mine in ours.items()
        if mine != stated[key]
    ]
    return differences + [f"here, {line}" for line in result.differences]


def _say(value: Any) -> str:
    return "not stated" if value is None else str(value)
