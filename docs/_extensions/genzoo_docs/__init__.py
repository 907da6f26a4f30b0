"""Our own Sphinx extension: pages that are written from the code they describe.

A line `<!-- written: NAME -->` of a page is replaced by what the function of that name writes, as Markdown,
before the page is parsed. Docstrings, which are plain text, are made reStructuredText for autodoc, and links
that leave docs/ become what the site has in their place.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from genzoo_docs import commands, docstrings, exit_codes, links, names, recipe_keys

WRITERS = {
    "commands": commands.written,
    "recipe-keys": recipe_keys.written,
    "sampling-options": recipe_keys.sampling_written,
    "names": names.written,
    "public-names": names.public_written,
    "exit-codes": exit_codes.written,
}
MARK = re.compile(r"^<!-- written: ([\w-]+) -->$", re.M)


def filled(text: str) -> str:
    """A page with every mark replaced. Raises KeyError for a mark that nobody writes."""
    return MARK.sub(lambda mark: WRITERS[mark[1]](), text)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("include-read", _included)
    app.connect("autodoc-process-docstring", _docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _read(app: Any, name: str, source: list[str]) -> None:
    source[0] = links.within(filled(source[0]), Path(app.env.doc2path(name)).parent, Path(app.srcdir))


def _included(app: Any, path: Path, parent: str, source: list[str]) -> None:
    source[0] = links.within(source[0], Path(app.srcdir, path).parent, Path(app.srcdir))


def _docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = docstrings.restructured("\n".join(lines)).split("\n")
