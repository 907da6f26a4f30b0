import json
from xml.etree import ElementTree

import pytest

from benchmarks import readme
from benchmarks.cases import token_growth
from benchmarks.registry import Options

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
    assert lines[2] == "| scan | forward l=7 | ours 2 · peer 9 | peer 4.5 |"
    assert lines[-1] == "- `scan`: CPU, 2 cores, 1 threads, torch 9.9, commit abc, 2026-01-02."
    assert len(lines) == 5


def test_large_times_are_written_out():
    assert [readme.counted(ms) for ms in (0.12345, 999.96, 23290.4)] == ["0.1235", "1000", "23,290"]


def test_newest_report_of_a_case_wins(tmp_path):
    for name, date in (("a", "2026-03-01"), ("b", "2026-02-01")):
        (tmp_path / f"{name}.json").write_text(json.dumps({**REPORT, "date": date}))
    assert [report["date"] for report in readme.newest_results(tmp_path)] == ["2026-03-01"]


def test_sections_of_a_gpu_day_are_no_rows(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({**REPORT, "date": "2026-03-01"}))
    day = {"case": "gpu_day", "date": "2026-03-02", "scans": {}}
    (tmp_path / "b.json").write_text(json.dumps(day))
    assert [report["case"] for report in readme.newest_results(tmp_path)] == [REPORT["case"]]


def test_only_the_marked_part_of_the_page_changes():
    page = f"top {readme.START} old {readme.END} bottom"
    assert readme.with_table(page, "new") == f"top {readme.START}\nnew\n{readme.END} bottom"


def test_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="<!-- performance -->"):
        readme.with_table("no markers", "new")


def test_readme_shows_the_newest_results():
    assert readme.main(["--check"]) == 0


def headline(monkeypatch, **ratios):
    monkeypatch.setattr(readme, "HEADLINES", {("scan", "forward l=7"): "the scan"})
    times = {"ours": {"median": 2.0}} | {name: {"median": 2.0 * ratio} for name, ratio in ratios.items()}
    spread = {name: {"median": ratio, "min": ratio - 1, "max": ratio + 1} for name, ratio in ratios.items()}
    row = {"name": "forward l=7", "ms": times, "times_slower": spread}
    return [{**REPORT, "load": 3.2, "rows": [row]}]


def test_a_headline_is_about_the_strongest_peer(monkeypatch):
    lines = readme.headlines(headline(monkeypatch, weak=90.0, strong=6.0)).splitlines()
    assert lines[2] == "| the scan | 2 | strong 12 | 6 (5 to 7) |"
    assert lines[-1] == "Measured on CPU, 1 thread, load 3 to 3, torch 9.9, commit abc."


def test_bars_are_as_long_as_the_logarithm_of_the_ratio(monkeypatch):
    drawing = ElementTree.fromstring(readme.chart(headline(monkeypatch, far=100.0, near=10.0)))
    widths = [float(bar.get("width")) for bar in drawing.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths == pytest.approx([widths[1] / 2, widths[1]], abs=0.1)


def test_names_are_escaped_in_the_chart(monkeypatch):
    assert "&lt;b&gt;" in readme.chart(headline(monkeypatch, **{"<b>": 3.0}))


def test_readme_has_the_chart_and_says_where_it_was_measured():
    text = (readme.ROOT / "README.md").read_text()
    assert readme.CHART in text
    marked = text.partition(readme.START)[2].partition(readme.END)[0].strip()
    assert marked.startswith("Measured on ")
    assert "\n" not in marked


def test_curves_cross_where_their_points_do():
    rows = [
        {"tokens": 100, "times_slower": {"dit": {"median": 0.5}}},
        {"tokens": 400, "times_slower": {"dit": {"median": 2.0}}},
    ]
    assert token_growth.crossover(rows) == 200
    assert token_growth.crossover(rows[:1]) is None


def test_growth_is_measured_for_both_models(monkeypatch):
    monkeypatch.setattr(token_growth, "MODELS", {"dim": "dim_s8", "dit": "dit_s8"})
    monkeypatch.setattr(token_growth, "PATCH_AREA", 64)
    monkeypatch.setattr(token_growth, "memory_of", lambda name, side: float(side))
    rows = token_growth.token_growth(Options(repeats=1, settings={"tokens": "4,16"}))
    assert [row["name"] for row in rows] == ["4 tokens", "16 tokens", "equal times"]
    assert rows[1]["extra_mb"] == {"dim": 32.0, "dit": 32.0}
    drawing = ElementTree.fromstring(readme.growth([{"case": "token_growth", "rows": rows}]))
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}polyline"))) == 4
