"""What is compared: results under labels, and everything in which they were judged or sampled unlike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genzoo.core.errors import UsageError
from genzoo.evaluation.intervals.difference import Difference, difference, holm
from genzoo.evaluation.intervals.estimate import LEVEL
from genzoo.evaluation.result import EvaluationResult, protocol_differences, sampling_differences

# names that end in these are better when larger
HIGHER_IS_BETTER = (
    *("precision", "recall", "density", "coverage", "vendi", "inception_score", "class_score"),
    *("clip_text", "clip_image", "dino_image", "_f1", "authpct"),
)
NOT_COMPARED = ("_std", "_floor")  # of how a number was made


@dataclass(frozen=True)
class Row:
    """One result under a label.   source: what it was found in.   pictures: where its samples are."""

    label: str
    result: EvaluationResult
    source: str = ""
    pictures: Path | None = None


@dataclass(frozen=True)
class Verdict:
    """One metric of two rows.   differs: whether 0 is outside the interval, Holm's correction included."""

    first: str
    second: str
    metric: str
    difference: Difference
    differs: bool


@dataclass(frozen=True)
class Table:
    """Rows of one protocol.

    judged: (first, other) -> every difference in how they were judged; such rows get no verdict.   sampled:
    the same of how samples were made.   verdicts: of every row against the first that was judged alike.
    """

    protocol: str
    rows: Sequence[Row]
    judged: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    sampled: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)
    verdicts: Sequence[Verdict] = ()

    def metrics(self) -> list[str]:
        """Names of all metrics, in the order of the first result that has them."""
        return list(dict.fromkeys(name for row in self.rows for name in row.result.metrics))


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of a metric is the better one; by its name, labels of networks included."""
    return metric.endswith(HIGHER_IS_BETTER)


def better(metric: str) -> str | None:
    """ "higher" or "lower"; None for what says how a number was made, such as a spread over subsets."""
    if metric.endswith(NOT_COMPARED):
        return None
    return "higher" if higher_is_better(metric) else "lower"


def tables_of(rows: Sequence[Row], *, level: float = LEVEL) -> list[Table]:
    """One table for each protocol, in the order of the rows. Raises UsageError without rows."""
    if not rows:
        raise UsageError(
            "there is nothing to compare", fix="name runs, folders or results of genzoo evaluate"
        )
    labels = [row.label for row in rows]
    if len(set(labels)) < len(labels):
        raise UsageError(f"two results have one label: {', '.join(labels)}")
    protocols = dict.fromkeys(row.result.protocol for row in rows)
    return [_table(name, [row for row in rows if row.result.protocol == name], level) for name in protocols]


def _table(protocol: str, rows: Sequence[Row], level: float) -> Table:
    judged, sampled, found = {}, {}, []
    first_of: list[Row] = []  # rows that later ones are compared with: one of each way of judging
    for row in rows:
        first = next((one for one in first_of if not protocol_differences(one.result, row.result)), None)
        if first is None:
            if first_of:
                judged[first_of[0].label, row.label] = protocol_differences(first_of[0].result, row.result)
            first_of.append(row)
            continue
        made = sampling_differences(first.result, row.result)
        if made:
            sampled[first.label, row.label] = made
        found += _differences(first, row, level)
    return Table(protocol, rows, judged, sampled, _corrected(found, level))


def _differences(first: Row, second: Row, level: float) -> list[tuple[str, str, str, Difference]]:
    names = [name for name in first.result.metrics if name in second.result.metrics]
    paired = same_seeds(first.result, second.result)
    found = []
    for name in names:
        if name.endswith(NOT_COMPARED):
            continue
        one, other = first.result.estimate(name), second.result.estimate(name)
        apart = difference(one, other, paired=paired, level=level)
        if apart is not None:
            found.append((first.label, second.label, name, apart))
    return found


def same_seeds(one: EvaluationResult, other: EvaluationResult) -> bool:
    """Whether sample i of both came from the same noise and condition: then the noise in common is taken out.

    Both must say their seed, and the same options that decide what sample i shows.
    """
    keys = ("seed", "class_labels", "prompt", "control", "block_size")
    stated = [[result.sampling.get(key) for key in keys] for result in (one, other)]
    alike = one.generated.get("num") == other.generated.get("num")
    return alike and stated[0][0] is not None and stated[0] == stated[1]


def _corrected(found: Sequence[tuple[str, str, str, Difference]], level: float) -> list[Verdict]:
    """Each metric's comparisons together: the more pairs, the more must be seen (Holm)."""
    verdicts = []
    for metric in dict.fromkeys(name for _, _, name, _ in found):
        mine = {f"{a}\0{b}": apart for a, b, name, apart in found if name == metric}
        decided = holm({pair: apart.p_value for pair, apart in mine.items()}, level)
        for pair, apart in mine.items():
            first, _, second = pair.partition("\0")
            verdicts.append(Verdict(first, second, metric, apart, decided[pair] and apart.differs))
    return verdicts


def as_data(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The tables for JSON."""
    return [
        {
            "protocol": table.protocol,
            "rows": [
                {
                    "label": row.label,
                    "source": row.source,
                    "metrics": dict(row.result.metrics),
                    "intervals": {name: dict(one) for name, one in row.result.intervals.items()},
                    "generated": dict(row.result.generated),
                    "reference": dict(row.result.reference),
                    "sampling": dict(row.result.sampling),
                    "differences_from_protocol": list(row.result.differences),
                    "warnings": list(row.result.warnings),
                }
                for row in table.rows
            ],
            "judged_differently": _pairs(table.judged),
            "sampled_differently": _pairs(table.sampled),
            "verdicts": [_verdict(one) for one in table.verdicts],
        }
        for table in tables
    ]


def _pairs(lines: Mapping[tuple[str, str], Sequence[str]]) -> list[dict[str, Any]]:
    return [{"first": a, "second": b, "differences": list(each)} for (a, b), each in lines.items()]


def _verdict(one: Verdict) -> dict[str, Any]:
    apart = one.difference
    return {
        "metric": one.metric,
        "first": one.first,
        "second": one.second,
        "difference": apart.value,
        "low": apart.low,
        "high": apart.high,
        "p_value": apart.p_value,
        "paired": apart.paired,
        "differs": one.differs,
    }
