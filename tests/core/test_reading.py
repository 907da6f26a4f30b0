"""Small files of others: what is no ordinary file is never opened, and what is wrong is one clear error."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genzoo.core.errors import DataError, WeightsError
from genzoo.core.reading import read_bytes, read_json, read_record, read_text


@pytest.fixture(autouse=True)
def within_seconds() -> Iterator[None]:
    """A reader that hangs fails its test."""
    signal.alarm(60)
    yield
    signal.alarm(0)


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "absent": lambda path: None,
    "pipe": os.mkfifo,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "loop of links": lambda path: path.symlink_to(path),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_text('{"step": 1, "metr'),
    "nested too deep": lambda path: path.write_text("[" * 100_000),
    "no UTF-8": lambda path: path.write_bytes(b'{"a": "\xe9"}'),
    "too large": lambda path: path.write_text("[" + "1, " * 100 + "1]"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_json_of_limited_size_is_one_error_that_names_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "notes.json"
    HOSTILE[kind](path)
    with pytest.raises(WeightsError, match="the notes") as caught:
        read_json(path, "the notes", max_bytes=200, error=WeightsError, fix="write it again")
    assert caught.value.where == str(path)
    assert caught.value.why
    assert caught.value.fix == "write it again"
    if kind != "too large":
        assert read_record(path) == {}


def test_a_file_that_is_as_large_as_allowed_is_read_with_or_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes("\ufeffgrün".encode())
    assert read_text(path, max_bytes=8) == "grün"
    assert read_bytes(path, max_bytes=8) == "\ufeffgrün".encode()
    with pytest.raises(DataError, match="more than 7 bytes"):
        read_bytes(path, max_bytes=7)
    path.write_text(json.dumps({"a": [1]}))
    assert read_record(path) == read_json(path) == {"a": [1]}
    path.write_text("[1]")
    assert read_record(path) == {}
