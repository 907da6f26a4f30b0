"""A page that is served, and a browser that looks at it: nothing is fetched elsewhere, nothing fails."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
PATIENCE = 150.0  # seconds; machines that run other work are slow
# gradio measures a plot that was taken away meanwhile, and draws the next one all the same; and it says so
# when a page that is loaded again closes its stream
OF_GRADIO = ("Cannot read properties of null (reading 'offsetWidth')", "AbortError: signal is aborted")
TOKEN = "a-token-of-the-browser-tests"
LOCAL = re.compile(r"(data|blob):|https?://(localhost|127\.0\.0\.1)[:/]")


class Server:
    """`genzoo app FOLDER` as a process of its own."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "genzoo", "app", str(folder), "--port", "0", "--token", TOKEN]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command,
                cwd=folder.parent,
                env=environment,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
            )
        self.link = until(self._link)

    def _link(self) -> str | None:
        found = re.search(r"open (http://localhost:\d+/\?token=\S+)", self.log.read_text())
        assert found or self.process.poll() is None, self.log.read_text()
        return found[1] if found else None

    def end(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()


class Visit:
    """One browser window.   script: run before the page's own.   outside: addresses that it asked for
    elsewhere.   errors: of its console.
    """

    def __init__(
        self, browser: Any, link: str, *, width: int = 1280, dark: bool = False, script: str = ""
    ) -> None:
        scheme = "dark" if dark else "light"
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.context.add_init_script(script)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.context.route(re.compile(".*"), self._only_local)
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(f"a dialog: {dialog.message}"))
        self.page.goto(link)
        self.page.wait_for_selector("#sample-make")

    def _only_local(self, route: Any) -> None:
        if LOCAL.match(route.request.url):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def text(self, place: str) -> str:
        """What a field holds."""
        return str(self.page.locator(f"{place} textarea, {place} input").first.input_value())

    def wait(self, script: str, patience: float = PATIENCE) -> None:
        self.page.wait_for_function(script, timeout=patience * 1000)

    def wait_text(self, place: str, part: str, patience: float = PATIENCE) -> None:
        self.wait(f"() => document.querySelector('{place} textarea')?.value.includes({part!r})", patience)

    def choose(self, place: str, part: str) -> None:
        """An entry of a dropdown by a part of its words."""
        self.page.locator(f"{place} input").first.click()
        self.page.get_by_role("option", name=part).first.click()

    def tick(self, place: str, part: str) -> None:
        self.page.locator(f"{place} label", has_text=part).first.locator("input").check()

    def draw(self, place: str) -> None:
        """A stroke across the middle of a canvas."""
        canvas = self.page.locator(place).first
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        x, y, mouse = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, self.page.mouse
        mouse.move(x - 60, y - 40)
        mouse.down()
        mouse.move(x + 60, y + 40, steps=6)
        mouse.up()

    def close(self) -> None:
        """Close; nothing went out, nothing failed, nothing that was typed became part of the page."""
        pwned = self.page.evaluate("window.PWN ?? null")
        self.context.close()
        assert pwned is None
        assert self.outside == [], self.outside
        errors = [error for error in self.errors if not error.startswith(OF_GRADIO)]
        assert errors == [], errors


@contextlib.contextmanager
def visiting(browser: Any, link: str, **how: Any) -> Iterator[Visit]:
    """A visit that is closed and asked what it saw, unless the test failed already."""
    visit = Visit(browser, link, **how)
    try:
        yield visit
    except BaseException:
        visit.context.close()
        raise
    visit.close()


def until(look: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """The first answer of a look that says something."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("nothing happened in time")
