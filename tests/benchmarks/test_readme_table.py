import json

import pytest

from benchmarks import readme

ROW = {
    "name": "forward l=7",
    "ms": {"ours": {"median": 2.0}, "peer": {"median": 9.0}},
    "times_slower": {"peer": {"median": 4.5}},
}
REPORT = {
    "case": "scan", "date": "2026-01-02", "hardware": "CPU", "cores": 2, "threads": 1, "commit": "abc",
    "versions": {"torch": "9.9"}, "rows": [ROW, {"name": "not a comparison"}],
}  # fmt: skip


def test_table_has_a_line_for_each_comparison():
    lines = readme.table([REPORT]).splitlines()
    assert lines[2] == "| scan | forward l=7 | ours 2, peer 9 | peer 4.5 |"
    assert lines[-1] == "Measured on CPU, 2 cores, 1 threads, torch 9.9, commit abc, 2026-01-02."
    assert len(lines) == 5


def test_newest_report_of_a_case_wins(tmp_path):
    for name, date in (("a", "2026-03-01"), ("b", "2026-02-01")):
        (tmp_path / f"{name}.json").write_text(json.dumps({**REPORT, "date": date}))
    assert [report["date"] for report in readme.newest_results(tmp_path)] == ["2026-03-01"]


def test_only_the_marked_part_of_the_page_changes():
    page = f"top {readme.START} old {readme.END} bottom"
    assert readme.with_table(page, "new") == f"top {readme.START}\nnew\n{readme.END} bottom"


def test_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="performance"):
        readme.with_table("no markers", "new")


def test_readme_shows_the_newest_results():
    assert readme.main(["--check"]) == 0
