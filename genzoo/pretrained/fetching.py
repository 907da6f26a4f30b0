"""How far the hub's library is with what it fetches, as lines of ours in place of its bars."""

from __future__ import annotations

import io
import logging
import time
from typing import Any

from huggingface_hub.utils import tqdm

LINE_SECONDS = 10.0  # between two lines
logger = logging.getLogger(__name__)


class Fetching(tqdm):
    """What that library tells of files and bytes: bytes are logged now and then, and nothing is drawn.

    HF_HUB_DISABLE_PROGRESS_BARS=1 silences the lines, too.
    """

    monitor_interval = 0  # no thread that looks after a bar
    told = 0.0  # when any of them spoke last, for all: one repository has several

    def __init__(self, *args: Any, **options: Any) -> None:
        Fetching.told = time.monotonic()
        super().__init__(*args, **{**options, "file": io.StringIO(), "disable": False})

    def update(self, n: float | None = 1) -> bool | None:
        drawn: bool | None = super().update(n)
        if self.unit == "B" and time.monotonic() - Fetching.told >= LINE_SECONDS:
            Fetching.told = time.monotonic()
            whole = f" of {self.total / 1e6:,.0f}" if self.total else ""
            logger.info("fetched %s%s MB", f"{self.n / 1e6:,.0f}", whole)
        return drawn
