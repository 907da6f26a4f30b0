"""The page as a server: gradio inside FastAPI, behind the gate, run by uvicorn in this process."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import typer

from genzoo.app.gate import Gate
from genzoo.app.jobs import Jobs
from genzoo.app.library import Library
from genzoo.app.worker.client import Worker
from genzoo.core.errors import UsageError

WAITING = 64  # clicks that wait their turn, of all users
AT_ONCE = 8


def serve(folder: Path, *, host: str, port: int, names: tuple[str, ...], token: str, max_upload: int) -> None:
    """Serve until Ctrl-C. The link with the token is printed once the address is ours. Raises UsageError."""
    import uvicorn

    with (
        tempfile.TemporaryDirectory(prefix="genzoo-app-", ignore_cleanup_errors=True) as place,
        _bound(host, port) as bound,
    ):
        number = bound.getsockname()[1]
        worker = Worker(Path(place) / "worker.log")
        app = build(folder, Path(place), worker, names=names, token=token, port=number, max_upload=max_upload)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))
        shown = "localhost" if host in ("127.0.0.1", "::1") else host
        typer.echo(f"open http://{shown}:{number}/?token={token}")
        typer.echo(
            "this link is a key: whoever has it can use the page; Ctrl-C ends the page, not your trainings"
        )
        try:
            server.run(sockets=[bound])
        finally:
            worker.stop()


def build(
    folder: Path,
    place: Path,
    worker: Worker,
    *,
    names: tuple[str, ...],
    token: str,
    port: int,
    max_upload: int,
) -> Gate:
    """The ASGI application.   place: a folder for what goes with the server.   names: hosts that are ours."""
    # read when gradio is imported: no telemetry, and uploads in a folder that we remove
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(place / "uploads")
    import gradio as gr
    from fastapi import FastAPI

    from genzoo.app.look import CSS, THEME
    from genzoo.app.page import Page
    from genzoo.app.receipts import Receipts
    from genzoo.app.tabs import build_tabs

    library = Library(folder)
    page = Page(library, Jobs(library), worker, place / "results")
    blocks = build_tabs(page)
    blocks.queue(max_size=WAITING, api_open=False, default_concurrency_limit=AT_ONCE)
    inner: Any = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    inner = gr.mount_gradio_app(
        inner,
        blocks,
        path="",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        allowed_paths=[],
        max_file_size=max_upload * 1024**2,
        theme=THEME,
        css=CSS,
    )
    return Gate(Receipts(inner), token=token, hosts=names, port=port)


def _bound(host: str, port: int) -> socket.socket:
    """A listening address. Raises UsageError when somebody has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise UsageError(
            f"cannot listen on {host}:{port}",
            why=error.strerror,
            fix="is the page open already? else --port 0",
        ) from error
    return made
