"""python -m benchmarks.run CASE|all-cpu|all-gpu|list [--threads N] [--repeats N] [KEY=VALUE]"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import environment
from benchmarks.registry import Case, Options, load_cases
from genzoo.core.memory import freed_memory_kept

RESULTS = Path(__file__).parent / "results"


def main(arguments: list[str] | None = None) -> int:
    """Run the cases asked for; each writes its own JSON."""
    cases = load_cases()
    options = parse(arguments)
    if options.case == "list":
        for case in cases.values():
            print(f"{case.name:24} {case.group:4} {case.help}")
        return 0
    chosen = [c for c in cases.values() if options.case in (c.name, f"all-{c.group}")]
    if not chosen:
        print(
            f"there is no benchmark {options.case!r}; known: {', '.join(cases)}, all-cpu, all-gpu",
            file=sys.stderr,
        )
        return 2
    torch.set_num_threads(options.threads)
    settings = dict(setting.split("=", 1) for setting in options.settings)
    with freed_memory_kept() if options.keep_memory else contextlib.nullcontext(False) as kept:
        for case in chosen:
            report = run_case(case, Options(options.repeats, settings)) | {"freed_memory_kept": kept}
            path = options.json if options.json and len(chosen) == 1 else default_path(report)
            path.write_text(json.dumps(report, indent=1) + "\n")
            print(f"wrote {path}")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("case")
    parser.add_argument("settings", nargs="*", help="KEY=VALUE settings of the case")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep-memory", action="store_true", help="keep freed memory, like genzoo train")
    parser.add_argument("--json", type=Path)
    return parser.parse_intermixed_args(arguments)


def run_case(case: Case, options: Options) -> dict[str, Any]:
    """Run one case and print its rows."""
    print(f"== {case.name}: {case.help}")
    rows = case.run(options)
    for row in rows:
        print("  " + describe(row))
    settings = {name: value for name, value in options.settings.items() if name != "folder"}  # of one machine
    return {"case": case.name, **environment(), "settings": settings, "rows": rows}


def describe(row: dict[str, Any]) -> str:
    """One line for people: ms of everybody, ratios, and whatever else is in the row."""
    parts = [f"{row['name']:34}"]
    parts += [f"{name} {value['median']:.2f} ms" for name, value in row.get("ms", {}).items()]
    parts += [
        f"{name} x{value['median']:.1f} [{value['min']:.1f}..{value['max']:.1f}]"
        for name, value in row.get("times_slower", {}).items()
    ]
    known = ("name", "ms", "times_slower")
    rest = {key: value for key, value in row.items() if key not in known and value is not None}
    parts += [f"{key} {v:.3g}" if isinstance(v, float) else f"{key} {v}" for key, v in rest.items()]
    return "  ".join(parts)


def default_path(report: dict[str, Any]) -> Path:
    """benchmarks/results/<case>_<hardware>_<yyyymm>.json"""
    hardware = re.sub(r"[^a-z0-9]+", "-", report["hardware"].lower()).strip("-")
    month = report["date"][:7].replace("-", "")
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{report['case']}_{hardware}-{report['cores']}core_{month}.json"


if __name__ == "__main__":
    sys.exit(main())
