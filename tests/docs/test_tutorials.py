"""The Python of tutorials and how-to pages runs, page by page, in the order and with the numbers shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import genzoo.api  # noqa: F401  (reads the cards, which a page must not find unread)
from genzoo.core.registry import REGISTRIES

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
PAGES = sorted(
    page
    for folder in ("tutorials", "howto")
    for page in (DOCS / folder).glob("*.md")
    if FENCE.search(page.read_text())
)


def run_page(page: Path) -> None:
    """Run the page's blocks in one namespace; a fault is shown at its line of the page."""
    text, namespace = page.read_text(encoding="utf-8"), {"__name__": "page"}
    for block in FENCE.finditer(text):
        lines_before = text[: block.start(1)].count("\n")
        exec(compile("\n" * lines_before + block[1], str(page), "exec"), namespace)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_a_page_runs_as_it_stands(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for registry in REGISTRIES.values():  # what a page registers is gone afterwards
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    run_page(page)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] or "kernels" in page.read_text()


def test_a_block_that_fails_is_found_at_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\n```python\na = 1\n```\n\n```python\nassert a == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run_page(page)
    assert caught.traceback[-1].lineno + 1 == 8
