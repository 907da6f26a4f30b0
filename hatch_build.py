"""The README as an index of packages shows it: there, nothing lies beside the page.

Links within the repository get the address of the release in GENZOO_REPOSITORY (such as https://HOST/OWNER/genzoo);
without one, a picture is the words that describe it, and a link its text, so that nothing is broken.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")
COMMENT = re.compile(r"^<!--.*?-->\n", re.M)


def shown(readme: str, repository: str, version: str) -> str:
    """The page for an index.   repository: its address; empty for none."""

    def absolute(link: re.Match[str]) -> str:
        mark, text, path = link.groups()
        if not repository:
            return f"*{text}*" if mark else text
        kind = "raw" if mark else "blob"
        return f"{mark}[{text}]({repository.rstrip('/')}/{kind}/v{version}/{path})"

    return RELATIVE.sub(absolute, COMMENT.sub("", readme))


class CustomMetadataHook(MetadataHookInterface):
    """Sets `readme`; hatchling finds it by its name."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = os.environ.get("GENZOO_REPOSITORY", "")
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": shown(text, repository, str(metadata["version"])),
        }
        if repository:
            metadata["urls"] = {"Repository": repository}
