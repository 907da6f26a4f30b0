"""Requests to an ASGI application without a server or a browser."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

TOKEN = "a-token-of-24-letters-aa"
HOST = "127.0.0.1:7860"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    app: Any, path: str, *, method: str = "GET", known: bool = True, body: bytes = b"", **headers: str
) -> Answer:
    """The answer to one request.   headers: `host`, `origin`, ... in place of, or beside, the usual ones."""
    place, _, query = path.partition("?")
    sent = {"host": HOST, **({"cookie": f"genzoo_7860={TOKEN}"} if known else {}), **headers}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": place, "raw_path": place.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in sent.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7860),
    }  # fmt: skip
    told: list[Any] = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if waiting:
            return waiting.pop()
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        told.append(message)

    async def once() -> None:
        await asyncio.wait_for(app(scope, receive, send), 30)

    asyncio.run(once())
    start = next(message for message in told if message["type"] == "http.response.start")
    content = b"".join(
        message.get("body", b"") for message in told if message["type"] == "http.response.body"
    )
    return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, content)
