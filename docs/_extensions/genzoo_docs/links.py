"""Links that leave docs/: to the site's own page of that text where it has one, and plain words elsewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

# texts of the repository that a page of the site includes whole
SHOWN = {
    "genzoo/families/dim/README.md": "families/dim.md",
    "genzoo/families/matten/README.md": "families/matten.md",
    "genzoo/families/car/README.md": "families/car.md",
    "genzoo/families/custom_diffusion/README.md": "families/custom_diffusion.md",
    "genzoo/evaluation/README.md": "families/evaluation.md",
    "genzoo/kernels/README.md": "families/kernels.md",
    "CHANGELOG.md": "about/changelog.md",
    "CONTRIBUTING.md": "about/contributing.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def within(text: str, folder: Path, docs: Path) -> str:
    """The text with its links to files outside `docs` replaced.   folder: whence its links start.

    A link to nothing stays as it is, so that the build complains of it.
    """
    return LINK.sub(lambda link: _inside(link, folder.resolve(), docs.resolve()), text)


def _inside(link: re.Match[str], folder: Path, docs: Path) -> str:
    label, path, anchor = link[1], link[2], link[3] or ""
    target = (folder / path).resolve()
    if not target.exists() or not target.is_relative_to(docs.parent):
        return link[0]
    if target.is_relative_to(docs):
        moved = "/" + target.relative_to(docs).as_posix()
        return link[0] if folder.is_relative_to(docs) else f"[{label}]({moved}{anchor})"
    place = target.relative_to(docs.parent).as_posix()
    if place in SHOWN:
        return f"[{label}](/{SHOWN[place]}{anchor})"
    return f"{label} (`{place}`)" if label.strip("`") != place else f"`{place}`"


def relative(target: Path, folder: Path) -> str:
    """A path as a page of that folder writes it."""
    return Path(os.path.relpath(target, folder)).as_posix()
