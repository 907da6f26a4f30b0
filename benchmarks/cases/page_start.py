"""What `genzoo app` costs before anybody clicks: processor time of its start, seconds to the first button."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.registry import Options, case

IMPORTS = "import torch, gradio"
TOKEN = "a-token-of-the-benchmark"
PATIENCE = 120.0
BUTTON = "#sample-make"


@case("page_start")
def page_start(options: Options) -> list[dict[str, Any]]:
    """CPU seconds of genzoo app until its link is printed, beside importing torch and gradio."""
    rounds = [(_importing(), *_started()) for _ in range(options.repeats)]
    imports, starts, buttons = ([one[index] for one in rounds] for index in range(3))
    row: dict[str, Any] = {
        "name": "genzoo app",
        "imports_cpu_s": median(imports),
        "start_cpu_s": median(starts),
        "share_of_imports": median(start / known for start, known in zip(starts, imports, strict=True)),
        "first_button_s": median(buttons) if None not in buttons else None,
        "load": os.getloadavg()[0],
    }
    return [row]


def _importing() -> float:
    """CPU seconds of a fresh process that imports both."""
    before = os.times()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return _since(before)


def _since(before: os.times_result) -> float:
    now = os.times()
    return now.children_user - before.children_user + now.children_system - before.children_system


def _started() -> tuple[float, float | None]:
    """CPU seconds of the server's process until its link; seconds to a button if there is a browser."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        command = [sys.executable, "-m", "genzoo", "app", folder, "--port", "0", "--token", TOKEN]
        with log.open("w") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )
        try:
            link = _link(log)
            ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), _first_button(link)
        finally:
            process.terminate()
            process.wait()


def _link(log: Path) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = re.search(r"open (\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.02)
    raise RuntimeError(log.read_text())


def _first_button(link: str) -> float | None:
    browser = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if browser is None:
        return None
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=browser, args=arguments).new_page()
        began = time.monotonic()
        page.goto(link)
        page.locator(BUTTON).wait_for()
        return time.monotonic() - began
