"""`make docs`: a warning is an error, so that a page with a broken link is not published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

build = pytest.importorskip("sphinx.cmd.build")
DOCS = Path(__file__).parents[2] / "docs"
FLAGS = ("-q", "-E", "-W", "--keep-going", "-b", "html")


def built(folder: Path, **pages: str) -> int:
    """The exit code of a site of these pages under the project's own configuration."""
    source = folder / "source"
    source.mkdir()
    for name, text in pages.items():
        (source / f"{name}.md").write_text(text)
    out, trees = str(folder / "site"), str(folder / "trees")
    return int(build.build_main([*FLAGS, "-c", str(DOCS), "-d", trees, str(source), out]))


def test_a_sound_page_is_built(tmp_path: Path) -> None:
    page = "# A\n\n[to b](b.md#one-more)\n\n```{toctree}\nb\n```\n"
    assert built(tmp_path, index=page, b="# B\n\n## One more\n") == 0
    assert "One more" in (tmp_path / "site" / "b.html").read_text()


@pytest.mark.parametrize(
    "page",
    ["[gone](gone.md)", "[gone](#nowhere)", "![gone](gone.png)", "```{toctree}\ngone\n```", "{doc}`gone`"],
    ids=["page", "heading", "picture", "toctree", "role"],
)
def test_a_broken_link_fails_the_build(tmp_path: Path, page: str) -> None:
    assert built(tmp_path, index=f"# A\n\n{page}\n") != 0


def test_the_gate_builds_the_site_with_those_flags() -> None:
    root = DOCS.parent
    (rule,) = re.findall(r"^docs:\n\t(.*)$", (root / "Makefile").read_text(), re.M)
    assert {*FLAGS} <= {*rule.split()}
    assert re.search(r"^make docs$", (root / ".ci" / "run").read_text(), re.M)
