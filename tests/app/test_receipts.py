"""A click is confirmed when it is certain which stream brings its answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("gradio")

from gradio.server_messages import CloseStreamMessage
from orjson import dumps

from genzoo.app.receipts import CLICK, LAST_WORD, STREAM, Receipts, _window_of

END = b"data: " + dumps(CloseStreamMessage().model_dump(), default=str) + b"\n\n"
WORD = b'data: {"msg":"process_completed","text":"data: {\\"msg\\":\\"close_stream\\""}\n\n'


class Browser:
    """One connection.   told: the kinds and bodies that arrived."""

    def __init__(self, page: Receipts, path: str, window: str = "one") -> None:
        self.told: list[Any] = []
        self._gone = asyncio.Event()
        body = json.dumps({"session_hash": window}).encode() if path == CLICK else b""
        self._asked = [body[6:], body[:6]]
        scope = {
            "type": "http",
            "path": path,
            "query_string": f"session_hash={window}".encode(),
            "headers": [(b"accept-encoding", b"br"), (b"accept", b"*/*")],
        }
        self.task = asyncio.create_task(page(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if self._asked:
            body = self._asked.pop()
            return {"type": "http.request", "body": body, "more_body": bool(self._asked)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.told.append(message.get("body", message["type"]))

    def hang_up(self) -> None:
        self._gone.set()


def page_of(words: list[bytes], ends: asyncio.Event, **how: float) -> Receipts:
    """A page whose stream says these words at once, and its end when it is let."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked = await receive()
        if scope["path"] == CLICK:
            asked["body"] += (await receive())["body"]
            assert json.loads(asked["body"])["session_hash"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == STREAM:
            assert scope["headers"] == [(b"accept", b"*/*")]
            for word in words:
                await send({"type": "http.response.body", "body": word, "more_body": True})
            await ends.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return Receipts(app, **how)


def run(what: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(what(), 20)

    asyncio.run(limited())


async def a_while() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_last_word_is_that_of_gradio() -> None:
    assert END.startswith(LAST_WORD)


def test_a_click_is_confirmed_after_the_browser_has_read_of_the_end() -> None:
    async def case() -> None:
        ends = asyncio.Event()
        ends.set()
        page = page_of([WORD, END], ends)
        stream = Browser(page, STREAM)
        await a_while()
        assert stream.told == ["http.response.start", WORD, END]  # and it is held open
        click = Browser(page, CLICK)
        others = Browser(page, CLICK, "two"), Browser(page, "/gradio_api/info")
        await a_while()
        assert click.told == []
        assert [other.told for other in others] == [["http.response.start", b""]] * 2
        stream.hang_up()
        await asyncio.gather(stream.task, click.task)
        assert click.told == ["http.response.start", b""]
        assert stream.told[-1] == b""

    run(case)


@pytest.mark.parametrize("body", [b"", b"[]", b"no json", b'{"session_hash": null}'])
def test_what_names_no_window_is_passed_on(body: bytes) -> None:
    assert _window_of(body) in ("", "None")


def test_nothing_waits_for_a_stream_that_goes_on() -> None:
    async def case() -> None:
        ends = asyncio.Event()
        page = page_of([WORD], ends)
        stream, click = Browser(page, STREAM), Browser(page, CLICK)
        await click.task
        assert stream.told == ["http.response.start", WORD]
        ends.set()
        await stream.task  # an end without the word is not held

    run(case)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_browser_that_went_without_a_word_holds_nobody_up(cancelled: bool) -> None:
    async def case() -> None:
        ends = asyncio.Event()
        ends.set()
        page = page_of([END], ends, patience=3600 if cancelled else 0.01)
        stream = Browser(page, STREAM)
        await a_while()
        click = Browser(page, CLICK)
        await a_while()
        if cancelled:
            assert click.told == []
            stream.task.cancel()  # as the server does where it notices itself
        await click.task
        await asyncio.gather(stream.task, return_exceptions=True)
        assert click.told == ["http.response.start", b""]

    run(case)
