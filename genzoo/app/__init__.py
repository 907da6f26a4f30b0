"""`genzoo app`: a page in the browser for those who would rather look and click. This card imports no torch.

The page holds no state: whatever it starts is an ordinary `genzoo` process, and whatever it shows is read
from files that such a process wrote. gradio is imported here and nowhere else in the package.
"""

from __future__ import annotations

from genzoo.core.registry import COMMANDS

COMMANDS.lazy(
    "app",
    "genzoo.app.command:app_command",
    help="Open a page in the browser: sample, teach, watch and compare runs.",
)
