"""No answer of the page is lost: a click is confirmed when it is certain which stream brings its answer.

Answers come on one stream a window. gradio ends it when nobody waits, and the page opens another at its next
click. A click that arrives right after the end may be confirmed before the page has read of the end: it then
counts on the stream that ends, and waits for ever (one in forty openings of the page, on a busy machine).
Here the stream stays open behind its last word until the page hangs up, which says that it was read, and no
click of that window is confirmed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs

from genzoo.app.gate import App, Receive, Scope, Send

CLICK, STREAM = "/gradio_api/queue/join", "/gradio_api/queue/data"
LAST_WORD = b'data: {"msg":"close_stream"'
PATIENCE = 60.0  # seconds for a page that does not hang up: it may have gone without a word


class Receipts:
    """An ASGI application around gradio's."""

    def __init__(self, app: App, *, patience: float = PATIENCE) -> None:
        self.app, self.patience = app, patience
        self._ending = Counter[str]()  # streams of a window that are behind their last word
        self._read = asyncio.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path == STREAM:
            await self._stream(scope, receive, send)
        elif path.rstrip("/") == CLICK:
            await self._click(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        window = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash", [""])[0]
        ending = False

        async def telling(message: MutableMapping[str, Any]) -> None:
            nonlocal ending
            if not ending and message.get("body", b"").startswith(LAST_WORD):
                ending = True
                self._ending[window] += 1
            elif ending and not message.get("more_body"):
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(_hung_up(receive), self.patience)
            await send(message)

        # words that are compressed could not be read here
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"accept-encoding"]
        try:
            await self.app({**scope, "headers": headers}, receive, telling)
        finally:
            if ending:
                self._ending -= Counter([window])
                async with self._read:
                    self._read.notify_all()

    async def _click(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard = [await receive()]
        while heard[-1].get("more_body"):
            heard.append(await receive())
        window = _window_of(b"".join(message.get("body", b"") for message in heard))
        heard.reverse()

        async def again() -> MutableMapping[str, Any]:
            return heard.pop() if heard else await receive()

        async def confirm(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                async with self._read:
                    await self._read.wait_for(lambda: not self._ending[window])
            await send(message)

        await self.app(scope, again, confirm)


def _window_of(body: bytes) -> str:
    """The window that a click names; what names none waits for nothing."""
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(body).get("session_hash"))
    return ""


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
