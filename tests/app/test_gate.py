"""Who may talk to the page: the token, the names of hosts, other pages, and what no path leads to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asgi import HOST, TOKEN, ask

from genzoo.app.gate import Gate

pytest.importorskip("gradio")


async def inner(scope: Any, receive: Any, send: Any) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"SAMEORIGIN")]}
    )
    await send({"type": "http.response.body", "body": b"inside"})


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate(inner, token=TOKEN, hosts=("127.0.0.1", "localhost", "::1"), port=7860)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("page") / "runs"
    runs.mkdir()
    (runs / "secret.txt").write_text("secret")
    return runs


@pytest.fixture(scope="module")
def page(folder: Path) -> Gate:
    from genzoo.app.server import build
    from genzoo.app.worker.client import Worker

    worker, names = Worker(folder / "worker.log"), ("127.0.0.1", "localhost", "::1")
    return build(
        folder, folder.parent / "of-the-server", worker, names=names, token=TOKEN, port=7860, max_upload=1
    )


def test_the_cookie_lets_in(gate: Gate) -> None:
    assert ask(gate, "/").body == b"inside"


@pytest.mark.parametrize(
    "path", ["/", "/config", "/gradio_api/info", "/assets/x.js", "/?token=wrong", "/?token="]
)
def test_nothing_is_shown_without_the_token(gate: Gate, path: str) -> None:
    answer = ask(gate, path, known=False)
    assert answer.status == 401
    assert b"inside" not in answer.body


def test_a_wrong_cookie_is_none(gate: Gate) -> None:
    assert ask(gate, "/", known=False, cookie=f"genzoo_7860=wrong; genzoo_7861={TOKEN}").status == 401


def test_the_link_becomes_a_cookie_and_leaves_the_address(gate: Gate) -> None:
    answer = ask(gate, f"/?token={TOKEN}&tab=runs", known=False)
    assert answer.status == 303
    assert answer.headers["location"] == "/?tab=runs"
    assert answer.headers["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")


def test_the_link_leads_to_no_other_site(gate: Gate) -> None:
    assert ask(gate, f"//evil.example/x?token={TOKEN}", known=False).headers["location"] == "/"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[::1", "a@b@c"]
)
def test_a_foreign_host_is_refused_even_with_the_cookie(gate: Gate, host: str) -> None:
    assert ask(gate, "/", host=host).status == 400


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST"])
def test_our_own_names_are_answered(gate: Gate, host: str) -> None:
    assert ask(gate, "/", host=host).status == 200


def test_another_page_may_not_send_requests(gate: Gate) -> None:
    assert ask(gate, "/gradio_api/queue/join", method="POST", origin="http://evil.example").status == 403
    assert ask(gate, "/gradio_api/queue/join", method="POST", origin="null").status == 403
    assert ask(gate, "/gradio_api/queue/join", method="POST", origin=f"http://{HOST}").status == 200


def test_every_answer_keeps_the_browser_at_home(gate: Gate) -> None:
    for answer in (ask(gate, "/"), ask(gate, "/", known=False)):
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "place",
    ["{runs}/secret.txt", "{runs}", "/etc/passwd", "{runs}/../runs/secret.txt", "%2e%2e/%2e%2e/etc/passwd",
     "secret.txt", "http://127.0.0.1:9/", "{cwd}/pyproject.toml"],
)  # fmt: skip
@pytest.mark.parametrize(
    "route", ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/static/", "/assets/"]
)
def test_no_path_leads_to_a_file(page: Gate, folder: Path, route: str, place: str) -> None:
    answer = ask(page, route + place.format(runs=folder, cwd=Path.cwd()))
    assert answer.status in (400, 403, 404, 405), answer
    assert b"secret" not in answer.body.replace(b"secret.txt", b"")
    assert b"root:" not in answer.body


def test_proxies_are_refused(page: Gate) -> None:
    assert ask(page, "/gradio_api/proxy=http://127.0.0.1:9/x").status == 404


def test_an_upload_above_the_limit_is_refused(page: Gate) -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + b"x" * 2**21
        + b"\r\n--b--\r\n"
    )
    kind = {"content_type": "multipart/form-data; boundary=b", "content_length": str(len(form))}
    assert ask(page, "/gradio_api/upload", method="POST", body=form, **kind).status == 413


@pytest.mark.parametrize(
    "path",
    ["/docs", "/openapi.json", "/monitoring/summary", "/gradio_api/call/make_pictures",
     "/gradio_api/vibe-code", "/gradio_api/run-history/buckets", "/gradio_api/run/make_pictures",
     "/gradio_api/api/make_pictures"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_the_page_has_no_use_for_is_closed(page: Gate, path: str, method: str) -> None:
    assert ask(page, path, method=method).status == 404
