"""python -m benchmarks.readme [--check]: results written into README, docs/performance.md and a chart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.chart import Group, Line, bars, curves
from benchmarks.range_chart import Range, ranges

ROOT = Path(__file__).parent.parent
START, END = "<!-- performance -->", "<!-- /performance -->"
CHART, GROWTH, LEARNING = "docs/speed.svg", "docs/growth.svg", "docs/time_to_quality.svg"
# (case, row) and what README's chart calls it; the rest stands in docs/performance.md
HEADLINES = {
    ("selective_scan", "forward cpu l=1024"): "selective scan, 1,024 tokens",
    ("selective_scan_backward", "forward+backward l=1024"): "the same with gradients",
    ("mixer", "forward l=1024"): "Mamba mixer, 1,024 tokens",
    ("merge", "2400 rows, condition 10000"): "merge of concepts, SD-1.5 size",
    ("frechet", "d=2048"): "Fréchet distance, 2,048 wide",
    ("next_scale_sampling", "VAR fp32"): "256-px picture, VAR-d16, float32",
    ("next_scale_sampling", "VAR bf16"): "256-px picture, VAR-d16, bfloat16",
    ("next_scale_sampling", "CAR bf16 first"): "256-px picture, CAR-d16, bfloat16",
}


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say which of them are not those of the results."""
    stale = [path for path, text in pages().items() if not path.is_file() or path.read_text() != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.name} is not that of benchmarks/results; run python -m benchmarks.readme")
        return int(bool(stale))
    for path, text in pages().items():
        path.write_text(text)
    return 0


def pages() -> dict[Path, str]:
    """The text of every file that shows results."""
    reports = newest_results(ROOT / "benchmarks" / "results")
    readme, details = ROOT / "README.md", ROOT / "docs" / "performance.md"
    found = {
        readme: with_table(readme.read_text(), summary([report for _, _, report in chosen(reports)])),
        details: with_table(details.read_text(), f"{headlines(reports)}\n\n### All\n\n{table(reports)}"),
        ROOT / CHART: chart(reports),
    }
    measured = {report["case"] for report in reports if len(report["rows"]) > 1}  # one row compares nothing
    drawn = {"token_growth": (GROWTH, growth), "time_to_quality": (LEARNING, learning)}
    return found | {ROOT / path: draw(reports) for case, (path, draw) in drawn.items() if case in measured}


def newest_results(folder: Path) -> list[dict[str, Any]]:
    """The newest report of each case, by date."""
    newest: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text())
        if "rows" not in report:  # a GPU day has sections
            continue
        known = newest.get(report["case"])
        if known is None or report["date"] >= known["date"]:
            newest[report["case"]] = report
    return [newest[name] for name in sorted(newest)]


def with_table(page: str, content: str) -> str:
    """The page with what stands between the markers replaced."""
    before, found, rest = page.partition(START)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"a page of results needs {START} and {END}")
    return f"{before}{START}\n{content}\n{END}{after}"


