"""The pages about the house name files and things that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["docs/architecture.md", "CONTRIBUTING.md"]
BELOW = [ROOT, ROOT / "genzoo"]


def named_files(page: str) -> list[str]:
    """Paths between back-ticks, such as `core/files.py` or `tests/golden/`."""
    found = re.findall(r"`([\w./]+(?:\.py|/))`", (ROOT / page).read_text(encoding="utf-8"))
    return sorted({name for name in found if "/" in name.rstrip("/") or name.endswith("/")})


def exists(name: str) -> bool:
    # a bare name, such as control/inputs.py, follows a longer one on the page
    return any((root / name).exists() for root in BELOW) or any((ROOT / "genzoo").rglob(name.rstrip("/")))


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    names = named_files(page)
    assert len(names) > 3
    assert [name for name in names if not exists(name)] == []


@pytest.mark.parametrize("page", [*PAGES, "docs/adding_a_family.md", "README.md"])
def test_links_of_pages_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8"))
    folder = (ROOT / page).parent
    assert [link for link in links if not (folder / link).exists()] == []


def test_the_frames_that_the_page_names_are_the_trainers_own() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    trainer = (ROOT / "genzoo/training/trainer.py").read_text(encoding="utf-8")
    frames = re.search(r"five\s+frames: ((?:`\w+`, )+)", page)
    assert frames is not None
    first, second, third = re.findall(r"`(\w+)`", frames[1])[:3]
    assert f"def {first}(" in trainer
    assert f"def {second}(" in trainer
    assert f"{third}(" in trainer
