"""Where tar shards are: on a disk, or behind a URL that fsspec reads (extra `remote`, and the store's own).

Only known stores are asked: fsspec would as well open pipes, unpack archives, or connect to any host that a
URL chains.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from genzoo.core.errors import DataError, MissingDependencyError
from genzoo.core.optional import require

PROTOCOLS = ("file", "memory", "s3", "gs", "gcs", "az", "abfs")
EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}
WAITS = (0.5, 2.0, 8.0)  # seconds before another attempt
Value = TypeVar("Value")
_systems: dict[tuple[int, str], Any] = {}


class State(NamedTuple):
    """What changes with a file: its size, and a time or a version."""

    st_size: int
    st_mtime_ns: int


class RemoteFile:
    """A file behind a URL, with what is asked of a `Path` here. Nothing is opened before it is read."""

    def __init__(self, url: str) -> None:
        self.url = checked(url)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> RemoteFile:
        """The folder it is in."""
        return RemoteFile(self.url.rstrip("/").rpartition("/")[0])

    def with_suffix(self, suffix: str) -> RemoteFile:
        """The file beside it whose name ends otherwise."""
        return self.parent / (self.name.rpartition(".")[0] + suffix)

    def __truediv__(self, name: str) -> RemoteFile:
        return RemoteFile(f"{self.url}/{name}")

    def glob(self, pattern: str) -> list[RemoteFile]:
        """Files of this folder with such names."""
        system, path = self._place()
        found = _tried(lambda: system.glob(f"{path.rstrip('/')}/{pattern}"))
        return [self / str(one).rpartition("/")[2] for one in found]

    def is_file(self) -> bool:
        """Whether it is there."""
        system, path = self._place()
        return bool(_tried(lambda: system.isfile(path)))

    exists = is_file

    def stat(self) -> State:
        """Size, and a number that changes with the store's version or time of the file."""
        system, path = self._place()
        about = _tried(lambda: system.info(path))
        versions = (about.get(key) for key in ("ETag", "etag", "mtime", "LastModified", "updated", "created"))
        version = next((str(one) for one in versions if one is not None), "")
        number = int.from_bytes(hashlib.sha256(version.encode()).digest()[:7], "big")
        return State(int(about["size"]), number)

    def open(self, mode: str) -> BinaryIO:
        """For reading from the start on, as bytes."""
        system, path = self._place()
        opened: BinaryIO = _tried(lambda: system.open(path, mode))
        return opened

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Some bytes of it in one request, or all; fewer where it ends before."""
        system, path = self._place()
        end = None if size is None else offset + size
        data: bytes = _tried(lambda: system.cat_file(path, start=offset, end=end))
        return data

    def _place(self) -> tuple[Any, str]:
        protocol = self.url.partition("://")[0]
        key = os.getpid(), protocol  # connections do not survive a fork
        try:
            if key not in _systems:
                _systems[key] = require("fsspec", extra="remote").filesystem(protocol)
        except ImportError as error:
            if isinstance(error, MissingDependencyError):
                raise
            extra = EXTRAS.get(protocol)
            raise MissingDependencyError(
                f"fsspec cannot read {protocol}:// here",
                why=str(error),
                fix=f"pip install 'genzoo[{extra}]'" if extra else "install the package that it names",
            ) from error
        return _systems[key], _systems[key]._strip_protocol(self.url)


ShardPlace = Path | RemoteFile


def place_of(root: str | Path) -> ShardPlace:
    """A folder on a disk, or behind a URL."""
    return RemoteFile(str(root).rstrip("/")) if "://" in str(root) else Path(root).expanduser()


def checked(url: str) -> str:
    """The URL. Raises DataError for one of another store, or that chains others."""
    protocol, _, rest = url.partition("://")
    if protocol not in PROTOCOLS or "::" in url or "://" in rest or ".." in rest.split("/"):
        raise DataError(
            "shards are not read from there",
            where=url[:200],
            fix=f"a folder, or a URL of {', '.join(PROTOCOLS)}",
        )
    return url


def _tried(action: Callable[[], Value]) -> Value:
    """What an action returns; a store that does not answer is asked again, later each time."""
    for wait in WAITS:
        try:
            return action()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            time.sleep(wait)
    return action()