def chosen(reports: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """README's rows, in their order: what each is called, the row, and its report."""
    rows = {
        (report["case"], row["name"]): (row, report)
        for report in reports
        for row in report["rows"]
        if row.get("times_slower")
    }
    return [(title, *rows[key]) for key, title in HEADLINES.items() if key in rows]


def chart(reports: list[dict[str, Any]]) -> str:
    """Every peer of README's rows, the nearest first."""
    groups = []
    for title, row, _ in chosen(reports):
        peers = {name: ratio["median"] for name, ratio in row["times_slower"].items()}
        groups.append(Group(title, sorted(peers.items(), key=lambda peer: peer[1])))
    return bars(groups)


def growth(reports: list[dict[str, Any]]) -> str:
    """DiM and DiT against the number of tokens: seconds and extra memory of a forward pass."""
    rows = [row for report in reports if report["case"] == "token_growth" for row in report["rows"]]
    rows = [row for row in rows if "tokens" in row]

    def lines(value: Callable[[dict[str, Any], str], float]) -> list[Line]:
        kinds = {"dim": ("DiM", "o"), "dit": ("DiT", "b")}
        return [
            Line(title, [(row["tokens"], value(row, who)) for row in rows], kind)
            for who, (title, kind) in kinds.items()
        ]

    panels = [
        ("milliseconds", lines(lambda row, who: float(row["ms"][who]["median"]))),
        ("extra MB", lines(lambda row, who: float(row["extra_mb"][who]))),
    ]
    return curves("A forward pass of DiM-S/2 and DiT-S/2 against the number of tokens", panels)


def learning(reports: list[dict[str, Any]]) -> str:
    """CPU seconds of training until the digits are good, for each change to the recipe."""
    found = []
    for row in next(report for report in reports if report["case"] == "time_to_quality")["rows"]:
        took, last = row.get("cpu_seconds", {}), max(looks[-1][1] for looks in row["looks"].values())
        of = f"{row['reached']} of {len(row['seeds'])} seeds"
        note = of if took else f"not after {last:.0f} s: {of}"
        found.append(Range(row["help"], took.get("min"), took.get("median"), took.get("max"), note))
    title = "Training until digits are drawn with accuracy 0.99 and diversity 0.82"
    return ranges(title, "CPU seconds of training", found)


def headlines(reports: list[dict[str, Any]]) -> str:
    """Our time, the strongest peer's, and the ratio with its range; then where that was."""
    lines = ["| | genzoo, ms | strongest peer, ms | times slower |", "|---|---|---|---|"]
    for title, row, _ in chosen(reports):
        peer = min(row["times_slower"], key=lambda name: row["times_slower"][name]["median"])
        own = next(name for name in row["ms"] if name not in row["times_slower"])
        ratio = row["times_slower"][peer]
        spread = f"{ratio['median']:.3g} ({ratio['min']:.3g} to {ratio['max']:.3g})"
        times = [counted(row["ms"][name]["median"]) for name in (own, peer)]
        lines.append(f"| {title} | {times[0]} | {peer} {times[1]} | {spread} |")
    return "\n".join([*lines, "", summary([report for _, _, report in chosen(reports)])])


def summary(reports: list[dict[str, Any]]) -> str:
    """One line: processors, threads, versions and loads of all these reports."""

    def named(values: list[Any], between: str = ", ") -> str:
        return between.join(dict.fromkeys(str(value) for value in values))

    threads = named([r["threads"] for r in reports], " or ")
    machine = f"{named([r['hardware'] for r in reports])}, {threads} thread{'s' * (threads != '1')}"
    torch = f"torch {named([r['versions']['torch'] for r in reports])}"
    loads = sorted(report.get("load", 0.0) for report in reports)
    commits = f"commit {named([report['commit'] for report in reports])}"
    return f"Measured on {machine}, load {loads[0]:.0f} to {loads[-1]:.0f}, {torch}, {commits}."


def counted(ms: float) -> str:
    """Milliseconds with at most four digits that count, and never as a power of ten."""
    return f"{ms:,.0f}" if ms >= 1000 else f"{ms:.4g}"


def table(reports: list[dict[str, Any]]) -> str:
    """A line for each row that compares, and one that says where it was measured."""
    lines = ["| case | measured | ms | times slower than the first |", "|---|---|---|---|"]
    for report in reports:
        lines += [line(report["case"], row) for row in report["rows"] if row.get("times_slower")]
    shown = [report for report in reports if any(row.get("times_slower") for row in report["rows"])]
    return "\n".join([*lines, "", *(f"- `{report['case']}`: {place(report)}." for report in shown)])


def place(report: dict[str, Any]) -> str:
    """Where and when a report was measured."""
    machine = f"{report['hardware']}, {report['cores']} cores, {report['threads']} threads"
    return f"{machine}, torch {report['versions']['torch']}, commit {report['commit']}, {report['date']}"


def line(case: str, row: dict[str, Any]) -> str:
    """One comparison: medians in ms, and ratios of medians taken round by round."""
    peers = row["times_slower"]
    own = [name for name in row["ms"] if name not in peers]
    times = " · ".join(f"{name} {counted(row['ms'][name]['median'])}" for name in [*own, *peers])
    ratios = " · ".join(f"{name} {ratio['median']:.3g}" for name, ratio in peers.items())
    return f"| {case} | {row['name']} | {times} | {ratios} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
