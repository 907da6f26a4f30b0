"""`genzoo app`: where to listen, who may come in, and what the page shows."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from genzoo.core.errors import UsageError
from genzoo.core.optional import require
from genzoo.core.paths import require_path
from genzoo.core.progress import doing

USUAL_FOLDER = "runs"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST = 16  # letters of a token that somebody chose


def app_command(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="where the runs are; runs/ when left out")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free")] = 7860,
    host: Annotated[
        str, typer.Option(help="address to listen on; other machines reach 127.0.0.1 never")
    ] = LOOPBACK[0],
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="another name by which the browser may call the page, behind a proxy"),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="the secret in the link; a new one for each start when left out", envvar="GENZOO_APP_TOKEN"
        ),
    ] = None,
    max_upload: Annotated[int, typer.Option(min=1, help="megabytes of one file that is uploaded")] = 50,
) -> None:
    """Open a page in the browser: sample, teach, watch and compare runs."""
    if folder is not None:
        require_path(folder, "a folder", fix="name the folder where your runs are, or make it")
        if not folder.is_dir():
            raise UsageError(f"{folder} is a file", fix="name the folder where your runs are")
    if token is not None and not (
        len(token) >= SHORTEST and token.isascii() and token.replace("-", "").replace("_", "").isalnum()
    ):
        raise UsageError(
            f"a token has {SHORTEST} or more letters and digits", fix="leave --token out for a good one"
        )
    if host not in LOOPBACK and not allow_host:
        raise UsageError(
            f"--host {host} opens the page to other machines, which know this one by some name",
            fix="name it: --allow-host my-machine; or leave --host out and use a tunnel of ssh",
        )
    with doing("loading the page"):
        require("gradio", extra="app")
        from genzoo.app.server import serve

    serve(
        folder or Path(USUAL_FOLDER),
        host=host,
        port=port,
        names=(*LOOPBACK, *(allow_host or ())),
        token=token or secrets.token_urlsafe(24),
        max_upload=max_upload,
    )
