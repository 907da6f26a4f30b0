"""Who may talk to the page: names of hosts, a token, headers that keep the browser at home. Plain ASGI.

A request with a foreign Host is answered 400 (DNS rebinding reaches a server on loopback), one without the
token 401, one that another page sends 403. The token comes once in the address and is then a cookie.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# inline scripts and styles, and eval for the plots, are gradio's own needs; nothing comes from elsewhere
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
# ways into gradio that the page has no use for: fetching addresses, calls by programs, editors, statistics
UNUSED = (
    *(
        "/docs",
        "/redoc",
        "/openapi.json",
        "/monitoring",
        "/gradio_api/monitoring",
        "/gradio_api/openapi.json",
    ),
    *("/proxy=", "/gradio_api/proxy=", "/gradio_api/call/", "/gradio_api/run/", "/gradio_api/api/"),
    *("/gradio_api/run-history", "/gradio_api/runs", "/gradio_api/dev/", "/gradio_api/deep_link"),
    *("/gradio_api/vibe", "/gradio_api/undo-vibe", "/gradio_api/mcp", "/gradio_api/process_recording"),
    *("/gradio_api/custom_component", "/login", "/gradio_api/token", "/gradio_api/stream"),
)
CLOSED = "This page is private. Open the link that `genzoo app` printed where it was started.\n"


class Gate:
    """An ASGI application around another one.   hosts: names by which the server may be called."""

    def __init__(self, app: App, *, token: str, hosts: tuple[str, ...], port: int) -> None:
        self.app, self.token, self.hosts = app, token, {host.lower() for host in hosts}
        self.cookie = f"genzoo_{port}"  # cookies do not tell ports apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        if not self._known(headers.get("host", "")):
            await _answer(send, 400, "The host's name is not one of this page.\n")
        elif "origin" in headers and not self._known(urlsplit(headers["origin"]).netloc):
            await _answer(send, 403, "Another page may not send requests to this one.\n")
        elif self._same(dict(query).get("token", "")) and scope.get("method") == "GET":
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            place = (
                scope["path"] if scope["path"].startswith("/") and not scope["path"].startswith("//") else "/"
            )
            cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(
                send, 303, "", {"location": place + (f"?{rest}" if rest else ""), "set-cookie": cookie}
            )
        elif not self._same(_cookies(headers.get("cookie", "")).get(self.cookie, "")):
            await _answer(send, 401, CLOSED)
        elif scope["path"].startswith(UNUSED):
            await _answer(send, 404, "There is nothing here.\n")
        else:
            await self.app(scope, receive, _with_headers(send))

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return name is not None and name in self.hosts

    def _same(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


def _cookies(header: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return {name: value for name, _, value in pairs}


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = [
                (name, value)
                for name, value in message.get("headers", ())
                if name.decode().lower() not in HEADERS
            ]
            message = {**message, "headers": [*given, *_encoded(HEADERS)]}
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str, extra: Mapping[str, str] = {}) -> None:
    headers = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-store", **HEADERS, **extra}
    await send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": text.encode()})


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
