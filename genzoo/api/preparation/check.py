"""All of a data set looked at before it is trained on: `genzoo prepare check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from genzoo.api.preparation.open_data import OpenedData
from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import KnowsLengths, LeavesOut
from genzoo.core.wording import counted
from genzoo.data.captioned import Captioned
from genzoo.data.duplicates import MOST, equal_groups, equal_pairs, near_pairs
from genzoo.data.inspection import Look, evenly, inspect, item_name
from genzoo.data.label_check import class_counts, class_line, suspicious_classes

if TYPE_CHECKING:
    from genzoo.core.types import Dataset

SHOWN = 5  # names in a line
LINES = 20  # files that are named one by one

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DataReport:
    """What was found. classes: name to count, in the order of the labels; empty without classes.

    bad: "file: reason".   equal: files with the same bytes, two or more together.   near: pairs that look
    alike; None when there are too many pictures to compare.   captions: with and without; None for data
    without captions. same, alike: with the other data, pairs.
    """

    data: str
    items: int
    looked_at: int
    classes: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    equal: list[list[str]] = field(default_factory=list)
    near: list[tuple[str, str]] | None = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    hidden: int = 0
    captioned: int | None = None
    without_caption: list[str] = field(default_factory=list)
    against: str | None = None
    same: list[tuple[str, str]] = field(default_factory=list)
    alike: list[tuple[str, str]] | None = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for --json."""
        return asdict(self)


def check_data(
    opened: OpenedData,
    *,
    against: OpenedData | None = None,
    limit: int | None = None,
    num_workers: int = 0,
    progress: Callable[[str], Progress | None] = lambda stage: None,
) -> DataReport:
    """Read every item, or `limit` at even steps.

    against: other data, such as those held out, in which no picture should occur again.   num_workers:
    processes that read.   progress: gives a function (done, total) for a stage.
    """
    dataset = opened.dataset
    looks = _look(dataset, limit, num_workers, progress("looking"))
    names = {index: opened.short(item_name(dataset, index)) for index in looks}
    other = {} if against is None else _look(against.dataset, limit, num_workers, progress("the other"))
    comparable, crossing = len(looks) <= MOST, len(looks) * len(other) <= MOST * MOST
    captioned, without = _captions(opened.captions, looks, names)
    leaving = able(dataset, LeavesOut)
    return DataReport(
        data=opened.name,
        items=len(dataset),
        looked_at=len(looks),
        classes=class_counts(dataset),
        sizes=_sizes(looks.values()),
        frames=_frames(dataset),
        bad=[*opened.missing, *(opened.short(look.error) for look in looks.values() if look.error)],
        equal=[[names[index] for index in group] for group in equal_groups(looks)],
        near=[(names[one], names[two]) for one, two in near_pairs(looks)] if comparable else None,
        left_out=[] if leaving is None else list(leaving.left_out),
        hidden=opened.hidden,
        captioned=captioned,
        without_caption=without,
        against=None if against is None else against.name,
        same=_between(names, against, equal_pairs(looks, other)),
        alike=_between(names, against, near_pairs(looks, other)) if crossing else None,
        warnings=suspicious_classes(dataset.class_names),
    )


def _look(
    dataset: Dataset, limit: int | None, num_workers: int, progress: Progress | None
) -> dict[int, Look]:
    chosen = None if limit is None else evenly(len(dataset), limit)
    return dict(inspect(dataset, chosen, num_workers=num_workers, progress=progress))


def _sizes(looks: Any) -> dict[str, int]:
    counts = Counter(look.size for look in looks if look.size is not None)
    return {f"{width} x {height}": count for (width, height), count in counts.most_common()}


def _frames(dataset: Dataset) -> dict[str, int]:
    measured = able(dataset, KnowsLengths)
    lengths = [] if measured is None else [int(length) for length in measured.lengths if length]
    return {"shortest": min(lengths), "longest": max(lengths)} if lengths else {}


def _captions(
    captions: Mapping[str, Captioned] | None, looks: Mapping[int, Look], names: Mapping[int, str]
) -> tuple[int | None, list[str]]:
    if captions is not None:
        without = [name for name in names.values() if name not in captions or not captions[name].caption]
    elif any(look.caption is not None for look in looks.values()):
        without = [names[index] for index, look in looks.items() if look.caption is False]
    else:
        return None, []
    return len(names) - len(without), without


def _between(
    names: Mapping[int, str], against: OpenedData | None, pairs: Sequence[tuple[int, int]]
) -> list[tuple[str, str]]:
    if against is None:
        return []
    return [(names[one], against.short(item_name(against.dataset, two))) for one, two in pairs]


def report_lines(report: DataReport) -> list[str]:
    """The report for people."""
    part = "" if report.looked_at == report.items else f", {report.looked_at:,} of them looked at"
    lines = [f"data        {report.data}: {counted(report.items, 'item')}{part}"]
    lines += [f"classes     {class_line(report.classes) or 'none'}"]
    if report.sizes:
        lines += [f"sizes       {_some([f'{size} ({count:,})' for size, count in report.sizes.items()])}"]
    if report.frames:
        lines += [f"frames      {report.frames['shortest']} to {report.frames['longest']} of a clip"]
    lines += [f"unreadable  {len(report.bad)}", *_named(report.bad)]
    lines += [f"the same    {_groups(report.equal)}", f"alike       {_pairs(report.near)}"]
    hidden = f"{report.hidden} hidden" if report.hidden else ""
    lines += [f"left out    {'; '.join(filter(None, (_some(report.left_out), hidden))) or 'nothing'}"]
    if report.captioned is not None:
        without = f"; without: {_some(report.without_caption)}" if report.without_caption else ""
        lines += [f"captions    {report.captioned:,} of {report.looked_at:,}{without}"]
    if report.against is not None:
        lines += [
            f"overlap     with {report.against}: the same {_pairs(report.same)}; alike {_pairs(report.alike)}"
        ]
    return [*lines, *(f"warning: {warning}" for warning in report.warnings)]


def _some(names: Sequence[str], most: int = SHOWN) -> str:
    more = f", ... ({len(names):,} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _named(bad: Sequence[str]) -> list[str]:
    more = [f"  ... and {len(bad) - LINES:,} more; --json lists all"] if len(bad) > LINES else []
    then = (
        [f"  take them out, or train with train.max_bad={len(bad)}: it ends at the first otherwise"]
        if bad
        else []
    )
    return [f"  {line}" for line in bad[:LINES]] + more + then


def _groups(groups: Sequence[Sequence[str]]) -> str:
    said = [" = ".join(group[:3]) + (" = ..." if len(group) > 3 else "") for group in groups]
    return f"{counted(len(groups), 'group')}: {_some(said)}" if groups else "none"


def _pairs(pairs: Sequence[tuple[str, str]] | None) -> str:
    if pairs is None:
        return f"not compared, there are more than {MOST:,}"
    said = _some([f"{one} ~ {two}" for one, two in pairs])
    return f"{counted(len(pairs), 'pair')}: {said}" if pairs else "none"
