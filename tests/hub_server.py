"""A hub on loopback that speaks what pushing and fetching need, keeps all in memory, and notes calls."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub:
    """repositories: "user/repo" -> its files.   calls: (method, path) in order.   tokens: as they came."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.states: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.address = ""

    def commit(self, repo: str) -> str:
        """A name for the state of a repository."""
        digest = hashlib.sha1(repr(sorted(self.repositories[repo].items())).encode())
        return digest.hexdigest()


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, code: int, content: Any = b"", **headers: str) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(code)
            headers = {"Content-Length": str(len(data)), **headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def asked(self) -> tuple[str, bytes]:
            path = unquote(urlsplit(self.path).path)
            hub.calls.append((self.command, path))
            if self.headers.get("Authorization"):
                hub.tokens.add(self.headers["Authorization"].removeprefix("Bearer "))
            return path, self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_POST(self) -> None:
            path, body = self.asked()
            if path == "/api/repos/create":
                told = json.loads(body)
                name = f"{told['organization']}/{told['name']}"
                known = name in hub.repositories
                hub.repositories.setdefault(name, {})
                hub.private.setdefault(name, told.get("visibility") == "private" or bool(told.get("private")))
                self.answer(409 if known else 200, {"url": f"{hub.address}/{name}"})
            elif path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif "/preupload/" in path:
                files = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".png")) else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in json.loads(body)["files"]
                ]
                self.answer(200, {"files": files})
            elif path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {
                        **one,
                        "actions": {
                            "upload": {"href": f"{hub.address}/lfs/{one['oid']}"},
                            "verify": {"href": f"{hub.address}/lfs/verify"},
                        },
                    }
                    for one in json.loads(body)["objects"]
                ]
                self.answer(200, {"transfer": "basic", "objects": objects})
            elif path == "/lfs/verify":
                self.answer(200)
            elif "/commit/" in path:
                repo = path.removeprefix("/api/models/").partition("/commit/")[0]
                for line in body.splitlines():
                    part = json.loads(line)
                    value = part["value"]
                    if part["key"] == "file":
                        hub.repositories[repo][value["path"]] = base64.b64decode(value["content"])
                    elif part["key"] == "lfsFile":
                        hub.repositories[repo][value["path"]] = hub.large[value["oid"]]
                oid = hub.commit(repo)
                hub.states[oid] = dict(hub.repositories[repo])
                self.answer(200, {"commitUrl": f"{hub.address}/{repo}/commit/{oid}", "commitOid": oid})
            else:
                self.answer(404)

        def do_PUT(self) -> None:
            path, body = self.asked()
            hub.large[path.rpartition("/")[2]] = body
            self.answer(200)

        def do_GET(self) -> None:
            path, _ = self.asked()
            if path.startswith("/api/models/"):
                self._describe(path.removeprefix("/api/models/"))
            elif "/resolve/" in path:
                repo, _, rest = path[1:].partition("/resolve/")
                self._file(repo, *rest.split("/", 1))
            else:
                self.answer(200)

        do_HEAD = do_GET

        def _describe(self, path: str) -> None:
            repo = "/".join(path.split("/")[:2])
            if repo not in hub.repositories:
                self.answer(404, {"error": "Repository not found"}, **{"X-Error-Code": "RepoNotFound"})
                return
            revision = path.split("/")[3] if path.count("/") > 2 else "main"
            files = self._at(repo, revision)
            if "/tree/" in path:
                rows = [
                    {"type": "file", "path": name, "size": len(content), "oid": blob(content)}
                    for name, content in files.items()
                ]
                self.answer(200, rows)
                return
            siblings = [{"rfilename": name} for name in files]
            found = {
                "id": repo,
                "sha": self._name(repo, revision),
                "private": False,
                "tags": [],
                "siblings": siblings,
            }
            self.answer(200, found)

        def _at(self, repo: str, revision: str) -> dict[str, bytes]:
            return hub.states.get(revision) or hub.repositories.get(repo, {})

        def _name(self, repo: str, revision: str) -> str:
            return revision if revision in hub.states else hub.commit(repo)

        def _file(self, repo: str, revision: str, name: str) -> None:
            content = self._at(repo, revision).get(name)
            if content is None:
                self.answer(404, **{"X-Error-Code": "EntryNotFound"})
                return
            self.answer(
                200, content, **{"X-Repo-Commit": self._name(repo, revision), "ETag": f'"{blob(content)}"'}
            )

    return Handler


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub while the block runs."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub)) as server:
        server.daemon_threads = True
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield hub
        server.shutdown()
