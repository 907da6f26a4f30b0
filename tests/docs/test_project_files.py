"""What a project shows of itself: one version, a citation, forms for issues, links that lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import tomllib
import yaml

import genzoo

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def tracked(pattern: str) -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(done.stdout.splitlines())


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in project["project"]["dynamic"]
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "genzoo/__init__.py"


def test_the_citation_is_of_this_version_and_names_the_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors", "type"} <= set(citation)
    assert str(citation["version"]) == genzoo.__version__
    titles = [reference["title"] for reference in citation["references"]]
    assert all(any(word in title for title in titles) for word in ("Mamba", "Matten", "CAR", "Customization"))
    assert all(
        {"family-names", "given-names"} <= set(a) for r in citation["references"] for a in r["authors"]
    )


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_issue_forms_can_be_read(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    fields = [part["id"] for part in form["body"]]
    assert len(fields) == len(set(fields))
    assert any(part.get("validations", {}).get("required") for part in form["body"])


@pytest.mark.parametrize("page", tracked("*.md"))
def test_links_lead_to_files_and_headings(page: str) -> None:
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    broken = [link for link in LINK.findall(text) if not leads_somewhere(ROOT / page, link)]
    assert not broken


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a relative link has its file and its heading; other hosts are not asked."""
    if re.match(r"[a-z]+:", link):
        return True
    path, _, anchor = link.partition("#")
    target = page if not path else page.parent / path
    if not anchor or not target.is_file():
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
    return anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One thing\n")
    assert leads_somewhere(page, "#one-thing")
    assert not leads_somewhere(page, "#another")
    assert not leads_somewhere(page, "missing.md")


def test_the_changelog_s_newest_release_is_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert sections[:2] == ["Unreleased", f"{genzoo.__version__} - {citation['date-released']}"]
