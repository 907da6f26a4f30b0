"""Files that can be sampled although no training left a run folder around them; families declare them."""

from __future__ import annotations

from genzoo.core.registry import Registry

SOURCES = Registry("source")
"""Functions (path, *, options) -> Recipe | None.

None means that the path is nothing of theirs. The recipe's model section names the file, so that building the
task loads it; what the file does not say is `???` there, and the options (keyword-only) supply it.
"""
