"""python -m benchmarks.readme [--check]: write the README's performance table from benchmarks/results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
START, END = "<!-- performance -->", "<!-- /performance -->"


def main(arguments: list[str]) -> int:
    """Rewrite the table between the markers, or with --check say whether it is up to date."""
    page = ROOT / "README.md"
    text = page.read_text()
    fresh = with_table(text, table(newest_results(ROOT / "benchmarks" / "results")))
    if "--check" in arguments:
        if fresh != text:
            print("README.md: the table is not that of benchmarks/results; run python -m benchmarks.readme")
        return int(fresh != text)
    page.write_text(fresh)
    return 0


def newest_results(folder: Path) -> list[dict[str, Any]]:
    """The newest report of each case, by date."""
    newest: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text())
        known = newest.get(report["case"])
        if known is None or report["date"] >= known["date"]:
            newest[report["case"]] = report
    return [newest[name] for name in sorted(newest)]


def with_table(page: str, content: str) -> str:
    """The page with what stands between the markers replaced."""
    before, found, rest = page.partition(START)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"README.md needs {START} and {END}")
    return f"{before}{START}\n{content}\n{END}{after}"


def table(reports: list[dict[str, Any]]) -> str:
    """A line for each row that compares, and one that says where it was measured."""
    lines = ["| case | measured | ms | times slower than the first |", "|---|---|---|---|"]
    for report in reports:
        lines += [line(report["case"], row) for row in report["rows"] if row.get("times_slower")]
    shown = [report for report in reports if any(row.get("times_slower") for row in report["rows"])]
    places = {place(report) for report in shown}
    return "\n".join([*lines, "", *(f"Measured on {name}." for name in sorted(places))])


def place(report: dict[str, Any]) -> str:
    """Where and when a report was measured."""
    machine = f"{report['hardware']}, {report['cores']} cores, {report['threads']} threads"
    return f"{machine}, torch {report['versions']['torch']}, commit {report['commit']}, {report['date']}"


def line(case: str, row: dict[str, Any]) -> str:
    """One comparison: medians in ms, and ratios of medians taken round by round."""
    peers = row["times_slower"]
    own = [name for name in row["ms"] if name not in peers]
    times = ", ".join(f"{name} {row['ms'][name]['median']:.4g}" for name in [*own, *peers])
    ratios = ", ".join(f"{name} {ratio['median']:.3g}" for name, ratio in peers.items())
    return f"| {case} | {row['name']} | {times} | {ratios} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
