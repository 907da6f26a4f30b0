"""Sweeps of guidance among results: those that differ in its scale and in nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from genzoo.evaluation.comparison.rows import Row
from genzoo.evaluation.facts import facts_apart


def guidance(row: Row) -> float:
    """The scale of a row that states one."""
    return float(row.result.sampling["guidance_scale"])


def sweeps_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Label -> rows of one source by rising guidance, all else alike: protocol, weights, seed, steps, ...

    A source with one sweep lends it its name; with several, what they differ in is added.
    """
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        scale = row.result.sampling.get("guidance_scale")
        if isinstance(scale, int | float) and not isinstance(scale, bool):
            found.setdefault((row.source, _all_else(row)), []).append(row)
    swept = [
        sorted(each, key=guidance) for each in found.values() if len({guidance(row) for row in each}) > 1
    ]
    by_source: dict[str, list[list[Row]]] = {}
    for each in swept:
        by_source.setdefault(each[0].source, []).append(each)
    return {label: each for source, several in by_source.items() for label, each in _named(source, several)}


def _all_else(row: Row) -> str:
    made = {key: value for key, value in row.result.sampling.items() if key != "guidance_scale"}
    return json.dumps([made, dict(row.result.comparable)], sort_keys=True, default=str)


def _named(source: str, several: Sequence[list[Row]]) -> Sequence[tuple[str, list[Row]]]:
    if len(several) == 1:
        return [(source, several[0])]
    firsts = [each[0].result for each in several]
    apart: Mapping[str, Sequence[str]] = {
        "protocol": [one.protocol for one in firsts],
        **{name: words for name, words in facts_apart(firsts)[0].items() if name != "guidance"},
    }
    told = [[words[i] for words in apart.values() if len(set(words)) > 1] for i in range(len(firsts))]
    labels = [f"{source} ({'; '.join(words) or number})" for number, words in enumerate(told, start=1)]
    return list(zip(labels, several, strict=True))
